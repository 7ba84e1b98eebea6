//! Stories of a Raft group of three replicas: scripts of commands with the expected trace beneath
//! each command, on paused time and one thread. A case is a text file beside this one; with
//! `QUORATE_UPDATE_STORIES=1` the traces in the files are rewritten (read the diff).
//!
//! Node `n` hosts replica `10 + n`. Nodes 1 to 3 are the initial members; node 4 is a spare. Every
//! story begins with an initialized group and an open session.
//!
//! ```text
//!   > put KEY VALUE                  at the leader, retried until it is applied
//!   > put @N KEY VALUE               at node N, one try of one second
//!   > fill KEY COUNT                 so many puts of the same key, or of KEY-0, KEY-1, … if KEY
//!                                    ends with -*
//!   > filled KEY-* COUNT             strong reads of all keys that were filled
//!   > repeat                         the last put again, with the same stamp
//!   > read KEY                       strong, at the leader, retried until it is served
//!   > read @N KEY strong|eventual    at node N, one try of one second
//!   > & put …   > & read …           in the background, until:  > join
//!   > wait MS                        advances time
//!   > leader [not N]                 waits for a leader (other than node N)
//!   > agree                          waits until the states of all running replicas are equal
//!   > status                         role, term and log of every replica
//!   > stored                         the last entry that each node's state contains, also of
//!                                    crashed nodes
//!   > cut A B, isolate N, heal       a directed link, all links of a node, restore all links
//!   > stall A B                      messages of a link wait from now on
//!   > stalled A B                    how many wait
//!   > release A B [COUNT]            delivers the first COUNT of them, or all
//!   > crash N, start N               a crash loses everything that is not durable
//!   > lose N COUNT                   the disk of the crashed node N loses its last durable entries
//!   > doubtful N                     waits until the replica of node N is doubtful
//!   > destroy N                      destroys the replica of node N
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
#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

mod group;
mod snapshots;
mod threads;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_raft::{OrderError, Shard};
use quorate_types::report::OrderKind;
use quorate_types::{Command, Key, NodeId, Outcome, ReadLevel, Rejection};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::group::{Group, PATIENCE, POLL, SHARD, TRY, placement, replica};

/// Every story has the trace that its file says.
#[test]
fn stories() {
    // Read at run time: another clone that shares the target directory may have compiled the test.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let dir = Path::new(&package).join("tests/stories");
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
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

struct Story {
    group: Group,
    last_put: Option<Command>,
    background: Vec<JoinHandle<String>>,
}

/// The key of the nth put of a `fill`.
fn nth(key: &str, n: u64) -> String {
    match key.strip_suffix('*') {
        Some(prefix) => format!("{prefix}{n}"),
        None => key.to_owned(),
    }
}

fn number(word: &str) -> u64 {
    word.trim_start_matches(['@', '+', '-']).parse().unwrap()
}

impl Story {
    async fn begin() -> Self {
        Story { group: Group::begin().await, last_put: None, background: Vec::new() }
    }

    async fn end(mut self) {
        for task in self.background.drain(..) {
            task.abort();
        }
        self.group.end().await;
    }

    fn next_put(&mut self, key: &str, value: &str) -> Command {
        let put = self.group.next_put(key, value);
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
                    let put = self.next_put(&nth(key, n), &n.to_string());
                    self.group.apply(put).await;
                }
                String::new()
            }
            ["filled", key, count] => {
                for n in 0..number(count) {
                    let (_, value) = self.read(&nth(key, n)).await;
                    assert_eq!(value, n.to_string(), "{}", nth(key, n));
                }
                format!("all {count} have their values\n")
            }
            ["read", key] => {
                let (id, value) = self.read(key).await;
                format!("n{id}: {value}\n")
            }
            ["crash", id] => {
                self.group.crash(number(id)).await;
                String::new()
            }
            ["lose", id, count] => {
                let lost = self.group.lose(number(id), number(count) as usize);
                format!("n{id} lost {lost} entries\n")
            }
            ["destroy", id] => {
                let id = number(id);
                self.group.groups(id).destroy(replica(id)).await.unwrap();
                String::new()
            }
            ["start", id] => {
                self.group.start(number(id)).await;
                String::new()
            }
            ["transfer" | "resign" | "learner" | "voters" | "forget", ..] => self.order(&words).await,
            ["cut" | "isolate" | "heal" | "stall" | "stalled" | "release", ..] => self.network(&words),
            _ => self.observe(&words).await,
        }
    }

    async fn put(&self, put: Command) -> String {
        let (id, outcome) = self.group.apply(put).await;
        format!("n{id}: {}\n", told(&outcome))
    }

    /// A strong read at the node that leads. Returns that node and the value.
    async fn read(&self, key: &str) -> (u64, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no replica could confirm that it leads");
            for id in self.group.running() {
                if let Ok(value) = read(self.group.shard(id).clone(), key.to_owned(), ReadLevel::Strong).await {
                    return (id, value);
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// One try at one node.
    fn try_once(&mut self, words: &[&str]) -> impl Future<Output = String> + Send + 'static {
        let id = number(words[1]);
        let shard = self.group.shard(id).clone();
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
        let (network, node) = (&self.group.network, |word: &str| NodeId(number(word)));
        match *words {
            ["cut", from, to] => network.cut(node(from), node(to)),
            ["isolate", id] => {
                for other in (1..=4).filter(|other| *other != number(id)) {
                    network.cut(node(id), NodeId(other));
                    network.cut(NodeId(other), node(id));
                }
            }
            ["heal"] => network.heal(),
            ["stall", from, to] => network.stall(node(from), node(to)),
            ["stalled", from, to] => return format!("{}\n", network.stalled(node(from), node(to))),
            ["release", from, to] => {
                let waiting = network.stalled(node(from), node(to));
                network.release(node(from), node(to), waiting);
            }
            ["release", from, to, count] => {
                let waiting = network.stalled(node(from), node(to));
                assert!(waiting >= number(count) as usize, "only {waiting} messages wait");
                network.release(node(from), node(to), number(count) as usize);
            }
            _ => panic!("unknown command: {words:?}"),
        }
        String::new()
    }

    async fn order(&self, words: &[&str]) -> String {
        let at = self.group.groups(number(words[1]));
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
                let id = self.group.until("a leader", |group| group.leader(not)).await;
                format!("n{id} leads in term {}\n", self.group.shard(id).replica().status().term)
            }
            ["agree"] => {
                self.group
                    .until("equal states", |group| {
                        let hashes: Vec<String> = group.running().into_iter().map(|id| group.hash(id)).collect();
                        hashes.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
                    })
                    .await;
                let names: Vec<String> = self.group.running().iter().map(|id| format!("n{id}")).collect();
                format!("{} agree\n", names.join(" "))
            }
            ["doubtful", id] => {
                let id = number(id);
                self.group.until("doubt", |group| group.doubtful().contains(&id).then_some(())).await;
                format!("n{id}: its replica is doubtful\n")
            }
            ["status"] => self.group.running().into_iter().map(|id| self.status(id)).collect(),
            ["stored"] => {
                let mut stored = String::new();
                for id in self.group.nodes.keys() {
                    if let Some(index) = self.group.stored_index(*id) {
                        writeln!(stored, "n{id}: {index}").unwrap();
                    }
                }
                stored
            }
            ["compact"] => {
                let mut purged = String::new();
                for id in self.group.running() {
                    writeln!(purged, "n{id}: {} entries purged", self.group.groups(id).compact().await.unwrap())
                        .unwrap();
                }
                purged
            }
            ["failure"] => format!("{}\n", self.group.until("a failure", Group::failure).await),
            ["recovered", id] => {
                let installed = |group: &Group| group.shard(number(id)).replica().status().snapshots_installed;
                self.group
                    .until("a snapshot", |group| {
                        (installed(group) > 0 && group.leader(None).is_some() && group.failure().is_none())
                            .then_some(())
                    })
                    .await;
                format!("{} snapshot installed\n", installed(&self.group))
            }
            _ => panic!("unknown command: {words:?}"),
        }
    }

    fn status(&self, id: u64) -> String {
        let status = self.group.shard(id).replica().status();
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
}

async fn read(shard: Shard, key: String, level: ReadLevel) -> Result<String, Rejection> {
    shard.read_barrier(level, TRY).await?;
    let record = shard.read(&[Key::new(key).unwrap()], usize::MAX)?.records.remove(0);
    Ok(record.map_or("absent".to_owned(), |record| record.value.as_bytes().escape_ascii().to_string()))
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        // An unconditional put replaces no version: the text shows the whole outcome.
        Outcome::Written { version, replaced: 0 } => format!("written, version {version}"),
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
