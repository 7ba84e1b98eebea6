//! Disks that lie: flipped bits, lost data, and nodes that are made anew because of them.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use quorate_proto::admin::NodeStatus;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::harm::Part;
use super::journal::Phase;
use super::{Line, Nemesis};
use crate::cluster::Disk;

/// What keeps a node's identity; everything beside it goes with the disk's data.
const DATABASES: &[&str] = &["log", "state"];
/// How long a node may take to read the damaged parts of its disk after it was started.
const READ_MAX: Duration = Duration::from_secs(2);
/// How long a snapshot may take to arrive.
const SNAPSHOT_MAX: Duration = Duration::from_secs(10);
/// Entries that a group must have gone on without a node before the node needs a snapshot: more than it keeps whatever its size
/// (`LOG_RETAINED_ENTRIES` of `quorate-raft`).
const BEHIND: u64 = 300;
/// How long that may take.
const BEHIND_MAX: Duration = Duration::from_secs(40);
/// How long a node that was made anew may take to be in the cluster.
const JOIN_MAX: Duration = Duration::from_secs(60);
/// How long forgetting a dead node may take: all its replicas are made anew.
const REMOVE_MAX: &str = "90s";
/// For how long it is tried again.
const REMOVE_AGAIN: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(20);
/// A snapshot in flight is there for milliseconds.
const GLANCE: Duration = Duration::from_micros(500);

impl Nemesis {
    /// Flips a bit of a node's disk while it is down, and starts it; it may refuse to start, rightly.
    pub(super) async fn flip(&self, number: usize, part: Part, seed: u64) -> anyhow::Result<Value> {
        let mut rng = StdRng::seed_from_u64(seed);
        if part == Part::Snapshot {
            return self.flip_snapshot(number, &mut rng).await;
        }
        // So that its state is on the disk at all.
        self.cluster.compact(number).await?;
        self.cluster.kill(&[number]).await?;
        let data = self.cluster.node(number).data_dir();
        let (dir, endings): (_, &[&str]) =
            if part == Part::Log { (data.join("log"), &["log", "sst"]) } else { (data.join("state"), &["sst"]) };
        let files = files(&dir, endings)?;
        let file = files.choose(&mut rng).with_context(|| format!("{} holds no data yet", dir.display()))?;
        let bit = flip_bit(file, &mut rng)?;
        let start = self.cluster.start_node(number).await;
        self.dies(number).await;
        let ended = self.cluster.node(number).died().map(|ended| ended.to_string());
        ensure!(start.is_ok() || ended.is_some(), "{:#}", start.expect_err("it is not there"));
        Ok(json!({ "file": file.file_name().map(|name| name.to_string_lossy()), "bit": bit, "refused": ended }))
    }

    /// Lets a node fall so far behind that it needs a snapshot, and flips a bit of that when it arrives.
    async fn flip_snapshot(&self, number: usize, rng: &mut StdRng) -> anyhow::Result<Value> {
        let staging = self.cluster.node(number).data_dir().join("staging");
        let before = last_indexes(&self.cluster.statuses().await, |place| place == number);
        self.cluster.kill(&[number]).await?;
        self.cluster.wait_until_serving(SNAPSHOT_MAX).await?;
        let deadline = Instant::now() + BEHIND_MAX;
        loop {
            let now = last_indexes(&self.cluster.statuses().await, |_| true);
            let ahead = |(group, index): (&u32, &u64)| now.get(group).is_some_and(|now| *now > index + BEHIND);
            if before.iter().any(ahead) {
                break;
            }
            ensure!(Instant::now() < deadline, "node {number} does not fall behind: too little is written");
            tokio::time::sleep(LOOK).await;
        }
        let others: Vec<usize> =
            self.cluster.nodes().iter().filter(|node| node.is_running()).map(|node| node.number()).collect();
        self.purge_logs(&others).await?;
        let watched = staging.clone();
        let mut own = StdRng::seed_from_u64(rng.random());
        let watch = tokio::task::spawn_blocking(move || {
            let deadline = Instant::now() + SNAPSHOT_MAX;
            while Instant::now() < deadline {
                for file in files(&watched, &[]).unwrap_or_default() {
                    if let Ok(bit) = flip_bit(&file, &mut own) {
                        return Some((file, bit));
                    }
                }
                std::thread::sleep(GLANCE);
            }
            None
        });
        self.cluster.start_node(number).await?;
        let (file, bit) = watch.await?.context("no snapshot arrived")?;
        Ok(json!({ "file": file.file_name().map(|name| name.to_string_lossy()), "bit": bit }))
    }

    /// Takes a node's data but not its identity; it must refuse to go on as if nothing had been.
    pub(super) async fn return_without_data(&self, number: usize) -> anyhow::Result<Value> {
        self.cluster.kill(&[number]).await?;
        for database in DATABASES {
            std::fs::remove_dir_all(self.cluster.node(number).data_dir().join(database))?;
        }
        let started = self.cluster.start_node(number).await;
        if started.is_err() || self.dies(number).await {
            let ended = self.cluster.node(number).died().context("it neither answers nor ended")?;
            return Ok(json!({ "refused": ended.to_string() }));
        }
        let what = "a node came back under its old identity without its data";
        self.find(number, what, self.cluster.node(number).log_tail());
        Ok(json!({ "refused": null }))
    }

    /// Starts nodes that do not run.
    pub(super) async fn revive_all(&self, numbers: &[usize]) -> anyhow::Result<Value> {
        let begin = Instant::now();
        let down = numbers.iter().filter(|number| !self.cluster.node(**number).is_running());
        let revived = futures::future::join_all(down.map(|number| self.revive(*number))).await;
        revived.into_iter().collect::<anyhow::Result<()>>()?;
        Ok(json!({ "started_ms": u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX) }))
    }

    /// Starts a node. One that refuses its damaged disk is made anew; one that refuses a good one is a finding.
    pub(super) async fn revive(&self, number: usize) -> anyhow::Result<()> {
        let started = self.cluster.start_node(number).await;
        if !self.cluster.disk(number).is_some_and(Disk::is_full) {
            self.books().filled.remove(&number);
        }
        let damaged = self.books().damaged.contains(&number);
        if damaged && (started.is_err() || self.dies(number).await) {
            self.rebuild(number).await?;
            return Ok(());
        }
        let Err(error) = started else { return Ok(()) };
        self.find(number, "a node does not start on a disk that nothing damaged", format!("{error:#}"));
        // Nobody tries again: its data is the evidence.
        self.books().given_up.insert(number);
        Err(error)
    }

    /// Whether a node that was just started ends again: it answers before it has read its disk.
    async fn dies(&self, number: usize) -> bool {
        let deadline = Instant::now() + READ_MAX;
        while Instant::now() < deadline {
            if self.cluster.node(number).died().is_some() {
                return true;
            }
            tokio::time::sleep(LOOK).await;
        }
        false
    }

    /// Forgets a node for good, so that its replicas are made anew elsewhere, wipes its disk, and lets it join as a new one.
    /// May be tried again where it went wrong.
    pub(super) async fn rebuild(&self, number: usize) -> anyhow::Result<Value> {
        let (begin, node) = (Instant::now(), self.cluster.node(number));
        if let Some(ended) = node.died().filter(|ended| ended.is_crash()) {
            self.find(number, &format!("a node with a damaged disk crashed with {ended}"), node.log_tail());
        }
        self.cluster.kill(&[number]).await?;
        let old = node.id();
        if let Some(id) = old {
            let id = id.to_string();
            let remove =
                ["node", "remove", &id, "--dead", "--confirm", node.client_address(), "--yes", "--timeout", REMOVE_MAX];
            // With other faults about, shards may be without a quorum for a while; then it is refused.
            let deadline = Instant::now() + REMOVE_AGAIN;
            loop {
                let said = self.cluster.run(&remove).await?;
                if said.code == Some(0) {
                    break;
                }
                ensure!(Instant::now() < deadline, "node remove {id} --dead: {}", said.error.trim());
                tokio::time::sleep(LOOK * 25).await;
            }
        }
        self.cluster.wipe(number)?;
        let new = self.join_anew(number).await?;
        let mut books = self.books();
        books.damaged.remove(&number);
        books.excused.remove(&number);
        Ok(json!({ "removed": old, "joined": new, "seconds": begin.elapsed().as_secs_f32() }))
    }

    /// Starts a node on an empty disk and waits until the cluster took it in; gives its id.
    pub(super) async fn join_anew(&self, number: usize) -> anyhow::Result<u64> {
        self.cluster.start_node(number).await?;
        let deadline = Instant::now() + JOIN_MAX;
        loop {
            if let Some(status) = self.cluster.statuses().await.get(&number).filter(|status| status.id != 0) {
                return Ok(status.id);
            }
            ensure!(
                Instant::now() < deadline,
                "node {number} is not taken in\n{}",
                self.cluster.node(number).log_tail()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Writes down what should never be.
    pub(super) fn find(&self, node: usize, what: &str, log: String) {
        self.journal.write(Line {
            time: 0,
            id: 0,
            fault: "none".to_owned(),
            phase: Phase::Finding,
            targets: vec![node],
            nodes: self.cluster.node(node).id().into_iter().collect(),
            leaders_hit: false,
            detail: json!({ "what": what, "log": log }),
        });
        self.books().findings.push(super::Finding { node, what: what.to_owned(), log });
    }
}

/// The files below a directory with some bytes and one of the endings; with any, where none is given.
fn files(dir: &Path, endings: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            // It may go while it is looked at.
            found.extend(files(&path, endings).unwrap_or_default());
        }
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let wanted = endings.is_empty() || endings.contains(&ending);
        if wanted && std::fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() > 0) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The newest log index of every shard on some of the places.
fn last_indexes(statuses: &BTreeMap<usize, NodeStatus>, of: impl Fn(usize) -> bool) -> BTreeMap<u32, u64> {
    let mut newest = BTreeMap::new();
    let replicas = statuses.iter().filter(|(place, _)| of(**place)).flat_map(|(_, status)| &status.replicas);
    for replica in replicas.filter(|replica| replica.group > 0) {
        let index = newest.entry(replica.group).or_insert(0);
        *index = replica.last_log_index.max(*index);
    }
    newest
}

/// Flips one bit of a file; gives which.
fn flip_bit(path: &Path, rng: &mut StdRng) -> anyhow::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let bytes = file.metadata()?.len();
    ensure!(bytes > 0, "{} is empty", path.display());
    let bit = rng.random_range(0..bytes * 8);
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8)?;
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8)?;
    file.sync_all()?;
    Ok(bit)
}
