//! The free space of the node's disk, and the reserve below which puts are refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_raft::Room;
use tracing::{info, warn};

/// The default reserve, in bytes: room to purge the log and to compact.
const RESERVE_BYTES: u64 = 512 << 20;
/// The default reserve of a small disk, in percent of the disk.
const RESERVE_PERCENT: u64 = 2;

/// The free space of the disk. A task measures it once a second; requests only read the result.
#[derive(Debug)]
pub(crate) struct Disk {
    configured_reserve: Option<u64>,
    free: AtomicU64,
    reserve: AtomicU64,
}

impl Disk {
    /// Nothing is measured yet, and nothing is refused.
    pub(crate) fn new(configured_reserve: Option<u64>) -> Self {
        Disk { configured_reserve, free: AtomicU64::new(u64::MAX), reserve: AtomicU64::new(0) }
    }

    /// Measures the file system of `path`. The last measurement stands if that fails: a failing
    /// disk shows in the log's writes.
    pub(crate) fn look(&self, path: &Path) {
        match rustix::fs::statvfs(path) {
            Ok(stat) => {
                self.observe(stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize));
            }
            Err(e) => warn!(error = %e, "free disk space is not known"),
        }
    }

    /// Records a measurement of a disk of `total` bytes with `free` free ones.
    fn observe(&self, free: u64, total: u64) {
        let reserve = self.configured_reserve.unwrap_or_else(|| RESERVE_BYTES.min(total / 100 * RESERVE_PERCENT));
        let was_full = self.is_full();
        self.reserve.store(reserve, Ordering::Relaxed);
        self.free.store(free, Ordering::Relaxed);
        match (was_full, self.is_full()) {
            (false, true) => warn!(free, reserve, "disk is below its reserve, puts are refused"),
            (true, false) => info!(free, reserve, "disk is above its reserve again"),
            _ => {}
        }
    }

    /// Whether there is less free space than the reserve.
    pub(crate) fn is_full(&self) -> bool {
        self.free_bytes() < self.reserve.load(Ordering::Relaxed)
    }

    /// Free space above the reserve in bytes, as last measured.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.free_bytes().saturating_sub(self.reserve.load(Ordering::Relaxed))
    }

    /// Measures the room of the file system of `path` whenever it is asked for.
    pub(crate) fn room(self: &Arc<Self>, path: PathBuf) -> Room {
        let disk = self.clone();
        Arc::new(move || {
            disk.look(&path);
            disk.room_bytes()
        })
    }

    /// Free space in bytes, as last measured.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_a_part_of_a_small_disk_and_bounded_on_a_large_one() {
        let disk = Disk::new(None);
        assert!(!disk.is_full(), "nothing is refused before the disk was looked at");
        disk.observe(300 << 20, 10 << 30);
        assert!(!disk.is_full(), "2 % of 10 GiB are less than 300 MiB");
        disk.observe(100 << 20, 10 << 30);
        assert!(disk.is_full());
        disk.observe(600 << 20, 10 << 40);
        assert!(!disk.is_full(), "512 MiB are enough on any disk");
        disk.observe(500 << 20, 10 << 40);
        assert!(disk.is_full());
    }

    #[test]
    fn a_configured_reserve_counts_alone() {
        let disk = Disk::new(Some(u64::MAX));
        disk.look(Path::new("/"));
        assert!(disk.is_full());
        let disk = Disk::new(Some(0));
        disk.look(Path::new("/"));
        assert!(!disk.is_full());
        assert!(disk.free_bytes() < u64::MAX);
    }
}
