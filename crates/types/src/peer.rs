//! Messages between nodes about Raft groups. A frame carries messages of many groups.
//!
//! Requests and replies are matched by `call`, a number of the sender. The transport may lose
//! messages, and never reorders those of one lane.

use bincode::{Decode, Encode};

use crate::codec::{self, CodecError, Kind};
use crate::{Entry, GroupId, LogId, Membership, NodeId, Payload, ReplicaId, Vote};

/// A message between two replicas of one group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PeerMessage {
    /// The group.
    pub group: GroupId,
    /// The sender.
    pub from: ReplicaId,
    /// The receiver. A node without that replica drops the message: it was for a destroyed one.
    pub to: ReplicaId,
    /// The content.
    pub body: PeerBody,
}

/// The content of a message. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PeerBody {
    /// Entries for a follower. The requests of one `stream` are handled in order and answered in
    /// order, many in flight.
    Append {
        /// The leader's stream: a new one after every error.
        stream: u64,
        /// The place in the stream, from 0, without holes.
        sequence: u64,
        /// The entries.
        request: AppendRequest,
    },
    /// The answer to the append of that stream and sequence.
    AppendReply {
        /// The stream.
        stream: u64,
        /// The place in it.
        sequence: u64,
        /// The end of the match with the follower's log, or the conflict.
        reply: AppendReply,
    },
    /// A sign of life of the leader: an append without entries, outside any stream.
    Heartbeat {
        /// Matches the reply.
        call: u64,
        /// The request, without entries.
        request: AppendRequest,
    },
    /// The answer to a heartbeat.
    HeartbeatReply {
        /// The call.
        call: u64,
        /// The same as for an append.
        reply: AppendReply,
    },
    /// Asks for a vote, or (pre-vote) whether one would be granted.
    Vote {
        /// Matches the reply.
        call: u64,
        /// A pre-vote: the receiver persists nothing.
        pre: bool,
        /// The request.
        request: VoteRequest,
    },
    /// The answer to a vote request.
    VoteReply {
        /// The call.
        call: u64,
        /// Whether the vote was granted.
        reply: VoteReply,
    },
    /// Transfers the leadership.
    TransferLeader {
        /// Matches the reply.
        call: u64,
        /// The leader's vote.
        from_leader: Vote,
        /// The next leader. Every voter receives the message, so that its promise to the old leader
        /// does not hold it back.
        target: ReplicaId,
        /// The last entry that the target must have flushed before it campaigns.
        last: Option<LogId>,
    },
    /// The answer to a leader transfer.
    TransferReply {
        /// The call.
        call: u64,
        /// Whether the target accepted.
        accepted: bool,
    },
    /// The receiver cannot handle calls of this replica: it does not exist there now, or its group
    /// has stopped. Answers any request, by call or by stream.
    Unreachable {
        /// The call or stream.
        call: u64,
    },
    /// The receiver lost entries that it had confirmed: it answers nothing under this id again.
    /// Answers any request, by call or by stream.
    Doubtful {
        /// The call or stream.
        call: u64,
    },
    /// The leader tells a replica that it lost entries: it refused an append after an entry that
    /// it had confirmed as durable. There is no answer.
    LostEntries {
        /// The last entry that the replica had confirmed.
        confirmed: LogId,
    },
}

/// Entries to append after `prev`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AppendRequest {
    /// The leader's vote.
    pub vote: Vote,
    /// The entry before the first one.
    pub prev: Option<LogId>,
    /// The entries.
    pub entries: Vec<Entry>,
    /// The last committed entry.
    pub commit: Option<LogId>,
}

/// The result of an append.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AppendReply {
    /// The follower's log matches durably up to this entry.
    Matched(Option<LogId>),
    /// The follower has no entry or another one at this place.
    Conflict(LogId),
    /// The follower has voted for a higher vote.
    HigherVote(Vote),
}

/// Asks for a vote.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoteRequest {
    /// The vote asked for.
    pub vote: Vote,
    /// The last entry of the candidate's log.
    pub last: Option<LogId>,
    /// The candidate campaigns for a leader transfer, so the leader's lease does not count.
    pub leadership_transfer: bool,
}

/// The answer to a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoteReply {
    /// The follower's vote now.
    pub vote: Vote,
    /// Whether the vote is granted.
    pub granted: bool,
    /// The last entry of the follower's log.
    pub last: Option<LogId>,
}

/// The header of a snapshot. It announces the snapshot before any of its files exists, so that the
/// receiver can refuse it in time. The codec's envelope carries its format version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotHeader {
    /// The group.
    pub group: GroupId,
    /// The leader's replica.
    pub from: ReplicaId,
    /// The receiver.
    pub to: ReplicaId,
    /// The leader's vote.
    pub vote: Vote,
    /// The state in the snapshot.
    pub meta: SnapshotMeta,
    /// The estimated size of its files, in bytes: the receiver reserves that much space. The exact
    /// length and checksum of each file follow its bytes.
    pub bytes: u64,
}

impl SnapshotHeader {
    /// Encodes the header.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::SnapshotHeader, self)
    }

    /// Decodes a header. An error means that the sender is broken or speaks another version: the
    /// snapshot is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let header: Self = codec::decode(Kind::SnapshotHeader, bytes)?;
        let members = &header.meta.membership.members;
        if *members != Membership::default() && !members.is_well_formed() {
            let reason = "the membership has an empty set of voters, or a voter without a node".to_owned();
            return Err(CodecError::Malformed { kind: Kind::SnapshotHeader, reason });
        }
        let leader = (header.vote.term, header.vote.candidate);
        if header.meta.applied.is_some_and(|applied| (applied.term, applied.leader) > leader) {
            let reason = "it contains an entry of a later leader than its sender".to_owned();
            return Err(CodecError::Malformed { kind: Kind::SnapshotHeader, reason });
        }
        Ok(header)
    }
}

/// An answer of a snapshot's receiver. The first one is `Accepted` or `Refused`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SnapshotAnswer {
    /// A slot and the announced bytes are reserved: the files may be sent.
    Accepted,
    /// The receiver has received everything, and still verifies or installs it.
    Working,
    /// The snapshot is installed; the receiver's vote.
    Installed(Vote),
    /// The transfer is over.
    Refused(SnapshotRefusal),
}

impl SnapshotAnswer {
    /// Encodes the answer.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::SnapshotAnswer, self)
    }

    /// Decodes an answer. An error means that the receiver is broken or speaks another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::SnapshotAnswer, bytes)
    }
}

/// Why the receiver refuses a snapshot. The state of its replica is unchanged, except that a
/// [`Failed`](SnapshotRefusal::Failed) one may be installed nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum SnapshotRefusal {
    /// The receiver has no free slot: send again soon.
    #[error("node {node} receives {receiving} snapshots already")]
    Busy {
        /// The receiver.
        node: NodeId,
        /// The snapshots that it is receiving.
        receiving: u32,
    },
    /// The receiver's disk has too little free space above its reserve.
    #[error("no space on node {node}: needs {needs} bytes, has {has}")]
    NoSpace {
        /// The receiver.
        node: NodeId,
        /// The bytes that the snapshot needs.
        needs: u64,
        /// The free bytes above the reserve that no other snapshot has reserved.
        has: u64,
    },
    /// The replica is not on the receiver: it was destroyed, or is not created yet.
    #[error("node {node} does not have replica {replica}")]
    NoReplica {
        /// The receiver.
        node: NodeId,
        /// The replica.
        replica: ReplicaId,
    },
    /// The files are damaged, or hold other data than announced.
    #[error("node {node} refuses the snapshot as bad: {reason}")]
    Bad {
        /// The receiver.
        node: NodeId,
        /// The defect.
        reason: String,
    },
    /// The receiver could not receive or install it, for another reason.
    #[error("node {node}: {reason}")]
    Failed {
        /// The receiver.
        node: NodeId,
        /// The reason.
        reason: String,
    },
}

impl SnapshotRefusal {
    /// A short word for the reason, for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            SnapshotRefusal::Busy { .. } => "busy",
            SnapshotRefusal::NoSpace { .. } => "no_space",
            SnapshotRefusal::NoReplica { .. } => "no_replica",
            SnapshotRefusal::Bad { .. } => "bad",
            SnapshotRefusal::Failed { .. } => "failed",
        }
    }
}

/// Identifies the state in a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotMeta {
    /// The last entry applied to it.
    pub applied: Option<LogId>,
    /// The last membership applied to it, and its place in the log.
    pub membership: crate::state::StoredMembership,
}

/// Encodes a frame of messages.
pub fn encode_frame(messages: &[PeerMessage]) -> Vec<u8> {
    codec::encode(Kind::Peer, &messages)
}

/// Decodes a frame. An error means that the peer is broken or speaks another version: the
/// connection is closed.
pub fn decode_frame(bytes: &[u8]) -> Result<Vec<PeerMessage>, CodecError> {
    let messages: Vec<PeerMessage> = codec::decode(Kind::Peer, bytes)?;
    let malformed = |bad: BadAppend| CodecError::Malformed { kind: Kind::Peer, reason: bad.to_string() };
    for message in &messages {
        if let PeerBody::Append { request, .. } | PeerBody::Heartbeat { request, .. } = &message.body {
            request.check().map_err(malformed)?;
        }
    }
    Ok(messages)
}

/// Entries that no leader sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum BadAppend {
    #[error("the entries of an append have a hole")]
    Hole,
    #[error("an append has a membership with an empty set of voters, or a voter without a node")]
    Membership,
}

impl AppendRequest {
    /// Refuses entries that no leader sends: a replica would stop on them.
    fn check(&self) -> Result<(), BadAppend> {
        let mut next = self.prev.map_or(0, |prev| prev.index.saturating_add(1));
        for entry in &self.entries {
            if entry.id.index != next {
                return Err(BadAppend::Hole);
            }
            if matches!(&entry.payload, Payload::Membership(members) if !members.is_well_formed()) {
                return Err(BadAppend::Membership);
            }
            next = next.saturating_add(1);
        }
        Ok(())
    }
}

impl PeerMessage {
    /// The approximate size of the message in a frame, in bytes.
    pub fn size_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 128;
        OVERHEAD_BYTES
            + match &self.body {
                PeerBody::Append { request, .. } => request.entries.iter().map(Entry::size_bytes).sum(),
                _ => 0,
            }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn id(index: u64) -> LogId {
        LogId { term: 1, leader: ReplicaId(1), index }
    }

    fn frame(prev: Option<LogId>, entries: Vec<Entry>) -> Vec<u8> {
        let vote = Vote { term: 1, candidate: ReplicaId(1), committed: true };
        let request = AppendRequest { vote, prev, entries, commit: None };
        let body = PeerBody::Append { stream: 1, sequence: 0, request };
        encode_frame(&[PeerMessage { group: GroupId(1), from: ReplicaId(1), to: ReplicaId(2), body }])
    }

    fn blank(index: u64) -> Entry {
        Entry { id: id(index), payload: Payload::Blank }
    }

    /// A frame whose entries follow each other is decoded; a hole before or between them, and a
    /// membership with a voter without a node, are refused.
    #[test]
    fn malformed_appends_are_refused() {
        assert!(decode_frame(&frame(None, vec![blank(0), blank(1)])).is_ok());
        assert!(decode_frame(&frame(Some(id(6)), vec![blank(7), blank(8)])).is_ok());
        assert!(decode_frame(&frame(Some(id(6)), vec![])).is_ok());
        assert!(decode_frame(&frame(Some(id(6)), vec![blank(8)])).is_err());
        assert!(decode_frame(&frame(None, vec![blank(0), blank(2)])).is_err());
        assert!(decode_frame(&frame(Some(id(u64::MAX)), vec![blank(0)])).is_err());
        let voters = vec![BTreeSet::from([ReplicaId(1)])];
        let members = Membership { voters, nodes: Default::default() };
        let membership = Entry { id: id(0), payload: Payload::Membership(members) };
        assert!(decode_frame(&frame(None, vec![membership])).is_err());
    }

    /// A header of another format version is refused by its number, before its content is read; so
    /// is one that contradicts its sender's vote, on which the receiver's Raft core would stop.
    #[test]
    fn headers_of_other_formats_and_contradictory_ones_are_refused() {
        let vote = Vote { term: 2, candidate: ReplicaId(1), committed: true };
        let meta = SnapshotMeta { applied: Some(LogId { term: 2, ..id(9) }), ..SnapshotMeta::default() };
        let header = SnapshotHeader { group: GroupId(1), from: ReplicaId(1), to: ReplicaId(2), vote, meta, bytes: 7 };
        let bytes = header.encode();
        assert_eq!(SnapshotHeader::decode(&bytes), Ok(header.clone()));
        for version in [1, bytes[1] + 1] {
            let mut other = bytes.clone();
            other[1] = version;
            let refusal = CodecError::Version { kind: Kind::SnapshotHeader, found: version, supported: bytes[1] };
            assert_eq!(SnapshotHeader::decode(&other), Err(refusal));
        }
        let later = SnapshotHeader { vote: Vote { term: 1, ..vote }, ..header };
        assert!(matches!(SnapshotHeader::decode(&later.encode()), Err(CodecError::Malformed { .. })));
    }
}
