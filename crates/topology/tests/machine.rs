//! The machine over a state store: the records it writes and reads back, and the topologies it
//! publishes.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quorate_machine::keys::Space;
use quorate_machine::state::{Batch, MemoryState, State, StateError};
use quorate_machine::{ReplicaState, Reply};
use quorate_topology::{Published, TopologyMachine, read_cluster};
use quorate_types::operation::{Intent, OperationId, ReplicaMove};
use quorate_types::topology::{Command, Outcome, Topology};
use quorate_types::{Entry, GroupId, LogId, NodeId, ReplicaId};

const REPLICA: ReplicaId = ReplicaId(1);

fn entry(index: u64, command: &Command) -> Entry {
    Entry::normal(LogId { term: 1, leader: REPLICA, index }, Bytes::from(command.encode()))
}

fn commands() -> Vec<Command> {
    let register = Command::RegisterNode { addresses: common::addresses("late"), zone: "z".into(), weight: 100 };
    vec![
        common::bootstrap_of(3, 2),
        register.clone(),
        register,
        Command::StartOperation {
            intent: Intent::Add { node: NodeId(4) },
            planned_on: 0,
            confirm: String::new(),
            now_ms: 1,
        },
        Command::StartMove {
            group: GroupId(1),
            from: Some(ReplicaId(4)),
            to: Some(NodeId(4)),
            operation: OperationId(1),
        },
        Command::StartOperation {
            intent: Intent::Remove { node: NodeId(3), dead: false },
            planned_on: 0,
            confirm: String::new(),
            now_ms: 2,
        },
        Command::FinishMove(moving()),
    ]
}

fn moving() -> ReplicaMove {
    ReplicaMove {
        group: GroupId(1),
        from: Some(common::placement(4, 3)),
        to: Some(common::placement(10, 4)),
        operation: OperationId(1),
        cancelled: false,
    }
}

fn reply(outcome: Outcome) -> Option<Reply> {
    Some(Reply::Topology(outcome))
}

fn entries() -> Vec<Entry> {
    (0..).zip(commands()).map(|(index, command)| entry(index, &command)).collect()
}

fn open(state: &Arc<MemoryState>, published: &Arc<Published>) -> Result<ReplicaState<TopologyMachine>, StateError> {
    let published = published.clone();
    ReplicaState::open(state.clone(), REPLICA, move |replica, view| {
        TopologyMachine::open(replica, view, published.clone())
    })
}

fn stored(state: &MemoryState) -> Option<Topology> {
    let mut topology = None;
    let read = &mut |view: &dyn quorate_machine::state::View| {
        topology = read_cluster(view, REPLICA)?.topology();
        Ok(())
    };
    state.view(read).unwrap();
    topology
}

/// A published topology, and the list of published revisions.
fn publisher() -> (Arc<Published>, Arc<Mutex<Vec<u64>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = told.clone();
    (Published::new(move |topology| list.lock().unwrap().push(topology.revision)), told)
}

/// Replies and the stored topology do not depend on the batches.
#[test]
fn batches_do_not_change_the_result() {
    let mut results = Vec::new();
    for size in [1, 2, 3, 7] {
        let state = Arc::new(MemoryState::new());
        let mut replica = open(&state, &publisher().0).unwrap();
        let replies: Vec<_> = entries().chunks(size).flat_map(|batch| replica.apply(batch).unwrap()).collect();
        results.push((replies, stored(&state).unwrap(), replica.head().revision));
    }
    let (replies, topology, revision) = &results[0];
    assert_eq!(
        replies.iter().flatten().filter(|reply| matches!(reply, Reply::Topology(Outcome::Refused(_)))).count(),
        1
    );
    assert_eq!(
        (replies[1].clone(), replies[2].clone()),
        (reply(Outcome::Node(NodeId(4))), reply(Outcome::Node(NodeId(4))))
    );
    assert_eq!(replies[3], reply(Outcome::Operation { id: OperationId(1), already: false }));
    assert_eq!((&replies[4], &replies[6]), (&reply(Outcome::Move(moving())), &reply(Outcome::Done)));
    assert_eq!((topology.revision, *revision), (5, 5));
    assert!(results.iter().all(|result| result == &results[0]));
}

/// A topology is stored before it is published, each revision once, and never an older one.
#[test]
fn a_change_is_published_after_it_is_stored() {
    let state = Arc::new(MemoryState::new());
    let told = Arc::new(Mutex::new(Vec::new()));
    let published = Published::new({
        let (state, told) = (state.clone(), told.clone());
        move |topology| {
            assert_eq!(stored(&state).as_ref(), Some(&*topology), "the published topology is the stored one");
            told.lock().unwrap().push(topology.revision);
        }
    });
    let mut replica = open(&state, &published).unwrap();
    assert_eq!(published.latest(), None);
    for entry in entries() {
        replica.apply(&[entry]).unwrap();
    }
    assert_eq!(*told.lock().unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(published.latest().as_deref(), stored(&state).as_ref());
    assert_eq!(replica.machine().cluster().topology(), stored(&state));
}

/// A restarted replica publishes its stored topology. After a crash it replays the unflushed
/// entries and publishes nothing twice.
#[test]
fn replay_publishes_nothing_twice() {
    let state = Arc::new(MemoryState::new());
    let (published, told) = publisher();
    let mut replica = open(&state, &published).unwrap();
    replica.apply(&entries()[..2]).unwrap();
    state.flush().unwrap();
    replica.apply(&entries()[2..]).unwrap();
    drop(replica);

    let (restarted, told_after_restart) = publisher();
    let replica = open(&state, &restarted).unwrap();
    assert_eq!(replica.machine().cluster().topology(), published.latest().as_deref().cloned());
    assert_eq!(*told_after_restart.lock().unwrap(), [5]);
    drop(replica);

    state.crash();
    let mut replica = open(&state, &published).unwrap();
    assert_eq!(stored(&state).unwrap().revision, 2);
    let next = replica.head().applied.unwrap().index as usize + 1;
    assert_eq!(next, 2);
    replica.apply(&entries()[next..]).unwrap();
    assert_eq!(stored(&state).unwrap().revision, 5);
    assert_eq!(*told.lock().unwrap(), [2, 5]);
}

/// The counters survive a restart: the id of a cancelled replica is not given out again.
#[test]
fn ids_are_given_out_once_across_restarts() {
    let state = Arc::new(MemoryState::new());
    let (published, _) = publisher();
    open(&state, &published).unwrap().apply(&entries()[..5]).unwrap();
    let mut replica = open(&state, &published).unwrap();
    let cancelled = Command::FinishCancelledMove(moving());
    let Command::StartMove { .. } = &commands()[4] else { panic!("the fifth command starts a move") };
    let replies = replica.apply(&[entry(5, &cancelled), entry(6, &commands()[4])]).unwrap();
    let Some(Reply::Topology(Outcome::Move(again))) = &replies[1] else { panic!("{replies:?}") };
    assert_eq!(again.to.unwrap().replica, ReplicaId(11));
}

/// A corrupt proposal or record stops the replica.
#[test]
fn corruption_stops_the_replica() {
    let state = Arc::new(MemoryState::new());
    let (published, _) = publisher();
    let mut replica = open(&state, &published).unwrap();
    let garbage = Entry::normal(LogId { term: 1, leader: REPLICA, index: 0 }, Bytes::from_static(b"garbage"));
    assert!(matches!(replica.apply(&[garbage]), Err(StateError::Corrupt { replica: REPLICA, .. })));

    let operations = vec![(Space::Table, b"n\0\0\0\0\0\0\0\x01".to_vec(), Some(b"garbage".to_vec()))];
    state.write(REPLICA, Batch { operations }).unwrap();
    assert!(matches!(open(&state, &published), Err(StateError::Corrupt { replica: REPLICA, .. })));
}
