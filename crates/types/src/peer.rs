//! Messages between nodes about Raft groups. A frame carries messages of many groups.
//!
//! Requests and replies are matched by `call`, a number of the sender. The transport may lose
//! messages, and never reorders those of one lane.

use bincode::{Decode, Encode};

use crate::codec::{self, CodecError, Kind};
use crate::{Entry, GroupId, LogId, ReplicaId, Vote};

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

/// The header of a snapshot, sent before its files.
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
    /// Length in bytes and crc32c of each file, in the order in which they are sent.
    pub files: Vec<(u64, u32)>,
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
    codec::decode(Kind::Peer, bytes)
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
