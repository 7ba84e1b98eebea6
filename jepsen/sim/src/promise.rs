//! What a replica tells others it must have durably: a vote that it grants, entries that it says it has. Looked at when it says so,
//! not when a crash happens to show it.

use quorate_storage::log::MemoryLog;
use quorate_storage::state::{MemoryState, meta};
use quorate_types::peer::{AppendReply, PeerBody, PeerMessage};
use quorate_types::{LogId, ReplicaId};

/// What is wrong with what a replica says, if its disk does not bear it out.
pub(crate) fn broken(message: &PeerMessage, log: &MemoryLog, state: &MemoryState) -> Option<String> {
    let replica = message.from;
    // One that is destroyed meanwhile has said what was true.
    let durable = log.durable_state(replica)?;
    match &message.body {
        // The answer to a pre-vote names the vote as it was: nothing is promised with it.
        PeerBody::VoteReply { reply, .. } if reply.granted && reply.vote.candidate == message.to => {
            let granted = (reply.vote.term, reply.vote.candidate);
            let kept = durable.vote.map(|vote| (vote.term, vote.candidate));
            (kept < Some(granted)).then(|| format!("replica {replica} grants {granted:?}; durable is {kept:?}"))
        }
        PeerBody::AppendReply { reply: AppendReply::Matched(Some(id)), .. }
        | PeerBody::HeartbeatReply { reply: AppendReply::Matched(Some(id)), .. } => {
            let has = durable.purged.is_some_and(|purged| purged.index >= id.index)
                || log.durable_id(replica, id.index) == Some(*id)
                || durable_applied(state, replica) >= Some(*id);
            (!has).then(|| format!("replica {replica} says that it has {id}; durable is {:?}", durable.last))
        }
        _ => None,
    }
}

fn durable_applied(state: &MemoryState, replica: ReplicaId) -> Option<LogId> {
    let mut applied = None;
    state
        .view_durable(&mut |view| {
            applied = meta::head(view, replica)?.applied;
            Ok(())
        })
        .expect("a state in memory can be read");
    applied
}
