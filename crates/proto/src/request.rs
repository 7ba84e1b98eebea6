//! The wire form of a client's request.

use std::time::Duration;

use quorate_types::{KvOperation, KvRequest, Mutation, SessionId, SessionStamp, ShardId, Write};

use crate::convert::{WireError, key, level, required, value};
use crate::kv;

impl From<KvRequest> for kv::Request {
    fn from(request: KvRequest) -> Self {
        use kv::request::Operation as Wire;
        let operation = match request.operation {
            KvOperation::Get { key, level } => {
                Wire::Get(kv::Get { key: key.bytes(), level: kv::Level::from(level).into() })
            }
            KvOperation::Write { stamp, write } => Wire::Write(kv::Write {
                key: write.key.bytes(),
                value: match write.mutation {
                    Mutation::Put(value) => Some(value.bytes()),
                    Mutation::Delete => None,
                },
                condition: write.condition.map(Into::into),
                session: stamp.session.0,
                sequence: stamp.sequence,
                lowest: stamp.lowest,
            }),
            KvOperation::OpenSession => Wire::OpenSession(kv::OpenSession {}),
        };
        kv::Request {
            id: request.id,
            shard: request.shard.0,
            epoch: request.epoch,
            // Rounded up, because 0 means no timeout.
            timeout_ms: request
                .timeout
                .map_or(0, |timeout| u32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(u32::MAX).max(1)),
            operation: Some(operation),
        }
    }
}

/// Reads a request and checks it: the lengths of key and values, the shard, and the stamp.
///
/// The caller answers an error with `Rejection::Invalid` and the request's id.
pub fn request_from_wire(request: kv::Request) -> Result<KvRequest, WireError> {
    use kv::request::Operation as Wire;
    if request.shard == 0 {
        return Err(WireError::new("the shard is missing; shards are numbered from 1"));
    }
    let operation =
        match required(request.operation, "the operation (or it is of a kind that this side does not know)")? {
            Wire::Get(get) => KvOperation::Get { key: key(get.key)?, level: level(get.level)? },
            Wire::Write(wire) => {
                let stamp =
                    SessionStamp { session: SessionId(wire.session), sequence: wire.sequence, lowest: wire.lowest };
                KvOperation::Write {
                    stamp: whole(stamp)?,
                    write: Write {
                        key: key(wire.key)?,
                        mutation: wire.value.map(value).transpose()?.map_or(Mutation::Delete, Mutation::Put),
                        condition: wire.condition.map(TryInto::try_into).transpose()?,
                    },
                }
            }
            Wire::OpenSession(kv::OpenSession {}) => KvOperation::OpenSession,
        };
    Ok(KvRequest {
        id: request.id,
        shard: ShardId(request.shard),
        epoch: request.epoch,
        timeout: (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms.into())),
        operation,
    })
}

/// Refuses an incomplete stamp: the write could be applied twice.
fn whole(stamp: SessionStamp) -> Result<SessionStamp, WireError> {
    if stamp.session.0 == 0 {
        return Err(WireError::new("a write without a session"));
    }
    if stamp.lowest == 0 || stamp.lowest > stamp.sequence {
        return Err(WireError(format!(
            "a write with sequence {} and lowest outstanding sequence {}; both are counted from 1, the lowest is at most the \
             sequence",
            stamp.sequence, stamp.lowest
        )));
    }
    Ok(stamp)
}
