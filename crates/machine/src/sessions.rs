//! The session table of a shard: makes retried writes take effect exactly once.
//!
//! ```text
//!   in the state    'S' | session | index  ->  clock, lowest, outcomes      one record per entry
//!   in memory       session  ->  last use, lowest, outcomes by sequence, records of the outcomes
//! ```
//!
//! A client numbers the writes of its session. The table keeps the outcome of each number until a
//! later write of the client releases it by raising `lowest`. A retried write with a known number
//! gets its first outcome again.
//!
//! One record holds everything that an entry did in a session, so that a write costs some bytes of
//! a record and not a record of its own. A session's newest record holds its clock and `lowest`; an
//! older record is deleted when all its outcomes are released.
//!
//! The table depends only on the log: it is the same on every replica, after every restart, and in
//! every snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use quorate_types::codec::{self, CodecError, Kind};
use quorate_types::state::{Remembered, SessionEntry};
use quorate_types::{ReplicaId, SessionId, SessionStamp};

use crate::draft::Draft;
use crate::keys::{SESSION, Space, parse_session_key, session_key};
use crate::state::{StateError, View};

/// Maximum number of sessions per shard: one more evicts the least recently used. Bounds memory and
/// state.
pub const SESSIONS_MAX: usize = 1024;
/// Maximum number of sequences above a session's lowest, so of outcomes that it keeps.
pub const SESSION_SEQUENCES_MAX: u64 = 4096;
/// Idle time, by the shard's clock, for which a session is kept unless others need its place.
pub const SESSION_IDLE_MS_MAX: u64 = 10 * 60 * 1000;
/// Maximum number of idle sessions that one entry evicts, which bounds the entry's work. The next
/// entry evicts more.
const EVICTED_PER_ENTRY_MAX: usize = 16;

/// The last use of a session: the shard's clock and the entry's index. Both only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Used {
    clock_ms: u64,
    index: u64,
}

/// The table's verdict on a write before it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Not done before: apply the write and [`Sessions::remember`] the outcome.
    New,
    /// Already done, with this outcome.
    Done(Remembered),
    /// The session is not in the table.
    Unknown,
    /// The sequence is below the session's lowest.
    Forgotten,
    /// The sequence is [`SESSION_SEQUENCES_MAX`] or more above the session's lowest.
    TooFar,
}

/// The session table of a shard.
///
/// # Invariants
/// * `by_use` contains each session of `sessions` exactly once, under its last use.
/// * There are at most [`SESSIONS_MAX`] sessions, each with at most [`SESSION_SEQUENCES_MAX`]
///   outcomes, all at or above its `lowest`.
/// * Between two entries, the table in memory equals the one that [`Sessions::open`] would read
///   (held by the test `replies_and_state_depend_on_the_log_alone`).
pub(super) struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
    by_use: BTreeSet<(Used, SessionId)>,
    entry: CurrentEntry,
}

/// One session.
#[derive(Default)]
struct Session {
    used: Used,
    lowest: u64,
    outcomes: BTreeMap<u64, Remembered>,
    records: Records,
}

/// A session's records in the state, as (highest sequence with an outcome in the record or 0, index
/// of the entry).
#[derive(Default)]
struct Records {
    newest: Option<(u64, u64)>,
    older: BTreeSet<(u64, u64)>,
}

/// The entry being applied, and its outcomes by session.
#[derive(Default)]
struct CurrentEntry {
    now: Used,
    touched: BTreeMap<SessionId, Vec<(u64, Remembered)>>,
}

impl Sessions {
    /// Reads the table from a replica's state.
    pub(super) fn open(replica: ReplicaId, view: &dyn View) -> Result<Self, StateError> {
        let mut sessions = BTreeMap::<SessionId, Session>::new();
        let mut failed = None;
        view.scan(replica, Space::Table, &[SESSION], &mut |key, value| match parse(key, value) {
            Ok((id, index, entry)) => {
                sessions.entry(id).or_default().replay(index, entry);
                ControlFlow::Continue(())
            }
            Err(source) => {
                failed = Some(StateError::Corrupt { replica, source });
                ControlFlow::Break(())
            }
        })?;
        if let Some(failed) = failed {
            return Err(failed);
        }
        let by_use = sessions.iter().map(|(id, session)| (session.used, *id)).collect();
        Ok(Sessions { sessions, by_use, entry: CurrentEntry::default() })
    }

    /// Begins the entry at `index`, with the shard's clock after the entry, and evicts sessions
    /// that were idle too long.
    pub(super) fn begin(&mut self, clock_ms: u64, index: u64, draft: &mut Draft<'_>) {
        assert!(self.entry.touched.is_empty(), "the entry before was finished");
        self.entry.now = Used { clock_ms, index };
        for _ in 0..EVICTED_PER_ENTRY_MAX {
            match self.by_use.first() {
                Some((used, id)) if used.clock_ms.saturating_add(SESSION_IDLE_MS_MAX) <= clock_ms => {
                    self.evict(*id, draft)
                }
                _ => break,
            }
        }
    }

    /// Opens a session with a new id. If the table is full, evicts the least recently used session.
    pub(super) fn open_session(&mut self, draft: &mut Draft<'_>) -> SessionId {
        if self.sessions.len() >= SESSIONS_MAX
            && let Some((_, id)) = self.by_use.first()
        {
            self.evict(*id, draft);
        }
        let head = draft.head_mut();
        head.sessions_opened += 1;
        let id = SessionId(head.sessions_opened);
        // Sequences start at 1.
        let session = Session { lowest: 1, used: self.entry.now, ..Session::default() };
        assert!(self.sessions.insert(id, session).is_none(), "session {id} is new");
        self.by_use.insert((self.entry.now, id));
        self.entry.touched.insert(id, Vec::new());
        id
    }

    /// Looks up a write. If the session is known, marks it as used and releases the outcomes below
    /// the stamp's lowest sequence.
    pub(super) fn admit(&mut self, stamp: &SessionStamp) -> Admission {
        let Some(session) = self.sessions.get_mut(&stamp.session) else { return Admission::Unknown };
        if session.used != self.entry.now {
            self.by_use.remove(&(session.used, stamp.session));
            self.by_use.insert((self.entry.now, stamp.session));
            session.used = self.entry.now;
        }
        self.entry.touched.entry(stamp.session).or_default();
        session.forget_below(stamp.lowest);
        if stamp.sequence < session.lowest {
            Admission::Forgotten
        } else if let Some(outcome) = session.outcomes.get(&stamp.sequence) {
            Admission::Done(*outcome)
        } else if stamp.sequence - session.lowest >= SESSION_SEQUENCES_MAX {
            Admission::TooFar
        } else {
            Admission::New
        }
    }

    /// Records the outcome of a write that was admitted as [`Admission::New`].
    pub(super) fn remember(&mut self, stamp: &SessionStamp, outcome: Remembered) {
        let session = self.sessions.get_mut(&stamp.session).expect("an admitted write has a session");
        let first = session.outcomes.insert(stamp.sequence, outcome).is_none();
        assert!(first, "sequence {} of session {} is done once", stamp.sequence, stamp.session);
        assert!(session.outcomes.len() as u64 <= SESSION_SEQUENCES_MAX, "session {} is bounded", stamp.session);
        self.entry.touched.entry(stamp.session).or_default().push((stamp.sequence, outcome));
    }

    /// Ends the entry: writes one record per session that it used, and deletes records whose
    /// outcomes are all released.
    pub(super) fn finish(&mut self, draft: &mut Draft<'_>) {
        assert_eq!(self.by_use.len(), self.sessions.len(), "each session is listed once by its last use");
        let Used { clock_ms, index } = self.entry.now;
        for (id, outcomes) in std::mem::take(&mut self.entry.touched) {
            let session = self.sessions.get_mut(&id).expect("a touched session is evicted from both");
            session.records.add(index, &outcomes);
            while let Some(forgotten) = session.records.pop_below(session.lowest) {
                draft.delete(Space::Table, session_key(id, forgotten));
            }
            let entry = SessionEntry { clock_ms, lowest: session.lowest, outcomes };
            draft.put(Space::Table, session_key(id, index), codec::encode(Kind::Session, &entry));
        }
    }

    /// Removes a session and deletes its records.
    fn evict(&mut self, id: SessionId, draft: &mut Draft<'_>) {
        let session = self.sessions.remove(&id).expect("an evicted session is in the table");
        self.by_use.remove(&(session.used, id));
        self.entry.touched.remove(&id);
        for (_, index) in session.records.older.into_iter().chain(session.records.newest) {
            draft.delete(Space::Table, session_key(id, index));
        }
    }
}

impl Session {
    /// Adds a record of the state. Records must come in the order of their entries.
    fn replay(&mut self, index: u64, entry: SessionEntry) {
        self.used = Used { clock_ms: entry.clock_ms, index };
        self.records.add(index, &entry.outcomes);
        self.outcomes.extend(entry.outcomes);
        self.forget_below(entry.lowest);
    }

    /// Raises the lowest sequence, never lowers it, and drops the outcomes below it.
    fn forget_below(&mut self, lowest: u64) {
        if lowest > self.lowest {
            self.lowest = lowest;
            while let Some(outcome) = self.outcomes.first_entry()
                && *outcome.key() < lowest
            {
                outcome.remove();
            }
        }
    }
}

impl Records {
    /// Adds the record of a later entry as the newest.
    fn add(&mut self, index: u64, outcomes: &[(u64, Remembered)]) {
        let highest = outcomes.iter().map(|(sequence, _)| *sequence).max().unwrap_or(0);
        self.older.extend(self.newest.replace((highest, index)));
    }

    /// Removes an older record without outcomes at or above `lowest`, and returns its index.
    fn pop_below(&mut self, lowest: u64) -> Option<u64> {
        let (highest, _) = self.older.first()?;
        (*highest < lowest).then(|| self.older.pop_first())?.map(|(_, index)| index)
    }
}

fn parse(key: &[u8], value: &[u8]) -> Result<(SessionId, u64, SessionEntry), CodecError> {
    let malformed = || CodecError::Malformed { kind: Kind::Session, reason: format!("key {}", key.escape_ascii()) };
    let (id, index) = parse_session_key(key).ok_or_else(malformed)?;
    Ok((id, index, codec::decode(Kind::Session, value)?))
}
