//! The replay of one key of one shard.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::super::verdict::Violation;
use super::fillers::{Fillers, written};
use super::first::First;
use super::holding::Holding;
use super::real_time::Floors;
use crate::history::{Action, Operation, Outcome};

/// The operations on one key, by their position in the shard's order.
pub(super) struct KeyReplay<'a> {
    operations: &'a [Operation],
    /// Version → the write that created it. Sorted once, when the key is replayed.
    writes: FxHashMap<u64, Write>,
    /// (revision, index) of every read with a reply.
    reads: Vec<(u64, usize)>,
    refusals: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Write {
    place: usize,
    /// The write's own reply has no version; another operation's reply shows it.
    filled: bool,
    /// The writer is one of several fillers, so the value is unknown.
    is_any: bool,
}

impl<'a> KeyReplay<'a> {
    pub(super) fn new(operations: &'a [Operation]) -> Self {
        KeyReplay { operations, writes: FxHashMap::default(), reads: Vec::new(), refusals: Vec::new() }
    }

    /// Adds an operation that has a position.
    pub(super) fn add(&mut self, place: usize) {
        let operation = &self.operations[place];
        match (operation.outcome, operation.action, operation.version, operation.revision) {
            (Outcome::Refused, ..) => self.refusals.push(place),
            (_, Action::Read, _, Some(revision)) => self.reads.push((revision, place)),
            (_, _, Some(version), _) => {
                self.writes.insert(version, Write { place, filled: false, is_any: false });
            }
            _ => {}
        }
    }

    /// The versions created by writes whose own replies have none.
    pub(super) fn filled(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.writes.iter().filter(|(_, write)| write.filled).map(|(version, write)| (*version, write.place))
    }

    /// Replays the key and notes its violations.
    pub(super) fn run(&mut self, fillers: &mut Fillers<'a>, floors: &Floors, first: &mut First<'_>) {
        self.reads.sort_unstable();
        self.identify(fillers, floors, first);
        let absences = self.walk(fillers, first);
        self.check_refusals(&absences, fillers, floors, first);
    }

    /// Finds the writers of the observed versions. Observers with a value go before observers with
    /// a version only, because they leave less choice.
    fn identify(&mut self, fillers: &mut Fillers<'a>, floors: &Floors, first: &mut First<'_>) {
        let observers = self.reads.iter().map(|(_, place)| *place).chain(self.refusals.iter().copied());
        let mut observers: Vec<usize> = observers.collect();
        observers.sort_by_key(|place| self.operations[*place].result.is_none());
        for place in observers {
            let operation = &self.operations[place];
            let Some(version) = operation.version.filter(|version| *version > 0) else { continue };
            let seen = operation.result.as_ref();
            if let Some(write) = self.writes.get(&version) {
                let wrote = written(&self.operations[write.place]).filter(|_| !write.is_any);
                if let (Some(wrote), Some(seen)) = (wrote, seen)
                    && wrote != seen
                {
                    let message = format!("version {version} was written as {wrote} but read as {seen}");
                    first.note(Violation::of(message, self.operations, place, &[write.place]));
                }
                continue;
            }
            let filler = match seen {
                Some(seen) => fillers.take(place, seen),
                None => fillers.any(place),
            };
            let Some(filler) = filler else {
                let seen = seen.map(|seen| format!(", {seen},")).unwrap_or_default();
                let message = format!("version {version}{seen} was observed, but no operation can have written it");
                first.note(Violation::of(message, self.operations, place, &[]));
                continue;
            };
            if version <= floors.of(filler) && fillers.is_only(filler) {
                let message =
                    format!("version {version} was observed of a write that began after a newer revision was observed");
                first.note(Violation::of(message, self.operations, place, &[filler]));
            }
            self.writes.insert(version, Write { place: filler, filled: true, is_any: seen.is_none() });
        }
    }

    /// Replays writes and reads in the order of the shard. Returns the revisions at which the key
    /// is absent because of a deletion without a version.
    fn walk(&mut self, fillers: &mut Fillers<'a>, first: &mut First<'_>) -> Vec<u64> {
        let writes: BTreeMap<u64, Write> = self.writes.iter().map(|(version, write)| (*version, *write)).collect();
        let mut writes = writes.into_iter().peekable();
        let mut absences = Vec::new();
        let mut held = Holding::absent();
        let reads = self.reads.iter().copied();
        for (revision, place) in reads.chain([(u64::MAX, usize::MAX)]) {
            while let Some((version, write)) = writes.next_if(|(version, _)| *version <= revision) {
                self.apply(&mut held, version, write, fillers, first);
            }
            if place == usize::MAX {
                break;
            }
            if let Some(message) = self.read(&mut held, revision, place, fillers, &mut absences) {
                let others: Vec<usize> = held.writer.into_iter().collect();
                first.note(Violation::of(message, self.operations, place, &others));
            }
        }
        absences
    }

    fn apply(
        &self,
        held: &mut Holding<'a>,
        version: u64,
        write: Write,
        fillers: &mut Fillers<'a>,
        first: &mut First<'_>,
    ) {
        let operation = &self.operations[write.place];
        if write.is_any {
            return held.write_unknown(version, write.place, None);
        }
        if !write.filled
            && let Some(message) = self.unmet(held, write.place, fillers)
        {
            let others: Vec<usize> = held.writer.into_iter().collect();
            first.note(Violation::of(message, self.operations, write.place, &others));
        }
        held.write(version, write.place, operation);
    }

    /// The error of a conditional write that was applied to this value.
    fn unmet(&self, held: &mut Holding<'a>, place: usize, fillers: &mut Fillers<'a>) -> Option<String> {
        let operation = &self.operations[place];
        let expected = operation.argument.get(0)?;
        match operation.action {
            Action::Cas => {
                if held.shows(expected) || fillers.take(place, expected).is_some() {
                    return None;
                }
                let found = held.describe();
                Some(format!("a write that expected {expected} was done on {found} (version {})", held.version))
            }
            Action::CasVersion => {
                let expected = expected.as_u64()?;
                let fits =
                    if expected == 0 { !held.is_present() } else { held.version == expected && !held.is_absent() };
                let explained = |fillers: &mut Fillers<'a>| match expected {
                    0 => fillers.take(place, &Value::Null).is_some(),
                    // An older version cannot come back.
                    _ => expected > held.version && fillers.any(place).is_some(),
                };
                if fits || explained(fillers) {
                    return None;
                }
                Some(format!("a write that expected version {expected} was done on version {}", held.version))
            }
            _ => None,
        }
    }

    /// The error of a read, given the key's value at its revision.
    fn read(
        &self,
        held: &mut Holding<'a>,
        revision: u64,
        place: usize,
        fillers: &mut Fillers<'a>,
        absences: &mut Vec<u64>,
    ) -> Option<String> {
        let operation = &self.operations[place];
        let seen = operation.result.as_ref()?;
        match operation.version {
            Some(version) if version > revision => {
                Some(format!("a read of revision {revision} saw version {version}, which is newer"))
            }
            Some(version) if version > 0 => {
                if held.version != version || held.is_absent() {
                    let newest = held.version;
                    return Some(format!(
                        "a read of revision {revision} saw version {version}; the newest then was {newest}"
                    ));
                }
                // An addition without a reply may precede the newest one.
                let fits = held.shows(seen) || held.shows_beside(seen, fillers.has_vague(place));
                (!fits).then(|| format!("version {version} was read as {seen}, but holds {}", held.describe()))
            }
            Some(_) if !seen.is_null() => Some(format!("a read of revision {revision} saw {seen} without a version")),
            version => {
                if held.shows(seen) {
                    return None;
                }
                let filler = fillers.take(place, seen);
                if let Some(filler) = filler {
                    held.write_unknown(held.version, filler, Some(seen));
                    absences.extend(version.map(|_| revision));
                    return None;
                }
                let found = held.describe();
                Some(format!(
                    "a read of revision {revision} saw {seen}; the newest write then, version {}, left {found}",
                    held.version
                ))
            }
        }
    }

    /// Checks the refused writes: each observed a record that was current at some moment while the
    /// write was open.
    fn check_refusals(&self, absences: &[u64], fillers: &Fillers<'a>, floors: &Floors, first: &mut First<'_>) {
        if self.refusals.is_empty() {
            return;
        }
        let writes: BTreeMap<u64, Write> = self.writes.iter().map(|(version, write)| (*version, *write)).collect();
        for place in &self.refusals {
            let operation = &self.operations[*place];
            let (Some(version), Some(revision)) = (operation.version, operation.revision) else { continue };
            let floor = floors.of(*place);
            let mut note = |message: String, others: &[usize]| {
                first.note(Violation::of(message, self.operations, *place, others));
            };
            if matched(operation, version) {
                note("a conditional write was refused although its condition held".to_owned(), &[]);
            }
            if version > revision {
                note(format!("a write of revision {revision} was refused for version {version}, which is newer"), &[]);
            }
            let leaves_nothing =
                |write: &Write| !write.is_any && written(&self.operations[write.place]) == Some(&Value::Null);
            if version > 0 {
                let next = writes.range(version + 1..).next();
                if let Some((newer, write)) = next.filter(|(newer, _)| **newer <= floor) {
                    let message = format!(
                        "a write was refused for version {version}, but began after version {newer} was observed"
                    );
                    note(message, &[write.place]);
                }
                continue;
            }
            // The writes that were the newest at some moment between the floor and the reply.
            let before = writes.range(..=floor).next_back();
            let during =
                writes.range(floor..).skip_while(|(at, _)| **at == floor).take_while(|(at, _)| **at <= revision);
            let mut newest = before.into_iter().chain(during);
            let absent = before.is_none()
                || newest.any(|(_, write)| leaves_nothing(write) || write.is_any)
                || absences.iter().any(|at| (floor..=revision).contains(at))
                || fillers.has(*place, &Value::Null);
            if !absent {
                let others: Vec<usize> = before.map(|(_, write)| write.place).into_iter().collect();
                note("a write was refused for an absent key, but the key had a value throughout".to_owned(), &others);
            }
        }
    }
}

/// Whether the condition of a refused write holds on the record that it found.
fn matched(operation: &Operation, version: u64) -> bool {
    let Some(expected) = operation.argument.get(0) else { return false };
    match operation.action {
        Action::Cas => match &operation.result {
            Some(found) => expected == found,
            None => version == 0 && expected.is_null(),
        },
        Action::CasVersion => expected.as_u64() == Some(version),
        _ => false,
    }
}
