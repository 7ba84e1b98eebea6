//! What a run leaves on the machine while it lives, found by its owner's mark, and how it is taken away.
//!
//! Every run has a *tag*, `qj` + the owner's process id + a serial number. Its namespaces and control groups are named
//! `TAG-…`, its mounts and images are below `/tmp/quorate-jepsen-UID/TAG`, its processes have `QUORATE_JEPSEN=TAG` in their
//! environment. The owner holds a lock on `TAG.lock` beside that directory: the kernel gives it up when the owner dies,
//! however it dies, so that a lock that can be had means leftovers. (A process id alone would say nothing once it is reused.)

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, getuid, kill_process};

use super::{clock, tool};

/// The variable that marks the processes of a run.
pub(crate) const MARK: &str = "QUORATE_JEPSEN";
/// How long the processes of a dead run may take to go, and its mounts with them.
const GONE_MAX: Duration = Duration::from_secs(10);
/// Runs of one process at the same time.
const RUNS_MAX: u32 = 100;
/// Where the kernel lists named network namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";
/// Where control groups of version 1 throttle disks.
pub(crate) const BLKIO: &str = "/sys/fs/cgroup/blkio";

/// The place of one run. It must be erased before it is dropped; what is not is found by the next [`sweep`].
pub(crate) struct Scratch {
    /// The mark of everything that the run makes.
    pub(crate) tag: String,
    /// A directory of its own.
    pub(crate) dir: PathBuf,
    /// Says that the owner lives.
    _lock: File,
}

fn root() -> anyhow::Result<PathBuf> {
    let root = PathBuf::from(format!("/tmp/quorate-jepsen-{}", getuid().as_raw()));
    std::fs::create_dir_all(&root).with_context(|| root.display().to_string())?;
    Ok(root)
}

/// Keeps claims and sweeps apart: between making a lock and taking it, it looks like that of a dead owner.
fn turn() -> anyhow::Result<File> {
    let turn = File::create(root()?.join("turn"))?;
    turn.lock()?;
    Ok(turn)
}

impl Scratch {
    /// Makes a place for a run of this process.
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
        anyhow::bail!("{} holds the places of {RUNS_MAX} runs of this process: remove it", root.display())
    }

    /// Takes away everything that the run has left on the machine.
    pub(crate) async fn erase(&self) -> anyhow::Result<()> {
        erase(&self.tag, &self.dir).await
    }
}

/// Takes away what runs have left whose owner is dead; gives their tags. Never touches those of a live one.
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
            erase(tag, &dir).await.with_context(|| format!("what the dead run {tag} left"))?;
            swept.push(tag.to_owned());
        }
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(swept)
}

async fn erase(tag: &str, dir: &Path) -> anyhow::Result<()> {
    // A process that waits for a frozen file system does not die before it thaws.
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
    // The lock itself: whoever holds it still holds it, and nobody needs to find it any more.
    match std::fs::remove_file(dir.with_extension("lock")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Unmounts; a loop device that was made for the mount goes with it. Busy for a moment after its last process died.
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

/// Sends SIGKILL to the processes of a run; how many there were.
fn kill_marked(tag: &str) -> anyhow::Result<usize> {
    let mark = format!("{MARK}={tag}");
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // Processes of others cannot be read, and those that are gone neither.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            killed += 1;
            clock::forget(pid.as_raw_nonzero().get().unsigned_abs());
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(killed)
}
