//! Everything that a run creates on the machine, how it is marked with its owner, and how it is
//! removed.
//!
//! Every run has a *tag*: `qj`, the owner's process id, and a serial number. Its namespaces and
//! control groups are named `TAG-…`, its mounts and images are below `/tmp/quorate-jepsen-UID/TAG`,
//! and its processes have `QUORATE_JEPSEN=TAG` in their environment. The owner holds a lock on
//! `TAG.lock` beside that directory. The kernel releases the lock when the owner dies for any
//! reason, so a lock that is free means leftovers. (A process id alone proves nothing once it is
//! reused.)

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, getuid, kill_process};

use super::{clock, tool};

/// The variable that marks the processes of a run.
pub(crate) const MARK: &str = "QUORATE_JEPSEN";
/// The longest time for the processes of a dead run to disappear, and its mounts with them.
const GONE_MAX: Duration = Duration::from_secs(10);
/// The most runs of one process at a time.
const RUNS_MAX: u32 = 100;
/// The directory in which the kernel lists named network namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";
/// The directory of the version 1 control groups that throttle disks.
pub(crate) const BLKIO: &str = "/sys/fs/cgroup/blkio";

/// The resources of one run. Erase it before dropping it; the next [`sweep`] finds leftovers.
pub(crate) struct Scratch {
    /// The mark of everything that the run creates.
    pub(crate) tag: String,
    /// The run's own directory.
    pub(crate) dir: PathBuf,
    /// Held until the owner ends.
    _lock: File,
}

fn root() -> anyhow::Result<PathBuf> {
    let root = PathBuf::from(format!("/tmp/quorate-jepsen-{}", getuid().as_raw()));
    std::fs::create_dir_all(&root).with_context(|| root.display().to_string())?;
    Ok(root)
}

/// Serializes claims and sweeps: a lock file that exists but is not locked yet looks like
/// leftovers.
fn turn() -> anyhow::Result<File> {
    let turn = File::create(root()?.join("turn"))?;
    turn.lock()?;
    Ok(turn)
}

impl Scratch {
    /// Claims a tag and a directory for a run of this process.
    pub(crate) fn claim() -> anyhow::Result<Self> {
        let _turn = turn()?;
        let root = root()?;
        for serial in 0..RUNS_MAX {
            let tag = format!("qj{}x{serial}", std::process::id());
            let dir = root.join(&tag);
            if dir.exists() {
                continue;
            }
            let lock = File::create(root.join(format!("{tag}.lock")))?;
            if lock.try_lock().is_err() {
                continue;
            }
            std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
            return Ok(Scratch { tag, dir, _lock: lock });
        }
        anyhow::bail!("{} contains the leftovers of {RUNS_MAX} runs of this process: remove it", root.display())
    }

    /// Removes everything that the run created on the machine.
    pub(crate) async fn erase(&self) -> anyhow::Result<()> {
        erase(&self.tag, &self.dir).await
    }
}

/// Removes the leftovers of runs whose owner is dead; returns their tags. Never touches a live run.
pub async fn sweep() -> anyhow::Result<Vec<String>> {
    let _turn = turn()?;
    let root = root()?;
    let mut swept = Vec::new();
    for entry in std::fs::read_dir(&root)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let Some(tag) = name.strip_suffix(".lock") else { continue };
        let lock = File::open(&path)?;
        if lock.try_lock().is_err() {
            continue;
        }
        let dir = root.join(tag);
        if dir.exists() {
            erase(tag, &dir).await.with_context(|| format!("removing the leftovers of the dead run {tag}"))?;
            swept.push(tag.to_owned());
        }
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(swept)
}

async fn erase(tag: &str, dir: &Path) -> anyhow::Result<()> {
    // A process that waits for a frozen file system cannot die before the thaw.
    for mount in mounts_below(dir)? {
        let _ = tool::run("fsfreeze", &["-u", &mount]).await;
    }
    let deadline = Instant::now() + GONE_MAX;
    while kill_marked(tag)? > 0 {
        ensure!(Instant::now() < deadline, "processes of {tag} do not die");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for mount in mounts_below(dir)?.iter().rev() {
        unmount(mount, deadline).await?;
    }
    for name in names_in(Path::new(NAMESPACES), tag) {
        tool::run("ip", &["netns", "delete", &name]).await?;
    }
    for name in names_in(Path::new(BLKIO), tag) {
        std::fs::remove_dir(Path::new(BLKIO).join(name))?;
    }
    std::fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
    // The owner keeps its lock on the open file; the file name is no longer needed.
    match std::fs::remove_file(dir.with_extension("lock")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Unmounts a file system and frees its loop device. Retries while a dying process keeps it busy.
pub(crate) async fn unmount(mount: &str, deadline: Instant) -> anyhow::Result<()> {
    loop {
        match tool::run("umount", &[mount]).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_busy) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The mount points at and below a directory, outermost first.
pub(crate) fn mounts_below(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    Ok(points.filter(|point| Path::new(point).starts_with(dir)).map(str::to_owned).collect())
}

fn names_in(dir: &Path, tag: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return vec![] };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.strip_prefix(tag).is_some_and(|rest| rest.starts_with('-'))).collect()
}

/// Sends SIGKILL to the processes of a run; returns their number.
fn kill_marked(tag: &str) -> anyhow::Result<usize> {
    let mark = format!("{MARK}={tag}");
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // The environments of other users' processes, and of ended processes, cannot be read.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            killed += 1;
            clock::forget(pid.as_raw_nonzero().get().unsigned_abs());
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(killed)
}
