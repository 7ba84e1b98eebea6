//! Conversions between our types, which are persisted and sent, and openraft's types, which live in
//! memory only.

use openraft::EntryPayload;
use quorate_types::codec::Blob;
use quorate_types::peer::{self, AppendReply};
use quorate_types::{Entry, LogId, Membership, NodeId, Payload, Rejection, ReplicaId, Role, Vote, state};

use crate::openraft_types::{self as raft, Command, NodeRef};

pub(crate) fn log_id(id: LogId) -> raft::LogId {
    raft::LogId { leader_id: leader_id(id.term, id.leader), index: id.index }
}

pub(crate) fn our_log_id(id: &raft::LogId) -> LogId {
    LogId { term: id.leader_id.term, leader: ReplicaId(id.leader_id.node_id), index: id.index }
}

fn leader_id(term: u64, replica: ReplicaId) -> raft::LeaderId {
    raft::LeaderId { term, node_id: replica.0 }
}

pub(crate) fn vote(vote: Vote) -> raft::Vote {
    raft::Vote { leader_id: leader_id(vote.term, vote.candidate), committed: vote.committed }
}

pub(crate) fn our_vote(vote: &raft::Vote) -> Vote {
    Vote { term: vote.leader_id.term, candidate: ReplicaId(vote.leader_id.node_id), committed: vote.committed }
}

pub(crate) fn membership(members: &Membership) -> raft::Membership {
    let voters = members.voters.iter().map(|set| set.iter().map(|replica| replica.0).collect()).collect();
    let node_refs: std::collections::BTreeMap<u64, NodeRef> =
        members.nodes.iter().map(|(replica, node)| (replica.0, NodeRef(*node))).collect();
    raft::Membership::new(voters, node_refs).expect("a membership that was stored names the node of every voter")
}

pub(crate) fn our_membership(members: &raft::Membership) -> Membership {
    Membership {
        voters: members.get_joint_config().iter().map(|set| set.iter().map(|&id| ReplicaId(id)).collect()).collect(),
        nodes: members.nodes().map(|(&id, node_ref)| (ReplicaId(id), node_ref.0)).collect(),
    }
}

pub(crate) fn stored_membership(stored: &state::StoredMembership) -> raft::StoredMembership {
    if stored.members.voters.is_empty() && stored.members.nodes.is_empty() {
        return raft::StoredMembership::new(stored.at.map(log_id), raft::Membership::default());
    }
    raft::StoredMembership::new(stored.at.map(log_id), membership(&stored.members))
}

pub(crate) fn our_stored_membership(stored: &raft::StoredMembership) -> state::StoredMembership {
    state::StoredMembership {
        at: stored.log_id().as_ref().map(our_log_id),
        members: our_membership(stored.membership()),
    }
}

pub(crate) fn snapshot_meta(meta: &peer::SnapshotMeta) -> raft::SnapshotMeta {
    raft::SnapshotMeta { last_log_id: meta.applied.map(log_id), last_membership: stored_membership(&meta.membership) }
}

pub(crate) fn our_snapshot_meta(meta: &raft::SnapshotMeta) -> peer::SnapshotMeta {
    peer::SnapshotMeta {
        applied: meta.last_log_id.as_ref().map(our_log_id),
        membership: our_stored_membership(&meta.last_membership),
    }
}

pub(crate) fn entry(entry: Entry) -> raft::Entry {
    raft::Entry {
        log_id: log_id(entry.id),
        payload: match entry.payload {
            Payload::Blank => EntryPayload::Blank,
            Payload::Normal(Blob(bytes)) => EntryPayload::Normal(Command(bytes)),
            Payload::Membership(members) => EntryPayload::Membership(membership(&members)),
        },
    }
}

pub(crate) fn our_entry(entry: raft::Entry) -> Entry {
    Entry {
        id: our_log_id(&entry.log_id),
        payload: match entry.payload {
            EntryPayload::Blank => Payload::Blank,
            EntryPayload::Normal(Command(bytes)) => Payload::Normal(Blob(bytes)),
            EntryPayload::Membership(members) => Payload::Membership(our_membership(&members)),
        },
    }
}

pub(crate) fn append_request(request: peer::AppendRequest) -> raft::AppendRequest {
    raft::AppendRequest {
        vote: vote(request.vote),
        prev_log_id: request.prev.map(log_id),
        entries: request.entries.into_iter().map(entry).collect(),
        leader_commit: request.commit.map(log_id),
    }
}

pub(crate) fn our_append_request(request: raft::AppendRequest) -> peer::AppendRequest {
    peer::AppendRequest {
        vote: our_vote(&request.vote),
        prev: request.prev_log_id.as_ref().map(our_log_id),
        entries: request.entries.into_iter().map(our_entry).collect(),
        commit: request.leader_commit.as_ref().map(our_log_id),
    }
}

pub(crate) fn append_result(reply: AppendReply) -> raft::AppendResult {
    use openraft::raft::StreamAppendError::{Conflict, HigherVote};
    match reply {
        AppendReply::Matched(id) => Ok(id.map(log_id)),
        AppendReply::Conflict(id) => Err(Conflict(log_id(id))),
        AppendReply::HigherVote(higher) => Err(HigherVote(vote(higher))),
    }
}

pub(crate) fn our_append_reply(result: &raft::AppendResult) -> AppendReply {
    use openraft::raft::StreamAppendError::{Conflict, HigherVote};
    match result {
        Ok(id) => AppendReply::Matched(id.as_ref().map(our_log_id)),
        Err(Conflict(id)) => AppendReply::Conflict(our_log_id(id)),
        Err(HigherVote(higher)) => AppendReply::HigherVote(our_vote(higher)),
    }
}

pub(crate) fn role(state: openraft::ServerState) -> Role {
    match state {
        openraft::ServerState::Leader => Role::Leader,
        openraft::ServerState::Follower => Role::Follower,
        openraft::ServerState::Candidate => Role::Candidate,
        openraft::ServerState::Learner => Role::Learner,
        openraft::ServerState::Shutdown => Role::Stopped,
    }
}

/// The nodes of a group's voters, by id.
pub(crate) fn voter_nodes(members: &raft::Membership) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> =
        members.voter_ids().filter_map(|id| members.get_node(&id)).map(|node_ref| node_ref.0).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// The rejection of a request by a replica whose Raft core has ended.
pub(crate) fn stopped(fatal: &raft::Fatal) -> Rejection {
    Rejection::Unavailable { reason: format!("the replica stopped: {fatal}") }
}
