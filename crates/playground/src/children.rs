//! Child processes: started, watched, stopped.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child as Process, Command};
use tokio::time::{Instant, sleep};

use crate::error::{Error, Kind};
use crate::orphan::DIE_WITH_PARENT;
use crate::terminal::Terminal;

/// How long the children may take to stop: a node flushes its state first.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Interval of the checks for children that have exited.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes that are read from the end of an exited child's log.
const TAIL_BYTES: u64 = 4 << 10;
/// Lines of them that are shown.
const TAIL_LINES: usize = 12;

/// One process.
struct Child {
    name: String,
    process: Process,
    /// The command line that starts it by hand.
    command: String,
    log: PathBuf,
    /// Whether its exit was reported, or expected.
    reported: bool,
}

/// All child processes. Those that still run are killed when this is dropped.
#[derive(Default)]
pub(crate) struct Children {
    children: Vec<Child>,
}

/// A child that exited unexpectedly.
#[derive(Debug)]
pub(crate) struct Death {
    name: String,
    status: ExitStatus,
    command: String,
    log: PathBuf,
    tail: String,
}

impl Children {
    /// Starts this program again with these arguments and returns the process id. Its output is
    /// appended to a log of its name.
    ///
    /// Call it on the main thread: the kernel kills the child when the *thread* that started it
    /// ends.
    pub(crate) fn start(&mut self, name: &str, args: &[OsString], logs: &Path) -> Result<u32, Error> {
        let failed = |step: &str| Error::new(Kind::Failed, format!("cannot start {name}: {step}"));
        let program =
            std::env::current_exe().map_err(|error| failed("the running program was not found").why(error))?;
        let log = logs.join(format!("{name}.log"));
        let output = fs::create_dir_all(logs)
            .and_then(|()| OpenOptions::new().create(true).append(true).open(&log))
            .map_err(|error| failed("its log cannot be written").why(error))?;
        let errors = output.try_clone().map_err(|error| failed("its log cannot be written").why(error))?;
        let mut command = Command::new(&program);
        command.args(args).stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
        // Ctrl-C in a terminal reaches the whole process group; the playground stops its children
        // itself.
        command.process_group(0);
        for (variable, _) in std::env::vars_os().filter(|(variable, _)| is_ours(variable)) {
            command.env_remove(variable);
        }
        command.env(DIE_WITH_PARENT, std::process::id().to_string());
        let process = command.spawn().map_err(|error| failed("cannot create a process").why(error))?;
        let id = process.id().expect("the process was not reaped yet");
        let command = shell_line(&program, args);
        let child = Child { name: name.to_owned(), process, command, log, reported: false };
        // A restarted child keeps its place, because children stop in reverse order of their start.
        match self.children.iter_mut().find(|child| child.name == name) {
            Some(ended) => *ended = child,
            None => self.children.push(child),
        }
        Ok(id)
    }

    /// The next child whose exit was not reported yet.
    pub(crate) fn death(&mut self) -> Option<Death> {
        self.children.iter_mut().filter(|child| !child.reported).find_map(|child| {
            let status = child.process.try_wait().ok().flatten()?;
            child.reported = true;
            Some(Death {
                name: child.name.clone(),
                status,
                command: child.command.clone(),
                tail: tail(&child.log),
                log: child.log.clone(),
            })
        })
    }

    /// Waits for the next child that exits unexpectedly.
    pub(crate) async fn next_death(&mut self) -> Death {
        loop {
            if let Some(death) = self.death() {
                return death;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Kills a child and waits until it is gone. Its exit is not reported.
    pub(crate) async fn kill(&mut self, name: &str) {
        if let Some(child) = self.children.iter_mut().find(|child| child.name == name) {
            child.reported = true;
            // Fails only if the child has just exited by itself.
            let _ = child.process.kill().await;
        }
    }

    /// Suspends a child (SIGSTOP).
    pub(crate) fn pause(&self, name: &str) -> Result<(), Error> {
        self.signal(name, Signal::STOP)
    }

    /// Continues a suspended child (SIGCONT).
    pub(crate) fn resume(&self, name: &str) -> Result<(), Error> {
        self.signal(name, Signal::CONT)
    }

    fn signal(&self, name: &str, signal: Signal) -> Result<(), Error> {
        let child = self.children.iter().find(|child| child.name == name).and_then(Child::pid);
        let sent = child.map_or(Err(rustix::io::Errno::SRCH), |child| kill_process(child, signal));
        sent.map_err(|error| Error::new(Kind::Failed, format!("cannot signal {name}")).why(error))
    }

    /// The process id of a running child.
    pub(crate) fn id(&self, name: &str) -> Option<u32> {
        self.children.iter().find(|child| child.name == name).and_then(|child| child.process.id())
    }

    /// Whether a child has exited.
    pub(crate) fn has_exited(&mut self, name: &str) -> bool {
        let child = self.children.iter_mut().find(|child| child.name == name);
        child.is_some_and(|child| !matches!(child.process.try_wait(), Ok(None)))
    }

    /// Stops all children and waits for them. Kills the remaining ones at the next request to stop
    /// or after [`STOP_DEADLINE`].
    pub(crate) async fn stop(&mut self, terminal: &mut Terminal) {
        // In reverse order, because the shortener uses the nodes.
        for child in self.children.iter().rev() {
            child.terminate(terminal);
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        while self.running() > 0 {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = terminal.stopped() => break,
            }
            if Instant::now() >= deadline {
                let (left, seconds) = (self.running(), STOP_DEADLINE.as_secs());
                terminal.line(format_args!("killing {left} processes that did not stop within {seconds} s"));
                break;
            }
        }
        for child in &mut self.children {
            // Also reaps children that have exited already.
            let _ = child.process.kill().await;
        }
    }

    fn running(&mut self) -> usize {
        self.children.iter_mut().filter_map(|child| child.process.try_wait().ok()).filter(Option::is_none).count()
    }
}

impl Child {
    /// The process id; none once the child was reaped, as the system may have reused the number.
    fn pid(&self) -> Option<Pid> {
        self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    fn terminate(&self, terminal: &Terminal) {
        let Some(id) = self.pid() else { return };
        // A suspended process handles SIGTERM only after SIGCONT.
        if let Err(error) = kill_process(id, Signal::TERM).and_then(|()| kill_process(id, Signal::CONT)) {
            terminal.line(format_args!("cannot stop {}: {error}", self.name));
        }
    }
}

impl Death {
    /// The exit as the reason why the playground could not start.
    pub(crate) fn into_error(self) -> Error {
        Error::new(Kind::Failed, format!("{} exited: {}", self.name, self.status))
            .why(self.tail)
            .next(format!("read its log: {}", self.log.display()))
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{} exited: {}; the last lines of {}:", self.name, self.status, self.log.display())?;
        for line in self.tail.lines() {
            writeln!(f, "    {line}")?;
        }
        writeln!(f, "  The other processes are still running. Restart this one:\n    {}", self.command)
    }
}

/// Whether a variable is a setting of this process. Children get their settings as arguments.
fn is_ours(variable: &OsString) -> bool {
    variable.to_str().is_some_and(|name| name.starts_with("QUORATE_") && name != "QUORATE_LOG_LEVEL")
}

/// The command line, quoted for a shell.
fn shell_line(program: &Path, args: &[OsString]) -> String {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:,=+@%".contains(&b));
    let quoted = |text: &str| match plain(text) && !text.is_empty() {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    };
    let words = std::iter::once(program.as_os_str()).chain(args.iter().map(OsString::as_os_str));
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|error| format!("(the log cannot be read: {error})"));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_of_a_log_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("l");
        let lines: Vec<String> = (0..1_000).map(|number| format!("line {number}")).collect();
        fs::write(&log, lines.join("\n")).unwrap();
        assert_eq!(tail(&log), lines[988..].join("\n"));
        assert!(tail(&dir.path().join("none")).contains("cannot be read"));
    }

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let args = ["node", "start", "--data-dir", "/a b/it's"].map(OsString::from);
        assert_eq!(shell_line(Path::new("/bin/quorate"), &args), r"/bin/quorate node start --data-dir '/a b/it'\''s'");
    }

    #[test]
    fn settings_do_not_leak_into_children() {
        let ours = |name: &str| is_ours(&OsString::from(name));
        assert!(ours("QUORATE_ENDPOINTS") && ours(DIE_WITH_PARENT));
        assert!(!ours("PATH") && !ours("QUORATE_LOG_LEVEL"));
    }

    #[test]
    fn an_exit_is_reported_with_log_and_restart_command() {
        use std::os::unix::process::ExitStatusExt as _;
        let death = Death {
            name: "node-2".into(),
            status: ExitStatus::from_raw(9),
            command: "quorate node start".into(),
            log: "/p/logs/node-2.log".into(),
            tail: "one\ntwo".into(),
        };
        let text = death.to_string();
        assert!(text.contains("node-2 exited: signal: 9 (SIGKILL); the last lines of /p/logs/node-2.log:"), "{text}");
        assert!(text.contains("    one\n    two\n"), "{text}");
        assert!(text.contains("Restart this one:\n    quorate node start\n"), "{text}");
        assert_eq!(death.into_error().why, ["one\ntwo"]);
    }
}
