//! The life of a move: a shard's replica moves from one node to another.
//!
//! Nothing here holds state that a crash could lose. The topology group records the operation, the
//! reconciler compares the recorded cluster with the nodes' reports, and every step is harmless if
//! it is taken twice, late, or by a deposed reconciler.
//!
//! ```text
//!   operator ─▶ any node ─▶ topology group: records the operation
//!                                │
//!              reconciler, on its leader, in rounds: confirm ─ report ─ plan ─ propose and order
//!                 │ StartMove        │ AddLearner          │ ChangeVoters      │ FinishMove
//!                 ▼                  ▼                     ▼                   ▼
//!              target's agent     shard's leader        shard's leader      source's agent
//!              opens a replica    adds, catches it up   joint change        destroys its replica
//! ```
//!
//! # The request
//!
//! 1. `crates/node/src/service/admin.rs` (`start_operation`): any node takes the operation.
//! 2. `crates/node/src/operations.rs` (`start`): makes a
//!    [`Command::StartOperation`](quorate_types::topology::Command::StartOperation).
//! 3. `crates/control/src/proposer.rs` (`Proposer`): [`Proposer`](quorate_control::Proposer)
//!    proposes here, or at the node that leads the topology group.
//! 4. `crates/topology/src/machine.rs` (`TopologyMachine`):
//!    [`TopologyMachine`](quorate_topology::TopologyMachine) checks and applies the command.
//!
//! # A round of the reconciler
//!
//! 5. `crates/control/src/reconciler.rs` (`round`, `take`): confirms the lead, reads the cluster,
//!    collects reports, plans, takes the steps.
//! 6. `crates/control/src/reporters.rs` (`ask`): asks every node for its report; an unresponsive
//!    one delays one round only.
//! 7. `crates/topology/src/reconcile/mod.rs` (`plan`): [`plan`](quorate_topology::plan) is a pure
//!    function from cluster and reports to steps.
//! 8. `crates/topology/src/reconcile/moves.rs` (`plan`): decides which replicas start to move.
//! 9. `crates/topology/src/reconcile/groups.rs` (`plan`, `step`): decides the next step of each
//!    moving group.
//! 10. `crates/control/src/orders.rs` (`execute`, `own_report`): the receiving side: an order
//!     carries the topology group's term.
//!
//! # The steps
//!
//! 11. `crates/control/src/agent.rs` (`follow`, `open`): the target's node sees its replica in the
//!     map, and opens it.
//! 12. `crates/raft/src/replica/membership.rs` (`execute`): the shard's leader adds the learner,
//!     transfers its leadership if it leaves, makes the joint change.
//! 13. `crates/raft/src/snapshot_send.rs` (`send`): a learner that needs purged entries gets the
//!     state's files.
//! 14. `crates/node/src/peer/snapshots_in.rs` (`receive`): the target stages and verifies them.
//! 15. `crates/rocks/src/state/ingest.rs` (`verify`, `ingest`): the verified files replace the
//!     replica's range.
//! 16. `crates/control/src/agent.rs` (`destroy_departed`): the source's node sees that its replica
//!     left the map, writes a tombstone, and destroys it.
//!
//! # Backing out
//!
//! Cancelling an operation marks its moves as cancelled. A move whose new replica does not vote yet
//! is undone: the leader removes the learner and confirms that it is no member. A move whose new
//! replica votes is finished. A move whose target has not responded for 30 s is cancelled in the
//! same way if another node can take the replica
//! ([`UNRESPONSIVE_AFTER`](quorate_control::reporters::UNRESPONSIVE_AFTER)).
