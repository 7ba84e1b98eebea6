//! Scans the log database at a restart.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{GroupId, ReplicaId};
use rocksdb::{DB, DBRawIterator, WriteBatch, WriteOptions};

use super::batch::sweep;
use super::error::io;
use quorate_machine::keys::{LOG_SPACES, LogSpace, log_entry_key, parse_log_key};
use quorate_machine::log::LogError;

/// Deletes keys without a replica: the remains of destroyed ones.
pub(super) fn sweep_leftovers(db: &DB, replicas: &BTreeMap<ReplicaId, GroupId>) -> Result<(), LogError> {
    let mut leftovers = BTreeSet::new();
    let spaces = LOG_SPACES.into_iter().filter(|space| !matches!(space, LogSpace::Entry | LogSpace::Tombstone));
    for space in spaces {
        each(db, space, |replica, _| {
            leftovers.insert(replica);
            Ok(())
        })?;
    }
    // Skips each replica's entries with one seek.
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
    tracing::info!(replicas = ?leftovers, "sweeping the log of destroyed replicas");
    let mut batch = WriteBatch::default();
    leftovers.iter().for_each(|replica| sweep(&mut batch, *replica));
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    db.write_opt(batch, &synced).map_err(io)
}

/// Visits the keys of a space without indexes.
pub(super) fn each(
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
