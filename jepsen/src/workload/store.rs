//! One operation on the store, performed by the client library, and its outcome in the terms of a
//! history.

use bytes::Bytes;
use quorate_client::{Error, Served, Written};
use serde_json::{Value, json};

use super::op::{Access, Completion, Op};
use crate::history::Action;

/// Performs a read, write, compare-and-set or delete of one key.
pub(super) async fn perform(access: Access, op: Op) -> Completion {
    let Access { client, deadline, .. } = access;
    let put = |value: &Value| client.put(&op.key, encode(value)).deadline(deadline);
    match (op.f, op.value.as_array().map(Vec::as_slice)) {
        (Action::Read, _) => match client.get(&op.key).level(op.level).deadline(deadline).await {
            Ok(read) => {
                let version = read.value.as_ref().map_or(0, |record| record.version);
                let value = read.value.map_or(Value::Null, |record| decode(record.value.as_bytes()));
                Completion { version: Some(version), by: Some(read.by), ..Completion::ok(value) }
            }
            Err(error) => failed(&error),
        },
        (Action::Write, _) => written(put(&op.value).await, &op.value),
        (Action::Cas, Some([Value::Null, new])) => written(put(new).if_absent().await, &op.value),
        (Action::Cas, Some([expected, new])) => written(put(new).if_value(encode(expected)).await, &op.value),
        (Action::CasVersion, Some([expected, new])) => {
            let Some(version) = expected.as_u64() else {
                return Completion::fail("the expected version is not a number");
            };
            written(put(new).if_version(version).await, &op.value)
        }
        (Action::Delete, _) => written(client.delete(&op.key).deadline(deadline).await, &Value::Null),
        (f, _) => Completion::fail(format!("{f:?} of {} is not an operation of the store", op.value)),
    }
}

/// The completion of a write. A refusal is an observation; an unknown outcome stays unknown.
pub(super) fn written(result: Result<Served<Written>, Error>, value: &Value) -> Completion {
    match result {
        Ok(done) => {
            Completion { version: Some(done.value.version), by: Some(done.by), ..Completion::ok(value.clone()) }
        }
        Err(Error::Refused { version, current }) => {
            let found = match current {
                Some(record) => Some(decode(record.value.as_bytes())),
                // Version 0 means an absent key. With any other version, the reply lacks the
                // record.
                None => (version == 0).then_some(Value::Null),
            };
            Completion { refused: true, found, version: Some(version), ..Completion::ok(value.clone()) }
        }
        Err(error) => failed(&error),
    }
}

/// The completion of an operation that returned an error.
pub(super) fn failed(error: &Error) -> Completion {
    if error.may_have_applied() { Completion::info(error.to_string()) } else { Completion::fail(error.to_string()) }
}

/// The encoding of a value in the store: numbers in decimal, texts verbatim.
pub(super) fn encode(value: &Value) -> Bytes {
    match value {
        Value::String(text) => Bytes::copy_from_slice(text.as_bytes()),
        other => Bytes::from(other.to_string()),
    }
}

/// The value of a history for bytes of the store.
pub(super) fn decode(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number))
}

#[cfg(test)]
mod tests {
    use quorate_client::{NodeId, ReadLevel, Record, Role, ServedBy, ShardId};

    use super::*;
    use crate::history::EventKind;

    fn because() -> String {
        "because".to_owned()
    }

    /// Only an unknown outcome is `Info`; every other error promises that the write had no effect.
    #[test]
    fn only_unknown_outcomes_are_info() {
        let kind = |error| written(Err(error), &json!(1)).kind;
        assert_eq!(kind(Error::Unknown { reason: because() }), EventKind::Info);
        assert_eq!(kind(Error::Unreachable { reason: because() }), EventKind::Fail);
        assert_eq!(kind(Error::Overloaded { reason: because() }), EventKind::Fail);
        assert_eq!(kind(Error::DiskFull), EventKind::Fail);
        assert_eq!(kind(Error::Invalid { reason: because() }), EventKind::Fail);
    }

    /// A refused write reports a record, an absent key, or only a version.
    #[test]
    fn refusal_is_an_observation() {
        let refused = |version, current| written(Err(Error::Refused { version, current }), &json!([1, 2]));
        let record =
            Record { version: 9, value: quorate_client::Value::new(b"17".to_vec()).unwrap(), expires_at_ms: None };
        let seen = refused(9, Some(record));
        assert_eq!((seen.kind, seen.refused, seen.version), (EventKind::Ok, true, Some(9)));
        assert_eq!(seen.found, Some(json!(17)));
        assert_eq!(refused(0, None).found, Some(Value::Null));
        assert_eq!(refused(4, None).found, None);
    }

    #[test]
    fn completed_write_names_its_server() {
        let by = ServedBy {
            level: ReadLevel::Strong,
            node: NodeId(2),
            role: Role::Leader,
            shard: ShardId(3),
            epoch: 1,
            revision: 8,
            applied: 12,
        };
        let done = written(Ok(Served { value: Written { version: 8, replaced: 0 }, by }), &json!(5));
        assert_eq!((done.kind, done.version, done.by), (EventKind::Ok, Some(8), Some(by)));
    }

    #[test]
    fn values_round_trip() {
        for value in [json!(0), json!(18_446_744_073_709_551_615_u64), json!("a,b"), json!("")] {
            assert_eq!(decode(&encode(&value)), value);
        }
    }
}
