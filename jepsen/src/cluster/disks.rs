//! The nodes' disks. Each is an ext4 file system on a loop device, on an image in a tmpfs of its
//! own.
//!
//! * **Power cut**: the file system's shutdown request (`XFS_IOC_SHUTDOWN`, which ext4 also
//!   supports), without flushing the journal. Data that was not synced is lost, as on a real
//!   machine. `xfs_io` from xfsprogs sends the request: every distribution has it, the kernel's own
//!   test suite uses it, and it needs no unsafe code here.
//! * **Failing sync**: the tmpfs below the image is full, so the device reports "no space" to a
//!   file system that has free blocks. This needs an image with holes in the free blocks and
//!   without holes in the journal. A loop device reports success for a write that was only partly
//!   done (`lo_complete_rq` in the kernel's `drivers/block/loop.c`). That would be a disk that lies
//!   about syncs, which is another fault. Therefore a block of the file system is a page of the
//!   tmpfs, and requests are limited to one block while the tmpfs is full: a request is either
//!   written or fails.
//! * **Slow disk**: the block controller's throttle on the loop device.
//! * **Hung disk**: the file system is frozen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::scratch::{BLKIO, mounts_below, unmount};
use super::tool;
use super::unsupported::Unsupported;

/// The smallest image that holds a node's data and its journal.
const IMAGE_MIB_MIN: u32 = 64;
/// The free space of the tmpfs beside the image.
const SLACK_MIB: u32 = 8;
/// The longest time for an unmount.
const UNMOUNT_MAX: Duration = Duration::from_secs(10);
/// The precision of filling a disk, in bytes: one block.
const BALLAST_STEP: u64 = 4096;
/// The size of a block of the file system, which is also the size of a tmpfs page.
const BLOCK_KIB: u32 = 4;
/// The kernel's default limit of a request (`BLK_DEF_MAX_SECTORS_CAP`).
const REQUEST_KIB: u32 = 1280;

/// The disk of one node.
#[derive(Clone, Debug)]
pub struct Disk {
    tag: String,
    number: usize,
    dir: PathBuf,
}

/// The layer that is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ballast {
    /// The node's own file system: the node sees a full disk.
    FileSystem,
    /// The tmpfs below it: syncs fail although the file system shows free space.
    Device,
}

/// Checks that this process may create disks.
pub(crate) fn supported() -> Result<(), Unsupported> {
    if !rustix::process::geteuid().is_root() {
        return Err(Unsupported::NotRoot("mounting disk images"));
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err(Unsupported::LoopDevicesMissing);
    }
    ["mkfs.ext4", "mount", "umount", "fstrim", "fsfreeze", "xfs_io"].iter().try_for_each(|program| tool::find(program))
}

/// Creates the image that all disks of a run are copied from.
pub(crate) async fn template(dir: &Path, mib: u32) -> anyhow::Result<PathBuf> {
    ensure!(mib >= IMAGE_MIB_MIN, "a disk image needs at least {IMAGE_MIB_MIN} MiB, not {mib}");
    let image = dir.join("template");
    File::create(&image)?.set_len(u64::from(mib) << 20)?;
    let block = (BLOCK_KIB << 10).to_string();
    let options = ["-q", "-F", "-b", &block, "-J", "size=8", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    let path = image.display().to_string();
    tool::run("mkfs.ext4", &[&options[..], &[path.as_str()]].concat()).await?;
    Ok(image)
}

impl Disk {
    /// Creates a disk from the template and mounts it.
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

    /// Punches holes into the image at the free blocks of the file system.
    pub(crate) async fn trim(&self) -> anyhow::Result<()> {
        tool::run("fstrim", &[&self.mount_text()]).await?;
        Ok(())
    }

    /// The mount point.
    pub fn mount_point(&self) -> PathBuf {
        self.dir.join(format!("n{}", self.number))
    }

    fn mount_text(&self) -> String {
        self.mount_point().display().to_string()
    }

    /// The tmpfs that contains the image.
    fn below(&self) -> PathBuf {
        self.dir.join(format!("n{}.below", self.number))
    }

    fn below_text(&self) -> String {
        self.below().display().to_string()
    }

    fn image(&self) -> PathBuf {
        self.below().join("image")
    }

    /// Mounts the disk; the file system replays its journal.
    pub(crate) async fn mount(&self) -> anyhow::Result<()> {
        tool::run("mount", &["-o", "loop", &self.image().display().to_string(), &self.mount_text()]).await?;
        // The loop device keeps the limit of its last user.
        self.limit_requests(REQUEST_KIB)
    }

    /// Limits the size of a request to the device.
    fn limit_requests(&self, kib: u32) -> anyhow::Result<()> {
        ensure!(self.is_mounted()?, "node {}'s disk is not mounted", self.number);
        let queue = Path::new("/sys/dev/block").join(self.device()?).join("queue");
        let most: u32 = std::fs::read_to_string(queue.join("max_hw_sectors_kb"))?.trim().parse()?;
        std::fs::write(queue.join("max_sectors_kb"), kib.min(most).to_string())
            .context("the size of the device's requests")
    }

    /// Unmounts the disk. No process may use it.
    pub(crate) async fn unmount(&self) -> anyhow::Result<()> {
        unmount(&self.mount_text(), Instant::now() + UNMOUNT_MAX).await
    }

    /// Whether the disk is mounted.
    pub fn is_mounted(&self) -> anyhow::Result<bool> {
        Ok(mounts_below(&self.mount_point())?.iter().any(|point| *point == self.mount_text()))
    }

    /// Cuts the power: no write reaches the disk from now on, not even the journal. Checks this
    /// with a write.
    pub(crate) async fn shut_down(&self) -> anyhow::Result<()> {
        tool::run("xfs_io", &["-x", "-c", "shutdown", &self.mount_text()]).await?;
        match File::create(self.mount_point().join("dead")) {
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(()),
            Err(error) => Err(error).context("expected an input/output error from a disk without power"),
            Ok(_) => bail!("node {}'s disk accepts writes after its power was cut", self.number),
        }
    }

    /// Restores the power: mounts the file system again.
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

    /// Takes all free space of a layer; returns the number of bytes.
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

    /// Releases the space taken by [`Disk::fill`]. Does nothing if no space was taken.
    pub(crate) fn release(&self, layer: Ballast) -> anyhow::Result<()> {
        match std::fs::remove_file(self.ballast(layer)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            removed => removed.context("ballast")?,
        }
        if layer == Ballast::Device && self.is_mounted()? { self.limit_requests(REQUEST_KIB) } else { Ok(()) }
    }

    /// Whether the file system's free space is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.ballast(Ballast::FileSystem).exists()
    }

    /// The free bytes of a layer.
    pub(crate) fn free(&self, layer: Ballast) -> anyhow::Result<u64> {
        let dir = if layer == Ballast::FileSystem { self.mount_point() } else { self.below() };
        let free = statvfs(&dir)?;
        Ok(free.f_bavail * free.f_frsize)
    }

    /// Freezes the disk: writers wait until the thaw, and cannot be killed while they wait.
    pub(crate) async fn freeze(&self) -> anyhow::Result<()> {
        tool::run("fsfreeze", &["-f", &self.mount_text()]).await?;
        // Freezing a frozen file system fails.
        ensure!(tool::run("fsfreeze", &["-f", &self.mount_text()]).await.is_err(), "the disk is not frozen");
        Ok(())
    }

    /// Thaws the disk.
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
        Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
    }

    /// Limits the writes per second of a process.
    pub(crate) fn throttle(&self, pid: u32, writes_per_second: u32) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.group())?;
        let limit = self.group().join("blkio.throttle.write_iops_device");
        std::fs::write(&limit, format!("{} {writes_per_second}", self.device()?))?;
        std::fs::write(self.group().join("cgroup.procs"), pid.to_string())?;
        let said = std::fs::read_to_string(&limit)?;
        ensure!(said.contains(&self.device()?), "the kernel did not accept the throttle: {said:?}");
        Ok(())
    }

    /// Removes the limit.
    pub(crate) fn unthrottle(&self) -> anyhow::Result<()> {
        if !self.group().exists() {
            return Ok(());
        }
        for pid in std::fs::read_to_string(self.group().join("cgroup.procs"))?.lines() {
            // The process may have ended since.
            let _ = std::fs::write(Path::new(BLKIO).join("cgroup.procs"), pid);
        }
        std::fs::remove_dir(self.group()).context("the throttle's control group")
    }
}

/// Copies a file without holes, so that the journal never needs new space.
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
