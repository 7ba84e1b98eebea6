//! The cluster's life as scripts: a command a line, and what comes of it after the arrow.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use quorate_topology::ClusterState;
use quorate_types::topology::{Command, NodeState, Outcome, Placement};
use quorate_types::{NodeId, ShardId};

/// Runs a script on a new cluster and compares every outcome. The commands:
///
/// ```text
///   found NODES SHARDS                register HOST ZONE            update NODE HOST ZONE
///   state NODE STATE                  allocate SHARD NODE           place SHARD: REPLICA@NODE … => REPLICA@NODE …
///   map SHARD                         revision
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
    if line == "revision" {
        return state.topology().map_or("none".into(), |topology| topology.revision.to_string());
    }
    if let Some(shard) = line.strip_prefix("map ") {
        let topology = state.topology().unwrap();
        let shard = topology.shard(ShardId(shard.parse().unwrap())).unwrap();
        return list(&shard.replicas);
    }
    let before = state.clone();
    let (outcome, changes) = state.apply(&command(line));
    match outcome {
        Outcome::Done if changes.is_empty() => "nothing to do".into(),
        Outcome::Done => "done".into(),
        Outcome::Node(id) => format!("node {id}"),
        Outcome::Replica(id) => format!("replica {id}"),
        Outcome::Refused(reason) => {
            assert!(changes.is_empty() && *state == before, "a refused command changes nothing: {line}");
            reason
        }
    }
}

fn command(line: &str) -> Command {
    let words: Vec<&str> = line.split_whitespace().collect();
    let id = |word: &str| NodeId(word.parse().unwrap());
    let zone = |at: usize| words.get(at).copied().unwrap_or_default().to_string();
    match words[0] {
        "found" => common::founding_of(words[1].parse().unwrap(), words[2].parse().unwrap()),
        "register" => Command::RegisterNode { addresses: common::addresses(words[1]), zone: zone(2), weight: 100 },
        "update" => {
            Command::UpdateNode { id: id(words[1]), addresses: common::addresses(words[2]), zone: zone(3), weight: 100 }
        }
        "state" => Command::SetNodeState { id: id(words[1]), state: node_state(words[2]) },
        "allocate" => Command::AllocateReplica { shard: ShardId(words[1].parse().unwrap()), node: id(words[2]) },
        "place" => {
            let (shard, sets) = line["place ".len()..].split_once(':').unwrap();
            let (expected, replicas) = sets.split_once("=>").unwrap();
            let shard = ShardId(shard.parse().unwrap());
            Command::PlaceShard { shard, expected: placements(expected), replicas: placements(replicas) }
        }
        other => panic!("unknown command {other}"),
    }
}

fn node_state(word: &str) -> NodeState {
    match word {
        "joining" => NodeState::Joining,
        "active" => NodeState::Active,
        "draining" => NodeState::Draining,
        "removed" => NodeState::Removed,
        other => panic!("unknown state {other}"),
    }
}

fn placements(text: &str) -> Vec<Placement> {
    let one = |word: &str| {
        let (replica, node) = word.split_once('@').unwrap();
        common::placement(replica.parse().unwrap(), node.parse().unwrap())
    };
    text.split_whitespace().map(one).collect()
}

fn list(replicas: &[Placement]) -> String {
    replicas.iter().map(|at| format!("{}@{}", at.replica, at.node)).collect::<Vec<_>>().join(" ")
}

/// A cluster is founded once. The same order again is harmless, another one is refused, and nothing else works before.
#[test]
fn a_cluster_is_founded_once() {
    story(
        "
        register host-1   -> the cluster is not founded yet
        allocate 1 1      -> the cluster is not founded yet
        revision          -> none
        found 3 4         -> done
        revision          -> 1
        found 3 4         -> nothing to do
        found 4 4         -> the cluster is founded already, as 000000000000000000000000000000c1, by another order
        found 3 5         -> the cluster is founded already, as 000000000000000000000000000000c1, by another order
        revision          -> 1
        ",
    );
}

/// A fourth node comes, takes a replica, gives it back, and goes. Ids of nodes and replicas are never given out again.
#[test]
fn a_node_comes_and_goes() {
    story(
        "
        found 3 2                                   -> done
        map 1                                       -> 4@3 5@2 6@1
        register host-4 b                           -> node 4
        register host-4 b                           -> node 4
        allocate 1 4                                -> node 4 is joining; only an active node is given replicas
        state 4 active                              -> done
        state 4 active                              -> nothing to do
        allocate 1 4                                -> replica 10
        place 1: 4@3 5@2 6@1 => 4@3 5@2 10@4        -> done
        place 1: 4@3 5@2 6@1 => 4@3 5@2 10@4        -> nothing to do
        map 1                                       -> 4@3 5@2 10@4
        state 4 draining                            -> done
        allocate 2 4                                -> node 4 is draining; only an active node is given replicas
        state 4 removed                             -> node 4 still has a replica of shard 1 in the map, and 0 more
        place 1: 4@3 5@2 10@4 => 4@3 5@2 6@1        -> replica 6 was not given out for shard 1 on node 1, or was used or given up since
        allocate 1 1                                -> replica 11
        place 1: 4@3 5@2 10@4 => 4@3 5@2 11@1       -> done
        state 4 removed                             -> done
        place 1: 4@3 5@2 11@1 => 4@3 5@2 10@4       -> replica 10 was not given out for shard 1 on node 4, or was used or given up since
        update 4 host-4                             -> node 4 was removed
        state 4 active                              -> node 4 is removed and cannot become active: a node goes from joining to active to draining to removed, and from draining back to active
        register host-4 b                           -> node 5
        ",
    );
}

/// The map changes only from where the caller thinks it is, and only to what was given out for exactly that place.
#[test]
fn a_placement_is_compared_and_checked() {
    story(
        "
        found 4 2                                   -> done
        map 1                                       -> 4@4 5@3 6@2
        allocate 1 1                                -> replica 10
        place 1: 4@4 5@3 => 4@4 5@3 10@1            -> the map has shard 1 at [4 on 4, 5 on 3, 6 on 2], not at [4 on 4, 5 on 3]
        place 1: 4@4 5@3 6@2 => 4@4 5@3 10@2        -> replica 10 was not given out for shard 1 on node 2, or was used or given up since
        allocate 2 1                                -> replica 11
        place 1: 4@4 5@3 6@2 => 4@4 5@3 11@1        -> replica 11 was not given out for shard 1 on node 1, or was used or given up since
        place 1: 4@4 5@3 6@2 => 4@4 5@3 99@1        -> replica 99 was not given out for shard 1 on node 1, or was used or given up since
        place 1: 4@4 5@3 6@2 => 4@4 5@3 7@1         -> replica 7 was not given out for shard 1 on node 1, or was used or given up since
        place 1: 4@4 5@3 6@2 => 4@4 5@3 4@4         -> the replicas [4 on 4, 5 on 3, 4 on 4] are not on distinct nodes
        place 1: 4@4 5@3 6@2 => 4@4 4@3 6@2         -> the replicas [4 on 4, 4 on 3, 6 on 2] are not distinct
        place 1: 4@4 5@3 6@2 =>                     -> a shard of this cluster has 3 replicas, not 0
        place 9: => 4@4                             -> there is no shard 9
        allocate 9 1                                -> there is no shard 9
        allocate 1 9                                -> there is no node 9
        place 1: 4@4 5@3 6@2 => 5@3 4@4 6@2         -> done
        map 1                                       -> 5@3 4@4 6@2
        ",
    );
}

/// Allocations show in no topology, so they raise no revision; everything else does, by one.
#[test]
fn the_revision_counts_what_a_topology_shows() {
    story(
        "
        found 4 2                                   -> done
        revision                                    -> 1
        allocate 1 1                                -> replica 10
        revision                                    -> 1
        place 1: 4@4 5@3 6@2 => 4@4 5@3 10@1        -> done
        revision                                    -> 2
        register host-9                             -> node 5
        revision                                    -> 3
        state 5 draining                            -> node 5 is joining and cannot become draining: a node goes from joining to active to draining to removed, and from draining back to active
        revision                                    -> 3
        ",
    );
}

/// Addresses belong to one node at a time. Whoever asks for an id at the addresses of a node that holds replicas has lost its
/// data directory: it must not get the old id back.
#[test]
fn addresses_are_nobody_elses() {
    story(
        "
        found 3 1                     -> done
        register host-2               -> the addresses belong to node 2, which is active; if it lost its data directory, drain and remove it first, or start the new node at other addresses
        register host-4               -> node 4
        update 4 host-3               -> the address host-3:1 belongs to node 3
        update 4 host-5 c             -> done
        update 4 host-5 c             -> nothing to do
        register host-4               -> node 5
        update 7 host-7               -> there is no node 7
        ",
    );
}

/// Operations that were abandoned leave ids behind; the oldest of a shard is given up for the next.
#[test]
fn outstanding_replica_ids_are_bounded() {
    let mut state = ClusterState::default();
    run(&mut state, "found 4 2");
    let most = quorate_topology::OUTSTANDING_PER_SHARD_MAX as u64;
    for i in 0..=most {
        assert_eq!(run(&mut state, "allocate 1 1"), format!("replica {}", 10 + i));
    }
    let given_up = "replica 10 was not given out for shard 1 on node 1, or was used or given up since";
    assert_eq!(run(&mut state, "place 1: 4@4 5@3 6@2 => 4@4 5@3 10@1"), given_up);
    assert_eq!(run(&mut state, "place 1: 4@4 5@3 6@2 => 4@4 5@3 11@1"), "done");
}
