//! The health of one node: its circuit breaker, with a lock-free path for a node without failures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use tokio::time::Instant;

use crate::breaker::Breaker;

/// The health of one node, shared by the router and the node's connection.
#[derive(Debug, Default)]
pub struct Health {
    /// Whether the breaker has anything to remember. While it has not, requests take no lock.
    troubled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    breaker: Breaker,
    /// The last failure, for messages.
    trouble: String,
}

impl Health {
    /// Records a failure: the node was unreachable, its connection ended, or it stayed silent.
    pub fn failure(&self, reason: &str) {
        let mut state = self.lock();
        state.breaker.failure(Instant::now());
        reason.clone_into(&mut state.trouble);
        self.troubled.store(true, Ordering::Release);
    }

    /// Records a reply; its content does not matter.
    pub(crate) fn success(&self) {
        if self.troubled.load(Ordering::Acquire) {
            let mut state = self.lock();
            state.breaker.success();
            self.troubled.store(!state.breaker.is_pristine(), Ordering::Release);
        }
    }

    /// Whether the breaker would let a request through.
    pub(crate) fn would_admit(&self) -> bool {
        !self.troubled.load(Ordering::Acquire) || self.lock().breaker.would_admit(Instant::now())
    }

    /// Lets a request through, or not. After a pause, the request let through is the probe.
    pub(crate) fn admit(&self) -> bool {
        !self.troubled.load(Ordering::Acquire) || self.lock().breaker.admit(Instant::now())
    }

    /// The last failure, for a message.
    pub(crate) fn trouble(&self) -> String {
        self.lock().trouble.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("only a broken invariant poisons this lock")
    }
}
