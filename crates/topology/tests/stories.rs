//! The life of a cluster as scripts: a command a line, and its outcome after the arrow.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use quorate_topology::{ClusterState, OPERATIONS_KEPT_MAX};
use quorate_types::operation::{Intent, OperationId, PlannedMove};
use quorate_types::topology::{Command, Outcome, Placement};
use quorate_types::{GroupId, NodeId, ReplicaId, ShardId};

/// Runs a script on a new cluster and compares every outcome. The commands:
///
/// ```text
///   bootstrap NODES SHARDS       register HOST ZONE       update NODE HOST ZONE
///   add|drain|undrain|remove NODE           dead NODE [ADDRESS]
///   replace OLD NEW      replace_dead OLD NEW [ADDRESS]
///                                               shift SHARD FROM TO
///   finish|cancel OPERATION
///   start GROUP REPLICA|- NODE|- OPERATION  arrive|cancelled GROUP      pause      resume
///   map SHARD      voters      state NODE      operation ID      revision
/// ```
fn story(script: &str) {
    let mut state = ClusterState::default();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (command, expected) = line.split_once(" -> ").unwrap_or_else(|| panic!("no arrow in '{line}'"));
        let command = command.trim();
        assert_eq!(run(&mut state, command), expected, "{command}");
    }
}

fn run(state: &mut ClusterState, line: &str) -> String {
    if let Some(told) = tell(state, line) {
        return told;
    }
    let before = state.clone();
    let command = command(state, line);
    let foretold = state.outcome_of(&command);
    assert_eq!(*state, before, "a question changes nothing: {line}");
    let (outcome, changes) = state.apply(&command);
    assert_eq!(foretold, outcome, "the foretold outcome is the outcome: {line}");
    match outcome {
        Outcome::Done if changes.is_empty() => "nothing to do".into(),
        Outcome::Done => "done".into(),
        Outcome::Node(id) => format!("node {id}"),
        Outcome::Move(moving) => moving.to.map_or("moving".into(), |to| format!("replica {}", to.replica)),
        Outcome::Operation { id, already } => format!("operation {id}{}", if already { " already" } else { "" }),
        Outcome::Refused(reason) => {
            assert!(changes.is_empty() && *state == before, "a refused command changes nothing: {line}");
            reason
        }
    }
}

/// Answers a question about the state.
fn tell(state: &ClusterState, line: &str) -> Option<String> {
    let (what, which) = line.split_once(' ').unwrap_or((line, ""));
    let topology = state.topology();
    Some(match what {
        "revision" => topology.map_or("none".into(), |topology| topology.revision.to_string()),
        "map" => list(&topology?.shard(ShardId(which.parse().unwrap()))?.replicas),
        "voters" => list(&topology?.topology_replicas),
        "state" => format!("{:?}", topology?.node(NodeId(which.parse().unwrap()))?.state).to_lowercase(),
        "operation" => {
            let operation = state.operations().find(|operation| operation.id.to_string() == which)?;
            format!("{:?}, {} moved", operation.state, operation.moved).to_lowercase()
        }
        _ => return None,
    })
}

const NOW_MS: u64 = 1_000;

fn command(state: &ClusterState, line: &str) -> Command {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let node = |at: usize| NodeId(number(at));
    let group = |at: usize| GroupId(u32::try_from(number(at)).unwrap());
    let zone = |at: usize| words.get(at).copied().unwrap_or_default().to_string();
    let confirmed = |intent, confirm: Option<&&str>| Command::StartOperation {
        intent,
        planned_on: 0,
        confirm: confirm.map(|typed| (*typed).to_owned()).unwrap_or_default(),
        now_ms: NOW_MS,
    };
    let intend = |intent| confirmed(intent, None);
    let moving = || {
        let topology = state.topology().unwrap();
        *topology.moves.iter().find(|moving| moving.group == group(1)).expect("a move to end")
    };
    match words[0] {
        "bootstrap" => common::bootstrap_of(number(1), u32::try_from(number(2)).unwrap()),
        "register" => Command::RegisterNode { addresses: common::addresses(words[1]), zone: zone(2), weight: 100 },
        "update" => {
            Command::UpdateNode { id: node(1), addresses: common::addresses(words[2]), zone: zone(3), weight: 100 }
        }
        "add" => intend(Intent::Add { node: node(1) }),
        "drain" => intend(Intent::Drain { node: node(1) }),
        "undrain" => intend(Intent::Undrain { node: node(1) }),
        "remove" => intend(Intent::Remove { node: node(1), dead: false }),
        "dead" => confirmed(Intent::Remove { node: node(1), dead: true }, words.get(2)),
        "replace" => intend(Intent::Replace { old: node(1), new: node(2), dead: false }),
        "replace_dead" => confirmed(Intent::Replace { old: node(1), new: node(2), dead: true }, words.get(3)),
        "shift" => {
            let shard = group(1).shard().unwrap();
            intend(Intent::Move { planned: PlannedMove { shard, from: node(2), to: node(3) } })
        }
        "finish" => Command::FinishOperation { id: OperationId(number(1)), now_ms: NOW_MS },
        "cancel" => Command::CancelOperation { id: OperationId(number(1)), now_ms: NOW_MS },
        "start" => Command::StartMove {
            group: group(1),
            from: (words[2] != "-").then(|| ReplicaId(number(2))),
            to: (words[3] != "-").then(|| node(3)),
            operation: OperationId(number(4)),
        },
        "arrive" => Command::FinishMove(moving()),
        "cancelled" => Command::FinishCancelledMove(moving()),
        "pause" => Command::PauseMoves { paused: true },
        "resume" => Command::PauseMoves { paused: false },
        other => panic!("unknown command {other}"),
    }
}

fn list(replicas: &[Placement]) -> String {
    replicas.iter().map(|at| format!("{}@{}", at.replica, at.node)).collect::<Vec<_>>().join(" ")
}

/// A cluster is bootstrapped once. The same order again is harmless, another one is refused, and
/// every other command needs the bootstrap.
#[test]
fn cluster_is_bootstrapped_once() {
    story(
        "
        register host-1   -> the cluster is not bootstrapped yet
        drain 1           -> the cluster is not bootstrapped yet
        revision          -> none
        bootstrap 3 4         -> done
        revision          -> 1
        bootstrap 3 4         -> nothing to do
        bootstrap 4 4         -> the cluster is bootstrapped already, as 000000000000000000000000000000c1, by another order
        bootstrap 3 5         -> the cluster is bootstrapped already, as 000000000000000000000000000000c1, by another order
        revision          -> 1
        ",
    );
}

/// A fourth node joins, takes a replica, gives it back, and leaves. Ids of nodes, replicas and
/// operations are given out once.
#[test]
fn node_joins_and_leaves() {
    story(
        "
        bootstrap 3 2            -> done
        map 1                -> 4@3 5@2 6@1
        register host-4 b    -> node 4
        register host-4 b    -> node 4
        start 1 6 4 0        -> node 4 is joining; only an active node is given replicas
        add 4                -> operation 1
        add 4                -> operation 1 already
        state 4              -> active
        start 1 6 4 1        -> replica 10
        start 1 5 4 1        -> shard 1 is in motion already: replica 6 on node 1 → replica 10 on node 4
        map 1                -> 4@3 5@2 6@1
        finish 1             -> operation 1 is not done: shard 1 is in motion
        arrive 1             -> done
        map 1                -> 4@3 5@2 10@4
        operation 1          -> running, 1 moved
        finish 1             -> done
        finish 1             -> nothing to do
        operation 1          -> done, 1 moved
        cancel 1             -> operation 1 (add node 4) is done; it cannot be cancelled
        remove 4             -> node 4 holds 1 replica; drain it first: quorate node drain 4; or, if it is dead for good: quorate node remove 4 --dead --confirm host-4:1
        drain 4              -> operation 2
        drain 4              -> operation 2 already
        state 4              -> draining
        start 1 5 4 2        -> node 4 is draining; only an active node is given replicas
        finish 2             -> node 4 still holds 1 replica
        start 1 10 1 2       -> replica 11
        arrive 1             -> done
        finish 2             -> done
        drain 4              -> nothing to do
        remove 4             -> operation 3
        state 4              -> removed
        remove 4             -> nothing to do
        drain 4              -> node 4 was removed
        register host-4 b    -> node 5
        map 1                -> 4@3 5@2 11@1
        ",
    );
}

/// The moves of a cancelled operation are cancelled where that is safe.
#[test]
fn operation_is_cancelled() {
    story(
        "
        bootstrap 4 2            -> done
        map 1                -> 4@4 5@3 6@2
        drain 2              -> operation 1
        start 1 6 1 1        -> replica 10
        start 1 5 1 9        -> shard 1 is in motion already: replica 6 on node 2 → replica 10 on node 1
        cancel 1             -> done
        cancel 1             -> nothing to do
        state 2              -> active
        operation 1          -> cancelled, 0 moved
        cancelled 1          -> done
        map 1                -> 4@4 5@3 6@2
        start 1 6 1 1        -> operation 1 is not running
        cancel 7             -> there is no operation 7
        drain 2              -> operation 2
        undrain 2            -> operation 3
        operation 2          -> cancelled, 0 moved
        undrain 2            -> nothing to do
        state 2              -> active
        pause                -> done
        start 1 6 1 0        -> moves are paused
        resume               -> done
        resume               -> nothing to do
        start 1 6 1 0        -> replica 11
        dead 1               -> operation 4
        cancelled 1          -> done
        undrain 1            -> operation 4 is to remove dead node 1; cancel it instead: quorate op cancel 4
        ",
    );
}

/// An operation does not start if it would leave a shard with too few nodes, or if another
/// operation holds its node or shard.
#[test]
fn unsafe_operations_are_refused() {
    story(
        "
        bootstrap 3 2            -> done
        drain 1              -> draining node 1 would leave 2 active nodes for 3 replicas of every shard; start another node with --join first
        dead 1               -> removing node 1 would leave 2 active nodes for 3 replicas of every shard; start another node with --join first
        remove 1             -> removing node 1 would leave 2 active nodes for 3 replicas of every shard; start another node with --join first
        replace 1 1          -> node 1 cannot replace itself; name the node that takes over, which quorate node list shows, with --with
        replace 1 2          -> replacing node 1 would leave 2 active nodes for 3 replicas of every shard; start another node with --join first
        drain 9              -> there is no node 9
        shift 1 1 2          -> shard 1 cannot move to node 2: node 2 already has a replica of it
        shift 7 1 2          -> there is no shard 7
        register host-4      -> node 4
        shift 1 1 4          -> shard 1 cannot move to node 4: node 4 is joining; only an active node is given replicas
        drain 4              -> node 4 is joining and holds nothing to drain; remove it: quorate node remove 4
        replace 1 4          -> operation 1
        state 4              -> active
        drain 4              -> operation 1 (replace node 1 with node 4) is running already; wait for it, or cancel it: quorate op cancel 1
        drain 1              -> operation 1 (replace node 1 with node 4) is running already; wait for it, or cancel it: quorate op cancel 1
        shift 1 2 4          -> operation 1 (replace node 1 with node 4) moves shard 1; wait for it: quorate op show 1, or cancel it: quorate op cancel 1
        cancel 1             -> done
        shift 1 2 4          -> operation 2
        shift 1 3 4          -> another operation moves shard 1; see: quorate op list
        shift 2 77 4         -> there is no node 77
        shift 2 1 77         -> shard 2 cannot move to node 77: there is no node 77
        finish 2             -> shard 1 is still on node 2
        start 0 1 - 0        -> moving
        arrive 0             -> done
        voters               -> 2@2 3@3
        start 0 2 - 0        -> moving
        arrive 0             -> done
        start 0 3 - 0        -> the last replica cannot be removed
        start 0 - 4 0        -> replica 10
        arrive 0             -> done
        voters               -> 3@3 10@4
        start 1 6 - 0        -> shard 1 has a fixed number of replicas
        start 1 99 4 0       -> shard 1 has no replica 99
        ",
    );
}

/// A move that another operation overtook ends as cancelled. It once ended as done, with the
/// replica in its old place.
#[test]
fn overtaken_move_is_cancelled() {
    story(
        "
        bootstrap 5 1            -> done
        map 1                -> 6@5 7@4 8@3
        shift 1 3 1          -> operation 1
        drain 4              -> operation 2
        start 1 7 1 2        -> replica 9
        finish 1             -> shard 1 is still on node 3
        shift 1 5 2          -> another operation moves shard 1; see: quorate op list
        arrive 1             -> done
        map 1                -> 6@5 9@1 8@3
        finish 1             -> done
        operation 1          -> cancelled, 0 moved
        ",
    );
}

/// A finished move ends as cancelled if its target was drained before the move was marked done. It
/// once ran forever: it wanted to move the replica back to the target.
#[test]
fn finished_move_with_a_drained_target_ends() {
    story(
        "
        bootstrap 5 1            -> done
        map 1                -> 6@5 7@4 8@3
        shift 1 3 1          -> operation 1
        start 1 8 1 1        -> replica 9
        arrive 1             -> done
        drain 1              -> operation 2
        start 1 9 3 2        -> replica 10
        arrive 1             -> done
        map 1                -> 6@5 7@4 10@3
        finish 1             -> done
        operation 1          -> cancelled, 1 moved
        ",
    );
}

/// A named move ends as cancelled if a drain moves its replica elsewhere first. It once ended as
/// done.
#[test]
fn move_whose_replica_went_elsewhere_is_cancelled() {
    story(
        "
        bootstrap 5 1            -> done
        map 1                -> 6@5 7@4 8@3
        shift 1 3 1          -> operation 1
        drain 3              -> operation 2
        start 1 8 2 2        -> replica 9
        arrive 1             -> done
        finish 1             -> done
        operation 1          -> cancelled, 0 moved
        ",
    );
}

/// A named move is refused while its shard is in motion for another operation. It was once
/// accepted, and waited without a reason.
#[test]
fn shard_in_motion_is_not_moved_by_another_operation() {
    story(
        "
        bootstrap 5 1            -> done
        map 1                -> 6@5 7@4 8@3
        drain 4              -> operation 1
        start 1 7 1 1        -> replica 9
        shift 1 3 2          -> shard 1 is in motion for operation 1; wait for it: quorate op show 1
        arrive 1             -> done
        shift 1 3 2          -> operation 2
        ",
    );
}

/// A node that is still being added is drained or replaced, not both. Both once ran at a time, and
/// a cancelled drain left the replacement without its ground.
#[test]
fn node_is_drained_or_replaced_but_not_both() {
    story(
        "
        bootstrap 3 2            -> done
        register host-4      -> node 4
        add 4                -> operation 1
        drain 4              -> operation 2
        replace 4 1          -> operation 2 (drain node 4) is running already; wait for it, or cancel it: quorate op cancel 2
        cancel 2             -> done
        state 4              -> active
        replace 4 1          -> operation 3
        ",
    );
}

/// A cancelled removal returns the node to its state before: draining or joining. It once became
/// active and got replicas.
#[test]
fn cancelled_removal_returns_the_node_to_its_state() {
    story(
        "
        bootstrap 5 1            -> done
        map 1                -> 6@5 7@4 8@3
        drain 1              -> operation 1
        start 0 1 - 0        -> moving
        arrive 0             -> done
        finish 1             -> done
        replace 1 2          -> operation 2
        cancel 2             -> done
        state 1              -> draining
        dead 1               -> operation 3
        cancel 3             -> done
        state 1              -> draining
        undrain 1            -> operation 4
        dead 1               -> operation 5
        cancel 5             -> done
        state 1              -> active
        register host-6      -> node 6
        dead 6               -> operation 6
        state 6              -> draining
        cancel 6             -> done
        state 6              -> joining
        ",
    );
}

/// A dead node of three is replaced by a new one, in one operation that can be asked for again. An
/// address that is typed as confirmation is the dead node's.
#[test]
fn dead_node_of_three_is_replaced() {
    story(
        "
        bootstrap 3 1            -> done
        register host-4          -> node 4
        dead 3                   -> removing node 3 would leave 2 active nodes for 3 replicas of every shard; start another node with --join first
        replace_dead 3 4 host-2:1 -> node 3 is at host-3:1, not at 'host-2:1'; to confirm, pass its address: --confirm host-3:1
        state 3                  -> active
        replace_dead 3 4 host-3:1 -> operation 1
        replace_dead 3 4         -> operation 1 already
        replace 3 4              -> operation 1 (replace dead node 3 with node 4) is running already; wait for it, or cancel it: quorate op cancel 1
        state 3                  -> draining
        state 4                  -> active
        cancel 1                 -> done
        state 3                  -> active
        dead 3 host-2:1          -> node 3 is at host-3:1, not at 'host-2:1'; to confirm, pass its address: --confirm host-3:1
        dead 3 host-3:1          -> operation 2
        ",
    );
}

/// A finished replacement that is requested again has nothing to do. It was once refused, because
/// its node is gone.
#[test]
fn repeated_replacement_has_nothing_to_do() {
    story(
        "
        bootstrap 5 1            -> done
        drain 1              -> operation 1
        start 0 1 - 0        -> moving
        arrive 0             -> done
        finish 1             -> done
        replace 1 2          -> operation 2
        replace 1 2          -> operation 2 already
        finish 2             -> done
        replace 1 2          -> nothing to do
        state 1              -> removed
        replace 1 3          -> node 1 is removed; there is nothing to replace
        ",
    );
}

/// A node that is still being added can be drained, and undrained.
#[test]
fn node_being_added_can_be_drained_and_undrained() {
    story(
        "
        bootstrap 3 1            -> done
        register host-4      -> node 4
        add 4                -> operation 1
        drain 4              -> operation 2
        undrain 4            -> operation 3
        operation 2          -> cancelled, 0 moved
        operation 1          -> running, 0 moved
        state 4              -> active
        ",
    );
}

/// Addresses belong to one node at a time. A node that registers with the addresses of a node with
/// replicas has lost its data directory: it must not get the old id back.
#[test]
fn addresses_belong_to_one_node() {
    story(
        "
        bootstrap 3 1                     -> done
        register host-2               -> the addresses belong to node 2, which is active; if it lost its data directory: quorate node remove 2 --dead --confirm host-2:1; else start the new node at other addresses
        register host-4               -> node 4
        update 4 host-3               -> the address host-3:1 belongs to node 3
        update 4 host-5 c             -> done
        update 4 host-5 c             -> nothing to do
        register host-4               -> node 5
        update 7 host-7               -> there is no node 7
        ",
    );
}

/// A plan applies to the revision that it was made on.
#[test]
fn plan_of_an_older_revision_is_refused() {
    let mut state = ClusterState::default();
    run(&mut state, "bootstrap 4 2");
    let planned_on = state.topology().unwrap().revision;
    run(&mut state, "register host-5");
    let moves = vec![PlannedMove { shard: ShardId(1), from: NodeId(2), to: NodeId(1) }];
    let intent = Intent::Rebalance { moves };
    let stale = Command::StartOperation { intent: intent.clone(), planned_on, confirm: String::new(), now_ms: NOW_MS };
    let refused = "the cluster changed since this was planned (revision 1 then, 2 now); plan it again: quorate rebalance plan -o json > FILE";
    assert_eq!(state.apply(&stale).0, Outcome::Refused(refused.into()));
    let fresh = Command::StartOperation { intent, planned_on: 2, confirm: String::new(), now_ms: NOW_MS };
    assert!(matches!(state.apply(&fresh).0, Outcome::Operation { already: false, .. }));
    assert!(matches!(state.apply(&fresh).0, Outcome::Operation { already: true, .. }));
}

/// The list of operations is bounded: the oldest ended ones are forgotten, running ones never.
#[test]
fn old_operations_are_forgotten() {
    let mut state = ClusterState::default();
    run(&mut state, "bootstrap 5 2");
    assert_eq!(run(&mut state, "drain 5"), "operation 1");
    for _ in 0..OPERATIONS_KEPT_MAX {
        run(&mut state, "drain 4");
        assert!(run(&mut state, "undrain 4").starts_with("operation"));
    }
    assert_eq!(state.operations().count(), OPERATIONS_KEPT_MAX);
    assert_eq!(run(&mut state, "operation 1"), "running, 0 moved");
}
