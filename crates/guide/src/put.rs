//! The life of a put.
//!
//! [`Client::put`](quorate_client::Client::put) returns when the write is synced on a majority of
//! the shard's replicas and applied on its leader. If the reply is lost, the retry carries the same
//! stamp and gets the first outcome.
//!
//! ```text
//!   client process   operation ─ write ─ node ─ connection ──╮ one stream to each node
//!   ─────────────────────────────────────────────────────────┼──────────────────────────
//!   leader's node    kv ─ pages ─ serve ─ shard ─ replica ◀──╯
//!                                                    │ openraft ── appends ──▶ followers
//!                    log_store ─ log ─ writer ◀──────┤ one fsync here and there
//!                    state_machine ─ replica ─ kv ─ state ◀── committed
//! ```
//!
//! # The main line: 16 files
//!
//! 1. `crates/client/src/operation.rs` (`Put`, `make`): checks the limits, and makes a
//!    [`Write`](quorate_types::Write) with its condition.
//! 2. `crates/router/src/write.rs` (`write`, `attempts`):
//!    [`Router::write`](quorate_router::Router::write) routes the key, takes a stamp, and attempts
//!    until there is an outcome; its header is the decision tree of all retries.
//! 3. `crates/router/src/node.rs` (`attempt`): asks the circuit breaker, then makes one
//!    [`Attempt`](quorate_router::Attempt) over the [`Connection`](quorate_router::Connection).
//! 4. `crates/client/src/grpc/connection.rs` (`attempt`, `run`): opens the stream if there is none,
//!    submits the request, and waits for its reply.
//! 5. `crates/node/src/service/kv.rs` (`exchange`, `admit`): takes a frame apart by shard, and
//!    starts a task for each part.
//! 6. `crates/node/src/service/pages.rs` (`serve`): serves one part, and queues its replies for the
//!    next frame.
//! 7. `crates/control/src/serve.rs` (`write`, `propose`): [`Server`](quorate_control::Server) finds
//!    the replica, and refuses overload, misrouted requests, and puts on a full disk *before*
//!    anything is proposed.
//! 8. `crates/raft/src/shard.rs` (`write`, `propose_batches`):
//!    [`Shard::write`](quorate_raft::Shard::write) makes one entry of the commands that arrived
//!    while the last one was in flight.
//! 9. `crates/raft/src/replica/propose.rs` (`propose_with`, `try_propose`):
//!    [`Replica`](quorate_raft::Replica) waits until leadership is decided, and gives the entry to
//!    openraft. Step 8 has asked the same before its queue.
//! 10. `crates/raft/src/log_store.rs` (`append`): the log as openraft sees it.
//! 11. `crates/rocks/src/log/mod.rs` (`append`, `submit`):
//!     [`Log::append`](quorate_machine::log::Log::append) on RocksDB updates the in-memory tail,
//!     and queues the operation.
//! 12. `crates/rocks/src/log/writer.rs` (`run`, `write_all`): one thread for all groups drains the
//!     queue, writes one batch, syncs once, and completes.
//! 13. `crates/raft/src/state_machine.rs` (`apply`, `apply_chunk`): receives the committed entries,
//!     and sends the outcomes back.
//! 14. `crates/machine/src/replica_state.rs` (`apply`):
//!     [`ReplicaState::apply`](quorate_machine::ReplicaState) makes one batch of data, sessions,
//!     applied index, revision and clock.
//! 15. `crates/machine/src/kv.rs` (`apply`, `apply_stamped`):
//!     [`KvMachine`](quorate_machine::KvMachine) checks the session, then epoch and condition, and
//!     writes the record with the next revision as its version.
//! 16. `crates/rocks/src/state/mod.rs` (`write`):
//!     [`State::write`](quorate_machine::state::State::write) is one RocksDB write without a
//!     write-ahead log.
//!
//! The outcome returns as a value through the same files: 13 → 9 → 8 → 7 → 6 → 4 → 2.
//!
//! # Leaves
//!
//! A leaf is called, returns a value, and never calls back into the main line. Its documentation is
//! enough to follow the main line.
//!
//! * `crates/router/src/map_cache.rs` (`MapCache`): the map, fetched again when it proves wrong.
//! * `crates/router/src/slot.rs` (`take_slot`): a place in the session, which is opened if
//!   necessary.
//! * `crates/router/src/session.rs` (`Session`, `Slot`): a stamp: session, sequence, lowest
//!   outstanding sequence.
//! * `crates/router/src/search.rs` (`pick`, `after`): the next node to try, and the meaning of a
//!   failed attempt.
//! * `crates/router/src/recovery.rs` (`recover`): the pause or map refresh between two attempts.
//! * `crates/client/src/grpc/stream.rs` (`connect`, `read`): the hellos, then the replies.
//! * `crates/client/src/grpc/link.rs` (`submit`, `deliver`): a ticket for the reply; the line
//!   between "certainly not applied" and "may be applied".
//! * `crates/control/src/parts.rs` (`split`): the requests of a frame by shard and kind.
//! * `crates/control/src/admission.rs` (`check_queue`, `is_admitted_by_full_disk`): whether the
//!   log's queue and the disk admit the commands.
//! * `crates/node/src/service/replies.rs` (`ReplyQueue`): room for the replies in the stream's
//!   queue.
//! * `crates/raft/src/batch.rs` (`Claim`): whether the proposer or the time-out got the
//!   commands.
//! * `crates/raft/src/batch_delay.rs` (`BatchDelay`): how long a batch waits for clients that were
//!   just answered.
//! * `crates/raft/src/replica/leadership.rs` (`until_leadership_is_decided`): whether this replica
//!   leads; waits for an election that is not over. The one place where that is asked.
//! * `crates/raft/src/soft_state.rs` (`SoftState`): role, term and leader, cached.
//! * `crates/rocks/src/log/replica_log.rs` (`ReplicaLog`): one replica's extent and tail in memory.
//! * `crates/rocks/src/log/batch.rs` (`add`): operations as one RocksDB batch.
//! * `crates/rocks/src/state/batch.rs` (`encode`): a batch of the state as one RocksDB batch.
//! * `crates/rocks/src/log/queue.rs` (`push`, `drain`): the operations that share the next sync.
//! * `crates/machine/src/sessions.rs` (`admit`, `remember`): whether a stamp is new, done, or
//!   unknown.
//! * `crates/machine/src/record.rs` (`apply_write`): a write's condition, and the record it makes.
//! * `crates/machine/src/draft.rs` (`Draft`): the batch under construction, readable.
//!
//! # Beside it: replication
//!
//! openraft sends the entry to each follower through `crates/raft/src/append_stream.rs` and the
//! [`Transport`](quorate_raft::Transport) of the node (`crates/node/src/peer/transport.rs`); the
//! follower's `crates/raft/src/append_receive.rs` appends it to its own log. The append is
//! acknowledged when the follower's writer has synced it. A majority of synced logs, the leader's
//! included, commits.
//!
//! # Failures, and where they are decided
//!
//! * The node does not lead: step 9. [`Rejection::NotLeader`](quorate_types::Rejection::NotLeader)
//!   carries a hint, and the router follows it.
//! * The queue or the disk is full: steps 7 and 8.
//!   [`Rejection::Overloaded`](quorate_types::Rejection::Overloaded) and
//!   [`Rejection::DiskFull`](quorate_types::Rejection::DiskFull) promise that nothing was proposed.
//! * The connection ends before a reply: the link.
//!   [`Attempt::Lost`](quorate_router::Attempt::Lost) is in doubt, and retried with the same stamp.
//! * The deadline ends in doubt: step 2. The result is
//!   [`Error::Unknown`](quorate_router::Error::Unknown).
//! * A sync fails: step 12. The process logs the reason and exits.
