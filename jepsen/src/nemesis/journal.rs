//! `nemesis.jsonl`: what was broken when, a line for every phase of every fault.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How far a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Is about to be made.
    Install,
    /// Is there, and was seen to be.
    Installed,
    /// Could not be made then; nothing happened.
    Skipped,
    /// Cannot be made on this machine, or with the binary under test; nothing happened.
    Unable,
    /// Went wrong while it was made: it may have been there for a while. It was healed as far as it was there.
    Indeterminate,
    /// Is about to be taken away.
    Heal,
    /// Is gone, and was seen to be.
    Healed,
    /// A node did what no fault explains, such as ending by itself: a bug.
    Finding,
}

/// A line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Nanoseconds since the run began.
    pub time: u64,
    /// Which fault of the run: the same number in all its lines.
    pub id: u64,
    /// Its name, or `none` for what belongs to no fault.
    pub fault: String,
    /// How far it is.
    pub phase: Phase,
    /// The nodes that it hits, by their places.
    pub targets: Vec<usize>,
    /// The ids of the nodes that were at these places, which is what replies name; a place whose node left has a new one.
    #[serde(default)]
    pub nodes: Vec<u64>,
    /// Whether one of them led a shard when it was made.
    pub leaders_hit: bool,
    /// What was done and seen.
    pub detail: Value,
}

/// Writes the lines, and keeps them.
pub struct Journal {
    start: Instant,
    state: Mutex<State>,
}

struct State {
    file: Option<File>,
    lines: Vec<Line>,
}

impl Journal {
    /// A journal in a file. `start` is the beginning of the run: that of the history's clock too.
    pub fn create(path: &Path, start: Instant) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Journal { start, state: Mutex::new(State { file: Some(file), lines: vec![] }) })
    }

    /// A journal that is only kept in memory.
    pub fn in_memory(start: Instant) -> Self {
        Journal { start, state: Mutex::new(State { file: None, lines: vec![] }) }
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lock().lines.clone()
    }

    /// Writes a line, with the time of now.
    pub(crate) fn write(&self, mut line: Line) {
        let mut state = self.lock();
        // Under the lock: lines are in the order of their times.
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
