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

use crate::failure::{Exit, Failure};
use crate::orphan::DIE_WITH_PARENT;
use crate::signals::Stops;

/// How long the children may take to stop by themselves.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How often it is looked whether a child has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How much of a dead child's log is shown.
const TAIL_BYTES: u64 = 4 << 10;
/// How many lines of it.
const TAIL_LINES: usize = 12;

/// One process.
struct Child {
    name: String,
    process: Process,
    /// How anybody would start it.
    command: String,
    log: PathBuf,
    /// Its end was told already.
    told: bool,
}

/// All of them. When this is dropped, those that still run are killed.
#[derive(Default)]
pub(super) struct Children {
    children: Vec<Child>,
}

/// A child that has ended by itself.
#[derive(Debug)]
pub(super) struct Death {
    name: String,
    status: ExitStatus,
    command: String,
    log: PathBuf,
    tail: String,
}

impl Children {
    /// Starts this program once more, with these arguments; gives its process id. Its output goes to a log of its name.
    ///
    /// Called on the main thread: the child's death is tied to the thread that starts it.
    pub(super) fn start(&mut self, name: &str, args: &[OsString], logs: &Path) -> Result<u32, Failure> {
        let failure = |what: &str| Failure::new(Exit::Other, format!("cannot start {name}: {what}"));
        let program = std::env::current_exe().map_err(|error| failure("this program is not found").cause(error))?;
        let log = logs.join(format!("{name}.log"));
        let output = fs::create_dir_all(logs)
            .and_then(|()| OpenOptions::new().create(true).append(true).open(&log))
            .map_err(|error| failure("its log cannot be written").cause(error))?;
        let errors = output.try_clone().map_err(|error| failure("its log cannot be written").cause(error))?;
        let mut command = Command::new(&program);
        command.args(args).stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
        // Ctrl-C in a terminal goes to the whole process group; stopping the children is for us to do.
        command.process_group(0);
        for (variable, _) in std::env::vars_os().filter(|(variable, _)| is_ours(variable)) {
            command.env_remove(variable);
        }
        command.env(DIE_WITH_PARENT, std::process::id().to_string());
        let process = command.spawn().map_err(|error| failure("the system refuses").cause(error))?;
        let id = process.id().expect("it was not waited for yet");
        let command = shell_line(&program, args);
        let child = Child { name: name.to_owned(), process, command, log, told: false };
        // One that is started again takes its old place: the order is the order of stopping.
        match self.children.iter_mut().find(|child| child.name == name) {
            Some(ended) => *ended = child,
            None => self.children.push(child),
        }
        Ok(id)
    }

    /// A child that has ended and was not told of yet.
    pub(super) fn death(&mut self) -> Option<Death> {
        self.children.iter_mut().filter(|child| !child.told).find_map(|child| {
            let status = child.process.try_wait().ok().flatten()?;
            child.told = true;
            Some(Death {
                name: child.name.clone(),
                status,
                command: child.command.clone(),
                tail: tail(&child.log),
                log: child.log.clone(),
            })
        })
    }

    /// Waits for the next child that ends.
    pub(super) async fn next_death(&mut self) -> Death {
        loop {
            if let Some(death) = self.death() {
                return death;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Kills a child at once, and waits until it is gone. That it ended is no news.
    pub(super) async fn kill(&mut self, name: &str) {
        if let Some(child) = self.children.iter_mut().find(|child| child.name == name) {
            child.told = true;
            // Fails only where it has ended by itself a moment ago.
            let _ = child.process.kill().await;
        }
    }

    /// Stops a child where it is.
    pub(super) fn pause(&self, name: &str) -> Result<(), Failure> {
        self.signal(name, Signal::STOP)
    }

    /// Lets a child that was paused go on.
    pub(super) fn resume(&self, name: &str) -> Result<(), Failure> {
        self.signal(name, Signal::CONT)
    }

    fn signal(&self, name: &str, signal: Signal) -> Result<(), Failure> {
        let child = self.children.iter().find(|child| child.name == name).and_then(Child::pid);
        let sent = child.map_or(Err(rustix::io::Errno::SRCH), |child| kill_process(child, signal));
        sent.map_err(|error| Failure::new(Exit::Other, format!("cannot signal {name}")).cause(error))
    }

    /// The process id of a child that still runs.
    pub(super) fn id(&self, name: &str) -> Option<u32> {
        self.children.iter().find(|child| child.name == name).and_then(|child| child.process.id())
    }

    /// Whether a child has ended by itself.
    pub(super) fn has_ended(&mut self, name: &str) -> bool {
        let child = self.children.iter_mut().find(|child| child.name == name);
        child.is_some_and(|child| !matches!(child.process.try_wait(), Ok(None)))
    }

    /// Asks all to stop, and waits. Kills what still runs at another request to stop, or when the time is over.
    pub(super) async fn stop(&mut self, stops: &mut Stops) {
        // The last one first: the shortener stands on the nodes.
        for child in self.children.iter().rev() {
            child.terminate();
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        while self.running() > 0 {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = stops.next() => break,
            }
            if Instant::now() >= deadline {
                tell!("{} processes did not stop within {} s and are killed", self.running(), STOP_DEADLINE.as_secs());
                break;
            }
        }
        for child in &mut self.children {
            // Also reaps what has ended already.
            let _ = child.process.kill().await;
        }
    }

    fn running(&mut self) -> usize {
        self.children.iter_mut().filter_map(|child| child.process.try_wait().ok()).filter(Option::is_none).count()
    }
}

impl Child {
    /// A process that was reaped has no id any more: its number may be somebody else's.
    fn pid(&self) -> Option<Pid> {
        self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    fn terminate(&self) {
        let Some(id) = self.pid() else { return };
        // One that is paused hears of it when it goes on.
        if let Err(error) = kill_process(id, Signal::TERM).and_then(|()| kill_process(id, Signal::CONT)) {
            tell!("cannot stop {}: {error}", self.name);
        }
    }
}

impl Death {
    /// As the cause of a failure to start.
    pub(super) fn failure(self) -> Failure {
        Failure::new(Exit::Other, format!("{} ended: {}", self.name, self.status))
            .cause(self.tail)
            .hint(format!("its log is {}", self.log.display()))
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{} ended: {}; the last lines of {}:", self.name, self.status, self.log.display())?;
        for line in self.tail.lines() {
            writeln!(f, "    {line}")?;
        }
        writeln!(f, "  the others go on. Start it again:\n    {}", self.command)
    }
}

/// Settings of this process that must not leak into its children, which get theirs as arguments.
fn is_ours(variable: &OsString) -> bool {
    variable.to_str().is_some_and(|name| name.starts_with("QUORATE_") && name != "QUORATE_LOG_LEVEL")
}

/// The command as one types it.
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
    fn only_the_end_of_a_log_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("l");
        let lines: Vec<String> = (0..1_000).map(|number| format!("line {number}")).collect();
        fs::write(&log, lines.join("\n")).unwrap();
        assert_eq!(tail(&log), lines[988..].join("\n"));
        assert!(tail(&dir.path().join("none")).contains("cannot be read"));
    }

    #[test]
    fn a_command_can_be_pasted() {
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
    fn a_death_is_told_with_its_log_and_how_to_start_again() {
        use std::os::unix::process::ExitStatusExt as _;
        let death = Death {
            name: "node-2".into(),
            status: ExitStatus::from_raw(9),
            command: "quorate node start".into(),
            log: "/p/logs/node-2.log".into(),
            tail: "one\ntwo".into(),
        };
        let text = death.to_string();
        assert!(text.contains("node-2 ended: signal: 9 (SIGKILL); the last lines of /p/logs/node-2.log:"), "{text}");
        assert!(text.contains("    one\n    two\n"), "{text}");
        assert!(text.contains("Start it again:\n    quorate node start\n"), "{text}");
        assert!(death.failure().to_string().contains("cause: one\n         two\n"));
    }
}
