//! Stories of a Raft group of three replicas: scripts of commands with the expected trace beneath
//! each command, on paused time and one thread. A case is a file in `stories/`; with
//! `QUORATE_UPDATE_STORIES=1` the traces in the files are rewritten (read the diff).
//!
//! Node `n` hosts replica `10 + n`. Nodes 1 to 3 are the initial members; node 4 is a spare. Every
//! story begins with an initialized group and an open session.
//!
//! ```text
//!   > put KEY VALUE                  at the leader, retried until it is applied
//!   > put @N KEY VALUE               at node N, one try of one second
//!   > fill KEY COUNT                 so many puts of the same key
//!   > repeat                         the last put again, with the same stamp
//!   > read KEY                       strong, at the leader, retried until it is served
//!   > read @N KEY strong|eventual    at node N, one try of one second
//!   > & put …   > & read …           in the background, until:  > join
//!   > wait MS                        advances time
//!   > leader [not N]                 waits for a leader (other than node N)
//!   > agree                          waits until the states of all running replicas are equal
//!   > status                         role, term and log of every replica
//!   > cut A B, isolate N, heal       a directed link, all links of a node, restore all links
//!   > stall A B, release A B         messages of a link wait, and are delivered
//!   > crash N, start N               a crash loses everything that is not durable
//!   > compact                        flushes the states and purges the logs of all running nodes
//!   > failure                        waits until a leader reports that a snapshot failed
//!   > recovered N                    waits until node N has installed a snapshot, and no leader
//!                                    reports a failure
//!   > transfer A B [MS]              the leader on node A transfers leadership to node B
//!   > resign N                       node N transfers all its leaderships
//!   > learner A B                    the leader on node A adds the replica of node B as a learner
//!   > voters A [+B] [-C]             the leader on node A adds and removes voters
//!   > forget A B                     the leader on node A removes the learner of node B
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quorate_machine::log::MemoryLog;
use quorate_machine::state::{MemoryState, State};
use quorate_machine::state_hash;
use quorate_raft::{Groups, LOG_RETAINED_ENTRIES, MemoryNetwork, Options, OrderError, Shard, Timing};
use quorate_types::clock::Clock;
use quorate_types::report::OrderKind;
use quorate_types::topology::Placement;
use quorate_types::{
    Command, Key, Mutation, NodeId, Outcome, ReadLevel, Rejection, ReplicaId, SessionId, SessionStamp, ShardId, Token,
    TokenArc, Value, Write,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const SHARD: ShardId = ShardId(1);
const EPOCH: u64 = 1;
/// How long a story waits for an event before it fails.
const PATIENCE: Duration = Duration::from_secs(60);
const TRY: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

/// Every story has the trace that its file says.
#[test]
fn stories() {
    // Read at run time: another clone that shares the target directory may have compiled the test.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let dir = Path::new(&package).join("tests/stories");
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "the stories are there");
    let update = std::env::var_os("QUORATE_UPDATE_STORIES").is_some();
    let mut different = Vec::new();
    for path in paths {
        let written = fs::read_to_string(&path).unwrap();
        let script = written.clone();
        // A thread of its own: its seed would hold for the next story too.
        let traced = std::thread::spawn(move || trace(&script)).join().unwrap();
        if update {
            fs::write(&path, &traced).unwrap();
        } else if traced != written {
            different.push(format!("{}:\n{traced}", path.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

fn trace(script: &str) -> String {
    quorate_raft::simulate(7);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut story = Story::begin().await;
        let mut traced = String::new();
        for line in script.lines() {
            match line.strip_prefix("> ") {
                Some(command) => {
                    let answer = story.play(command).await;
                    writeln!(traced, "{line}").unwrap();
                    traced += &answer;
                }
                None if line.is_empty() || line.starts_with('#') => writeln!(traced, "{line}").unwrap(),
                None => {}
            }
        }
        story.end().await;
        traced
    })
}

/// A clock that stands still: no story depends on it.
struct Still;

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        1_000
    }
}

/// One node: its durable parts, and its groups while it runs.
struct Node {
    log: Arc<MemoryLog>,
    state: Arc<MemoryState>,
    snapshots: TempDir,
    running: Option<(Groups, Shard)>,
}

struct Story {
    network: MemoryNetwork,
    nodes: BTreeMap<u64, Node>,
    session: SessionId,
    sequence: u64,
    last_put: Option<Command>,
    background: Vec<JoinHandle<String>>,
}

fn replica(node: u64) -> ReplicaId {
    ReplicaId(10 + node)
}

fn placement(node: u64) -> Placement {
    Placement { replica: replica(node), node: NodeId(node) }
}

fn number(word: &str) -> u64 {
    word.trim_start_matches(['@', '+', '-']).parse().unwrap()
}

impl Story {
    async fn begin() -> Self {
        let node = || Node {
            log: Arc::new(MemoryLog::new(true)),
            state: Arc::new(MemoryState::new()),
            snapshots: TempDir::new().unwrap(),
            running: None,
        };
        let mut story = Story {
            network: MemoryNetwork::default(),
            nodes: (1..=4).map(|id| (id, node())).collect(),
            session: SessionId(0),
            sequence: 0,
            last_put: None,
            background: Vec::new(),
        };
        for id in 1..=3 {
            story.start(id).await;
        }
        let initial: Vec<Placement> = (1..=3).map(placement).collect();
        story.shard(1).replica().initialize(&initial).await.unwrap();
        let arc = TokenArc { start: Token(0), end: Token(0) };
        story.apply(Command::Bootstrap { arc, epoch: EPOCH }).await;
        let (_, opened) = story.apply(Command::OpenSession { epoch: EPOCH }).await;
        let Outcome::SessionOpened { session } = opened else { panic!("a session opens: {opened:?}") };
        story.session = session;
        story
    }

    async fn start(&mut self, id: u64) {
        let node = &self.nodes[&id];
        let options = Options {
            node: NodeId(id),
            timing: Timing::default(),
            snapshot_dir: node.snapshots.path().to_owned(),
            log_retained_bytes_per_group: 64 << 20,
            log_retained_bytes_per_node: 512 << 20,
            log_retained_entries: LOG_RETAINED_ENTRIES,
            on_fatal: Arc::new(|reason| panic!("fatal: {reason}")),
        };
        let transport = self.network.transport(NodeId(id));
        let groups = Groups::new(options, node.log.clone(), node.state.clone(), transport, Arc::new(Still));
        self.network.connect(NodeId(id), groups.clone());
        let shard = groups.open_shard(SHARD, replica(id)).await.unwrap();
        self.nodes.get_mut(&id).unwrap().running = Some((groups, shard));
    }

    async fn crash(&mut self, id: u64) {
        self.network.disconnect(NodeId(id));
        let node = self.nodes.get_mut(&id).unwrap();
        let (groups, shard) = node.running.take().unwrap();
        groups.shutdown().await;
        drop((groups, shard));
        node.log.crash();
        node.state.crash();
    }

    async fn end(mut self) {
        for task in self.background.drain(..) {
            task.abort();
        }
        for node in self.nodes.values_mut() {
            if let Some((groups, shard)) = node.running.take() {
                groups.shutdown().await;
                drop((groups, shard));
            }
        }
    }

    fn groups(&self, id: u64) -> &Groups {
        &self.nodes[&id].running.as_ref().unwrap().0
    }

    fn shard(&self, id: u64) -> &Shard {
        &self.nodes[&id].running.as_ref().unwrap().1
    }

    fn running(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, node)| node.running.is_some()).map(|(id, _)| *id).collect()
    }

    /// Polls until there is an answer.
    async fn until<T>(&self, event: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = look(self) {
                return seen;
            }
            assert!(Instant::now() < deadline, "{event}: not in time");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Applies a command at the node that leads. Returns that node and the outcome.
    async fn apply(&self, command: Command) -> (u64, Outcome) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{command:?} was never applied");
            for id in self.running() {
                if let Ok(mut written) = self.shard(id).write(vec![command.clone()], TRY).await {
                    return (id, written.outcomes.remove(0));
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn next_put(&mut self, key: &str, value: &str) -> Command {
        self.sequence += 1;
        let stamp = SessionStamp { session: self.session, sequence: self.sequence, lowest: self.sequence };
        let mutation = Mutation::Put(Value::new(value.to_owned()).unwrap());
        let write = Write { key: Key::new(key.to_owned()).unwrap(), mutation, condition: None };
        let put = Command::Write { epoch: EPOCH, stamp, write };
        self.last_put = Some(put.clone());
        put
    }

    async fn play(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["&", ref command @ ..] => {
                let answer = self.try_once(command);
                self.background.push(tokio::spawn(answer));
                String::new()
            }
            ["join"] => {
                let mut answers = String::new();
                for task in std::mem::take(&mut self.background) {
                    answers += &task.await.unwrap();
                }
                answers
            }
            ["put", at, ..] | ["read", at, ..] if at.starts_with('@') => self.try_once(&words).await,
            ["put", key, value] => {
                let put = self.next_put(key, value);
                self.put(put).await
            }
            ["repeat"] => {
                let put = self.last_put.clone().unwrap();
                self.put(put).await
            }
            ["fill", key, count] => {
                for n in 0..number(count) {
                    let put = self.next_put(key, &n.to_string());
                    self.apply(put).await;
                }
                String::new()
            }
            ["read", key] => self.read(key).await,
            ["crash", id] => {
                self.crash(number(id)).await;
                String::new()
            }
            ["start", id] => {
                self.start(number(id)).await;
                String::new()
            }
            ["transfer" | "resign" | "learner" | "voters" | "forget", ..] => self.order(&words).await,
            ["cut" | "isolate" | "heal" | "stall" | "release", ..] => self.network(&words),
            _ => self.observe(&words).await,
        }
    }

    async fn put(&self, put: Command) -> String {
        let (id, outcome) = self.apply(put).await;
        format!("n{id}: {}\n", told(&outcome))
    }

    async fn read(&self, key: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no replica could confirm that it leads");
            for id in self.running() {
                if let Ok(value) = read(self.shard(id).clone(), key.to_owned(), ReadLevel::Strong).await {
                    return format!("n{id}: {value}\n");
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// One try at one node.
    fn try_once(&mut self, words: &[&str]) -> impl Future<Output = String> + Send + 'static {
        let id = number(words[1]);
        let shard = self.shard(id).clone();
        let (key, put) = match *words {
            ["put", _, key, value] => (key.to_owned(), Some(self.next_put(key, value))),
            ["read", _, key, _] => (key.to_owned(), None),
            _ => panic!("unknown command: {words:?}"),
        };
        let level = if words.last() == Some(&"eventual") { ReadLevel::Eventual } else { ReadLevel::Strong };
        async move {
            let answer = match put {
                Some(put) => shard.write(vec![put], TRY).await.map(|written| told(&written.outcomes[0])),
                None => read(shard, key, level).await,
            };
            match answer {
                Ok(answer) => format!("n{id}: {answer}\n"),
                Err(rejection) => format!("n{id}: {}\n", refused(&rejection)),
            }
        }
    }

    fn network(&self, words: &[&str]) -> String {
        let node = |word: &str| NodeId(number(word));
        match *words {
            ["cut", from, to] => self.network.cut(node(from), node(to)),
            ["isolate", id] => {
                for other in (1..=4).filter(|other| *other != number(id)) {
                    self.network.cut(node(id), NodeId(other));
                    self.network.cut(NodeId(other), node(id));
                }
            }
            ["heal"] => self.network.heal(),
            ["stall", from, to] => self.network.stall(node(from), node(to)),
            ["release", from, to] => {
                let waiting = self.network.stalled(node(from), node(to));
                self.network.release(node(from), node(to), waiting);
            }
            _ => panic!("unknown command: {words:?}"),
        }
        String::new()
    }

    async fn order(&self, words: &[&str]) -> String {
        let at = self.groups(number(words[1]));
        let mut within = Duration::from_secs(5);
        let order = match *words {
            ["resign", _] => {
                let led = at.transfer_leaderships(Duration::from_secs(2)).await;
                return format!("{led} groups are still led there\n");
            }
            ["transfer", _, to] => OrderKind::TransferLeader(replica(number(to))),
            ["transfer", _, to, ms] => {
                within = Duration::from_millis(number(ms));
                OrderKind::TransferLeader(replica(number(to)))
            }
            ["learner", _, id] => OrderKind::AddLearner(placement(number(id))),
            ["forget", _, id] => OrderKind::RemoveLearner(replica(number(id))),
            ["voters", _, ref changes @ ..] => {
                let seen = at.reports()[0].members.at.unwrap();
                let change = |sign: char| changes.iter().find(|change| change.starts_with(sign));
                let replica = |word: &&str| replica(number(word));
                OrderKind::ChangeVoters { add: change('+').map(replica), remove: change('-').map(replica), seen }
            }
            _ => panic!("unknown command: {words:?}"),
        };
        match at.execute(SHARD.group(), order, within).await {
            Ok(()) => "done\n".to_owned(),
            Err(OrderError::Refused(reason)) => format!("refused: {reason}\n"),
            Err(OrderError::Unknown(reason)) => format!("unknown: {reason}\n"),
        }
    }

    async fn observe(&self, words: &[&str]) -> String {
        match *words {
            ["wait", ms] => {
                tokio::time::sleep(Duration::from_millis(number(ms))).await;
                String::new()
            }
            ["leader", ref not @ ..] => {
                let not = not.last().map(|id| number(id));
                let id = self.until("a leader", |story| story.leader(not)).await;
                format!("n{id} leads in term {}\n", self.shard(id).replica().status().term)
            }
            ["agree"] => {
                self.until("equal states", |story| {
                    let hashes: Vec<String> = story.running().into_iter().map(|id| story.hash(id)).collect();
                    hashes.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
                })
                .await;
                let names: Vec<String> = self.running().iter().map(|id| format!("n{id}")).collect();
                format!("{} agree\n", names.join(" "))
            }
            ["status"] => self.running().into_iter().map(|id| self.status(id)).collect(),
            ["compact"] => {
                let mut purged = String::new();
                for id in self.running() {
                    writeln!(purged, "n{id}: {} entries purged", self.groups(id).compact().await.unwrap()).unwrap();
                }
                purged
            }
            ["failure"] => format!("{}\n", self.until("a failure", Self::failure).await),
            ["recovered", id] => {
                let installed = |story: &Self| story.shard(number(id)).replica().status().snapshots_installed;
                self.until("a snapshot", |story| {
                    (installed(story) > 0 && story.leader(None).is_some() && story.failure().is_none()).then_some(())
                })
                .await;
                format!("{} snapshot installed\n", installed(self))
            }
            _ => panic!("unknown command: {words:?}"),
        }
    }

    fn leader(&self, not: Option<u64>) -> Option<u64> {
        self.running().into_iter().find(|id| Some(*id) != not && self.shard(*id).replica().is_leader())
    }

    /// Why the leader's last snapshot was not delivered.
    fn failure(&self) -> Option<String> {
        let reports = self.groups(self.leader(None)?).reports();
        reports.into_iter().flat_map(|report| report.others).find_map(|other| other.snapshot_failure)
    }

    fn status(&self, id: u64) -> String {
        let status = self.shard(id).replica().status();
        let index = |index: Option<u64>| index.map_or("none".to_owned(), |index| index.to_string());
        format!(
            "n{id}: {:?}, term {}, log {}, applied {}, purged {}, voters {:?}\n",
            status.role,
            status.term,
            index(status.last_log_index),
            index(status.applied_index),
            index(status.purged_index),
            status.voters.iter().map(|node| node.0).collect::<Vec<_>>(),
        )
    }

    fn hash(&self, id: u64) -> String {
        let mut hash = String::new();
        let read = self.nodes[&id].state.view(&mut |view| {
            hash = format!("{:?}", state_hash(view, replica(id))?);
            Ok(())
        });
        read.unwrap();
        hash
    }
}

async fn read(shard: Shard, key: String, level: ReadLevel) -> Result<String, Rejection> {
    shard.read_barrier(level, TRY).await?;
    let record = shard.read(&[Key::new(key).unwrap()], usize::MAX)?.records.remove(0);
    Ok(record.map_or("absent".to_owned(), |record| record.value.as_bytes().escape_ascii().to_string()))
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Written { version, .. } => format!("written, version {version}"),
        other => format!("{other:?}"),
    }
}

fn refused(rejection: &Rejection) -> String {
    match rejection {
        Rejection::NotLeader { leader: Some(leader) } => format!("not the leader, n{leader} is"),
        Rejection::NotLeader { leader: None } => "not the leader, none is known".to_owned(),
        Rejection::Unavailable { .. } => "unavailable".to_owned(),
        Rejection::Unknown { .. } => "outcome unknown".to_owned(),
        other => format!("{other:?}"),
    }
}
