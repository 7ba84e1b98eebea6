//! Repair: restarting nodes, replacing nodes whose disk is damaged, and undoing all faults at the
//! end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use super::ledger::Ledger;
use crate::cluster::clock::Skew;
use crate::cluster::{Ballast, Clocks, Cluster, Disk};

/// The longest time from a node's start until it has read the damaged part of its disk.
const READ_MAX: Duration = Duration::from_secs(2);
/// The longest time for a new node to join the cluster.
const JOIN_MAX: Duration = Duration::from_secs(60);
/// The time-out of removing a dead node: all its replicas are created elsewhere first.
const REMOVE_MAX: &str = "90s";
/// For how long a refused removal is retried.
const REMOVE_RETRY_MAX: Duration = Duration::from_secs(90);
/// A node that ended this often without a reason is left down: its data is the evidence.
const FINDINGS_MAX: usize = 3;
const POLL: Duration = Duration::from_millis(20);

/// Restarts and replaces nodes.
pub(super) struct Repair {
    cluster: Arc<Cluster>,
    ledger: Arc<Ledger>,
    /// Held by the one task that restarts nodes.
    turn: tokio::sync::Mutex<()>,
}

impl Repair {
    pub(super) fn new(cluster: Arc<Cluster>, ledger: Arc<Ledger>) -> Self {
        Repair { cluster, ledger, turn: tokio::sync::Mutex::default() }
    }

    /// Restarts those of the nodes that are down.
    pub(super) async fn restart_all(&self, numbers: &[usize]) -> anyhow::Result<Value> {
        let begin = Instant::now();
        let down = numbers.iter().filter(|number| !self.cluster.node(**number).is_running());
        let restarted = futures::future::join_all(down.map(|number| self.restart(*number))).await;
        restarted.into_iter().collect::<anyhow::Result<()>>()?;
        Ok(json!({ "started_ms": u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX) }))
    }

    /// Restarts a node. Replaces it if it refuses a damaged disk. Refusing an undamaged disk is a
    /// finding.
    async fn restart(&self, number: usize) -> anyhow::Result<()> {
        let started = self.cluster.processes().start(number).await;
        if !self.cluster.disk(number).is_some_and(Disk::is_full) {
            self.ledger.records().filled.remove(&number);
        }
        let damaged = self.ledger.records().damaged.contains(&number);
        if damaged && (started.is_err() || self.ends_soon(number).await) {
            self.replace(number).await?;
            return Ok(());
        }
        let Err(error) = started else { return Ok(()) };
        self.ledger.find_with_log(number, "a node does not start on an undamaged disk", format!("{error:#}"));
        // It is not started again: its data is the evidence.
        self.ledger.records().abandoned.insert(number);
        Err(error)
    }

    /// Whether a node ends by itself within [`READ_MAX`] after its start. A node answers before it
    /// has read its whole disk.
    pub(super) async fn ends_soon(&self, number: usize) -> bool {
        let deadline = Instant::now() + READ_MAX;
        while Instant::now() < deadline {
            if self.cluster.node(number).died().is_some() {
                return true;
            }
            tokio::time::sleep(POLL).await;
        }
        false
    }

    /// Replaces a node: removes it from the cluster as dead, so that its replicas are created
    /// elsewhere, wipes its disk, and starts a new node in its place. May be repeated after an
    /// error.
    pub(super) async fn replace(&self, number: usize) -> anyhow::Result<Value> {
        let (begin, node) = (Instant::now(), self.cluster.node(number));
        if let Some(ended) = node.died().filter(|ended| ended.is_crash()) {
            self.ledger.find(number, &format!("a node with a damaged disk crashed with {ended}"));
        }
        self.cluster.processes().kill(&[number]).await?;
        let old = node.id();
        if let Some(id) = old {
            self.remove_dead(&id.to_string(), node.client_address()).await?;
        }
        self.cluster.processes().wipe(number)?;
        let new = self.join_as_new(number).await?;
        let mut records = self.ledger.records();
        records.damaged.remove(&number);
        records.excused.remove(&number);
        Ok(json!({ "removed": old, "joined": new, "seconds": begin.elapsed().as_secs_f32() }))
    }

    /// Removes a node from the cluster as dead.
    async fn remove_dead(&self, id: &str, address: &str) -> anyhow::Result<()> {
        let remove = ["node", "remove", id, "--dead", "--confirm", address, "--yes"];
        let truce = self.ledger.truce();
        // The removal is refused while active faults leave shards without a quorum, and until the
        // leader of the topology group has been in office for long enough to judge.
        let deadline = Instant::now() + REMOVE_RETRY_MAX;
        loop {
            let output = self.cluster.admin().run(&[&remove[..], &["--no-wait"]].concat()).await?;
            if output.code == Some(0) {
                break;
            }
            ensure!(Instant::now() < deadline, "node remove {id} --dead: {}", output.stderr.trim());
            tokio::time::sleep(POLL * 25).await;
        }
        drop(truce);
        let output = self.cluster.admin().run(&[&remove[..], &["--timeout", REMOVE_MAX]].concat()).await?;
        ensure!(output.code == Some(0), "node remove {id} --dead: {}", output.stderr.trim());
        Ok(())
    }

    /// Starts a node on an empty disk and waits until it has joined the cluster; returns its id.
    pub(super) async fn join_as_new(&self, number: usize) -> anyhow::Result<u64> {
        self.cluster.processes().start(number).await?;
        let deadline = Instant::now() + JOIN_MAX;
        loop {
            if let Some(status) = self.cluster.admin().statuses().await.get(&number).filter(|status| status.id != 0) {
                return Ok(status.id);
            }
            ensure!(
                Instant::now() < deadline,
                "node {number} does not join the cluster\n{}",
                self.cluster.node(number).log_tail()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Restarts the nodes that are down although no active fault keeps them down. An end without a
    /// reason is recorded as a finding first. A node that refuses a damaged disk is replaced.
    pub(super) async fn restart_fallen(&self) -> anyhow::Result<()> {
        let _turn = self.turn.lock().await;
        let mut nodes: Vec<_> = self.cluster.nodes().iter().collect();
        // Damaged ones last: to replace one, the shards need a quorum of the others.
        nodes.sort_by_key(|node| self.ledger.records().damaged.contains(&node.number()));
        for node in nodes {
            let number = node.number();
            let (kept_down, damaged, abandoned) = {
                let records = self.ledger.records();
                (
                    records.targets().contains(&number),
                    records.damaged.contains(&number),
                    records.abandoned.contains(&number),
                )
            };
            let member = node.id().is_some() || damaged;
            if kept_down || !member || node.is_running() || abandoned {
                continue;
            }
            if damaged {
                self.replace(number).await?;
                continue;
            }
            if let Some(ended) = node.died()
                && (ended.is_crash() || !self.ledger.is_excused(number))
                && !node.died_at_fail_point()
            {
                self.ledger.find(number, &format!("a node ended by itself with {ended}"));
                let mut records = self.ledger.records();
                let times = records.findings.iter().filter(|finding| finding.node == number).count();
                if times >= FINDINGS_MAX {
                    records.abandoned.insert(number);
                    continue;
                }
            }
            self.restart(number).await?;
            // The excuse covered one end.
            self.ledger.records().excused.remove(&number);
        }
        Ok(())
    }

    /// Undoes every fault of disks, processes and clocks that may still be present.
    pub(super) async fn undo_all(&self) -> anyhow::Result<()> {
        let processes = self.cluster.processes();
        processes.clear_fail_point()?;
        for node in self.cluster.nodes() {
            if let Some(disk) = self.cluster.disk(node.number()) {
                // Thawing a disk that is not frozen fails.
                let _ = disk.thaw().await;
                if !disk.is_mounted()? {
                    disk.mount().await?;
                }
                disk.release(Ballast::Device)?;
                disk.release(Ballast::FileSystem)?;
                disk.unthrottle()?;
            }
            if node.process_state() == Some('T') {
                processes.resume(node.number())?;
            }
            if self.cluster.options().clocks != Clocks::Real && node.is_running() {
                processes.set_clock(node.number(), Skew::NONE).await?;
            }
        }
        self.ledger.records().active.clear();
        Ok(())
    }
}
