//! Sessions: a write may be sent twice and is applied once.
//!
//! The router has one session in each shard, opened with the first write. A write takes the
//! session's next sequence before its first attempt and keeps it, in a [`Slot`], until its caller
//! has an outcome or stops waiting. Every attempt carries the same session and sequence.
//!
//! Every stamp also carries the lowest outstanding sequence. The shard forgets the outcomes below
//! it and applies no write below it. When a caller gives up a write of unknown outcome, a late copy
//! of it is therefore not applied over a later write of the session.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_testpoints::Bug;
use quorate_types::{SessionId, SessionStamp};
use tokio::sync::Notify;

/// The span of outstanding sequences in one shard, from the lowest to the next one. Less than the
/// number of outcomes that the shard keeps.
pub const OUTSTANDING_MAX: u64 = 1024;

/// The sessions of one shard: one at a time, a new one after the shard has forgotten the last one.
#[derive(Default)]
pub(crate) struct Sessions {
    current: Mutex<Option<Arc<Session>>>,
    /// Held while a session is being opened.
    pub(crate) opening: tokio::sync::Mutex<()>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.current.lock().expect("only a broken invariant poisons this lock")
    }

    /// The session, if one is open.
    pub(crate) fn current(&self) -> Option<Arc<Session>> {
        self.lock().clone()
    }

    /// Makes a newly opened session the current one.
    pub(crate) fn opened(&self, id: SessionId) -> Arc<Session> {
        let session = Arc::new(Session { id, window: Mutex::default(), moved: Notify::new() });
        *self.lock() = Some(Arc::clone(&session));
        session
    }

    /// Forgets the session, which the shard no longer knows, if it is the current one.
    pub(crate) fn lost(&self, id: SessionId) {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|session| session.id == id) {
            *current = None;
        }
    }
}

/// An open session.
pub(crate) struct Session {
    id: SessionId,
    window: Mutex<Window>,
    /// Notified when the lowest outstanding sequence has moved.
    moved: Notify,
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().expect("only a broken invariant poisons this lock")
    }

    /// Takes the next sequence. Waits while it is [`OUTSTANDING_MAX`] above the lowest outstanding
    /// one.
    pub(crate) async fn slot(self: Arc<Self>) -> Slot {
        loop {
            // Created before the window is read, so that a later notification is not missed.
            let moved = self.moved.notified();
            let sequence = self.lock().take();
            if let Some(sequence) = sequence {
                return Slot { session: Arc::clone(&self), sequence };
            }
            moved.await;
        }
    }
}

/// The outstanding sequences of a session.
///
/// # Invariants
/// * No sequence is taken twice: `last` is at least every sequence ever taken.
/// * `last` is less than `OUTSTANDING_MAX` above the lowest outstanding sequence.
#[derive(Default)]
struct Window {
    last: u64,
    outstanding: BTreeSet<u64>,
}

impl Window {
    /// The lowest outstanding sequence; the next one while none is.
    fn lowest(&self) -> u64 {
        self.outstanding.first().copied().unwrap_or(self.last + 1)
    }

    fn take(&mut self) -> Option<u64> {
        let next = self.last + 1;
        if next - self.lowest() >= OUTSTANDING_MAX {
            return None;
        }
        self.last = next;
        let is_new = self.outstanding.insert(next);
        assert!(is_new, "sequence {next} is taken twice");
        Some(next)
    }

    /// Ends a sequence. Returns whether the lowest outstanding one has moved.
    fn end(&mut self, sequence: u64) -> bool {
        let lowest = self.lowest();
        self.outstanding.remove(&sequence);
        self.lowest() != lowest
    }
}

/// A write's sequence in a session, outstanding until the slot is dropped.
pub(crate) struct Slot {
    session: Arc<Session>,
    sequence: u64,
}

impl Slot {
    pub(crate) fn session(&self) -> SessionId {
        self.session.id
    }

    /// The stamp of an attempt that is sent now.
    pub(crate) fn stamp(&self) -> SessionStamp {
        let lowest = self.session.lock().lowest();
        assert!(lowest <= self.sequence, "sequence {} is outstanding, and {lowest} is the lowest", self.sequence);
        let sequence = if Bug::StampUsedTwice.is_on() { lowest } else { self.sequence };
        SessionStamp { session: self.session.id, sequence, lowest }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.session.lock().end(self.sequence) {
            self.session.moved.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn slot(session: &Arc<Session>) -> Slot {
        Arc::clone(session).slot().await
    }

    #[tokio::test]
    async fn stamps_carry_the_lowest_outstanding_sequence() {
        let sessions = Sessions::default();
        let session = sessions.opened(SessionId(7));
        let (first, second, third) = (slot(&session).await, slot(&session).await, slot(&session).await);
        let stamp = |slot: &Slot| (slot.stamp().session.0, slot.stamp().sequence, slot.stamp().lowest);
        assert_eq!([&first, &second, &third].map(stamp), [(7, 1, 1), (7, 2, 1), (7, 3, 1)]);
        drop(second);
        assert_eq!(stamp(&third), (7, 3, 1), "the first is still outstanding");
        drop(first);
        assert_eq!(stamp(&third), (7, 3, 3));
        drop(third);
        assert_eq!(stamp(&slot(&session).await), (7, 4, 4), "no sequence is used twice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_write_bounds_how_far_later_sequences_run_ahead() {
        let session = Sessions::default().opened(SessionId(1));
        let slow = slot(&session).await;
        for _ in 1..OUTSTANDING_MAX {
            drop(slot(&session).await);
        }
        let mut next = Box::pin(slot(&session));
        assert!(timeout(Duration::from_secs(60), &mut next).await.is_err(), "too far from the first");
        drop(slow);
        assert_eq!(next.await.stamp().sequence, OUTSTANDING_MAX + 1);
    }

    #[test]
    fn only_the_lost_session_is_forgotten() {
        let sessions = Sessions::default();
        sessions.opened(SessionId(1));
        sessions.opened(SessionId(2));
        sessions.lost(SessionId(1));
        assert_eq!(sessions.current().map(|session| session.id), Some(SessionId(2)));
        sessions.lost(SessionId(2));
        assert!(sessions.current().is_none());
    }
}
