//! Groups of three replicas in memory, told as stories: elections, partitions, restarts, snapshots.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorate_machine::log::MemoryLog;
use quorate_machine::state::{Batch, MemoryState, Pinned, State, StateError, View};
use quorate_machine::state_hash;
use quorate_types::clock::SystemClock;
use quorate_types::peer::SnapshotMeta;
use quorate_types::report::OrderKind;
use quorate_types::topology::Placement;
use quorate_types::{
    Command, Key, Mutation, NodeId, Outcome, ReadLevel, Rejection, ReplicaId, SessionId, SessionStamp, ShardId, Token,
    TokenArc, Value, Write,
};
use tempfile::TempDir;

use crate::{Groups, LOG_RETAINED_ENTRIES, MemoryNetwork, Options, OrderError, Shard, Timing};

const SHARD: ShardId = ShardId(1);
const EPOCH: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(20);

/// One node: what survives a crash, and what does not.
struct Node {
    id: NodeId,
    log: Arc<MemoryLog>,
    state: Arc<MemoryState>,
    snapshots: TempDir,
    gate: Arc<Gate>,
    running: Option<(Groups, Shard)>,
}

/// Holds installations of snapshots up.
#[derive(Default)]
struct Gate {
    /// Held by whoever wants them to wait.
    closed: Mutex<()>,
    /// An installation has come to the gate.
    reached: AtomicBool,
    /// One came through, and its files were not there any more.
    bereft: AtomicBool,
}

struct GatedState {
    state: Arc<MemoryState>,
    gate: Arc<Gate>,
}

impl State for GatedState {
    fn view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), StateError>) -> Result<(), StateError> {
        self.state.view(read)
    }

    fn write(&self, replica: ReplicaId, batch: Batch) -> Result<(), StateError> {
        self.state.write(replica, batch)
    }

    fn flush(&self) -> Result<(), StateError> {
        self.state.flush()
    }

    fn pin(&self, replica: ReplicaId) -> Result<Box<dyn Pinned>, StateError> {
        self.state.pin(replica)
    }

    fn install(&self, replica: ReplicaId, files: &[PathBuf], meta: &SnapshotMeta) -> Result<(), StateError> {
        self.gate.reached.store(true, Ordering::SeqCst);
        drop(self.gate.closed.lock().unwrap_or_else(PoisonError::into_inner));
        if !files.iter().all(|file| file.exists()) {
            self.gate.bereft.store(true, Ordering::SeqCst);
        }
        self.state.install(replica, files, meta)
    }

    fn destroy(&self, replica: ReplicaId) -> Result<(), StateError> {
        self.state.destroy(replica)
    }

    fn approximate_bytes(&self, replica: ReplicaId) -> u64 {
        self.state.approximate_bytes(replica)
    }

    fn replicas(&self) -> Result<Vec<ReplicaId>, StateError> {
        self.state.replicas()
    }
}

/// Three nodes with one group.
struct Story {
    network: MemoryNetwork,
    nodes: Vec<Node>,
    session: SessionId,
    sequence: u64,
}

fn initial_replicas() -> Vec<Placement> {
    (1..=3).map(|n| Placement { replica: ReplicaId(10 + n), node: NodeId(n) }).collect()
}

impl Story {
    /// Three nodes whose group has no members yet.
    async fn prologue() -> Self {
        let nodes = (1..=3)
            .map(|id| Node {
                id: NodeId(id),
                log: Arc::new(MemoryLog::new(true)),
                state: Arc::new(MemoryState::new()),
                snapshots: TempDir::new().unwrap(),
                gate: Arc::default(),
                running: None,
            })
            .collect();
        let mut story = Story { network: MemoryNetwork::default(), nodes, session: SessionId(0), sequence: 0 };
        for index in 0..3 {
            story.start(index).await;
        }
        story
    }

    async fn begin() -> Self {
        let mut story = Story::prologue().await;
        story.group(0).replica().initialize(&initial_replicas()).await.unwrap();
        let arc = TokenArc { start: Token(0), end: Token(0) };
        story.command(Command::Bootstrap { arc, epoch: EPOCH }).await;
        let Outcome::SessionOpened { session } = story.command(Command::OpenSession { epoch: EPOCH }).await else {
            panic!("a session opens");
        };
        story.session = session;
        story
    }

    async fn start(&mut self, index: usize) {
        let node = &self.nodes[index];
        let options = Options {
            node: node.id,
            timing: Timing::default(),
            snapshot_dir: node.snapshots.path().to_owned(),
            log_retained_bytes_per_group: 64 << 20,
            log_retained_bytes_per_node: 512 << 20,
            log_retained_entries: LOG_RETAINED_ENTRIES,
            on_fatal: Arc::new(|reason| panic!("fatal: {reason}")),
        };
        let transport = self.network.transport(node.id);
        let state = Arc::new(GatedState { state: node.state.clone(), gate: node.gate.clone() });
        let groups = Groups::new(options, node.log.clone(), state, transport, Arc::new(SystemClock));
        self.network.connect(node.id, groups.clone());
        let replica = initial_replicas()[index].replica;
        let group = groups.open_shard(SHARD, replica).await.unwrap();
        self.nodes[index].running = Some((groups, group));
    }

    /// Ends a node as a power cut would: what is not synced or flushed is gone.
    async fn crash(&mut self, index: usize) {
        let (groups, group) = self.nodes[index].running.take().unwrap();
        self.network.disconnect(self.nodes[index].id);
        groups.shutdown().await;
        drop((groups, group));
        self.nodes[index].log.crash();
        self.nodes[index].state.crash();
    }

    /// Crashes a follower, writes, and purges what it misses. Gives its index.
    async fn leave_one_behind(&mut self) -> usize {
        self.put("color", "blue").await;
        let away = (0..3).find(|index| Some(*index) != self.leader()).unwrap();
        self.crash(away).await;
        for n in 0..600 {
            self.put("color", &format!("shade {n}")).await;
        }
        let mut purged = 0;
        for index in self.running().collect::<Vec<_>>() {
            purged += self.nodes[index].running.as_ref().unwrap().0.compact().await.unwrap();
        }
        assert!(purged > 0, "nothing was purged");
        away
    }

    fn group(&self, index: usize) -> &Shard {
        &self.nodes[index].running.as_ref().unwrap().1
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..3).filter(|index| self.nodes[*index].running.is_some())
    }

    fn leader(&self) -> Option<usize> {
        self.running().find(|index| self.group(*index).replica().is_leader())
    }

    /// Sends a command to whoever leads until it is applied.
    async fn command(&self, command: Command) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{command:?} was never applied");
            for index in self.running() {
                let result = self.group(index).write(vec![command.clone()], Duration::from_secs(1)).await;
                if let Ok(applied) = result {
                    return applied.outcomes.into_iter().next().unwrap();
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn put(&mut self, key: &str, value: &str) -> Outcome {
        let put = self.next_put(key, value);
        self.command(put).await
    }

    fn next_put(&mut self, key: &str, value: &str) -> Command {
        self.sequence += 1;
        let stamp = SessionStamp { session: self.session, sequence: self.sequence, lowest: self.sequence };
        let key = Key::new(key.to_owned()).unwrap();
        let mutation = Mutation::Put(Value::new(value.to_owned()).unwrap());
        let write = Write { key, mutation, condition: None };
        Command::Write { epoch: EPOCH, stamp, write }
    }

    async fn get(&self, index: usize, key: &str, level: ReadLevel) -> Result<Option<String>, Rejection> {
        let keys = vec![Key::new(key.to_owned()).unwrap()];
        let group = self.group(index);
        group.read_barrier(level, Duration::from_secs(1)).await?;
        let reply = group.read(&keys, usize::MAX)?;
        let record = reply.records.into_iter().next().unwrap();
        Ok(record.map(|record| String::from_utf8(record.value.as_bytes().to_vec()).unwrap()))
    }

    /// Reads from whoever can confirm that it leads.
    async fn get_strong(&self, key: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "nobody could confirm that it leads");
            for index in self.running() {
                if let Ok(value) = self.get(index, key, ReadLevel::Strong).await {
                    return value;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn hash(&self, index: usize) -> String {
        let mut hash = String::new();
        self.nodes[index]
            .state
            .view(&mut |view| {
                hash = format!("{:?}", state_hash(view, initial_replicas()[index].replica)?);
                Ok(())
            })
            .unwrap();
        hash
    }

    async fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}: not in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(mut self) {
        for index in 0..3 {
            if let Some((groups, group)) = self.nodes[index].running.take() {
                groups.shutdown().await;
                drop((groups, group));
            }
        }
    }
}

/// A put is read back strong, and in the end by everybody.
#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_elect_a_leader_and_agree() {
    let mut story = Story::begin().await;
    assert!(matches!(story.put("color", "blue").await, Outcome::Written { .. }));
    assert_eq!(story.get_strong("color").await.as_deref(), Some("blue"));
    for index in 0..3 {
        story.until("eventual reads", |story| story.group(index).replica().serves_eventual()).await;
    }
    story.until("equal states", |story| story.hash(0) == story.hash(1) && story.hash(1) == story.hash(2)).await;
    for index in 0..3 {
        assert_eq!(story.get(index, "color", ReadLevel::Eventual).await, Ok(Some("blue".to_owned())));
    }
    story.end().await;
}

/// The others elect a new leader; the old one, cut off, can confirm nothing, and follows when it is
/// back.
#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_leader_confirms_no_read_and_acknowledges_no_write() {
    let mut story = Story::begin().await;
    story.put("color", "blue").await;
    let old = story.leader().unwrap();
    let others: Vec<usize> = (0..3).filter(|index| *index != old).collect();
    for &other in &others {
        story.network.cut(story.nodes[old].id, story.nodes[other].id);
        story.network.cut(story.nodes[other].id, story.nodes[old].id);
    }
    story.until("a new leader", |story| others.iter().any(|&other| story.group(other).replica().is_leader())).await;
    story.put("color", "red").await;
    assert!(story.get(old, "color", ReadLevel::Strong).await.is_err(), "it cannot know that it still leads");
    assert_eq!(story.get(old, "color", ReadLevel::Eventual).await, Ok(Some("blue".to_owned())));
    story.network.heal();
    story.until("the old leader follows", |story| !story.group(old).replica().is_leader()).await;
    assert_eq!(story.get_strong("color").await.as_deref(), Some("red"));
    story.until("equal states", |story| story.hash(0) == story.hash(1) && story.hash(1) == story.hash(2)).await;
    story.end().await;
}

/// The state goes back to its last flush, and the log brings back everything that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn everything_acknowledged_is_there_after_power_was_cut_everywhere() {
    let mut story = Story::begin().await;
    for n in 0..50 {
        story.put(&format!("key-{n}"), "kept").await;
    }
    for index in 0..3 {
        story.crash(index).await;
    }
    for index in 0..3 {
        story.start(index).await;
    }
    for n in 0..50 {
        assert_eq!(story.get_strong(&format!("key-{n}")).await.as_deref(), Some("kept"), "key-{n}");
    }
    story.end().await;
}

/// A follower misses entries that are purged meanwhile: it gets a snapshot, also of what was
/// overwritten.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_behind_the_purged_log_gets_a_snapshot() {
    let mut story = Story::begin().await;
    let away = story.leave_one_behind().await;
    story.start(away).await;
    story.until("a snapshot", |story| story.group(away).replica().status().snapshots_installed > 0).await;
    story.until("equal states", |story| story.hash(0) == story.hash(1) && story.hash(1) == story.hash(2)).await;
    assert_eq!(story.get(away, "color", ReadLevel::Eventual).await, Ok(Some("shade 599".to_owned())));
    story.end().await;
}

/// A snapshot that does not arrive showed nowhere but in the sender's log. When one has arrived,
/// the failure is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn the_leader_reports_why_a_snapshot_does_not_arrive() {
    let mut story = Story::begin().await;
    let away = story.leave_one_behind().await;
    let failure = |story: &Story| {
        let leader = story.leader()?;
        let reports = story.nodes[leader].running.as_ref().unwrap().0.reports();
        let followers = reports.into_iter().flat_map(|report| report.others);
        followers
            .filter(|other| other.replica == initial_replicas()[away].replica)
            .find_map(|other| other.snapshot_failure)
    };
    story.until("a failure", |story| failure(story).is_some_and(|reason| reason.contains("cannot be reached"))).await;
    story.start(away).await;
    story.until("a snapshot", |story| story.group(away).replica().status().snapshots_installed > 0).await;
    story.until("no failure any more", |story| story.leader().is_some() && failure(story).is_none()).await;
    story.end().await;
}

/// A replica was destroyed while it installed a snapshot: the files were deleted under the
/// installation, and the node took that for a disk that failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_was_deleted_while_a_destroyed_replica_installed_it() {
    let mut story = Story::begin().await;
    let away = story.leave_one_behind().await;
    let gate = story.nodes[away].gate.clone();
    let (open, closed) = std::sync::mpsc::channel::<()>();
    let holding = gate.clone();
    let holder = std::thread::spawn(move || {
        let _closed = holding.closed.lock().unwrap();
        closed.recv()
    });
    story.start(away).await;
    story.until("an installation", |_| gate.reached.load(Ordering::SeqCst)).await;
    let groups = story.nodes[away].running.as_ref().unwrap().0.clone();
    let destroyed = tokio::spawn(async move { groups.destroy(initial_replicas()[away].replica).await });
    let given_up = |story: &Story| {
        let leader = story.leader()?;
        let reports = story.nodes[leader].running.as_ref().unwrap().0.reports();
        reports.into_iter().flat_map(|report| report.others).find_map(|other| other.snapshot_failure)
    };
    story.until("the end of the call", |story| given_up(story).is_some()).await;
    open.send(()).unwrap();
    drop(holder.join());
    destroyed.await.unwrap().unwrap();
    assert!(!gate.bereft.load(Ordering::SeqCst), "its files were gone");
    story.end().await;
}

/// A transfer of leadership that was not begun is told apart from one that was begun and not seen
/// to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_was_begun_is_not_refused() {
    let mut story = Story::begin().await;
    story.put("color", "blue").await;
    let leader = story.leader().unwrap();
    let to = (0..3).find(|index| *index != leader).unwrap();
    let groups = story.nodes[leader].running.as_ref().unwrap().0.clone();
    let hand = |to: ReplicaId| groups.execute(SHARD.group(), OrderKind::TransferLeader(to), Duration::from_millis(100));
    assert!(matches!(hand(ReplicaId(99)).await, Err(OrderError::Refused(_))));
    // It answered a moment ago, so that it may lead; it never hears that it should.
    story.network.cut(story.nodes[leader].id, story.nodes[to].id);
    let begun = hand(initial_replicas()[to].replica).await;
    assert!(matches!(begun, Err(OrderError::Unknown(_))), "{begun:?}");
    story.network.heal();
    story.end().await;
}

/// While a leadership was handed over, clients were sent to a replica that did not lead yet, and by
/// that one back: they went around until it did, with longer and longer pauses. (Where the machine
/// stalls for longer than requests wait, they still do.)
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_leader_that_handed_over_were_sent_around() {
    const TRANSFERS: usize = 20;
    const PER_TRANSFER: usize = 20;
    let mut story = Story::begin().await;
    let (mut transfers, mut around) = (0, 0);
    for _ in 0..TRANSFERS {
        story.until("a leader", |story| story.leader().is_some()).await;
        story.put("color", "blue").await;
        let Some(old) = story.leader() else { continue };
        let new = (old + 1) % 3;
        let puts: Vec<Command> = (0..PER_TRANSFER).map(|n| story.next_put("color", &n.to_string())).collect();
        let writes = async {
            let mut at = old;
            let mut around = 0;
            for put in puts {
                let mut sent_away = 0;
                // A retry gets the outcome of the first try, if it had one.
                while let Err(rejection) = story.group(at).write(vec![put.clone()], Duration::from_secs(2)).await {
                    match rejection {
                        Rejection::NotLeader { leader: Some(leader) } => {
                            sent_away += 1;
                            at = story.nodes.iter().position(|node| node.id == leader).unwrap();
                        }
                        Rejection::NotLeader { leader: None } | Rejection::Unknown { .. } => {}
                        Rejection::Unavailable { .. } => {}
                        rejection => panic!("{rejection}"),
                    }
                }
                around += usize::from(sent_away > 1);
            }
            around
        };
        let runner = &story.nodes[old].running.as_ref().unwrap().0;
        let order = OrderKind::TransferLeader(initial_replicas()[new].replica);
        // It lacks nothing a moment after a put.
        let (sent_around, handed) = tokio::join!(writes, runner.execute(SHARD.group(), order, Duration::from_secs(5)));
        transfers += usize::from(handed.is_ok());
        around += sent_around;
    }
    assert!(transfers > TRANSFERS / 2, "{transfers} of {TRANSFERS} leaderships were handed over");
    assert!(around <= TRANSFERS / 4, "{around} writes of {TRANSFERS} transfers were sent around");
    story.end().await;
}

/// A retry with the same stamp gets the first outcome, also from a new leader after a crash.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_applied_once_across_a_change_of_leader() {
    let mut story = Story::begin().await;
    let first = story.put("color", "blue").await;
    let leader = story.leader().unwrap();
    story.crash(leader).await;
    story.sequence -= 1;
    assert_eq!(story.put("color", "blue").await, first, "the same stamp gets the same outcome");
    story.start(leader).await;
    assert_eq!(story.get_strong("color").await.as_deref(), Some("blue"));
    story.end().await;
}

/// A graceful stop hands leadership to a follower that is caught up: the group is never without a
/// leader for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_hands_over_before_it_stops() {
    let mut story = Story::begin().await;
    story.put("color", "blue").await;
    let old = story.leader().unwrap();
    let groups = story.nodes[old].running.as_ref().unwrap().0.clone();
    let deadline = Instant::now() + PATIENCE;
    while groups.transfer_leaderships(Duration::from_secs(2)).await > 0 {
        assert!(Instant::now() < deadline, "leadership was not handed over");
    }
    story.until("another leader", |story| story.leader().is_some_and(|leader| leader != old)).await;
    assert_eq!(story.get_strong("color").await.as_deref(), Some("blue"));
    story.end().await;
}

/// The followers' answers to an append are long on their way; meanwhile they follow another leader.
/// When the answers arrive, the first one commits the entry, and the second one must not count for
/// the message that tells of this commit: nobody has answered that one. (openraft takes it for the
/// answer to both, as both end at the same entry.)
#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_to_an_append_does_not_confirm_a_deposed_leader() {
    let mut story = Story::begin().await;
    story.put("color", "blue").await;
    let old = story.leader().expect("a put was just applied");
    let others: Vec<usize> = (0..3).filter(|index| *index != old).collect();
    let node = |index: usize| NodeId(index as u64 + 1);
    // Long enough that whatever the put left behind is answered.
    tokio::time::sleep(Duration::from_millis(100)).await;
    others.iter().for_each(|other| story.network.stall(node(*other), node(old)));
    let proposer = story.group(old).clone();
    let write = Command::OpenSession { epoch: EPOCH };
    let unacknowledged = tokio::spawn(async move { proposer.write(vec![write], Duration::from_secs(5)).await });
    let answered = |story: &Story| others.iter().all(|other| story.network.stalled(node(*other), node(old)) > 0);
    story.until("answers on their way", answered).await;
    // The append's answer may stand behind one to a heartbeat.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let answers: Vec<usize> = others.iter().map(|other| story.network.stalled(node(*other), node(old))).collect();
    others.iter().for_each(|other| story.network.cut(node(old), node(*other)));

    let leader = |story: &Story| others.iter().copied().find(|other| story.group(*other).replica().is_leader());
    story.until("another leader", |story| leader(story).is_some()).await;
    let put = story.next_put("color", "green");
    let new = leader(&story).expect("there was one a moment ago");
    story.group(new).write(vec![put], Duration::from_secs(1)).await.unwrap();
    let reading = async { story.get(old, "color", ReadLevel::Strong).await };
    let releasing = async {
        for (other, count) in others.iter().zip(answers) {
            tokio::time::sleep(Duration::from_millis(30)).await;
            story.network.release(node(*other), node(old), count);
        }
    };
    let (read, ()) = tokio::join!(reading, releasing);
    assert!(!matches!(&read, Ok(value) if value.as_deref() == Some("blue")), "a stale strong read: {read:?}");
    unacknowledged.abort();
    story.end().await;
}
