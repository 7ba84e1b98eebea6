//! Recovery after a restart: loads every replica with its marks, and verifies its entries from
//! first to last.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use quorate_types::codec::{self, CodecError, Kind};
use quorate_types::{GroupId, ReplicaId};
use rocksdb::DB;

use super::cold::ColdEntries;
use super::error::io;
use super::registry::Registry;
use super::replica_log::ReplicaLog;
use super::scan::{each, sweep_leftovers};
use super::tail::TailBudget;
use quorate_machine::keys::{LogSpace, log_key};
use quorate_machine::log::{LogError, LogState};

/// Recovers all replicas. A hole or a wrong checksum is an error: a node that is unsure of its log
/// must not vote.
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

fn recover_replica(db: &DB, id: ReplicaId, group: GroupId, budget: &Arc<TailBudget>) -> Result<ReplicaLog, LogError> {
    let get = |space| db.get_pinned(log_key(space, id)).map_err(io);
    let mark = |space| get(space)?.map(|value| codec::decode(Kind::LogId, &value)).transpose().map_err(corrupt(id));
    let vote = get(LogSpace::Vote)?.map(|value| codec::decode(Kind::Vote, &value)).transpose().map_err(corrupt(id))?;
    let marks = LogState {
        vote,
        committed: mark(LogSpace::Committed)?,
        purged: mark(LogSpace::Purged)?,
        last: None,
        doubtful: get(LogSpace::Doubtful)?.is_some(),
    };
    let start = marks.purged.map_or(0, |purged| purged.index + 1);
    let replica = ReplicaLog::recovered(id, group, budget.clone(), marks);
    for entry in ColdEntries::new(db, id, start..u64::MAX, marks.purged.is_none()) {
        replica.load(entry?);
    }
    replica.loaded();
    Ok(replica)
}

/// The error for a corrupt record that is not an entry.
fn corrupt(replica: ReplicaId) -> impl Fn(CodecError) -> LogError {
    move |source| LogError::Corrupt { replica, index: 0, source }
}
