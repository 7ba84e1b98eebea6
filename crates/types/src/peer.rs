//! What nodes say to each other about Raft groups. A frame carries messages of many groups.
//!
//! Requests and replies are matched by `call`, a number that the sender made up: the transport may lose messages, and never
//! reorders those of one lane.

use bincode::{Decode, Encode};

use crate::codec::{self, CodecError, Kind};
use crate::{Entry, GroupId, LogId, ReplicaId, Vote};

/// A message between two replicas of one group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PeerMessage {
    /// The group.
    pub group: GroupId,
    /// The replica that sends.
    pub from: ReplicaId,
    /// The replica that it is meant for. A node that has no such replica drops the message: it was for a destroyed one.
    pub to: ReplicaId,
    /// What it says.
    pub body: PeerBody,
}

/// What a message says. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PeerBody {
    /// Entries for a follower. The requests of one `stream` are handled in order and answered in order, many in flight.
    Append {
        /// The leader's stream: a new one after every error.
        stream: u64,
        /// The place in the stream, from 0, without holes.
        sequence: u64,
        /// The entries.
        request: AppendRequest,
    },
    /// The answer to the request of that stream and sequence.
    AppendReply {
        /// The stream.
        stream: u64,
        /// The place in it.
        sequence: u64,
        /// How far the follower's log now matches, or why it does not.
        reply: AppendReply,
    },
    /// The leader proves that it leads (an append without entries, outside any stream).
    Heartbeat {
        /// Matches the reply.
        call: u64,
        /// Without entries.
        request: AppendRequest,
    },
    /// The answer to a heartbeat.
    HeartbeatReply {
        /// The call.
        call: u64,
        /// As for an append.
        reply: AppendReply,
    },
    /// Asks for a vote, or (pre-vote) whether one would be granted.
    Vote {
        /// Matches the reply.
        call: u64,
        /// Only asks whether it would be granted; nothing is persisted.
        pre: bool,
        /// The request.
        request: VoteRequest,
    },
    /// The answer.
    VoteReply {
        /// The call.
        call: u64,
        /// Whether it was granted.
        reply: VoteReply,
    },
    /// The leader hands its leadership over.
    TransferLeader {
        /// Matches the reply.
        call: u64,
        /// The leader's vote.
        from_leader: Vote,
        /// The replica that is to lead. Every voter is told, so that its promise to the old leader does not hold it back.
        target: ReplicaId,
        /// How far the target's log must be flushed.
        last: Option<LogId>,
    },
    /// The answer.
    TransferReply {
        /// The call.
        call: u64,
        /// Whether the target accepted.
        accepted: bool,
    },
    /// The receiver cannot handle calls of this replica: it does not exist there (yet, or any more), or its group has stopped.
    /// Answers any request, by call or by stream.
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
    /// How far the log is committed.
    pub commit: Option<LogId>,
}

/// What came of an append.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AppendReply {
    /// The follower's log matches up to here, durably.
    Matched(Option<LogId>),
    /// The follower has another entry there, or none.
    Conflict(LogId),
    /// The follower has promised itself to a higher vote.
    HigherVote(Vote),
}

/// Asks for a vote.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoteRequest {
    /// The vote asked for.
    pub vote: Vote,
    /// The last entry of the candidate's log.
    pub last: Option<LogId>,
    /// The leader asked the candidate to take over, so that the leader's lease does not count.
    pub leadership_transfer: bool,
}

/// The answer to a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoteReply {
    /// The follower's vote now.
    pub vote: Vote,
    /// Whether it is granted.
    pub granted: bool,
    /// The last entry of the follower's log.
    pub last: Option<LogId>,
}

/// What is sent before the files of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotHeader {
    /// The group.
    pub group: GroupId,
    /// The leader's replica.
    pub from: ReplicaId,
    /// The replica that gets it.
    pub to: ReplicaId,
    /// The leader's vote.
    pub vote: Vote,
    /// What the snapshot holds.
    pub meta: SnapshotMeta,
    /// Length in bytes and crc32c of each file, in the order in which they are sent.
    pub files: Vec<(u64, u32)>,
}

/// Which state a snapshot holds.
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

/// Reads a frame back. An error means that the peer is broken or speaks another version: the connection is closed.
pub fn decode_frame(bytes: &[u8]) -> Result<Vec<PeerMessage>, CodecError> {
    codec::decode(Kind::Peer, bytes)
}

impl PeerMessage {
    /// About how many bytes the message takes in a frame.
    pub fn size_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 128;
        OVERHEAD_BYTES
            + match &self.body {
                PeerBody::Append { request, .. } => request.entries.iter().map(Entry::size_bytes).sum(),
                _ => 0,
            }
    }
}
