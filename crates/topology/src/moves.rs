//! Replicas in motion: started with a new replica id, and in the map once the group's log says that they are where they should be.
//!
//! ```text
//!   StartMove ─→ id 52 for shard 4 on node 3 ─→ (the node makes it, it catches up, it votes, 7 is no member) ─→ FinishMove
//!                                              └→ (taken back before it votes) ─────────────────────────────→ FinishCancelledMove
//! ```
//!
//! A replica that left the map is destroyed by its node. So `FinishMove` and `FinishCancelledMove` are proposed only for what a
//! membership that is *committed* says.

use quorate_types::operation::{OperationId, OperationState, ReplicaMove};
use quorate_types::topology::{NodeState, Outcome, Placement, ShardInfo};
use quorate_types::{GroupId, NodeId, ReplicaId, ShardId};

use crate::cluster::{ClusterState, Decision};
use crate::nodes;
use crate::record::{Change, Record};

impl ClusterState {
    pub(crate) fn start_move(
        &self,
        group: GroupId,
        from: Option<ReplicaId>,
        to: Option<NodeId>,
        operation: OperationId,
    ) -> Decision {
        let replicas = self.replicas_of(group)?;
        if let Some(moving) = self.moves.get(&group) {
            return Err(format!("{} is in motion already: {}", name(group), describe(moving)));
        }
        if self.paused {
            return Err("moves are paused".into());
        }
        if operation != OperationId::UPKEEP {
            self.running(operation)?;
        }
        let from = match from {
            None => None,
            Some(id) => match replicas.iter().find(|at| at.replica == id) {
                Some(at) => Some(*at),
                None => return Err(format!("{} has no replica {id}", name(group))),
            },
        };
        match (from, to) {
            (None, None) => return Err("a move without a replica that comes or goes".into()),
            (None, _) | (_, None) if group != GroupId::TOPOLOGY => {
                return Err(format!("{} has a fixed number of replicas", name(group)));
            }
            (Some(_), None) if replicas.len() == 1 => return Err("the last replica cannot be removed".into()),
            _ => {}
        }
        if let Some(to) = to {
            self.check_takes_replica(replicas, to)?;
        }
        let id = ReplicaId(self.counters().last_replica.0 + 1);
        let to = to.map(|node| Placement { replica: id, node });
        let moving = ReplicaMove { group, from, to, operation, cancelled: false };
        Ok((Outcome::Move(moving), vec![Change::Put(Record::Move(moving))]))
    }

    pub(crate) fn finish_move(&self, moving: &ReplicaMove) -> Decision {
        let moving = self.in_motion(moving)?;
        let mut replicas = self.replicas_of(moving.group)?.to_vec();
        match (moving.from, moving.to) {
            (Some(from), Some(to)) => replicas.iter_mut().filter(|at| **at == from).for_each(|at| *at = to),
            (Some(from), None) => replicas.retain(|at| *at != from),
            (None, to) => replicas.extend(to),
        }
        let mut changes = vec![Change::ForgetMove(moving.group)];
        changes.push(Change::Put(match moving.group.shard() {
            Some(shard) => Record::Shard(ShardInfo { replicas, ..self.mapped(shard)?.clone() }),
            None => Record::TopologyReplicas(replicas),
        }));
        if let Some(operation) = self.operations.get(&moving.operation) {
            let mut operation = operation.clone();
            operation.moved += 1;
            changes.push(Change::Put(Record::Operation(operation)));
        }
        Ok((Outcome::Done, changes))
    }

    pub(crate) fn finish_cancelled_move(&self, moving: &ReplicaMove) -> Decision {
        let moving = self.in_motion(moving)?;
        Ok((Outcome::Done, vec![Change::ForgetMove(moving.group)]))
    }

    pub(crate) fn cancel_move(&self, moving: &ReplicaMove) -> Decision {
        let moving = self.in_motion(moving)?;
        Ok((Outcome::Done, vec![Change::Put(Record::Move(ReplicaMove { cancelled: true, ..moving }))]))
    }

    pub(crate) fn pause_moves(&self, paused: bool) -> Decision {
        let changes = if self.paused == paused { Vec::new() } else { vec![Change::Put(Record::Paused(paused))] };
        Ok((Outcome::Done, changes))
    }

    /// The group's replicas as the map has them.
    pub(crate) fn replicas_of(&self, group: GroupId) -> Result<&[Placement], String> {
        match group.shard() {
            Some(shard) => Ok(&self.mapped(shard)?.replicas),
            None => Ok(self.topology_replicas()),
        }
    }

    pub(crate) fn mapped(&self, id: ShardId) -> Result<&ShardInfo, String> {
        self.shards.get(&id).ok_or_else(|| format!("there is no shard {id}"))
    }

    /// How many replicas the map has on a node or on their way to it, those of group 0 included.
    pub(crate) fn held_by(&self, node: NodeId) -> usize {
        let settled = self.shards.values().flat_map(|shard| &shard.replicas).chain(self.topology_replicas());
        let coming = self.moves.values().filter_map(|moving| moving.to.as_ref());
        settled.chain(coming).filter(|at| at.node == node).count()
    }

    /// What a node holds, as operators count it: replicas of shards, and of group 0.
    pub(crate) fn describe_held(&self, node: NodeId) -> String {
        let moving = self.moves.get(&GroupId::TOPOLOGY).and_then(|moving| moving.to);
        let votes = self.topology_replicas().iter().copied().chain(moving).any(|at| at.node == node);
        let shards = match self.held_by(node) - usize::from(votes) {
            0 => None,
            1 => Some("1 replica".to_owned()),
            many => Some(format!("{many} replicas")),
        };
        let of_topology = votes.then(|| "one of the topology group".to_owned());
        let all: Vec<String> = shards.into_iter().chain(of_topology).collect();
        all.join(" and ")
    }

    /// The move as it is recorded, if it is this one. It may have been cancelled since.
    fn in_motion(&self, moving: &ReplicaMove) -> Result<ReplicaMove, String> {
        match self.moves.get(&moving.group) {
            Some(known) if (known.from, known.to) == (moving.from, moving.to) => Ok(*known),
            _ => Err(format!("this is not in motion: {}", describe(moving))),
        }
    }

    pub(crate) fn check_takes_replica(&self, replicas: &[Placement], id: NodeId) -> Result<(), String> {
        match self.known(id)?.state {
            NodeState::Active if replicas.iter().any(|at| at.node == id) => {
                Err(format!("node {id} has a replica of it already"))
            }
            NodeState::Active => Ok(()),
            state => Err(format!("node {id} is {}; only an active node is given replicas", nodes::name(state))),
        }
    }

    fn running(&self, id: OperationId) -> Result<(), String> {
        match self.operations.get(&id) {
            Some(operation) if operation.state == OperationState::Running => Ok(()),
            _ => Err(format!("operation {id} does not run")),
        }
    }
}

/// The group as operators know it.
pub(crate) fn name(group: GroupId) -> String {
    group.shard().map_or("the topology group".into(), |shard| format!("shard {shard}"))
}

/// `7 on 1 → 8 on 2`
fn describe(moving: &ReplicaMove) -> String {
    let one = |at: &Option<Placement>| {
        at.map_or("nothing".into(), |Placement { replica, node }| format!("replica {replica} on node {node}"))
    };
    format!("{} → {}", one(&moving.from), one(&moving.to))
}
