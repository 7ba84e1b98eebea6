//! What a restart finds: every replica with its marks, and its entries walked and checked from the first to the last.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use quorate_types::codec::{self, CodecError, Kind};
use quorate_types::{GroupId, ReplicaId};
use rocksdb::{DB, DBRawIterator, WriteBatch, WriteOptions};

use super::records::{ColdEntries, io, sweep};
use super::registry::Registry;
use super::replica::Replica;
use super::tail::TailBudget;
use quorate_machine::keys::{LOG_SPACES, LogSpace, log_entry_key, log_key, parse_log_key};
use quorate_machine::log::{LogError, LogState};

/// Finds the replicas. A hole or a wrong checksum is an error: a node that is unsure of its log must not vote.
pub(super) fn recover(db: &DB, budget: &Arc<TailBudget>) -> Result<Registry, LogError> {
    let mut destroyed = HashSet::new();
    each(db, LogSpace::Tombstone, |replica, _| {
        destroyed.insert(replica);
        Ok(())
    })?;
    let mut groups = BTreeMap::new();
    each(db, LogSpace::Replica, |replica, value| {
        let group: GroupId = codec::decode(Kind::Replica, value).map_err(corrupt(replica))?;
        groups.insert(replica, group);
        Ok(())
    })?;
    groups.retain(|replica, _| !destroyed.contains(replica));
    sweep_leftovers(db, &groups)?;
    budget.share_among(groups.len());
    let mut replicas = Vec::with_capacity(groups.len());
    for (id, group) in groups {
        replicas.push(Arc::new(recover_replica(db, id, group, budget)?));
    }
    Ok(Registry::new(replicas, destroyed, budget.clone()))
}

fn recover_replica(db: &DB, id: ReplicaId, group: GroupId, budget: &Arc<TailBudget>) -> Result<Replica, LogError> {
    let get = |space| db.get_pinned(log_key(space, id)).map_err(io);
    let mark = |space| get(space)?.map(|value| codec::decode(Kind::LogId, &value)).transpose().map_err(corrupt(id));
    let vote = get(LogSpace::Vote)?.map(|value| codec::decode(Kind::Vote, &value)).transpose().map_err(corrupt(id))?;
    let marks = LogState { vote, committed: mark(LogSpace::Committed)?, purged: mark(LogSpace::Purged)?, last: None };
    let start = marks.purged.map_or(0, |purged| purged.index + 1);
    let replica = Replica::recovered(id, group, budget.clone(), marks);
    for entry in ColdEntries::new(db, id, start..u64::MAX, marks.purged.is_none()) {
        replica.load(entry?);
    }
    replica.loaded();
    Ok(replica)
}

/// Deletes what belongs to no replica: the rest of destroyed ones.
fn sweep_leftovers(db: &DB, replicas: &BTreeMap<ReplicaId, GroupId>) -> Result<(), LogError> {
    let mut leftovers = BTreeSet::new();
    let spaces = LOG_SPACES.into_iter().filter(|space| !matches!(space, LogSpace::Entry | LogSpace::Tombstone));
    for space in spaces {
        each(db, space, |replica, _| {
            leftovers.insert(replica);
            Ok(())
        })?;
    }
    // A replica's entries are passed over with one seek.
    let mut iterator = db.raw_iterator();
    iterator.seek([LogSpace::Entry as u8]);
    while let Some(key) = iterator.key() {
        match parse_log_key(key) {
            Some((LogSpace::Entry, replica, _)) => {
                leftovers.insert(replica);
                iterator.seek(log_entry_key(replica, u64::MAX));
            }
            Some(_) => break,
            None => return Err(unknown_key(key)),
        }
    }
    iterator.status().map_err(io)?;
    leftovers.retain(|replica| !replicas.contains_key(replica));
    if leftovers.is_empty() {
        return Ok(());
    }
    tracing::info!(replicas = ?leftovers, "sweeping what destroyed replicas left in the log");
    let mut batch = WriteBatch::default();
    leftovers.iter().for_each(|replica| sweep(&mut batch, *replica));
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    db.write_opt(batch, &synced).map_err(io)
}

/// Visits the keys of a space, which have no index.
fn each(
    db: &DB,
    space: LogSpace,
    mut visit: impl FnMut(ReplicaId, &[u8]) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let mut iterator: DBRawIterator<'_> = db.raw_iterator();
    iterator.seek([space as u8]);
    while let Some((key, value)) = iterator.item() {
        match parse_log_key(key) {
            Some((found, replica, _)) if found == space => visit(replica, value)?,
            Some(_) => break,
            None => return Err(unknown_key(key)),
        }
        iterator.next();
    }
    iterator.status().map_err(io)
}

fn unknown_key(key: &[u8]) -> LogError {
    LogError::Io(format!("the log database has a key of no known kind: {key:02x?}").into())
}

/// A record of a replica that is not about one entry.
fn corrupt(replica: ReplicaId) -> impl Fn(CodecError) -> LogError {
    move |source| LogError::Corrupt { replica, index: 0, source }
}
