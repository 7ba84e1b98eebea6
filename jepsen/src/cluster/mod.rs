//! The cluster under test: five nodes (or any number) as separate processes with their own
//! addresses and disks, which can be killed, paused, partitioned and powered off.
//!
//! Nodes are numbered from 1 by their *place*. A place keeps its addresses, disk and log file even
//! when a node with a new id moves in. Methods take `&self`, so that a nemesis and a workload can
//! share one cluster.
//!
//! ```text
//!   Cluster ──► Node        a process, its signals, its exit status        node
//!           ──► Processes   start, kill, pause, power off, set clocks      processes
//!           ──► Network     namespaces + nftables | proxies on loopback    network, links
//!           ──► Disk        an ext4 image: power, space, freezing          disks
//!           ──► Admin       status requests and operators' commands        admin
//!           ──► Scratch     everything that must be removed at the end     scratch
//! ```
//!
//! `nemesis` builds faults from these parts. Read `parts` next, then `node`.

mod abilities;
mod admin;
pub(crate) mod clock;
mod delays;
mod disks;
mod links;
mod namespaces;
mod network;
mod node;
mod options;
mod packet_queue;
mod parts;
mod processes;
mod proxies;
mod scratch;
mod start;
mod threads;
mod tool;
mod unsupported;

pub use abilities::Abilities;
pub(crate) use admin::leaders_of;
pub use admin::{Admin, CommandOutput, Verified};
pub use clock::Clocks;
pub(crate) use disks::Ballast;
pub use disks::Disk;
pub use links::{Delay, Link, Rules};
pub use network::Network;
pub use node::{Ended, Node};
pub use options::{DiskKind, NetworkKind, Options, binary};
pub use parts::Cluster;
pub use processes::Processes;
pub use scratch::sweep;
pub use threads::ClientRuntime;
pub use unsupported::Unsupported;
