//! The life of a get.
//!
//! A `strong` read ([`ReadLevel::Strong`](quorate_types::ReadLevel::Strong), the default) is
//! linearizable: after the read arrived, a quorum confirms that the replica still leads, and every
//! entry that was committed by then is applied before the value is read. An `eventual` read
//! ([`ReadLevel::Eventual`](quorate_types::ReadLevel::Eventual)) takes the value from the nearest
//! replica.
//!
//! # The main line of a strong get: 12 files
//!
//! 1. `crates/client/src/operation.rs` (`Get`): checks the key.
//! 2. `crates/router/src/read.rs` (`get`): [`Router::get`](quorate_router::Router::get) routes the
//!    key, and attempts at the leader until the deadline.
//! 3. `crates/router/src/node.rs` (`attempt`): asks the circuit breaker, then makes one
//!    [`Attempt`](quorate_router::Attempt).
//! 4. `crates/client/src/grpc/connection.rs` (`attempt`): submits the request to the stream, and
//!    waits for its reply.
//! 5. `crates/node/src/service/kv.rs` (`exchange`, `admit`): takes a frame apart by shard and
//!    level.
//! 6. `crates/node/src/service/pages.rs` (`serve`, `fill`): waits for the read barrier, then fills
//!    pages of bounded bytes.
//! 7. `crates/control/src/serve.rs` (`read`, `next_page`): [`Server`](quorate_control::Server)
//!    finds the replica, waits for the barrier, reads a page, and compares epochs.
//! 8. `crates/raft/src/shard.rs` (`read_barrier`, `read`):
//!    [`Shard::read_barrier`](quorate_raft::Shard::read_barrier), then
//!    [`Shard::read`](quorate_raft::Shard::read).
//! 9. `crates/raft/src/read_rounds.rs` (`join`, `confirm_rounds`): reads that arrive during a
//!    quorum round share the next one.
//! 10. `crates/raft/src/replica/confirm.rs` (`confirm`, `try_confirm`):
//!     [`Replica::confirm`](quorate_raft::Replica::confirm) runs ReadIndex of openraft, and waits
//!     for the apply.
//! 11. `crates/machine/src/record.rs` (`read`): [`kv::read`](quorate_machine::kv::read) takes head
//!     and records from one view.
//! 12. `crates/rocks/src/state/view.rs` (`get_with`): [`View`](quorate_machine::state::View) on
//!     RocksDB.
//!
//! An eventual get skips 9 and 10: the barrier only checks that the replica is a voter and has
//! replayed its log to the commit index that it knew before the last restart.
//!
//! # Leaves
//!
//! * `crates/router/src/search.rs` (`pick`, `nearest`): the leader, or the least busy replica.
//! * `crates/router/src/recovery.rs` (`recover`): the pause or map refresh between two attempts.
//! * `crates/client/src/grpc/link.rs` (`submit`, `deliver`): a ticket for the reply.
//! * `crates/control/src/parts.rs` (`split`): the requests of a frame by shard and level.
//! * `crates/node/src/service/replies.rs` (`ReplyQueue`): room for a page in the stream's queue.
//! * `crates/raft/src/replica/leadership.rs` (`until_leadership_is_decided`): whether this replica
//!   leads; waits for an election that is not over. The one place where that is asked.
//!
//! # Why it is linearizable
//!
//! 1. A read joins only a round that begins after the read arrived.
//! 2. The round takes the commit index, and then a quorum confirms the leader's term. An answer
//!    confirms the leader as of the moment when the append was *sent*
//!    (`crates/raft/src/append_stream.rs`), never later.
//! 3. The read waits until that index is applied here. Any later state is new enough.
//! 4. Values and head come from one view, and the epoch in the head must be the one that the client
//!    routed by.
