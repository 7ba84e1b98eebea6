//! Stories that are no scripts, because scripts run on one thread and on paused time.
//!
//! * Destruction during an installation: the installation blocks its thread while another thread
//!   destroys the replica.
//! * An election during a verification: the verification blocks its thread while the voters elect.
//! * Writes during leader transfers: the property is a rate under load. It depends on how real
//!   threads interleave, of which a script shows a single case.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quorate_machine::state::{Call, ObservedState, Observer, StateError};
use quorate_raft::SnapshotFaults;
use quorate_types::report::OrderKind;
use quorate_types::{Command, Rejection};

use crate::group::{Group, SHARD, replica};

/// How long an election may take on a loaded machine: ten times the 1.5 s of a free one.
const LEADER_WITHIN: Duration = Duration::from_secs(15);

/// The step of an installation that a gate delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gated {
    Verification,
    Ingestion,
}

/// Delays the installation of snapshots.
struct Gate {
    step: Gated,
    /// Locked while installations wait.
    closed: Mutex<()>,
    /// An installation reached the gate.
    reached: AtomicBool,
    /// An installation passed the gate, and its files were missing.
    files_missing: AtomicBool,
}

impl Gate {
    fn pass(&self, step: Gated) {
        if self.step == step {
            self.reached.store(true, Ordering::SeqCst);
            drop(self.closed.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// A gate that is closed until this is dropped.
struct Closed {
    gate: Arc<Gate>,
    holder: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Closed {
    /// A closed gate. A thread of its own holds it closed: a guard cannot be held across awaits.
    fn new(step: Gated) -> Self {
        let (closed, reached, files_missing) = (Mutex::default(), AtomicBool::default(), AtomicBool::default());
        let gate = Arc::new(Gate { step, closed, reached, files_missing });
        let (open, until) = channel::<()>();
        let (locked, is_locked) = channel();
        let holding = gate.clone();
        let thread = std::thread::spawn(move || {
            let _closed = holding.closed.lock().unwrap();
            locked.send(()).unwrap();
            let _ = until.recv();
        });
        is_locked.recv().unwrap();
        Closed { gate, holder: Some((open, thread)) }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        if let Some((open, thread)) = self.holder.take() {
            drop(open);
            thread.join().unwrap();
        }
    }
}

/// Holds the verification or the installation of a snapshot at the gate.
struct AtGate(Arc<Gate>);

impl Observer for AtGate {
    fn before(&self, call: Call<'_>) -> Result<(), StateError> {
        match call {
            Call::Verify => self.0.pass(Gated::Verification),
            Call::Install(files) => {
                self.0.pass(Gated::Ingestion);
                if !files.iter().all(|file| file.exists()) {
                    self.0.files_missing.store(true, Ordering::SeqCst);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The files of a snapshot stay until its installation has ended, also if the replica is destroyed
/// meanwhile. They were deleted earlier, and the node took their absence for a failed disk.
#[tokio::test(flavor = "multi_thread")]
async fn snapshot_files_outlive_the_installation_of_a_destroyed_replica() {
    let mut group = Group::begin().await;
    let away = leave_one_behind(&mut group).await;
    let closed = Closed::new(Gated::Ingestion);
    let gate = closed.gate.clone();
    let state = ObservedState::new(group.nodes[&away].disk.state.clone(), AtGate(gate.clone()));
    group.start_on(away, Arc::new(state)).await;
    group.until("an installation", |_| gate.reached.load(Ordering::SeqCst).then_some(())).await;
    let groups = group.groups(away).clone();
    let destroyed = tokio::spawn(async move { groups.destroy(replica(away)).await });
    // The follower was down before: that it could not be reached is an older failure.
    let ended = |group: &Group| group.failure().filter(|reason| !reason.contains("cannot be reached"));
    group.until("the end of the call", ended).await;
    drop(closed);
    destroyed.await.unwrap().unwrap();
    assert!(!gate.files_missing.load(Ordering::SeqCst), "the installation found its files");
    group.end().await;
}

/// A voter that verifies a snapshot votes: the leader crashes meanwhile, and the third node needs
/// that vote. The verification took place inside Raft's installation, and the voter was mute until
/// its end.
#[tokio::test(flavor = "multi_thread")]
async fn voter_votes_while_it_verifies_a_snapshot() {
    let mut group = Group::begin().await;
    let away = leave_one_behind(&mut group).await;
    let closed = Closed::new(Gated::Verification);
    let state = ObservedState::new(group.nodes[&away].disk.state.clone(), AtGate(closed.gate.clone()));
    group.start_on(away, Arc::new(state)).await;
    group.until("a verification", |_| closed.gate.reached.load(Ordering::SeqCst).then_some(())).await;
    let old = group.until("a leader", |group| group.leader(None)).await;
    let began = Instant::now();
    group.crash(old).await;
    let new = group.until("a new leader", |group| group.leader(Some(old))).await;
    assert!(began.elapsed() < LEADER_WITHIN, "node {new} leads after {:?}", began.elapsed());
    assert_ne!(new, away, "the verifying voter lacks entries");
    drop(closed);
    put(&mut group, "green").await;
    group.start(old).await;
    let installed = |group: &Group| group.shard(away).replica().status().snapshots_installed;
    group.until("an installation", |group| (installed(group) > 0).then_some(())).await;
    group.end().await;
}

/// A bad snapshot is refused with the reason, and the replica that refused it lives: it votes, and
/// converges from the next snapshot. It ended the process, which got the same snapshot again.
#[tokio::test(start_paused = true)]
async fn bad_snapshot_is_refused_and_the_replica_converges_from_the_next_one() {
    let mut group = Group::begin().await;
    let away = leave_one_behind(&mut group).await;
    group.network.snapshot_faults(SnapshotFaults { spoil: 1, ..SnapshotFaults::default() });
    group.start(away).await;
    let refusal = |group: &Group| group.failure().filter(|reason| reason.contains("refuses the snapshot as bad"));
    let reason = group.until("a refusal", refusal).await;
    assert!(reason.contains("checksum"), "{reason}");
    assert_eq!(group.shard(away).replica().status().snapshots_installed, 0);
    let hash = |group: &Group, id| group.hash(id);
    group.until("equal states", |group| (hash(group, away) == hash(group, away % 3 + 1)).then_some(())).await;
    assert_eq!(group.shard(away).replica().status().snapshots_installed, 1);
    group.end().await;
}

/// Crashes a follower, writes, and purges the entries that it misses. Returns the follower.
async fn leave_one_behind(group: &mut Group) -> u64 {
    put(group, "blue").await;
    let leader = group.leader(None);
    let away = (1..=3).find(|id| Some(*id) != leader).unwrap();
    group.crash(away).await;
    for n in 0..600 {
        put(group, &format!("shade {n}")).await;
    }
    let mut purged = 0;
    for id in group.running() {
        purged += group.groups(id).compact().await.unwrap();
    }
    assert!(purged > 0, "entries were purged");
    away
}

async fn put(group: &mut Group, value: &str) {
    let put = group.next_put("color", value);
    group.apply(put).await;
}

/// While a leadership is transferred, clients wait at the old leader until the new one leads. They
/// were redirected to a replica that did not lead yet, and by that one back, with longer and longer
/// pauses. (Where the machine stalls for longer than requests wait, they still are.)
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_transferred_leadership_are_redirected_once() {
    const TRANSFERS: usize = 20;
    const PER_TRANSFER: usize = 20;
    let mut group = Group::begin().await;
    let (mut transferred, mut circled) = (0, 0);
    for _ in 0..TRANSFERS {
        group.until("a leader", |group| group.leader(None)).await;
        put(&mut group, "blue").await;
        let Some(old) = group.leader(None) else { continue };
        let new = old % 3 + 1;
        let puts = (0..PER_TRANSFER).map(|n| group.next_put("color", &n.to_string())).collect();
        let order = OrderKind::TransferLeader(replica(new));
        // It lacks no entry a moment after a put.
        let transfer = group.groups(old).execute(SHARD.group(), order, Duration::from_secs(5));
        let (redirected, transfer) = tokio::join!(redirected_more_than_once(&group, old, puts), transfer);
        transferred += usize::from(transfer.is_ok());
        circled += redirected;
    }
    assert!(transferred > TRANSFERS / 2, "{transferred} of {TRANSFERS} leaderships were transferred");
    assert!(circled <= TRANSFERS / 4, "{circled} writes of {TRANSFERS} transfers were redirected more than once");
    group.end().await;
}

/// Writes in sequence, at node `at` first. Returns the number of writes that were redirected more
/// than once.
async fn redirected_more_than_once(group: &Group, mut at: u64, puts: Vec<Command>) -> usize {
    let mut circled = 0;
    for put in puts {
        let mut redirects = 0;
        // A retry gets the outcome of the first try, if it had one.
        while let Err(rejection) = group.shard(at).write(vec![put.clone()], Duration::from_secs(2)).await {
            match rejection {
                Rejection::NotLeader { leader: Some(leader) } => {
                    redirects += 1;
                    at = leader.0;
                }
                Rejection::NotLeader { leader: None } | Rejection::Unknown { .. } => {}
                Rejection::Unavailable { .. } => {}
                rejection => panic!("{rejection}"),
            }
        }
        circled += usize::from(redirects > 1);
    }
    circled
}
