//! Disk faults: full, failing, hung and slow disks.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::injection::Injection;
use super::ledger::Ledger;
use super::repair::Repair;
use crate::cluster::{Ballast, Cluster, Disk};

/// The longest time for a node to notice that its disk failed. Requests that a throttle of the slow
/// disk fault holds back come first: a few hundred, at ten a second.
const NOTICE_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Injects and undoes disk faults.
pub(super) struct DiskFaults<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) ledger: &'a Ledger,
    pub(super) repair: &'a Repair,
}

impl DiskFaults<'_> {
    /// Makes a disk full, failing or hung; returns the evidence.
    pub(super) async fn break_disk(&self, injection: &Injection, node: usize) -> anyhow::Result<Value> {
        let disk = self.disk(node)?;
        match injection {
            Injection::DiskFull => {
                let taken = disk.fill(Ballast::FileSystem)?;
                Ok(json!({ "taken_bytes": taken, "free_bytes": disk.free(Ballast::FileSystem)? }))
            }
            Injection::SyncFails => {
                disk.trim().await?;
                let taken = disk.fill(Ballast::Device)?;
                let below = json!({ "taken_bytes": taken, "free_bytes": disk.free(Ballast::Device)? });
                Ok(json!({ "below": below, "node": self.wait_for_disk_failure(node).await? }))
            }
            Injection::DiskDies => {
                // A sync during the abort of the journal may report success (ext4; seen in one of
                // four cases): a disk that lies, which is another fault. So no sync may be under
                // way.
                let processes = self.cluster.processes();
                processes.pause(node).await?;
                let cut = async {
                    self.cluster.node(node).wait_until_all_stopped().await?;
                    disk.shut_down().await
                };
                let cut = cut.await;
                processes.resume(node)?;
                cut?;
                Ok(json!({ "disk": "input/output error", "node": self.wait_for_disk_failure(node).await? }))
            }
            _ => {
                disk.freeze().await?;
                Ok(json!({ "disk": "frozen" }))
            }
        }
    }

    /// Limits the write rate of disks.
    pub(super) fn throttle(&self, nodes: &[usize], writes_per_second: u32) -> anyhow::Result<Value> {
        for node in nodes {
            let pid = self.cluster.node(*node).pid().with_context(|| format!("node {node} is not running"))?;
            self.disk(*node)?.throttle(pid, writes_per_second)?;
        }
        Ok(json!({ "throttled": nodes }))
    }

    /// Removes the limits of [`DiskFaults::throttle`].
    pub(super) fn unthrottle(&self, nodes: &[usize]) -> anyhow::Result<Value> {
        nodes.iter().try_for_each(|node| self.disk(*node)?.unthrottle())?;
        Ok(Value::Null)
    }

    /// Undoes [`DiskFaults::break_disk`]; returns the evidence.
    pub(super) async fn mend_disk(&self, injection: &Injection, node: usize) -> anyhow::Result<Value> {
        let disk = self.disk(node)?;
        match injection {
            Injection::DiskFull => {
                disk.release(Ballast::FileSystem)?;
                let free = disk.free(Ballast::FileSystem)?;
                Ok(json!({ "free_bytes": free, "nodes": self.repair.restart_all(&[node]).await? }))
            }
            Injection::SyncFails | Injection::DiskDies => {
                // Mounts the disk again, as a reboot does: the kernel's page cache of it is
                // dropped.
                disk.release(Ballast::Device)?;
                let ended = self.cluster.node(node).died().map(|ended| ended.to_string());
                self.cluster.processes().kill(&[node]).await?;
                disk.power_up().await?;
                Ok(json!({ "ended": ended, "nodes": self.repair.restart_all(&[node]).await? }))
            }
            _ => {
                disk.thaw().await?;
                self.repair.restart_all(&[node]).await
            }
        }
    }

    fn disk(&self, node: usize) -> anyhow::Result<&Disk> {
        self.cluster.disk(node).context("disks are plain directories")
    }

    /// Waits until a node ends because its disk failed; returns how. The exit code must be that of
    /// a failed disk. A node that keeps running did not use its disk; the fault does not count
    /// then.
    async fn wait_for_disk_failure(&self, node: usize) -> anyhow::Result<String> {
        let deadline = Instant::now() + NOTICE_MAX;
        while Instant::now() < deadline {
            if let Some(ended) = self.cluster.node(node).died() {
                if !ended.is_disk_failure() {
                    let what = format!("a node whose disk failed ended with {ended} instead of the exit code for that");
                    self.ledger.find(node, &what);
                }
                return Ok(format!("ended with {ended}"));
            }
            tokio::time::sleep(POLL).await;
        }
        let (seconds, running) = (NOTICE_MAX.as_secs(), self.cluster.node(node));
        let (threads, log) = (running.threads(), running.log_tail());
        bail!("node {node} still runs {seconds} s after its disk failed; its threads:\n{threads}\nits log:\n{log}")
    }
}
