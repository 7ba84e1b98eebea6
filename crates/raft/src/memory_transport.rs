//! An in-memory transport for tests and simulations. Links are directed and can be cut or stalled.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use quorate_types::peer::{PeerMessage, SnapshotHeader, SnapshotRefusal};
use quorate_types::{NodeId, Vote};

use crate::error::InstallError;
use crate::groups::Groups;
use crate::snapshot_data::Received;
use crate::snapshot_files::SnapshotFiles;
use crate::transport::{Lane, SnapshotUnsent, Transport, Unsent};

/// A network of nodes in one process. Cheap to clone.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    nodes: HashMap<NodeId, Groups>,
    cut: HashSet<(NodeId, NodeId)>,
    stalled: HashMap<(NodeId, NodeId), VecDeque<PeerMessage>>,
    snapshot_faults: SnapshotFaults,
}

/// Faults of the snapshots that are sent from now on, to any node.
#[derive(Clone, Debug, Default)]
pub struct SnapshotFaults {
    /// How long each transfer takes.
    pub delay: Duration,
    /// The next snapshots are refused for these reasons, before their files are asked for.
    pub refusals: VecDeque<SnapshotRefusal>,
    /// The number of snapshots that are damaged, as a bad disk of their sender would: the transfer
    /// itself succeeds.
    pub spoil: usize,
}

impl MemoryNetwork {
    /// The transport of a node.
    pub fn transport(&self, node: NodeId) -> Arc<dyn Transport> {
        Arc::new(MemoryTransport { network: self.clone(), from: node })
    }

    /// Connects a node: its messages go to these groups from now on.
    pub fn connect(&self, node: NodeId, groups: Groups) {
        self.wires().nodes.insert(node, groups);
    }

    /// Disconnects a node, as if its process had ended.
    pub fn disconnect(&self, node: NodeId) {
        self.wires().nodes.remove(&node);
    }

    /// Cuts the link from one node to another: messages on it are lost silently.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.wires().cut.insert((from, to));
    }

    /// Restores every link that was cut.
    pub fn heal(&self) {
        self.wires().cut.clear();
    }

    /// Stalls a link: messages sent on it wait until they are released. Their number is unbounded,
    /// because the test is the sender.
    pub fn stall(&self, from: NodeId, to: NodeId) {
        self.wires().stalled.entry((from, to)).or_default();
    }

    /// The number of messages that wait on a stalled link.
    pub fn stalled(&self, from: NodeId, to: NodeId) -> usize {
        self.wires().stalled.get(&(from, to)).map_or(0, VecDeque::len)
    }

    /// Delivers the first `count` messages of a stalled link, in order. The link stays stalled.
    pub fn release(&self, from: NodeId, to: NodeId, count: usize) {
        for _ in 0..count {
            let (groups, message) = {
                let mut wires = self.wires();
                let Some(message) = wires.stalled.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return };
                (wires.nodes.get(&to).cloned(), message)
            };
            if let Some(groups) = groups {
                groups.receive(from, message);
            }
        }
    }

    /// Replaces the faults of snapshots.
    pub fn snapshot_faults(&self, faults: SnapshotFaults) {
        self.wires().snapshot_faults = faults;
    }

    /// The duration of the next transfer, and the reason why it is refused.
    fn next_snapshot(&self) -> (Duration, Option<SnapshotRefusal>) {
        let faults = &mut self.wires().snapshot_faults;
        (faults.delay, faults.refusals.pop_front())
    }

    /// Whether the next snapshot is damaged.
    fn spoils(&self) -> bool {
        let left = &mut self.wires().snapshot_faults.spoil;
        let spoils = *left > 0;
        *left = left.saturating_sub(1);
        spoils
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().expect("only a broken invariant poisons this lock")
    }

    /// The receiver of messages on a link: none if the link is cut, an error if the node is not
    /// connected.
    fn target(&self, from: NodeId, to: NodeId) -> Result<Option<Groups>, Unsent> {
        let wires = self.wires();
        if wires.cut.contains(&(from, to)) {
            return Ok(None);
        }
        wires.nodes.get(&to).cloned().map(Some).ok_or(Unsent(to))
    }
}

struct MemoryTransport {
    network: MemoryNetwork,
    from: NodeId,
}

impl Transport for MemoryTransport {
    fn send(&self, to: NodeId, _lane: Lane, message: PeerMessage) -> Result<(), Unsent> {
        if let Some(waiting) = self.network.wires().stalled.get_mut(&(self.from, to)) {
            waiting.push_back(message);
            return Ok(());
        }
        if let Some(groups) = self.network.target(self.from, to)? {
            groups.receive(self.from, message);
        }
        Ok(())
    }

    fn send_snapshot(
        &self,
        to: NodeId,
        header: SnapshotHeader,
        mut files: SnapshotFiles,
    ) -> BoxFuture<'static, Result<Vote, SnapshotUnsent>> {
        let target = self.network.target(self.from, to);
        let network = self.network.clone();
        Box::pin(async move {
            let groups =
                target.map_err(SnapshotUnsent::failed)?.ok_or_else(|| SnapshotUnsent::failed("the link is cut"))?;
            let (delay, refusal) = network.next_snapshot();
            if let Some(refusal) = refusal {
                return Err(SnapshotUnsent::Refused(refusal));
            }
            // The receiver consumes its files; the sender deletes its own.
            let mut staged = Staged::default();
            while let Some(file) = files.next().await.map_err(SnapshotUnsent::failed)? {
                staged.0.push(stage(file.path()).map_err(SnapshotUnsent::failed)?);
            }
            tokio::time::sleep(delay).await;
            if network.spoils() {
                staged.0.iter().try_for_each(|file| spoil(file)).map_err(SnapshotUnsent::failed)?;
            }
            let received = Received::new(staged.0.clone(), staged);
            let installed = groups.receive_snapshot(header, received, || {}).await;
            // Until now they held the log.
            drop(files);
            installed.map_err(|error| match error {
                InstallError::Bad(reason) => SnapshotUnsent::Refused(SnapshotRefusal::Bad { node: to, reason }),
                error => SnapshotUnsent::failed(error),
            })
        })
    }
}

/// Files that are deleted on drop.
#[derive(Default)]
struct Staged(Vec<PathBuf>);

impl Drop for Staged {
    fn drop(&mut self) {
        for file in &self.0 {
            // An installation has consumed its files already.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Flips a bit in the middle of a file.
fn spoil(file: &Path) -> std::io::Result<()> {
    let mut bytes = std::fs::read(file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes)
}

/// Copies a file beside the directory that the sender deletes in the end. Each copy has its own
/// name, because an earlier one may still be in use by an installation.
fn stage(file: &Path) -> std::io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("staged-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let staged = file.ancestors().nth(2).unwrap_or(file).join(name);
    std::fs::copy(file, &staged)?;
    Ok(staged)
}
