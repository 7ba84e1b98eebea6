//! The writer's queue, bounded in bytes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, mpsc};

use quorate_types::Entry;

use super::replica_log::{Change, Operation};
use quorate_machine::log::{Done, LogError, QUEUE_BYTES_MAX};

/// Maximum size of one drain in bytes, which bounds the latency of the requests behind it. A single
/// larger item is drained alone.
const DRAIN_BYTES_MAX: usize = 8 << 20;

/// Size of an operation without its entries, for accounting.
const ITEM_BYTES: usize = 128;

/// An operation and its completion callback.
pub(super) struct Item {
    pub(super) operation: Operation,
    pub(super) done: Option<Done>,
    bytes: usize,
}

impl Item {
    pub(super) fn new(operation: Operation, done: Option<Done>) -> Self {
        let entries = match &operation.change {
            Change::Append(entries) => entries.iter().map(Entry::size_bytes).sum(),
            _ => 0,
        };
        Item { operation, done, bytes: ITEM_BYTES + entries }
    }

    /// Reports the result to the callback, if there is one.
    pub(super) fn answer(self, result: Result<(), LogError>) {
        if let Some(done) = self.done {
            done(result);
        }
    }
}

/// The writer's queue.
///
/// # Invariants
/// * Items leave in the order of arrival. (The tail asserts that each replica's operations are
///   written in order.)
/// * No item enters after the queue has ended; late items get the reason (held by the tests
///   `closed_log_refuses_calls` and `failed_write_ends_acknowledgements`).
pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
    room: Condvar,
    /// Bytes queued or being written.
    bytes: AtomicUsize,
    /// A copy of the state that readers check without the lock.
    closed: AtomicBool,
}

struct Inner {
    items: VecDeque<Item>,
    waiting_bytes: usize,
    /// The reason that no item may enter, once the queue has ended.
    end: Option<LogError>,
    writer_sleeps: bool,
    blocked: usize,
}

impl Queue {
    pub(super) fn new() -> Self {
        let inner = Inner { items: VecDeque::new(), waiting_bytes: 0, end: None, writer_sleeps: false, blocked: 0 };
        Queue {
            inner: Mutex::new(inner),
            filled: Condvar::new(),
            room: Condvar::new(),
            bytes: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Bytes queued or being written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Queues an operation for the writer. Blocks while the queue is full, which admission prevents
    /// in normal operation.
    pub(super) fn push(&self, operation: Operation, done: Option<Done>) {
        let item = Item::new(operation, done);
        let mut inner = self.lock();
        while inner.end.is_none() && self.bytes() > 0 && self.bytes() + item.bytes > QUEUE_BYTES_MAX {
            inner.blocked += 1;
            inner = self.room.wait(inner).expect(POISONED);
            inner.blocked -= 1;
        }
        if let Some(end) = inner.end.clone() {
            drop(inner);
            return item.answer(Err(end));
        }
        self.bytes.fetch_add(item.bytes, Ordering::Relaxed);
        inner.waiting_bytes += item.bytes;
        inner.items.push_back(item);
        if inner.writer_sleeps {
            self.filled.notify_one();
        }
    }

    /// Queues an operation and waits until it is durable.
    pub(super) fn push_and_wait(&self, operation: Operation) -> Result<(), LogError> {
        let (sender, receiver) = mpsc::channel();
        let done: Done = Box::new(move |result| {
            // The receiver waits right below.
            let _ = sender.send(result);
        });
        self.push(operation, Some(done));
        receiver.recv().unwrap_or(Err(LogError::Closed))
    }

    /// Waits for items and moves them into `into`, which must be empty. Returns their size in
    /// bytes; none once the queue has ended and is empty.
    pub(super) fn drain(&self, into: &mut VecDeque<Item>) -> Option<usize> {
        assert!(into.is_empty(), "the last drain was written");
        let mut inner = self.lock();
        while inner.items.is_empty() {
            if inner.end.is_some() {
                return None;
            }
            inner.writer_sleeps = true;
            inner = self.filled.wait(inner).expect(POISONED);
            inner.writer_sleeps = false;
        }
        if inner.waiting_bytes <= DRAIN_BYTES_MAX {
            std::mem::swap(&mut inner.items, into);
            return Some(std::mem::take(&mut inner.waiting_bytes));
        }
        let mut bytes = 0;
        while let Some(item) = inner.items.pop_front_if(|item| bytes == 0 || bytes + item.bytes <= DRAIN_BYTES_MAX) {
            bytes += item.bytes;
            into.push_back(item);
        }
        inner.waiting_bytes -= bytes;
        Some(bytes)
    }

    /// Releases the bytes of drained items after they were written.
    pub(super) fn written(&self, bytes: usize) {
        let inner = self.lock();
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "{bytes} bytes were written, but only {before} were queued");
        if inner.blocked > 0 {
            self.room.notify_all();
        }
    }

    /// Ends the queue for new items. Items already queued are still drained.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.end.get_or_insert(LogError::Closed);
        self.closed.store(true, Ordering::Relaxed);
        self.filled.notify_one();
        self.room.notify_all();
    }

    /// Fails if the queue was closed. After a failed write it still succeeds, because reading goes
    /// on working.
    pub(super) fn check_open(&self) -> Result<(), LogError> {
        if self.closed.load(Ordering::Relaxed) { Err(LogError::Closed) } else { Ok(()) }
    }

    /// Ends the queue after a failed write: pending and later items get the error.
    pub(super) fn fail(&self, error: LogError) {
        let mut inner = self.lock();
        inner.end = Some(error.clone());
        let items = std::mem::take(&mut inner.items);
        inner.waiting_bytes = 0;
        self.bytes.store(0, Ordering::Relaxed);
        self.room.notify_all();
        drop(inner);
        items.into_iter().for_each(|item| item.answer(Err(error.clone())));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect(POISONED)
    }
}

/// A thread that finds the lock poisoned stops: its invariants no longer hold.
const POISONED: &str = "only a broken invariant poisons the queue's lock";
