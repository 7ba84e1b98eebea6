//! What a cluster under test is started with, and what this machine can do.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use super::namespaces::{NODES_MAX, Namespaces};
use super::{clock, disks};

/// How the nodes reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// A network namespace each, on a bridge: packets are dropped as a switch would. Needs root, iproute2 and nftables.
    Namespaces,
    /// Loopback, behind a proxy before every node's peer port: bytes are held back. Needs nothing.
    Loopback,
}

/// What the nodes write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disks {
    /// An ext4 image each, so that power can be cut and disks fail. Needs root and loop devices; lives in memory.
    Images {
        /// The size of each, in MiB.
        mib: u32,
    },
    /// Directories: processes can be killed, but what the kernel has it keeps.
    Directories,
}

/// Which clocks of the nodes can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clocks {
    /// None.
    Real,
    /// The wall clock: what a wrong NTP server or an operator does. Time-outs stay as they are.
    Wall,
    /// The wall clock and the monotonic one: a virtual machine that migrated, an oscillator that is off.
    WallAndMonotonic,
}

/// What a cluster under test is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes that found the cluster.
    pub nodes: usize,
    /// Places for more nodes, which are not started: those that join later need one.
    pub spares: usize,
    /// Shards.
    pub shards: u32,
    /// Replicas of each shard.
    pub replicas: u32,
    /// How the nodes reach each other.
    pub network: Network,
    /// What they write to.
    pub disks: Disks,
    /// Which of their clocks can be changed.
    pub clocks: Clocks,
    /// Variables that every node gets. Nodes inherit no `QUORATE_` variable of ours.
    pub environment: Vec<(String, String)>,
    /// The binary under test.
    pub binary: PathBuf,
    /// An existing directory for the nodes' logs, `n1.log` and so on.
    pub dir: PathBuf,
}

impl Options {
    /// Five nodes and a spare place, with everything that this machine can do.
    pub fn new(dir: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let able = Abilities::of_this_machine();
        Ok(Options {
            nodes: 5,
            spares: 1,
            shards: 8,
            replicas: 3,
            network: if able.namespaces.is_ok() { Network::Namespaces } else { Network::Loopback },
            disks: if able.images.is_ok() { Disks::Images { mib: 256 } } else { Disks::Directories },
            clocks: Clocks::Real,
            environment: vec![],
            binary: binary()?,
            dir: dir.into(),
        })
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let places = self.nodes + self.spares;
        ensure!((1..=NODES_MAX).contains(&places), "a cluster has 1 to {NODES_MAX} nodes, not {places}");
        ensure!(self.dir.is_dir(), "{} is not a directory", self.dir.display());
        let able = Abilities::of_this_machine();
        if let (Network::Namespaces, Err(why)) = (self.network, &able.namespaces) {
            bail!("no network namespaces: {why}");
        }
        if let (Disks::Images { .. }, Err(why)) = (self.disks, &able.images) {
            bail!("no disk images: {why}");
        }
        if let (true, Err(why)) = (self.clocks != Clocks::Real, &able.clocks) {
            bail!("no clock changes: {why}");
        }
        Ok(())
    }
}

/// What this machine and this user can do; the errors say what is missing and what to install.
#[derive(Clone, Debug)]
pub struct Abilities {
    /// [`Network::Namespaces`]; [`Network::Loopback`] is done instead.
    pub namespaces: Result<(), String>,
    /// [`Disks::Images`]; [`Disks::Directories`] is done instead.
    pub images: Result<(), String>,
    /// Other [`Clocks`] than the real ones.
    pub clocks: Result<(), String>,
}

impl Abilities {
    /// Looks.
    pub fn of_this_machine() -> Self {
        Abilities { namespaces: Namespaces::possible(), images: disks::possible(), clocks: clock::possible() }
    }

    /// A line for everything that cannot be done, with what is done instead.
    pub fn missing(&self) -> Vec<String> {
        let instead = [
            (&self.namespaces, "nodes on loopback behind proxies; no packet loss, no narrow links"),
            (&self.images, "data in plain directories; no power cuts, no disk faults"),
            (&self.clocks, "no clock faults"),
        ];
        let missing = instead.iter().filter_map(|(able, instead)| Some((able.as_ref().err()?, instead)));
        missing.map(|(why, instead)| format!("{why}; instead: {instead}")).collect()
    }
}

/// The binary under test: the one that `QUORATE_BIN` names, else `quorate` beside this program (or beside its directory, for
/// tests).
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("QUORATE_BIN") {
        let named = PathBuf::from(named);
        ensure!(named.is_file(), "QUORATE_BIN names {}, which is no file", named.display());
        return Ok(std::path::absolute(named)?);
    }
    let this = std::env::current_exe()?;
    let beside: Vec<PathBuf> = this.ancestors().skip(1).take(2).map(|dir| dir.join("quorate")).collect();
    beside.iter().find(|file| file.is_file()).cloned().with_context(|| {
        format!(
            "{} is missing: build it (cargo build -p quorate-cli), or name it with QUORATE_BIN",
            beside[0].display()
        )
    })
}
