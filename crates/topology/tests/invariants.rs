//! What holds after any sequence of commands, sensible or not.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use quorate_ring::ArcTable;
use quorate_topology::{Change, ClusterState, Record};
use quorate_types::topology::{Command, NodeState, Outcome, Placement, Topology};
use quorate_types::{NodeId, ReplicaId, ShardId};

/// A command that is chosen when the state is known, so that many of them are accepted.
#[derive(Clone, Debug)]
enum Step {
    Register(u8),
    Update(u64, u8),
    State(u64, u8),
    Allocate(u32, u64),
    /// Puts the `pick`-th id given out so far in the place of one of the shard's replicas, on the node it was given out for.
    Replace {
        shard: u32,
        pick: usize,
        place: usize,
    },
    /// Sets a shard's replicas to any ids on any nodes.
    Forge {
        shard: u32,
        replicas: Vec<(u64, u64)>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let node = 1..9_u64;
    let shard = 1..5_u32;
    prop_oneof![
        1 => (0..6_u8).prop_map(Step::Register),
        1 => (node.clone(), 0..6_u8).prop_map(|(node, host)| Step::Update(node, host)),
        4 => (node.clone(), 0..4_u8).prop_map(|(node, state)| Step::State(node, state)),
        4 => (shard.clone(), node.clone()).prop_map(|(shard, node)| Step::Allocate(shard, node)),
        6 => (shard.clone(), 0..8_usize, 0..3_usize)
            .prop_map(|(shard, pick, place)| Step::Replace { shard, pick, place }),
        1 => (shard, proptest::collection::vec((1..40_u64, node), 2..5))
            .prop_map(|(shard, replicas)| Step::Forge { shard, replicas }),
    ]
}

fn command(step: Step, topology: &Topology, given_out: &[(ShardId, Placement)]) -> Command {
    let addresses = |host: u8| common::addresses(&format!("late-{host}"));
    let current = |shard: ShardId| topology.shard(shard).map(|shard| shard.replicas.clone()).unwrap_or_default();
    match step {
        Step::Register(host) => Command::RegisterNode { addresses: addresses(host), zone: "z".into(), weight: 100 },
        Step::Update(node, host) => {
            Command::UpdateNode { id: NodeId(node), addresses: addresses(host), zone: "y".into(), weight: 50 }
        }
        Step::State(node, state) => {
            let states = [NodeState::Joining, NodeState::Active, NodeState::Draining, NodeState::Removed];
            Command::SetNodeState { id: NodeId(node), state: states[state as usize] }
        }
        Step::Allocate(shard, node) => Command::AllocateReplica { shard: ShardId(shard), node: NodeId(node) },
        Step::Replace { shard, pick, place } => {
            let shard = ShardId(shard);
            let expected = current(shard);
            let mut replicas = expected.clone();
            // Mostly the newest ones for this shard; ids that left the map and ids of other shards too.
            if let Some(&(_, new)) = given_out.iter().rev().filter(|(of, _)| *of == shard || pick > 5).nth(pick / 2) {
                replicas[place] = new;
            }
            Command::PlaceShard { shard, expected, replicas }
        }
        Step::Forge { shard, replicas } => {
            let shard = ShardId(shard);
            let replicas = replicas.into_iter().map(|(replica, node)| common::placement(replica, node)).collect();
            Command::PlaceShard { shard, expected: current(shard), replicas }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commands_keep_the_invariants(steps in proptest::collection::vec(step(), 1..80)) {
        let mut state = ClusterState::default();
        let mut records: BTreeMap<Vec<u8>, Record> = BTreeMap::new();
        let mut given_out: Vec<(ShardId, Placement)> = Vec::new();
        // Where each replica id was first seen, for ever; and those that left the map.
        let mut homes: BTreeMap<ReplicaId, (ShardId, NodeId)> = BTreeMap::new();
        let mut left: BTreeSet<ReplicaId> = BTreeSet::new();
        let mut ids: BTreeSet<NodeId> = BTreeSet::new();

        let found = common::founding_of(4, 4);
        for step in std::iter::once(None).chain(steps.into_iter().map(Some)) {
            let before = state.topology();
            let command = match (step, &before) {
                (Some(step), Some(topology)) => command(step, topology, &given_out),
                _ => found.clone(),
            };
            let (outcome, changes) = state.apply(&command);
            for change in &changes {
                match change {
                    Change::Put(record) => drop(records.insert(record.key(), record.clone())),
                    Change::Forget(id) => records.retain(|_, record| !matches!(record, Record::Allocation(a) if a.placement.replica == *id)),
                }
            }
            prop_assert_eq!(&ClusterState::from_records(records.values().cloned()), &state, "the records say the state");

            let topology = state.topology().unwrap();
            let revision = before.as_ref().map_or(0, |before| before.revision);
            let same = before.as_ref().is_some_and(|before| Topology { revision: topology.revision, ..before.clone() } == topology);
            prop_assert_eq!(topology.revision, revision + u64::from(!same));
            if matches!(outcome, Outcome::Refused(_)) {
                prop_assert!(same && changes.is_empty());
            }

            if let (Outcome::Replica(replica), Command::AllocateReplica { shard, node }) = (&outcome, &command) {
                prop_assert!(!homes.contains_key(replica), "replica {} was given out twice", replica);
                homes.insert(*replica, (*shard, *node));
                given_out.push((*shard, Placement { replica: *replica, node: *node }));
            }
            prop_assert!(ArcTable::new(topology.shards.iter().map(|shard| (shard.id, shard.arc))).is_ok());
            for shard in &topology.shards {
                let nodes: BTreeSet<NodeId> = shard.replicas.iter().map(|at| at.node).collect();
                prop_assert_eq!((nodes.len(), shard.replicas.len()), (3, 3), "replicas on distinct nodes");
                for &Placement { replica, node } in &shard.replicas {
                    prop_assert_eq!(*homes.entry(replica).or_insert((shard.id, node)), (shard.id, node), "replica {} stays where it is", replica);
                    prop_assert!(!left.contains(&replica), "replica {} came back", replica);
                    prop_assert!(topology.node(node).is_some_and(|node| node.state != NodeState::Removed && node.state != NodeState::Joining));
                }
            }
            for shard in before.iter().flat_map(|before| &before.shards) {
                let now = &topology.shard(shard.id).unwrap().replicas;
                left.extend(shard.replicas.iter().filter(|at| !now.contains(at)).map(|at| at.replica));
            }
            for node in &topology.nodes {
                ids.insert(node.id);
            }
            prop_assert_eq!(ids.len(), topology.nodes.len(), "no node is ever forgotten");
        }
    }
}
