//! The threads of the log.

use std::sync::Mutex;
use std::thread::JoinHandle;

use rocksdb::DB;

use super::queue::Queue;

/// The writer, then the reclaimer, which ends after it. Empty after the end.
pub(super) struct Threads(Mutex<Vec<JoinHandle<()>>>);

impl Threads {
    pub(super) fn new(writer: JoinHandle<()>, reclaimer: JoinHandle<()>) -> Self {
        Threads(Mutex::new(vec![writer, reclaimer]))
    }

    /// Closes the queue and waits until both threads have ended.
    pub(super) fn end(&self, queue: &Queue, db: &DB) {
        let mut threads = self.0.lock().expect("closing does not panic");
        queue.close();
        for thread in threads.drain(..) {
            // The writer catches its own panics, and a panic of the reclaimer no longer matters.
            let _ = thread.join();
            // The writer has ended, so no background work is needed any longer.
            db.cancel_all_background_work(false);
        }
    }
}
