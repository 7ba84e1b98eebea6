//! The trace: every message and every fault in order, with its simulated time. Two runs of a seed
//! must have the same trace; comparisons use its digest.

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use quorate_types::NodeId;
use tokio::time::Instant;

/// The record of one run.
pub(crate) struct Trace {
    began: Instant,
    record: Mutex<Record>,
}

struct Record {
    /// A digest of all events, with fixed keys: the same in every process.
    digest: DefaultHasher,
    events: u64,
    /// The trace as text, kept only on request.
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(keep_lines: bool) -> Self {
        let record = Record { digest: DefaultHasher::new(), events: 0, lines: keep_lines.then(Vec::new) };
        Trace { began: Instant::now(), record: Mutex::new(record) }
    }

    /// The simulated time since the run began.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Adds an event that is not a message.
    pub(crate) fn event(&self, what: &str) {
        self.add(what.as_bytes(), || what.to_owned());
    }

    /// Adds a message that is sent or arrives. The digest covers every byte of it; its text is
    /// built only if the lines are kept.
    pub(crate) fn message(&self, verb: &str, from: NodeId, to: NodeId, bytes: &[u8], says: impl FnOnce() -> String) {
        let mut all = Vec::with_capacity(bytes.len() + 32);
        all.extend_from_slice(verb.as_bytes());
        all.extend_from_slice(&from.0.to_be_bytes());
        all.extend_from_slice(&to.0.to_be_bytes());
        all.extend_from_slice(bytes);
        self.add(&all, || format!("{verb} n{from} -> n{to} {}", says()));
    }

    fn add(&self, bytes: &[u8], line: impl FnOnce() -> String) {
        let now = self.now();
        let mut record = self.record();
        record.digest.write_u128(now.as_nanos());
        record.digest.write(bytes);
        record.events += 1;
        if let Some(lines) = &mut record.lines {
            lines.push(format!("{:>11.6} {}", now.as_secs_f64(), line()));
        }
    }

    /// The digest, the number of events, and the lines if they were kept.
    pub(crate) fn end(&self) -> (u64, u64, Vec<String>) {
        let mut record = self.record();
        (record.digest.finish(), record.events, record.lines.take().unwrap_or_default())
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("only a broken invariant poisons this lock")
    }
}
