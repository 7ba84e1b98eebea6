//! The options of a cluster under test.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde::Serialize;

use super::abilities::Abilities;
use super::clock::Clocks;
use super::namespaces::NODES_MAX;

/// How the nodes reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    /// One network namespace per node, connected by a bridge that drops packets as a switch would.
    /// Needs root, iproute2 and nftables.
    Namespaces,
    /// Loopback, with a proxy in front of every peer port that delays bytes. Needs no privilege.
    Loopback,
}

/// The storage that nodes write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskKind {
    /// One ext4 image per node, so that power can be cut and disks can fail. Needs root and loop
    /// devices. Images live in memory.
    Images {
        /// The size of each image, in MiB.
        mib: u32,
    },
    /// Directories of this machine. Processes can be killed; written data survives in the kernel.
    Directories,
}

/// The options of a cluster under test.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes that bootstrap the cluster.
    pub nodes: usize,
    /// Empty places for nodes that join later.
    pub spares: usize,
    /// Shards.
    pub shards: u32,
    /// Replicas of each shard.
    pub replicas: u32,
    /// How the nodes reach each other.
    pub network: NetworkKind,
    /// The storage that nodes write to.
    pub disks: DiskKind,
    /// The clocks of the nodes that can be changed.
    pub clocks: Clocks,
    /// Environment variables of every node. Nodes inherit none of the harness's `QUORATE_`
    /// variables.
    pub environment: Vec<(String, String)>,
    /// The binary under test.
    pub binary: PathBuf,
    /// An existing directory for the nodes' logs, `n1.log` and so on.
    pub dir: PathBuf,
}

impl Options {
    /// Five nodes and one spare place, with the best network and disks that this machine supports.
    pub fn new(dir: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let able = Abilities::of_this_machine();
        Ok(Options {
            nodes: 5,
            spares: 1,
            shards: 8,
            replicas: 3,
            network: if able.namespaces.is_ok() { NetworkKind::Namespaces } else { NetworkKind::Loopback },
            disks: if able.images.is_ok() { DiskKind::Images { mib: 256 } } else { DiskKind::Directories },
            clocks: Clocks::Real,
            environment: vec![],
            binary: binary()?,
            dir: dir.into(),
        })
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        let places = self.nodes + self.spares;
        ensure!((1..=NODES_MAX).contains(&places), "a cluster has 1 to {NODES_MAX} nodes, not {places}");
        ensure!(self.dir.is_dir(), "{} is not a directory", self.dir.display());
        let able = Abilities::of_this_machine();
        if self.network == NetworkKind::Namespaces {
            able.namespaces.context("no network namespaces")?;
        }
        if matches!(self.disks, DiskKind::Images { .. }) {
            able.images.context("no disk images")?;
        }
        if self.clocks != Clocks::Real {
            able.clocks.context("no clock changes")?;
        }
        Ok(())
    }
}

/// The binary under test: the file named by `QUORATE_BIN`, or else `quorate` in this program's
/// directory or its parent directory (where tests find it).
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("QUORATE_BIN") {
        let named = PathBuf::from(named);
        ensure!(named.is_file(), "QUORATE_BIN names {}, which is not a file", named.display());
        return Ok(std::path::absolute(named)?);
    }
    let this = std::env::current_exe()?;
    let beside: Vec<PathBuf> = this.ancestors().skip(1).take(2).map(|dir| dir.join("quorate")).collect();
    beside.iter().find(|file| file.is_file()).cloned().with_context(|| {
        format!("{} is missing: build it (cargo build -p quorate-cli), or set QUORATE_BIN", beside[0].display())
    })
}
