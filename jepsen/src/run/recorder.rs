//! Recording the history: clients send events through a bounded channel to a thread that numbers
//! them and writes them to `history.jsonl`.
//!
//! An invocation is sent before its operation starts, a completion after it ended, so the order of
//! the channel is a real-time order. Two clients may read the clock in one order and send in the
//! other; the writer then uses the later time for both, so that numbers and times agree.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context as _;
use quorate_client::ReadLevel;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::history::{Event, EventKind};
use crate::workload::{Completion, Op};

/// The capacity of the channel. When it is full, clients wait, so memory is bounded.
const QUEUE_MAX: usize = 64 << 10;
/// The size of the writer's buffer.
const BUFFER_BYTES: usize = 1 << 20;

/// The clients' handle. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    started: Instant,
    /// `None` records nothing, to measure the cost of recording.
    events: Option<mpsc::Sender<Event>>,
}

/// The thread that writes the file.
#[derive(Debug)]
pub(super) struct Writer {
    thread: JoinHandle<std::io::Result<u64>>,
}

impl Recorder {
    /// Starts a history in a new file. Times count from `started`.
    ///
    /// # Errors
    ///
    /// The file cannot be created.
    pub(super) fn create(path: &Path, started: Instant) -> anyhow::Result<(Self, Writer)> {
        let file = File::create_new(path).with_context(|| format!("making {}", path.display()))?;
        let (events, received) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new().name("history".into()).spawn(move || write(file, received))?;
        Ok((Recorder { started, events: Some(events) }, Writer { thread }))
    }

    /// A recorder that discards all events.
    pub(super) fn none(started: Instant) -> Self {
        Recorder { started, events: None }
    }

    /// Nanoseconds since the run began.
    pub(super) fn now(&self) -> u64 {
        nanos(self.started.elapsed())
    }

    /// Records an invocation. The operation may start when this returns.
    pub(super) async fn invoke(&self, process: u64, op: &Op) {
        let Some(events) = &self.events else { return };
        // The writer ends only when all recorders are dropped, so the channel is open.
        _ = events.send(event(self.now(), process, EventKind::Invoke, op, op.value.clone())).await;
    }

    /// Records the completion of an operation.
    pub(super) async fn complete(&self, process: u64, op: &Op, completion: &Completion) {
        let Some(events) = &self.events else { return };
        let by = completion.by;
        let event = Event {
            refused: completion.refused,
            found: completion.found.clone(),
            version: completion.version,
            error: completion.error.clone(),
            node: by.map(|by| by.node.0),
            shard: by.map(|by| by.shard.0.into()),
            log_index: by.map(|by| by.applied),
            revision: by.map(|by| by.revision),
            ..event(self.now(), process, completion.kind, op, completion.value.clone())
        };
        _ = events.send(event).await;
    }
}

impl Writer {
    /// Waits until all events are in the file; returns their number. All [`Recorder`]s must be
    /// dropped.
    ///
    /// # Errors
    ///
    /// Writing failed: the history is incomplete.
    pub(super) fn finish(self) -> anyhow::Result<u64> {
        let written = self.thread.join().map_err(|_| anyhow::anyhow!("the history's writer panicked"))?;
        written.context("writing the history")
    }
}

/// A duration in nanoseconds; 584 years fit.
pub(crate) fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn event(time: u64, process: u64, kind: EventKind, op: &Op, value: Value) -> Event {
    // The writer assigns the index.
    Event {
        time,
        key: Some(op.key.clone()),
        level: (op.level == ReadLevel::Eventual).then(|| op.level.to_string()),
        ..Event::new(process, kind, op.f, value)
    }
}

fn write(file: File, mut events: mpsc::Receiver<Event>) -> std::io::Result<u64> {
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
    let (mut index, mut time) = (0, 0);
    while let Some(mut event) = events.blocking_recv() {
        time = event.time.max(time);
        (event.index, event.time) = (index, time);
        serde_json::to_writer(&mut file, &event)?;
        file.write_all(b"\n")?;
        index += 1;
        if events.is_empty() {
            // Flushes whenever the channel is empty, so that a killed run leaves its history too.
            file.flush()?;
        }
    }
    file.flush()?;
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Action;

    /// Numbers and times of events agree, and no event is lost.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_file_has_every_event_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        let (recorder, writer) = Recorder::create(&path, Instant::now()).unwrap();
        let clients: Vec<_> = (0..8_u64)
            .map(|process| {
                let recorder = recorder.clone();
                tokio::spawn(async move {
                    for n in 0..200_u64 {
                        let op = Op::new(Action::Write, "register/1", n);
                        recorder.invoke(process, &op).await;
                        recorder.complete(process, &op, &Completion::ok(n.into())).await;
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        drop(recorder);
        assert_eq!(writer.finish().unwrap(), 8 * 400);
        let text = std::fs::read_to_string(path).unwrap();
        let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(events.iter().enumerate().all(|(place, event)| event.index == place as u64));
        assert!(events.is_sorted_by_key(|event| event.time));
        let of_one: Vec<_> = events.iter().filter(|event| event.process == 3).map(|event| event.kind).collect();
        assert!(of_one.chunks(2).all(|pair| pair == [EventKind::Invoke, EventKind::Ok]));
    }

    /// A history is never overwritten.
    #[test]
    fn an_existing_history_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        std::fs::write(&path, "precious").unwrap();
        assert!(Recorder::create(&path, Instant::now()).is_err());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "precious");
    }
}
