//! The invariant that a voter keeps its data: a replica is destroyed only after a membership
//! without it was committed. A destroyed voter has forgotten its vote and its entries, so a
//! majority no longer means that an entry survives.

use std::collections::{BTreeMap, BTreeSet};

use quorate_machine::log::{Log, MemoryLog};
use quorate_machine::state::{MemoryState, State, meta};
use quorate_types::state::StoredMembership;
use quorate_types::{Entry, GroupId, LogId, Membership, Payload, ReplicaId};

use crate::violations::Violation;
use crate::world::World;

/// The replicas and memberships that were observed so far.
#[derive(Default)]
pub(crate) struct Voters {
    /// Replicas that have had a durable vote.
    voted: BTreeSet<ReplicaId>,
    /// The newest applied membership of every group. An applied membership is committed.
    newest: BTreeMap<GroupId, StoredMembership>,
}

impl Voters {
    /// Checks that every voter which has had a vote still has its data, on a node that runs or is
    /// down.
    pub(crate) fn check(&mut self, world: &World) -> Result<(), Violation> {
        let nodes = world.nodes();
        let mut stored = BTreeSet::new();
        for node in nodes.values() {
            for (replica, group) in node.log.replicas() {
                stored.insert(replica);
                if node.log.durable_state(replica).is_some_and(|state| state.vote.is_some()) {
                    self.voted.insert(replica);
                }
                let applied = applied_membership(&node.state, replica);
                let newest = self.newest.entry(group).or_default();
                if applied.at > newest.at {
                    *newest = applied;
                }
            }
        }
        for (group, newest) in &self.newest {
            let is_destroyed = |voter: &ReplicaId| self.voted.contains(voter) && !stored.contains(voter);
            let logs = || nodes.values().map(|node| &*node.log);
            let mut destroyed = voters(&newest.members).filter(is_destroyed);
            if let Some(voter) = destroyed.find(|voter| !is_removed(logs(), *group, *voter, newest.at)) {
                return Err(Violation(format!(
                    "group {group}: replica {voter} was destroyed, and votes by the membership of {:?}",
                    newest.at
                )));
            }
        }
        Ok(())
    }
}

/// Whether a log has a membership without the voter, newer than the entry `after`. The leader that
/// applied the removal of a voter may have crashed, and lost its state; the committed entry is in
/// the logs of a majority. An entry that is overwritten later counts too, so that there is no false
/// alarm; it may hide a destroyed voter.
fn is_removed<'a>(
    mut logs: impl Iterator<Item = &'a MemoryLog>,
    group: GroupId,
    voter: ReplicaId,
    after: Option<LogId>,
) -> bool {
    let removes = |entry: &Entry| match &entry.payload {
        Payload::Membership(members) => Some(entry.id) > after && voters(members).all(|member| member != voter),
        Payload::Blank | Payload::Normal(_) => false,
    };
    logs.any(|log| {
        let mut replicas = log.replicas().into_iter().filter(|(_, of)| *of == group);
        replicas.any(|(replica, _)| {
            let entries = log.entries(replica, 0..u64::MAX, usize::MAX).expect("a log in memory can be read");
            entries.iter().any(removes)
        })
    })
}

fn applied_membership(state: &MemoryState, replica: ReplicaId) -> StoredMembership {
    let mut membership = StoredMembership::default();
    let viewed = state.view(&mut |view| {
        membership = meta::membership(view, replica)?;
        Ok(())
    });
    viewed.expect("a state in memory can be read");
    membership
}

fn voters(members: &Membership) -> impl Iterator<Item = ReplicaId> + '_ {
    members.voters.iter().flatten().copied()
}
