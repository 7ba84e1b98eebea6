//! `nemesis.jsonl`: one line for every phase of every fault.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The phase of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Is about to be made.
    /// The injection begins.
    Install,
    /// The fault is installed, and its effect was verified.
    Installed,
    /// The fault was not possible at that time; nothing happened.
    Skipped,
    /// The fault is never possible on this machine, or with the binary under test; nothing
    /// happened.
    Unable,
    /// The injection or the healing failed halfway: the fault may have been present for a while.
    /// The harness undid its effects.
    Indeterminate,
    /// The healing begins.
    Heal,
    /// The fault is healed, and its absence was verified.
    Healed,
    /// A node did something that no fault explains, such as ending by itself: a bug.
    Finding,
}

/// A line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Nanoseconds since the start of the run.
    pub time: u64,
    /// The number of the fault, the same in all its lines.
    pub id: u64,
    /// The name of the fault, or `none` for a finding.
    pub fault: String,
    /// The phase.
    pub phase: Phase,
    /// The affected nodes, by their places.
    pub targets: Vec<usize>,
    /// The ids of the nodes at these places, as replies name them. A new node at a place has a new
    /// id.
    #[serde(default)]
    pub nodes: Vec<u64>,
    /// Whether one of the targets led a shard at the installation.
    pub leaders_hit: bool,
    /// Parameters and evidence.
    pub detail: Value,
}

/// Writes the lines to a file, and keeps them in memory.
pub struct Journal {
    start: Instant,
    state: Mutex<State>,
}

struct State {
    file: Option<File>,
    lines: Vec<Line>,
}

impl Journal {
    /// A journal in a new file. `start` is the start of the run, as in the history.
    pub fn create(path: &Path, start: Instant) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Journal { start, state: Mutex::new(State { file: Some(file), lines: vec![] }) })
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lock().lines.clone()
    }

    /// Writes a line with the present time.
    pub(crate) fn write(&self, mut line: Line) {
        let mut state = self.lock();
        // Under the lock, so that lines are ordered by time.
        line.time = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some(file) = &mut state.file {
            let mut text = serde_json::to_vec(&line).expect("a line is JSON");
            text.push(b'\n');
            if let Err(error) = file.write_all(&text) {
                eprintln!("nemesis.jsonl: {error}");
                state.file = None;
            }
        }
        state.lines.push(line);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
