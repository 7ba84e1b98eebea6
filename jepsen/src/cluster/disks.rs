//! The nodes' disks: an ext4 file system each, on a loop device, on an image in a tmpfs of its own.
//!
//! * Power is cut with the file system's shutdown request (`XFS_IOC_SHUTDOWN`, which ext4 knows too), without flushing its
//!   journal: what was not synced is gone, as on a real machine. `xfs_io` from xfsprogs sends it: it is in every distribution,
//!   is what the kernel's own test suite uses for this, and needs no unsafe code of ours.
//! * A sync fails when the tmpfs below the image is full: the device reports that it has no space to a file system that
//!   believes there is some. For that the image has holes wherever the file system is free, and none in its journal. A loop device
//!   takes a write that was only begun for one that succeeded (`lo_complete_rq` in the kernel's `drivers/block/loop.c`): a
//!   disk that lies about what it synced, which is not what this is to show. So a block of the file system is a page of
//!   the tmpfs, and while the space is taken a request is one of them: it is written or it fails.
//! * A disk is slow by the block controller's throttle on the loop device, and hangs when the file system is frozen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::fs::{FallocateFlags, fallocate, major, minor, statvfs};
use rustix::io::Errno;

use super::scratch::{BLKIO, mounts_below, unmount};
use super::tool;

/// The smallest image that holds a node and its journal.
pub(crate) const IMAGE_MIB_MIN: u32 = 64;
/// What the tmpfs holds beside the image.
const SLACK_MIB: u32 = 8;
/// How long an unmount may take.
const UNMOUNT_MAX: Duration = Duration::from_secs(10);
/// A ballast that leaves less than this leaves nothing.
const BALLAST_STEP: u64 = 4096;
/// A block of the file system, and a page of the tmpfs.
const BLOCK_KIB: u32 = 4;
/// What the kernel lets a request be unless it is told otherwise (`BLK_DEF_MAX_SECTORS_CAP`).
const REQUEST_KIB: u32 = 1280;

/// The disk of one node.
#[derive(Clone, Debug)]
pub struct Disk {
    tag: String,
    number: usize,
    dir: PathBuf,
}

/// Which layer is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ballast {
    /// The node's own file system: it sees that the disk is full.
    FileSystem,
    /// What is below it: syncing fails although there seems to be space.
    Device,
}

/// Whether this process may make disks; the error says what is missing.
pub(crate) fn possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("not root: mounting disk images needs it".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("no loop devices: /dev/loop-control is missing".to_owned());
    }
    ["mkfs.ext4", "mount", "umount", "fstrim", "fsfreeze", "xfs_io"].iter().try_for_each(|program| tool::find(program))
}

/// Makes an image that all disks of a run are copies of.
pub(crate) async fn template(dir: &Path, mib: u32) -> anyhow::Result<PathBuf> {
    ensure!(mib >= IMAGE_MIB_MIN, "a disk image needs {IMAGE_MIB_MIN} MiB at least, not {mib}");
    let image = dir.join("template");
    File::create(&image)?.set_len(u64::from(mib) << 20)?;
    let block = (BLOCK_KIB << 10).to_string();
    let options = ["-q", "-F", "-b", &block, "-J", "size=8", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    let path = image.display().to_string();
    tool::run("mkfs.ext4", &[&options[..], &[path.as_str()]].concat()).await?;
    Ok(image)
}

impl Disk {
    /// Makes and mounts a disk from the template.
    pub(crate) async fn create(dir: &Path, tag: &str, number: usize, template: &Path) -> anyhow::Result<Self> {
        let disk = Disk { tag: tag.to_owned(), number, dir: dir.to_owned() };
        std::fs::create_dir_all(disk.mount_point())?;
        std::fs::create_dir_all(disk.below())?;
        let mib = std::fs::metadata(template)?.len() >> 20;
        let size = format!("size={}m,mode=700", mib + u64::from(SLACK_MIB));
        tool::run("mount", &["-t", "tmpfs", "-o", &size, &format!("{tag}-n{number}"), &disk.below_text()]).await?;
        let (from, to) = (template.to_owned(), disk.image());
        tokio::task::spawn_blocking(move || copy_densely(&from, &to)).await??;
        disk.mount().await?;
        disk.trim().await?;
        Ok(disk)
    }

    /// Punches holes into the image where the file system is free.
    pub(crate) async fn trim(&self) -> anyhow::Result<()> {
        tool::run("fstrim", &[&self.mount_text()]).await?;
        Ok(())
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.dir.join(format!("n{}", self.number))
    }

    fn mount_text(&self) -> String {
        self.mount_point().display().to_string()
    }

    /// The tmpfs that holds the image.
    fn below(&self) -> PathBuf {
        self.dir.join(format!("n{}.below", self.number))
    }

    fn below_text(&self) -> String {
        self.below().display().to_string()
    }

    fn image(&self) -> PathBuf {
        self.below().join("image")
    }

    /// Mounts it; the file system replays its journal.
    pub(crate) async fn mount(&self) -> anyhow::Result<()> {
        tool::run("mount", &["-o", "loop", &self.image().display().to_string(), &self.mount_text()]).await?;
        // The device remembers what its last user wanted.
        self.limit_requests(REQUEST_KIB)
    }

    /// Sets how large a request to the device may be.
    fn limit_requests(&self, kib: u32) -> anyhow::Result<()> {
        ensure!(self.is_mounted()?, "node {}'s disk is not mounted", self.number);
        let queue = Path::new("/sys/dev/block").join(self.device()?).join("queue");
        let most: u32 = std::fs::read_to_string(queue.join("max_hw_sectors_kb"))?.trim().parse()?;
        std::fs::write(queue.join("max_sectors_kb"), kib.min(most).to_string())
            .context("the size of the device's requests")
    }

    /// Unmounts it. Nothing may run on it.
    pub(crate) async fn unmount(&self) -> anyhow::Result<()> {
        unmount(&self.mount_text(), Instant::now() + UNMOUNT_MAX).await
    }

    /// Whether it is mounted.
    pub fn is_mounted(&self) -> anyhow::Result<bool> {
        Ok(mounts_below(&self.mount_point())?.iter().any(|point| *point == self.mount_text()))
    }

    /// Cuts the power: nothing reaches the disk any more, not even the journal. Checks that it is so.
    pub(crate) async fn shut_down(&self) -> anyhow::Result<()> {
        tool::run("xfs_io", &["-x", "-c", "shutdown", &self.mount_text()]).await?;
        match File::create(self.mount_point().join("dead")) {
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(()),
            Err(error) => Err(error).context("the disk was to answer with an input/output error"),
            Ok(_) => bail!("node {}'s disk takes writes after its power was cut", self.number),
        }
    }

    /// Power comes back: the file system is mounted anew.
    pub(crate) async fn power_up(&self) -> anyhow::Result<()> {
        self.unmount().await?;
        self.mount().await
    }

    fn ballast(&self, layer: Ballast) -> PathBuf {
        match layer {
            Ballast::FileSystem => self.mount_point().join("ballast"),
            Ballast::Device => self.below().join("ballast"),
        }
    }

    /// Takes all free space of a layer; gives the bytes.
    pub(crate) fn fill(&self, layer: Ballast) -> anyhow::Result<u64> {
        if layer == Ballast::Device {
            self.limit_requests(BLOCK_KIB)?;
        }
        let file = File::create(self.ballast(layer))?;
        let mut taken = 0;
        let free = statvfs(self.ballast(layer))?;
        let mut step = (free.f_bavail * free.f_frsize).max(BALLAST_STEP);
        while step >= BALLAST_STEP {
            match fallocate(&file, FallocateFlags::empty(), taken, step) {
                Ok(()) => taken += step,
                Err(Errno::NOSPC) => step /= 2,
                Err(error) => return Err(error).context("ballast"),
            }
        }
        Ok(taken)
    }

    /// Gives the space back. Harmless when none was taken.
    pub(crate) fn release(&self, layer: Ballast) -> anyhow::Result<()> {
        match std::fs::remove_file(self.ballast(layer)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            removed => removed.context("ballast")?,
        }
        if layer == Ballast::Device && self.is_mounted()? { self.limit_requests(REQUEST_KIB) } else { Ok(()) }
    }

    /// Whether its file system's space was taken, and not given back.
    pub(crate) fn is_full(&self) -> bool {
        self.ballast(Ballast::FileSystem).exists()
    }

    /// Free bytes of a layer.
    pub(crate) fn free(&self, layer: Ballast) -> anyhow::Result<u64> {
        let dir = if layer == Ballast::FileSystem { self.mount_point() } else { self.below() };
        let free = statvfs(&dir)?;
        Ok(free.f_bavail * free.f_frsize)
    }

    /// Freezes it: whoever writes waits, and cannot be killed, until it thaws.
    pub(crate) async fn freeze(&self) -> anyhow::Result<()> {
        tool::run("fsfreeze", &["-f", &self.mount_text()]).await?;
        // A frozen file system says so when it is to be frozen again.
        ensure!(tool::run("fsfreeze", &["-f", &self.mount_text()]).await.is_err(), "the disk is not frozen");
        Ok(())
    }

    /// Thaws it.
    pub(crate) async fn thaw(&self) -> anyhow::Result<()> {
        tool::run("fsfreeze", &["-u", &self.mount_text()]).await?;
        ensure!(tool::run("fsfreeze", &["-u", &self.mount_text()]).await.is_err(), "the disk is still frozen");
        Ok(())
    }

    fn group(&self) -> PathBuf {
        Path::new(BLKIO).join(format!("{}-n{}", self.tag, self.number))
    }

    /// The loop device, as `major:minor`.
    fn device(&self) -> anyhow::Result<String> {
        let device = std::fs::metadata(self.mount_point())?.dev();
        Ok(format!("{}:{}", major(device), minor(device)))
    }

    /// Lets a process write only so often a second.
    pub(crate) fn throttle(&self, pid: u32, writes_per_second: u32) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.group())?;
        let limit = self.group().join("blkio.throttle.write_iops_device");
        std::fs::write(&limit, format!("{} {writes_per_second}", self.device()?))?;
        std::fs::write(self.group().join("cgroup.procs"), pid.to_string())?;
        let said = std::fs::read_to_string(&limit)?;
        ensure!(said.contains(&self.device()?), "the throttle is not there: {said:?}");
        Ok(())
    }

    /// Lets everybody write as they please again.
    pub(crate) fn unthrottle(&self) -> anyhow::Result<()> {
        if !self.group().exists() {
            return Ok(());
        }
        for pid in std::fs::read_to_string(self.group().join("cgroup.procs"))?.lines() {
            // It may have ended meanwhile.
            let _ = std::fs::write(Path::new(BLKIO).join("cgroup.procs"), pid);
        }
        std::fs::remove_dir(self.group()).context("the throttle's control group")
    }
}

/// Copies without leaving holes, whatever the original has: the journal must never need space.
fn copy_densely(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&chunk[..read])?;
    }
}
