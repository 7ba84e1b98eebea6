//! One node: its addresses, data directory, log file, and its process while it runs.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Serialize;
use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::clock::{self, ClockState, Clocks, Skew};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}

/// The longest time until every thread of a stopped process is stopped.
const STOPPED_MAX: Duration = Duration::from_secs(5);
/// The exit code of a Rust program after a panic.
const PANICKED: i32 = 101;
/// The exit code of a node whose disk failed (EX_IOERR of sysexits.h).
const DISK_FAILED: i32 = 74;

impl Ended {
    /// Whether the exit code reports a failed disk.
    pub(crate) fn is_disk_failure(self) -> bool {
        self.code == Some(DISK_FAILED)
    }

    /// Whether the process panicked or violated a processor rule. No fault explains that; it is a
    /// bug.
    pub(crate) fn is_crash(self) -> bool {
        let signals =
            [Signal::ILL, Signal::ABORT, Signal::BUS, Signal::FPE, Signal::SEGV].map(|signal| Some(signal.as_raw()));
        self.code == Some(PANICKED) || signals.contains(&self.signal)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => write!(f, "an unknown end"),
        }
    }
}

/// A place for a node. Its addresses, disk and log file outlive the processes that use them.
#[derive(Debug)]
pub struct Node {
    pub(crate) number: usize,
    pub(crate) client: String,
    pub(crate) peer: String,
    /// The peer address that the node announces: its proxy's, if it has one.
    pub(crate) advertised_peer: String,
    pub(crate) ops: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) state: Mutex<State>,
}

/// The mutable part of a place.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The node's id in the cluster, once known. A wiped disk means a new node and a new id.
    id: Option<u64>,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    pid: u32,
    /// Signals go to this handle: the process id may have been reused, the handle cannot.
    handle: OwnedFd,
    ended: watch::Receiver<Option<Ended>>,
    /// The harness killed the process.
    killed: bool,
    since: Instant,
    clock: ClockState,
}

impl Node {
    /// The number of the place, from 1. It is not the node's id, which changes when the disk is
    /// wiped.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The node's last known id in the cluster.
    pub fn id(&self) -> Option<u64> {
        self.lock().id
    }

    /// The address for clients.
    pub fn client_address(&self) -> &str {
        &self.client
    }

    /// The address for other nodes.
    pub fn peer_address(&self) -> &str {
        &self.peer
    }

    /// The address of the metrics and health pages.
    pub fn ops_address(&self) -> &str {
        &self.ops
    }

    /// The data directory.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }

    /// The log file of all processes that ran here.
    pub fn log(&self) -> &std::path::Path {
        &self.log
    }

    /// The id of the process, if it runs or is paused.
    pub fn pid(&self) -> Option<u32> {
        self.lock().running().map(|process| process.pid)
    }

    /// Whether the process exists.
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// The exit status of a process that ended by itself. `None` while it runs, and if the harness
    /// ended it.
    pub fn died(&self) -> Option<Ended> {
        let state = self.lock();
        let process = state.process.as_ref().filter(|process| !process.killed)?;
        *process.ended.borrow()
    }

    /// The process state as the kernel names it: R, S, D, T (stopped), Z.
    pub fn process_state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?)).ok()?;
        // The name in parentheses may contain any character.
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Waits until every thread of a process that received SIGSTOP is stopped. A thread inside a
    /// system call stops when the call returns.
    pub(crate) async fn wait_until_all_stopped(&self) -> anyhow::Result<()> {
        let pid = self.pid().with_context(|| format!("node {} is not running", self.number))?;
        let deadline = Instant::now() + STOPPED_MAX;
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            // A thread that has ended since counts as stopped.
            let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
            stat.map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
        };
        while !std::fs::read_dir(format!("/proc/{pid}/task"))?.all(is_stopped) {
            anyhow::ensure!(Instant::now() < deadline, "a thread of node {} does not stop", self.number);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// One line per thread: its name, its state as the kernel names it, and the kernel function
    /// where it waits. For error messages.
    pub(crate) fn threads(&self) -> String {
        let Some(pid) = self.pid() else { return "the process has ended".to_owned() };
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return "no thread is left".to_owned() };
        let describe = |task: std::fs::DirEntry| {
            let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let stat = read("stat");
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?');
            format!("{} {state} {}", read("comm").trim(), read("wchan"))
        };
        let mut threads: Vec<String> = tasks.flatten().map(describe).collect();
        threads.sort_unstable();
        threads.join("\n")
    }

    /// The last lines of its log, for error messages.
    pub fn log_tail(&self) -> String {
        const LINES: usize = 20;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("node {}:\n{}", self.number, lines[lines.len().saturating_sub(LINES)..].join("\n"))
    }

    /// Whether the log of the last process says that a fail point ended it, even if that happened
    /// after the fault was healed. Other threads may log more before the process is gone.
    pub(crate) fn died_at_fail_point(&self) -> bool {
        self.last_life_logged(|line| line.starts_with("fail point ") && line.ends_with(": dies"))
    }

    /// Whether the last process ended by itself with the exit code of a failed disk, and logged
    /// that the disk had no space left.
    pub(crate) fn died_for_lack_of_space(&self) -> bool {
        self.died().is_some_and(Ended::is_disk_failure)
            && self.last_life_logged(|line| line.contains("No space left on device"))
    }

    fn last_life_logged(&self, is_it: impl Fn(&str) -> bool) -> bool {
        let log = std::fs::read(&self.log).unwrap_or_default();
        last_life(&String::from_utf8_lossy(&log)).any(is_it)
    }

    /// Changes the clock of the process; returns its new state.
    pub(crate) fn set_clock(&self, clocks: Clocks, skew: Skew) -> ClockState {
        let mut state = self.lock();
        let Some(process) = state.process.as_mut() else { return ClockState::RIGHT };
        process.clock = process.clock.set(clocks, skew, process.since.elapsed().as_secs_f64());
        process.clock
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change is a single assignment, so a panic cannot leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn learn_id(&self, id: Option<u64>) {
        self.lock().id = id;
    }

    /// Adopts a process that was just started. A task of `runtime` reaps it; it dies with the
    /// runtime.
    pub(crate) fn adopt(&self, mut child: Child, runtime: &Handle) -> anyhow::Result<u32> {
        let pid = child.id().context("the process was already reaped")?;
        let raw = Pid::from_raw(i32::try_from(pid)?).context("a process has an id")?;
        let handle = rustix::process::pidfd_open(raw, PidfdFlags::empty())?;
        let (tell, ended) = watch::channel(None);
        runtime.spawn(async move {
            let status = child.wait().await.unwrap_or(ExitStatus::from_raw(0));
            clock::forget(pid);
            let _ = tell.send(Some(Ended { code: status.code(), signal: status.signal() }));
        });
        self.lock().process =
            Some(Process { pid, handle, ended, killed: false, since: Instant::now(), clock: ClockState::RIGHT });
        Ok(pid)
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let mut state = self.lock();
        let process = state.process.as_mut().filter(|process| process.ended.borrow().is_none());
        let process = process.with_context(|| format!("node {} is not running", self.number))?;
        if signal == Signal::KILL {
            process.killed = true;
        }
        match rustix::process::pidfd_send_signal(&process.handle, signal) {
            // The process ended a moment ago; tasks that wait for its end will see it.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the process is gone, for any reason.
    pub(crate) async fn wait_until_gone(&self, within: Duration) -> anyhow::Result<Ended> {
        let ended = self.lock().process.as_ref().map(|process| process.ended.clone());
        let mut ended = ended.with_context(|| format!("node {} was never started", self.number))?;
        let end = tokio::time::timeout(within, ended.wait_for(Option::is_some)).await;
        let end = end.with_context(|| format!("node {} does not end", self.number))??;
        end.context("the watch returned because an exit status was there")
    }
}

impl State {
    fn running(&self) -> Option<&Process> {
        self.process.as_ref().filter(|process| process.ended.borrow().is_none())
    }
}

/// The log lines since the node's last start, newest first.
fn last_life(log: &str) -> impl Iterator<Item = &str> {
    log.lines().rev().take_while(|line| !line.contains(" node starts "))
}

#[cfg(test)]
mod tests {
    use super::last_life;

    #[test]
    fn last_life_begins_at_the_last_start() {
        let log = "x node starts cluster=1\nfull\nx node starts cluster=1\none\ntwo\n";
        assert_eq!(last_life(log).collect::<Vec<_>>(), ["two", "one"]);
        assert_eq!(last_life("one\ntwo").count(), 2);
        assert_eq!(last_life("").count(), 0);
    }
}
