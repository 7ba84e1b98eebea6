//! Read, change, compare-and-set by version, and again when somebody was faster: how a client of the store changes what it
//! must first have read.

use quorate_client::Error;
use serde_json::Value;

use super::store::{encode, failed, written};
use super::{Access, Completion};

/// How often an operation may lose to others before it gives up; nothing was applied then.
const TRIES_MAX: usize = 30;

/// Changes a key's bytes (none where it is absent) to what `change` makes of them. The completion is that of `value`, the
/// operation's argument. A doubt ends it: what may have been applied is not tried again.
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
            return Completion::fail("others were faster until the deadline");
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
    Completion::fail(format!("others were faster {TRIES_MAX} times"))
}
