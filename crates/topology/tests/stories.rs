//! The cluster's life as scripts: a command a line, and what comes of it after the arrow.

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
///   add|drain|undrain|remove|dead NODE      replace OLD NEW      shift SHARD FROM TO      finish|cancel OPERATION
///   start GROUP REPLICA|- NODE|- OPERATION  arrive|abandon GROUP      pause      resume
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
    assert_eq!(*state, before, "asking changes nothing: {line}");
    let (outcome, changes) = state.apply(&command);
    assert_eq!(foretold, outcome, "what would be done is what is done: {line}");
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

/// What is the case.
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
    let intend = |intent| Command::StartOperation { intent, planned_on: 0, now_ms: NOW_MS };
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
        "dead" => intend(Intent::Remove { node: node(1), dead: true }),
        "replace" => intend(Intent::Replace { old: node(1), new: node(2) }),
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
        "abandon" => Command::FinishCancelledMove(moving()),
        "pause" => Command::PauseMoves { paused: true },
        "resume" => Command::PauseMoves { paused: false },
        other => panic!("unknown command {other}"),
    }
}

fn list(replicas: &[Placement]) -> String {
    replicas.iter().map(|at| format!("{}@{}", at.replica, at.node)).collect::<Vec<_>>().join(" ")
}

/// A cluster is bootstrapped once. The same order again is harmless, another one is refused, and nothing else works before.
#[test]
fn a_cluster_is_founded_once() {
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

/// A fourth node comes, takes a replica, gives it back, and goes. Ids of nodes, replicas and operations are never given out
/// again.
#[test]
fn a_node_comes_and_goes() {
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

/// What is taken back turns around where it can.
#[test]
fn an_operation_is_taken_back() {
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
        abandon 1            -> done
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
        abandon 1            -> done
        undrain 1            -> operation 4 is to remove dead node 1; cancel it instead: quorate op cancel 4
        ",
    );
}

/// Nothing is started that would leave a shard with too few nodes, or that another operation is about.
#[test]
fn what_is_not_safe_is_refused() {
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

/// A move that another operation overtook was called done, with the replica where it had been before.
#[test]
fn an_overtaken_move_is_not_done() {
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

/// A move that was done but not called so yet wanted to go back when its target was drained, for ever: an operation that never ended.
#[test]
fn a_move_whose_target_was_drained_at_its_end_ran_for_ever() {
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

/// A drain took the replica elsewhere before the move that was asked for by name began: that was called done.
#[test]
fn a_move_whose_replica_went_elsewhere_was_called_done() {
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

/// A move of a shard that is in motion already was taken, and waited without a word.
#[test]
fn a_shard_in_motion_is_not_moved_by_another_operation() {
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

/// Only the first operation about a node was looked at, and that one may run beside another: a drain and a replacement of one node
/// ran at a time, and taking the drain back left the replacement without its ground, for ever.
#[test]
fn a_node_that_was_being_added_was_drained_and_replaced_at_once() {
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

/// A node that was drained, or had not joined yet, was active when its removal was taken back, and got replicas.
#[test]
fn a_removal_that_is_taken_back_made_a_drained_node_active() {
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

/// A replacement that is done was refused when it was asked for again: the node that it was about is gone.
#[test]
fn a_replacement_asked_for_twice_was_refused() {
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

/// A node that is still given its share can be told to drain, and then not to.
#[test]
fn undrain_was_refused_while_the_node_was_being_added() {
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

/// Addresses belong to one node at a time. Whoever asks for an id at the addresses of a node that holds replicas has lost its
/// data directory: it must not get the old id back.
#[test]
fn addresses_are_nobody_elses() {
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

/// A plan is for the cluster that it was made on.
#[test]
fn a_plan_made_on_an_older_map_is_refused() {
    let mut state = ClusterState::default();
    run(&mut state, "bootstrap 4 2");
    let planned_on = state.topology().unwrap().revision;
    run(&mut state, "register host-5");
    let moves = vec![PlannedMove { shard: ShardId(1), from: NodeId(2), to: NodeId(1) }];
    let intent = Intent::Rebalance { moves };
    let stale = Command::StartOperation { intent: intent.clone(), planned_on, now_ms: NOW_MS };
    let refused = "the cluster changed since this was planned (revision 1 then, 2 now); plan it again: quorate rebalance plan -o json > FILE";
    assert_eq!(state.apply(&stale).0, Outcome::Refused(refused.into()));
    let fresh = Command::StartOperation { intent, planned_on: 2, now_ms: NOW_MS };
    assert!(matches!(state.apply(&fresh).0, Outcome::Operation { already: false, .. }));
    assert!(matches!(state.apply(&fresh).0, Outcome::Operation { already: true, .. }));
}

/// The list of operations is bounded: what ended long ago is forgotten, what runs never.
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
