//! Sessions: what lets a write be sent twice and be applied once.
//!
//! The router has one session in each shard, opened with the first write. A write takes the session's next sequence before it is
//! first sent and keeps it, in a [`Slot`], until its caller has an outcome or waits no longer; every try of it carries the same
//! session and sequence.
//!
//! Every stamp also says which sequence is the lowest that anybody here still waits for. The shard forgets the outcomes below
//! it, and applies nothing below it any more. So when a caller gives a write up whose outcome is unknown, a copy of it that
//! comes late, after a later write of the session, is not applied over that one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_types::{SessionId, SessionStamp};
use tokio::sync::Notify;

/// Sequences of one shard that may be outstanding at a time, from the lowest to the next: fewer than the shard keeps outcomes of.
pub const OUTSTANDING_MAX: u64 = 1024;

/// The sessions of one shard, one after the other.
#[derive(Default)]
pub(crate) struct Sessions {
    current: Mutex<Option<Arc<Session>>>,
    /// Held while a session is being opened.
    pub(crate) opening: tokio::sync::Mutex<()>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.current.lock().expect("nothing panics under this lock")
    }

    /// The session, if one is open.
    pub(crate) fn current(&self) -> Option<Arc<Session>> {
        self.lock().clone()
    }

    /// A session was opened.
    pub(crate) fn opened(&self, id: SessionId) -> Arc<Session> {
        let session = Arc::new(Session { id, window: Mutex::default(), moved: Notify::new() });
        *self.lock() = Some(Arc::clone(&session));
        session
    }

    /// The shard does not know this session any more.
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
    /// The lowest outstanding sequence has moved.
    moved: Notify,
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().expect("nothing panics under this lock")
    }

    /// Takes the next sequence, as soon as it is near enough to the lowest outstanding one.
    pub(crate) async fn slot(self: Arc<Self>) -> Slot {
        loop {
            // Made before looking, so that a move after it is not missed.
            let moved = self.moved.notified();
            let sequence = self.lock().take();
            if let Some(sequence) = sequence {
                return Slot { session: Arc::clone(&self), sequence };
            }
            moved.await;
        }
    }
}

/// Which sequences of a session are outstanding.
///
/// # Invariants
/// * `last` is at least every outstanding sequence, and less than `OUTSTANDING_MAX` above the lowest.
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
        self.outstanding.insert(next);
        Some(next)
    }

    /// Returns whether the lowest has moved.
    fn give_back(&mut self, sequence: u64) -> bool {
        let lowest = self.lowest();
        self.outstanding.remove(&sequence);
        self.lowest() != lowest
    }
}

/// A write's place in a session. Dropping it ends the wait for its outcome, for whatever reason.
pub(crate) struct Slot {
    session: Arc<Session>,
    sequence: u64,
}

impl Slot {
    pub(crate) fn session(&self) -> SessionId {
        self.session.id
    }

    /// The stamp for a try that is sent now.
    pub(crate) fn stamp(&self) -> SessionStamp {
        SessionStamp { session: self.session.id, sequence: self.sequence, lowest: self.session.lock().lowest() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.session.lock().give_back(self.sequence) {
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
    async fn the_lowest_is_the_lowest_that_somebody_waits_for() {
        let sessions = Sessions::default();
        let session = sessions.opened(SessionId(7));
        let (first, second, third) = (slot(&session).await, slot(&session).await, slot(&session).await);
        let stamp = |slot: &Slot| (slot.stamp().session.0, slot.stamp().sequence, slot.stamp().lowest);
        assert_eq!([&first, &second, &third].map(stamp), [(7, 1, 1), (7, 2, 1), (7, 3, 1)]);
        drop(second);
        assert_eq!(stamp(&third), (7, 3, 1), "the first is still waited for");
        drop(first);
        assert_eq!(stamp(&third), (7, 3, 3));
        drop(third);
        assert_eq!(stamp(&slot(&session).await), (7, 4, 4), "no sequence is used twice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_takes_long_holds_up_those_that_would_run_too_far_ahead_and_no_longer() {
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
    fn only_the_session_that_is_unknown_is_given_up() {
        let sessions = Sessions::default();
        sessions.opened(SessionId(1));
        sessions.opened(SessionId(2));
        sessions.lost(SessionId(1));
        assert_eq!(sessions.current().map(|session| session.id), Some(SessionId(2)));
        sessions.lost(SessionId(2));
        assert!(sessions.current().is_none());
    }
}
