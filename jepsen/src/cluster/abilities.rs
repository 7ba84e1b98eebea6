//! The abilities of this machine and this user: network namespaces, disk images, clocks.

use super::unsupported::Unsupported;
use super::{clock, disks, namespaces};

/// The abilities of this machine and this user. An error says which package or privilege is
/// missing.
#[derive(Clone, Debug)]
pub struct Abilities {
    /// Network namespaces for the nodes; the fallback is proxies on loopback.
    pub namespaces: Result<(), Unsupported>,
    /// Disk images for the nodes; the fallback is plain directories.
    pub images: Result<(), Unsupported>,
    /// Clocks that differ from the machine's.
    pub clocks: Result<(), Unsupported>,
}

impl Abilities {
    /// Probes this machine.
    pub fn of_this_machine() -> Self {
        Abilities { namespaces: namespaces::supported(), images: disks::supported(), clocks: clock::supported() }
    }

    /// One line for each missing ability, with its fallback.
    pub fn missing(&self) -> Vec<String> {
        let fallbacks = [
            (&self.namespaces, "nodes on loopback behind proxies; no packet loss, no bandwidth limits"),
            (&self.images, "data in plain directories; no power cuts, no disk faults"),
            (&self.clocks, "no clock faults"),
        ];
        let missing = fallbacks.iter().filter_map(|(able, fallback)| Some((able.as_ref().err()?, fallback)));
        missing.map(|(why, fallback)| format!("{why}; fallback: {fallback}")).collect()
    }
}
