//! Read-modify-write: read, change, compare-and-set by version, and retry after a conflict.

use quorate_client::Error;
use serde_json::Value;

use super::op::{Access, Completion};
use super::store::{encode, failed, written};

/// The most attempts of an operation. After that many conflicts it fails without an effect.
const TRIES_MAX: usize = 30;

/// Replaces a key's value with the result of `change`, whose argument is `None` for an absent key.
/// The completion carries `value`, the operation's argument. An unknown outcome is not retried: the
/// write may have taken effect.
pub(super) async fn update(
    access: &Access,
    key: &str,
    value: &Value,
    change: impl Fn(Option<&[u8]>) -> Value,
) -> Completion {
    let Access { client, deadline, .. } = access;
    let ends = tokio::time::Instant::now() + *deadline;
    for _ in 0..TRIES_MAX {
        let left = ends.saturating_duration_since(tokio::time::Instant::now());
        if left.is_zero() {
            return Completion::fail("conflicts with other clients until the deadline");
        }
        let read = match client.get(key).deadline(left).await {
            Ok(read) => read,
            Err(error) => return failed(&error),
        };
        let version = read.value.as_ref().map_or(0, |record| record.version);
        let new = change(read.value.as_ref().map(|record| record.value.as_bytes()));
        let left = ends.saturating_duration_since(tokio::time::Instant::now());
        match client.put(key, encode(&new)).if_version(version).deadline(left).await {
            Err(Error::Refused { .. }) => continue,
            outcome => return written(outcome, value),
        }
    }
    Completion::fail(format!("{TRIES_MAX} conflicts with other clients"))
}
