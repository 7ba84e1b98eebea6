//! The wire form of a node's reply to a client.

use quorate_types::{KvAnswer, NodeId, Outcome, Rejection, Served, ServedBy, SessionId, ShardId};

use crate::convert::{WireError, level, required, role};
use crate::kv;

/// Writes the reply to the request with this id.
pub fn reply_to_wire(id: u64, result: Result<Served<KvAnswer>, Rejection>) -> kv::Reply {
    let (by, result) = match result {
        Ok(served) => (Some(served.by.into()), answer_to_wire(served.value)),
        Err(rejection) => (None, kv::reply::Result::Rejection(rejection.into())),
    };
    kv::Reply { id, by, result: Some(result) }
}

fn answer_to_wire(answer: KvAnswer) -> kv::reply::Result {
    use kv::reply::Result as Wire;
    match answer {
        KvAnswer::Found(record) => Wire::Found(kv::Found { record: record.map(Into::into) }),
        KvAnswer::Outcome(Outcome::Written { version, replaced }) => Wire::Written(kv::Written { version, replaced }),
        KvAnswer::Outcome(Outcome::Refused { version, current }) => {
            Wire::Refused(kv::Refused { version, current: current.map(Into::into) })
        }
        KvAnswer::Outcome(Outcome::SessionOpened { session }) => Wire::Session(session.0),
        KvAnswer::Outcome(Outcome::SessionUnknown) => Wire::SessionUnknown(true),
        KvAnswer::Outcome(Outcome::SequenceForgotten) => Wire::SequenceForgotten(true),
        KvAnswer::Outcome(Outcome::SequenceTooFar) => Wire::SequenceTooFar(true),
        KvAnswer::Outcome(Outcome::WrongEpoch { epoch }) => Wire::WrongEpoch(epoch),
        // No client command has this outcome. If one had, it was applied, and its effect is
        // unknown.
        KvAnswer::Outcome(Outcome::Done) => {
            Wire::Rejection(Rejection::Unknown { reason: "the shard gave no outcome of the command".to_owned() }.into())
        }
    }
}

/// Reads a reply. An error also answers the request with the reply's id: the outcome of that
/// request is unknown then.
pub fn reply_from_wire(reply: kv::Reply) -> Result<Result<Served<KvAnswer>, Rejection>, WireError> {
    use kv::reply::Result as Wire;
    let answer = match required(reply.result, "the result (or it is of a kind that this side does not know)")? {
        Wire::Rejection(rejection) => return Ok(Err(rejection.try_into()?)),
        Wire::Found(found) => KvAnswer::Found(found.record.map(TryInto::try_into).transpose()?),
        Wire::Written(kv::Written { version, replaced }) => KvAnswer::Outcome(Outcome::Written { version, replaced }),
        Wire::Refused(kv::Refused { version, current }) => {
            KvAnswer::Outcome(Outcome::Refused { version, current: current.map(TryInto::try_into).transpose()? })
        }
        Wire::Session(0) => return Err(WireError::new("session 0 is never opened")),
        Wire::Session(session) => KvAnswer::Outcome(Outcome::SessionOpened { session: SessionId(session) }),
        Wire::SessionUnknown(true) => KvAnswer::Outcome(Outcome::SessionUnknown),
        Wire::SequenceForgotten(true) => KvAnswer::Outcome(Outcome::SequenceForgotten),
        Wire::SequenceTooFar(true) => KvAnswer::Outcome(Outcome::SequenceTooFar),
        Wire::SessionUnknown(false) | Wire::SequenceForgotten(false) | Wire::SequenceTooFar(false) => {
            return Err(WireError::new("an outcome is set to false"));
        }
        Wire::WrongEpoch(epoch) => KvAnswer::Outcome(Outcome::WrongEpoch { epoch }),
    };
    let by = required(reply.by, "the origin of the reply")?.try_into()?;
    Ok(Ok(Served { value: answer, by }))
}

impl From<ServedBy> for kv::ServedBy {
    fn from(by: ServedBy) -> Self {
        kv::ServedBy {
            level: kv::Level::from(by.level).into(),
            node: by.node.0,
            role: kv::Role::from(by.role).into(),
            shard: by.shard.0,
            epoch: by.epoch,
            revision: by.revision,
            applied: by.applied,
        }
    }
}

impl TryFrom<kv::ServedBy> for ServedBy {
    type Error = WireError;

    fn try_from(by: kv::ServedBy) -> Result<Self, WireError> {
        Ok(ServedBy {
            level: level(by.level)?,
            node: NodeId(by.node),
            role: role(by.role)?,
            shard: ShardId(by.shard),
            epoch: by.epoch,
            revision: by.revision,
            applied: by.applied,
        })
    }
}

impl From<Rejection> for kv::Rejection {
    fn from(rejection: Rejection) -> Self {
        use kv::rejection::Reason as Wire;
        let reason = match rejection {
            Rejection::NotLeader { leader } => {
                Wire::NotLeader(kv::NotLeader { leader: leader.map_or(0, |NodeId(node)| node) })
            }
            Rejection::WrongShard { shard } => Wire::WrongShard(kv::WrongShard { shard: shard.map(Into::into) }),
            Rejection::Unavailable { reason } => Wire::Unavailable(reason),
            Rejection::Overloaded { retry_after_ms } => Wire::OverloadedRetryAfterMs(retry_after_ms),
            Rejection::DiskFull => Wire::DiskFull(true),
            Rejection::Invalid { reason } => Wire::Invalid(reason),
            Rejection::Unknown { reason } => Wire::Unknown(reason),
        };
        kv::Rejection { reason: Some(reason) }
    }
}

impl TryFrom<kv::Rejection> for Rejection {
    type Error = WireError;

    fn try_from(rejection: kv::Rejection) -> Result<Self, WireError> {
        use kv::rejection::Reason as Wire;
        Ok(match required(rejection.reason, "the reason of a rejection (or it is one that this side does not know)")? {
            Wire::NotLeader(kv::NotLeader { leader }) => {
                Rejection::NotLeader { leader: (leader != 0).then_some(NodeId(leader)) }
            }
            Wire::WrongShard(kv::WrongShard { shard }) => {
                Rejection::WrongShard { shard: shard.map(TryInto::try_into).transpose()? }
            }
            Wire::Unavailable(reason) => Rejection::Unavailable { reason },
            Wire::OverloadedRetryAfterMs(retry_after_ms) => Rejection::Overloaded { retry_after_ms },
            Wire::DiskFull(true) => Rejection::DiskFull,
            Wire::DiskFull(false) => return Err(WireError::new("a rejection is set to false")),
            Wire::Invalid(reason) => Rejection::Invalid { reason },
            Wire::Unknown(reason) => Rejection::Unknown { reason },
        })
    }
}
