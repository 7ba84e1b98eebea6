//! A replica's promises to others, which are granted votes and acknowledged entries, must be
//! durable. A doubtful replica says nothing but that, or that it cannot be reached: a request may
//! be under way when its core stops, and that answer promises nothing. The check runs when a
//! message is sent, and thus needs no crash to find a broken promise.

use quorate_machine::log::MemoryLog;
use quorate_machine::state::{MemoryState, meta};
use quorate_types::peer::{AppendReply, PeerBody, PeerMessage};
use quorate_types::{LogId, ReplicaId};

use crate::disk::Synced;

/// The broken promise in a message; none if the replica's disk holds everything it promises.
pub(crate) fn broken(message: &PeerMessage, log: &MemoryLog, synced: &Synced, state: &MemoryState) -> Option<String> {
    let replica = message.from;
    // A replica that was destroyed since then is not checked: it kept its promise when made.
    let durable = log.durable_state(replica)?;
    if durable.doubtful && !matches!(message.body, PeerBody::Doubtful { .. } | PeerBody::Unreachable { .. }) {
        return Some(format!("replica {replica} is doubtful, and says {:?}", message.body));
    }
    match &message.body {
        // The reply to a pre-vote repeats the unchanged vote: it promises nothing.
        PeerBody::VoteReply { reply, .. } if reply.granted && reply.vote.candidate == message.to => {
            let granted = (reply.vote.term, reply.vote.candidate);
            let kept = durable.vote.map(|vote| (vote.term, vote.candidate));
            (kept < Some(granted)).then(|| format!("replica {replica} grants {granted:?}; durable is {kept:?}"))
        }
        PeerBody::AppendReply { reply: AppendReply::Matched(Some(id)), .. }
        | PeerBody::HeartbeatReply { reply: AppendReply::Matched(Some(id)), .. } => {
            // An acknowledgement may be sent after another leader had the entry truncated, as if
            // the network had delayed it. It was true when the entry was synced.
            let has = synced.has(replica, *id)
                || durable.purged.is_some_and(|purged| purged.index >= id.index)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quorate_machine::log::Log;
    use quorate_types::{Entry, GroupId, Payload};

    use super::*;
    use crate::disk::{Life, LifeLog};

    const A: ReplicaId = ReplicaId(3);
    const LEADER: ReplicaId = ReplicaId(4);

    #[test]
    fn late_acknowledgement_of_a_truncated_entry_is_no_broken_promise() {
        let (log, state) = (Arc::new(MemoryLog::new(false)), MemoryState::new());
        log.create(A, GroupId(1)).unwrap();
        let id = LogId { term: 1, leader: LEADER, index: 0 };
        let reply = AppendReply::Matched(Some(id));
        let body = PeerBody::AppendReply { stream: 1, sequence: 0, reply };
        let says = PeerMessage { group: GroupId(1), from: A, to: LEADER, body };

        let life = LifeLog::new(log.clone(), Life::new(1));
        let broken = |life: &LifeLog| broken(&says, &log, &life.synced(), &state);
        life.append(A, vec![Entry { id, payload: Payload::Blank }], Box::new(drop));
        assert!(broken(&life).is_some(), "it is not synced");
        log.sync();
        assert_eq!(broken(&life), None);
        let next = LifeLog::new(log.clone(), Life::new(2));
        assert_eq!(broken(&next), None, "durable at the start of the next life");
        for life in [&life, &next] {
            life.truncate_after(A, None, Box::new(drop));
            log.sync();
            assert_eq!(broken(life), None, "another leader had it truncated before the answer arrived");
        }
        let last = LifeLog::new(log.clone(), Life::new(3));
        assert!(broken(&last).is_some(), "the entry was never durable in this life");
    }
}
