//! Damage to a node's files: flipped bits and lost data.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use quorate_proto::admin::NodeStatus;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::bits::{files, flip_bit};
use super::injection::Part;
use super::ledger::Ledger;
use super::membership::purge_logs;
use super::repair::Repair;
use crate::cluster::Cluster;

/// The directories of a node's data. Its identity is stored beside them.
const DATABASES: &[&str] = &["log", "state"];
/// The longest time for a snapshot to arrive.
const SNAPSHOT_MAX: Duration = Duration::from_secs(10);
/// The lag, in entries, at which a node needs a snapshot: more than a leader retains regardless of
/// its byte limit (`LOG_RETAINED_ENTRIES` of `quorate-raft`).
const LAG: u64 = 300;
/// The longest time for a node to fall this far behind.
const LAG_MAX: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(20);
/// The pause between two looks for a staged snapshot, which exists for milliseconds only.
const STAGING_POLL: Duration = Duration::from_micros(500);

/// Damages the files of nodes.
pub(super) struct Damage<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) ledger: &'a Ledger,
    pub(super) repair: &'a Repair,
}

impl Damage<'_> {
    /// Stops a node, flips a bit on its disk, and starts it. The node may rightly refuse to start.
    pub(super) async fn flip(&self, number: usize, part: Part, seed: u64) -> anyhow::Result<Value> {
        let mut rng = StdRng::seed_from_u64(seed);
        if part == Part::Snapshot {
            return self.flip_snapshot(number, &mut rng).await;
        }
        // Flushes the state to the disk.
        self.cluster.admin().compact(number).await?;
        self.cluster.processes().kill(&[number]).await?;
        let data = self.cluster.node(number).data_dir();
        let (dir, extensions): (_, &[&str]) =
            if part == Part::Log { (data.join("log"), &["log", "sst"]) } else { (data.join("state"), &["sst"]) };
        let files = files(&dir, extensions)?;
        let file = files.choose(&mut rng).with_context(|| format!("{} contains no data yet", dir.display()))?;
        let bit = flip_bit(file, &mut rng)?;
        let start = self.cluster.processes().start(number).await;
        self.repair.ends_soon(number).await;
        let ended = self.cluster.node(number).died().map(|ended| ended.to_string());
        if ended.is_none() {
            start?;
        }
        Ok(json!({ "file": file.file_name().map(|name| name.to_string_lossy()), "bit": bit, "refused": ended }))
    }

    /// Lets a node fall so far behind that it needs a snapshot, and flips a bit of that snapshot
    /// when it arrives.
    async fn flip_snapshot(&self, number: usize, rng: &mut StdRng) -> anyhow::Result<Value> {
        let staging = self.cluster.node(number).data_dir().join("staging");
        let before = last_indexes(&self.cluster.admin().statuses().await, |place| place == number);
        self.cluster.processes().kill(&[number]).await?;
        self.cluster.wait_until_serving(SNAPSHOT_MAX).await?;
        let deadline = Instant::now() + LAG_MAX;
        loop {
            let now = last_indexes(&self.cluster.admin().statuses().await, |_| true);
            let ahead = |(group, index): (&u32, &u64)| now.get(group).is_some_and(|now| *now > index + LAG);
            if before.iter().any(ahead) {
                break;
            }
            ensure!(Instant::now() < deadline, "node {number} does not fall behind: there are too few writes");
            tokio::time::sleep(POLL).await;
        }
        let others: Vec<usize> =
            self.cluster.nodes().iter().filter(|node| node.is_running()).map(|node| node.number()).collect();
        purge_logs(self.cluster, &others).await?;
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
                std::thread::sleep(STAGING_POLL);
            }
            None
        });
        self.cluster.processes().start(number).await?;
        let (file, bit) = watch.await?.context("no snapshot arrived")?;
        Ok(json!({ "file": file.file_name().map(|name| name.to_string_lossy()), "bit": bit }))
    }

    /// Deletes a node's data but not its identity, and starts it. The node must refuse to run.
    pub(super) async fn return_without_data(&self, number: usize) -> anyhow::Result<Value> {
        self.cluster.processes().kill(&[number]).await?;
        for database in DATABASES {
            std::fs::remove_dir_all(self.cluster.node(number).data_dir().join(database))?;
        }
        let started = self.cluster.processes().start(number).await;
        if started.is_err() || self.repair.ends_soon(number).await {
            let ended = self.cluster.node(number).died().context("the node neither answers nor ended")?;
            return Ok(json!({ "refused": ended.to_string() }));
        }
        self.ledger.find(number, "a node came back under its old identity without its data");
        Ok(json!({ "refused": null }))
    }
}

/// The newest log index of every shard on the selected places.
fn last_indexes(statuses: &BTreeMap<usize, NodeStatus>, of: impl Fn(usize) -> bool) -> BTreeMap<u32, u64> {
    let mut newest = BTreeMap::new();
    let replicas = statuses.iter().filter(|(place, _)| of(**place)).flat_map(|(_, status)| &status.replicas);
    for replica in replicas.filter(|replica| replica.group > 0) {
        let index = newest.entry(replica.group).or_insert(0);
        *index = replica.last_log_index.max(*index);
    }
    newest
}
