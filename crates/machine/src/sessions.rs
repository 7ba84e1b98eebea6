//! The session table of a shard: it makes a write that is sent again happen once.
//!
//! ```text
//!   in the state    'S' | session | index of the entry  ->  clock, lowest, outcomes of that entry        (one record an entry)
//!   in memory       session  ->  last used, lowest, outcomes by sequence, which records hold them        (read from the above)
//! ```
//!
//! A client numbers the writes of its session. The table keeps what became of each number, until the client says with a
//! later write that it has no more use for it (`lowest`). A write whose number is known gets the first outcome again.
//!
//! One record holds all that an entry did in a session, so that a write costs some bytes of a record and not a record. The
//! newest record of a session says where the session stands; an older one is deleted when all its outcomes are forgotten.
//!
//! Everything here is decided by the log alone: the same on every replica, after every restart, and in every snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use quorate_types::codec::{self, CodecError, Kind};
use quorate_types::state::{Remembered, SessionEntry};
use quorate_types::{ReplicaId, SessionId, SessionStamp};

use crate::draft::Draft;
use crate::keys::{SESSION, Space, parse_session_key, session_key};
use crate::state::{StateError, View};

/// Sessions that a shard keeps at most: one more evicts the one that was not used for longest. Bounds memory and the state.
pub const SESSIONS_MAX: usize = 1024;
/// Sequences that a session may have above its lowest: outcomes that it keeps at most.
pub const OUTSTANDING_MAX: u64 = 4096;
/// For how long, by the shard's clock, a session that is not used is kept at least, unless others need its place.
pub const SESSION_IDLE_MS_MAX: u64 = 10 * 60 * 1000;
/// Idle sessions that one entry evicts at most, so that no entry takes long: the others wait for the next entry.
const EVICTED_PER_ENTRY_MAX: usize = 16;

/// When a session was last used: by the shard's clock, and by which entry. Both only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Used {
    clock_ms: u64,
    index: u64,
}

/// What the table says of a write before it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It was never done: apply it and [`Sessions::remember`] the outcome.
    New,
    /// It was done, with this outcome.
    Done(Remembered),
    /// Its session is not in the table.
    Unknown,
    /// It is below the session's lowest sequence.
    Forgotten,
    /// It is [`OUTSTANDING_MAX`] or more above the session's lowest sequence.
    TooFar,
}

/// The session table of a shard.
///
/// # Invariants
/// * `by_use` has every session of `sessions` once, under its last use.
/// * At most [`SESSIONS_MAX`] sessions, each with at most [`OUTSTANDING_MAX`] outcomes, all at or above its `lowest`.
/// * Between two entries, what is in memory is what [`Sessions::open`] would read from the state.
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

/// A session's records in the state: the highest sequence that each holds an outcome of (0 for none), and its entry's index.
#[derive(Default)]
struct Records {
    newest: Option<(u64, u64)>,
    older: BTreeSet<(u64, u64)>,
}

/// The entry that is being applied, and what it did in which session so far.
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

    /// Begins the entry at `index`, with the shard's clock as the entry moved it, and evicts sessions that were idle too long.
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

    /// Opens a session with an id that was never given out. Evicts the one that was not used for longest, if the table is full.
    pub(super) fn open_session(&mut self, draft: &mut Draft<'_>) -> SessionId {
        if self.sessions.len() >= SESSIONS_MAX
            && let Some((_, id)) = self.by_use.first()
        {
            self.evict(*id, draft);
        }
        let head = draft.head_mut();
        head.sessions_opened += 1;
        let id = SessionId(head.sessions_opened);
        // Sequences count from 1.
        let session = Session { lowest: 1, used: self.entry.now, ..Session::default() };
        assert!(self.sessions.insert(id, session).is_none(), "session {id} is new");
        self.by_use.insert((self.entry.now, id));
        self.entry.touched.insert(id, Vec::new());
        id
    }

    /// Looks a write up. Where the session is known, this uses it and forgets what is below the stamp's lowest sequence.
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
        } else if stamp.sequence - session.lowest >= OUTSTANDING_MAX {
            Admission::TooFar
        } else {
            Admission::New
        }
    }

    /// Remembers what became of a write that was admitted as [`Admission::New`].
    pub(super) fn remember(&mut self, stamp: &SessionStamp, outcome: Remembered) {
        let session = self.sessions.get_mut(&stamp.session).expect("an admitted write has a session");
        let first = session.outcomes.insert(stamp.sequence, outcome).is_none();
        assert!(first, "sequence {} of session {} is done once", stamp.sequence, stamp.session);
        self.entry.touched.entry(stamp.session).or_default().push((stamp.sequence, outcome));
    }

    /// Ends the entry: writes one record for every session that it used, and deletes the records that nobody needs any more.
    pub(super) fn finish(&mut self, draft: &mut Draft<'_>) {
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

    /// Forgets a session and deletes its records.
    fn evict(&mut self, id: SessionId, draft: &mut Draft<'_>) {
        let session = self.sessions.remove(&id).expect("what is evicted is in the table");
        self.by_use.remove(&(session.used, id));
        self.entry.touched.remove(&id);
        for (_, index) in session.records.older.into_iter().chain(session.records.newest) {
            draft.delete(Space::Table, session_key(id, index));
        }
    }
}

impl Session {
    /// Takes in a record of the state. They come in the order of their entries.
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
    /// Adds the record of a later entry, which is the newest from now on.
    fn add(&mut self, index: u64, outcomes: &[(u64, Remembered)]) {
        let highest = outcomes.iter().map(|(sequence, _)| *sequence).max().unwrap_or(0);
        self.older.extend(self.newest.replace((highest, index)));
    }

    /// Takes out the index of an older record that has no outcome at or above `lowest`.
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
