//! Where the replicas of shards should be: ids for new ones, and the map.
//!
//! ```text
//!   AllocateReplica ─→ id 52 for shard 4 on node 3 ─→ (the node makes it, it catches up) ─→ PlaceShard … 52 on 3 …
//!                        │ outstanding: usable once                                            │ used: forgotten
//! ```

use std::collections::BTreeSet;

use quorate_types::topology::{NodeState, Outcome, Placement, ShardInfo};
use quorate_types::{NodeId, ReplicaId, ShardId};

use crate::cluster::{ClusterState, Decision};
use crate::limits::OUTSTANDING_PER_SHARD_MAX;
use crate::nodes;
use crate::record::{Allocation, Change, Record};

impl ClusterState {
    /// Gives out a new replica id. Asking again gives another one: whoever did not hear the answer cannot know what became of
    /// the first.
    pub(crate) fn allocate_replica(&self, shard: ShardId, node: NodeId) -> Decision {
        self.mapped(shard)?;
        self.check_takes_replicas(node)?;
        let replica = ReplicaId(self.counters().last_replica.0 + 1);
        let allocation = Allocation { shard, placement: Placement { replica, node } };
        let outstanding = self.allocations.values().filter(|other| other.shard == shard);
        let surplus = (outstanding.clone().count() + 1).saturating_sub(OUTSTANDING_PER_SHARD_MAX);
        // Ids only grow: the first ones are the oldest.
        let forgotten = outstanding.take(surplus).map(|oldest| Change::Forget(oldest.placement.replica));
        let changes = forgotten.chain([Change::Put(Record::Allocation(allocation))]).collect();
        Ok((Outcome::Replica(replica), changes))
    }

    /// Changes where a shard's replicas should be, if they are where the caller thinks.
    pub(crate) fn place_shard(&self, id: ShardId, expected: &[Placement], replicas: &[Placement]) -> Decision {
        let shard = self.mapped(id)?;
        if shard.replicas == replicas {
            return Ok((Outcome::Done, Vec::new()));
        }
        if shard.replicas != expected {
            return Err(format!("the map has shard {id} at {}, not at {}", list(&shard.replicas), list(expected)));
        }
        check_set(replicas, self.replicas_of_a_shard())?;
        let mut changes = Vec::new();
        for &new in replicas.iter().filter(|placement| !shard.replicas.contains(placement)) {
            let Placement { replica, node } = new;
            if self.allocations.get(&replica) != Some(&Allocation { shard: id, placement: new }) {
                return Err(format!(
                    "replica {replica} was not given out for shard {id} on node {node}, or was used or given up since"
                ));
            }
            self.check_takes_replicas(node)?;
            changes.push(Change::Forget(replica));
        }
        changes.push(Change::Put(Record::Shard(ShardInfo { replicas: replicas.to_vec(), ..shard.clone() })));
        Ok((Outcome::Done, changes))
    }

    fn mapped(&self, id: ShardId) -> Result<&ShardInfo, String> {
        self.shards.get(&id).ok_or_else(|| format!("there is no shard {id}"))
    }

    fn check_takes_replicas(&self, id: NodeId) -> Result<(), String> {
        match self.known(id)?.state {
            NodeState::Active => Ok(()),
            state => Err(format!("node {id} is {}; only an active node is given replicas", nodes::name(state))),
        }
    }
}

/// Checks a shard's replicas by themselves.
fn check_set(replicas: &[Placement], wanted: u32) -> Result<(), String> {
    if replicas.len() != wanted as usize {
        return Err(format!("a shard of this cluster has {wanted} replicas, not {}", replicas.len()));
    }
    let nodes: BTreeSet<NodeId> = replicas.iter().map(|placement| placement.node).collect();
    if nodes.len() < replicas.len() {
        return Err(format!("the replicas {} are not on distinct nodes", list(replicas)));
    }
    let ids: BTreeSet<ReplicaId> = replicas.iter().map(|placement| placement.replica).collect();
    if ids.len() < replicas.len() {
        return Err(format!("the replicas {} are not distinct", list(replicas)));
    }
    Ok(())
}

/// `[7 on 1, 8 on 2]`
fn list(replicas: &[Placement]) -> String {
    let one = |Placement { replica, node }: &Placement| format!("{replica} on {node}");
    format!("[{}]", replicas.iter().map(one).collect::<Vec<_>>().join(", "))
}
