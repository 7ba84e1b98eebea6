//! One node: where it listens, where its data and its log are, and its process while it runs.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;
use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::clock;
use super::options::Clocks;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}

/// How long the threads of a stopped process may take until they are.
const STOPPED_MAX: Duration = Duration::from_secs(5);
/// What a Rust program exits with after a panic.
const PANICKED: i32 = 101;
/// What a node ends with when its disk failed (EX_IOERR of sysexits.h).
const DISK_FAILED: i32 = 74;

impl Ended {
    /// Whether it ended as a node does whose disk failed.
    pub(crate) fn is_disk_failure(self) -> bool {
        self.code == Some(DISK_FAILED)
    }

    /// Whether it panicked or broke a rule of the processor: no fault of ours explains that, only a bug.
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

/// A place for a node: its addresses, disk and log stay the same through all its lives.
#[derive(Debug)]
pub struct Node {
    pub(crate) number: usize,
    pub(crate) client: String,
    pub(crate) peer: String,
    /// What it tells the others: the proxy before its peer port, where there is one.
    pub(crate) advertised_peer: String,
    pub(crate) ops: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) state: Mutex<State>,
}

/// What changes.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Its id in the cluster, once it said so. Another one after its disk was wiped.
    id: Option<u64>,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    pid: u32,
    /// Signals go here: a process id may be another's by now, this cannot.
    handle: OwnedFd,
    ended: watch::Receiver<Option<Ended>>,
    /// We ended it, or asked it to end.
    asked: bool,
    since: Instant,
    clock: clock::Pace,
}

impl Node {
    /// Its number, from 1. Not its id: that is the cluster's business, and changes when its disk is wiped.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its id in the cluster, as it was last heard.
    pub fn id(&self) -> Option<u64> {
        self.lock().id
    }

    /// Where clients reach it.
    pub fn client_address(&self) -> &str {
        &self.client
    }

    /// Where it listens for other nodes.
    pub fn peer_address(&self) -> &str {
        &self.peer
    }

    /// Where operators reach it.
    pub fn ops_address(&self) -> &str {
        &self.ops
    }

    /// Its data.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }

    /// What it has said in all its lives.
    pub fn log(&self) -> &std::path::Path {
        &self.log
    }

    /// Its process, while it runs (or is paused).
    pub fn pid(&self) -> Option<u32> {
        self.lock().running().map(|process| process.pid)
    }

    /// Whether its process is there.
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// How its process ended by itself. None while it runs, and after an end that the harness brought about.
    pub fn died(&self) -> Option<Ended> {
        let state = self.lock();
        let process = state.process.as_ref().filter(|process| !process.asked)?;
        *process.ended.borrow()
    }

    /// The state of its process as the kernel names it: R, S, D, T (stopped), Z.
    pub fn process_state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?)).ok()?;
        // The name in parentheses may hold anything.
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Waits until every thread of a process that was stopped (SIGSTOP) is, too: one that was in the kernel comes to the end of that
    /// call first.
    pub(crate) async fn wait_until_all_stopped(&self) -> anyhow::Result<()> {
        let pid = self.pid().with_context(|| format!("node {} does not run", self.number))?;
        let deadline = Instant::now() + STOPPED_MAX;
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            // A thread that has ended meanwhile does nothing either.
            let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
            stat.map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
        };
        while !std::fs::read_dir(format!("/proc/{pid}/task"))?.all(is_stopped) {
            anyhow::ensure!(Instant::now() < deadline, "a thread of node {} does not stop", self.number);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// The last lines of its log, for error messages.
    pub fn log_tail(&self) -> String {
        const LINES: usize = 20;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("node {}:\n{}", self.number, lines[lines.len().saturating_sub(LINES)..].join("\n"))
    }

    /// Whether its last life said that a fail point ended it: that was asked for, also where it came late. (Its other threads may
    /// say more in the moment until they are gone.)
    pub(crate) fn died_at_fail_point(&self) -> bool {
        self.last_life_said(|line| line.starts_with("fail point ") && line.ends_with(": dies"))
    }

    /// Whether its last life ended by itself as a node does whose disk failed, and said that there was no space on it.
    pub(crate) fn died_for_lack_of_space(&self) -> bool {
        self.died().is_some_and(Ended::is_disk_failure)
            && self.last_life_said(|line| line.contains("No space left on device"))
    }

    fn last_life_said(&self, what: impl Fn(&str) -> bool) -> bool {
        let log = std::fs::read(&self.log).unwrap_or_default();
        last_life(&String::from_utf8_lossy(&log)).any(what)
    }

    /// How the clock of its process goes after it was set.
    pub(crate) fn set_clock(&self, clocks: Clocks, skew: clock::Skew) -> clock::Pace {
        let mut state = self.lock();
        let Some(process) = state.process.as_mut() else { return clock::Pace::RIGHT };
        process.clock = process.clock.set(clocks, skew, process.since.elapsed().as_secs_f64());
        process.clock
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change is one assignment: a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn learn_id(&self, id: Option<u64>) {
        self.lock().id = id;
    }

    /// Takes a process over that was just started. It is reaped by a task of `runtime`, and dies with that.
    pub(crate) fn adopt(&self, mut child: Child, runtime: &Handle) -> anyhow::Result<u32> {
        let pid = child.id().context("it was not waited for yet")?;
        let raw = Pid::from_raw(i32::try_from(pid)?).context("a process has an id")?;
        let handle = pidfd_open(raw, PidfdFlags::empty())?;
        let (tell, ended) = watch::channel(None);
        runtime.spawn(async move {
            let status = child.wait().await.unwrap_or(ExitStatus::from_raw(0));
            clock::forget(pid);
            let _ = tell.send(Some(Ended { code: status.code(), signal: status.signal() }));
        });
        self.lock().process =
            Some(Process { pid, handle, ended, asked: false, since: Instant::now(), clock: clock::Pace::RIGHT });
        Ok(pid)
    }

    /// Sends a signal to its process.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let mut state = self.lock();
        let process = state.process.as_mut().filter(|process| process.ended.borrow().is_none());
        let process = process.with_context(|| format!("node {} does not run", self.number))?;
        if signal == Signal::KILL || signal == Signal::TERM {
            process.asked = true;
        }
        match pidfd_send_signal(&process.handle, signal) {
            // It ended a moment ago; whoever waits for that will see it.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until its process is gone, however it ends.
    pub(crate) async fn gone(&self, within: Duration) -> anyhow::Result<Ended> {
        let ended = self.lock().process.as_ref().map(|process| process.ended.clone());
        let mut ended = ended.with_context(|| format!("node {} was never started", self.number))?;
        let end = tokio::time::timeout(within, ended.wait_for(Option::is_some)).await;
        let end = end.with_context(|| format!("node {} does not end", self.number))??;
        end.context("just seen")
    }
}

impl State {
    fn running(&self) -> Option<&Process> {
        self.process.as_ref().filter(|process| process.ended.borrow().is_none())
    }
}

/// The lines of a log since the node started last, the newest first.
fn last_life(log: &str) -> impl Iterator<Item = &str> {
    log.lines().rev().take_while(|line| !line.contains(" node starts "))
}

#[cfg(test)]
mod tests {
    use super::last_life;

    #[test]
    fn a_life_is_what_was_said_since_the_start() {
        let log = "x node starts cluster=1\nfull\nx node starts cluster=1\none\ntwo\n";
        assert_eq!(last_life(log).collect::<Vec<_>>(), ["two", "one"]);
        assert_eq!(last_life("one\ntwo").count(), 2);
        assert_eq!(last_life("").count(), 0);
    }
}
