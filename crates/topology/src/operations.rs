//! What operators ask for: checked before anything is done, kept until it is done or taken back.
//!
//! An operation says what should be so in the end. Which replicas move for it, and when, is the reconciler's business.

use std::collections::BTreeSet;

use quorate_types::operation::{Intent, Operation, OperationId, OperationState, PlannedMove, ReplicaMove};
use quorate_types::topology::{NodeInfo, NodeState, Outcome, Placement};
use quorate_types::{NodeId, ShardId};

use crate::cluster::{ClusterState, Decision};
use crate::limits::{OPERATIONS_KEPT_MAX, OPERATIONS_RUNNING_MAX, PLAN_MOVES_MAX};
use crate::nodes;
use crate::record::{Change, Record};

impl ClusterState {
    pub(crate) fn start_operation(&self, intent: &Intent, planned_on: u64, now_ms: u64) -> Decision {
        if let Some(running) = self.running_operations().find(|running| running.intent == *intent) {
            return Ok((Outcome::Operation { id: running.id, already: true }, Vec::new()));
        }
        let revision = self.counters().revision;
        if planned_on != 0 && planned_on != revision {
            return Err(format!(
                "the cluster changed since this was planned (revision {planned_on} then, {revision} now); plan it again: quorate rebalance plan -o json > FILE"
            ));
        }
        let id = OperationId(self.counters().last_operation.0 + 1);
        let mut operation = Operation {
            id,
            intent: intent.clone(),
            state: OperationState::Running,
            started_ms: now_ms,
            ended_ms: 0,
            moved: 0,
            node_was: intent.node().and_then(|node| self.nodes.get(&node)).map(|node| node.state),
        };
        let end_at_once = |operation: &mut Operation| {
            operation.state = OperationState::Done;
            operation.ended_ms = now_ms;
        };
        let mut changes = match intent {
            Intent::Add { node } => self.add(*node)?,
            Intent::Drain { node } => match self.drain(*node, now_ms)? {
                Some(changes) => changes,
                None => return Ok((Outcome::Done, Vec::new())),
            },
            Intent::Undrain { node } => {
                end_at_once(&mut operation);
                match self.undrain(*node, now_ms)? {
                    Some(changes) => changes,
                    None => return Ok((Outcome::Done, Vec::new())),
                }
            }
            Intent::Remove { node, dead } => match self.remove(*node, *dead, now_ms)? {
                Some(changes) => {
                    if !dead {
                        end_at_once(&mut operation);
                    }
                    changes
                }
                None => return Ok((Outcome::Done, Vec::new())),
            },
            Intent::Replace { .. } if self.was_done(intent) => return Ok((Outcome::Done, Vec::new())),
            Intent::Replace { old, new } => self.replace(*old, *new, now_ms)?,
            Intent::Move { planned } if self.is_moved(planned)? => return Ok((Outcome::Done, Vec::new())),
            Intent::Move { planned } => self.plan(std::slice::from_ref(planned))?,
            Intent::Rebalance { moves } => self.plan(moves)?,
        };
        if self.running_operations().count() >= OPERATIONS_RUNNING_MAX {
            return Err(format!(
                "{OPERATIONS_RUNNING_MAX} operations run already, which is the most; wait for one, or cancel one"
            ));
        }
        changes.push(Change::Put(Record::Operation(operation)));
        changes.extend(self.surplus().map(Change::ForgetOperation));
        Ok((Outcome::Operation { id, already: false }, changes))
    }

    /// Ends an operation whose goal is reached. One that another operation made impossible is not done: it is taken back.
    pub(crate) fn finish_operation(&self, id: OperationId, now_ms: u64) -> Decision {
        let operation = self.operation(id)?;
        if operation.state != OperationState::Running {
            return Ok((Outcome::Done, Vec::new()));
        }
        if let Some(moving) = self.moves.values().find(|moving| moving.operation == id) {
            return Err(format!("operation {id} is not done: {} is in motion", crate::moves::name(moving.group)));
        }
        let mut changes = Vec::new();
        match &operation.intent {
            Intent::Drain { node } => self.check_holds_nothing(*node)?,
            Intent::Remove { node, .. } | Intent::Replace { old: node, .. } => {
                self.check_holds_nothing(*node)?;
                changes.push(self.with_state(*node, NodeState::Removed)?);
            }
            Intent::Move { planned } => self.check_moved(std::slice::from_ref(planned))?,
            Intent::Rebalance { moves } => self.check_moved(moves)?,
            Intent::Add { .. } | Intent::Undrain { .. } => {}
        }
        let overtaken = match &operation.intent {
            Intent::Move { planned } => self.is_overtaken(planned),
            Intent::Rebalance { moves } => moves.iter().any(|planned| self.is_overtaken(planned)),
            _ => false,
        };
        let state = if overtaken { OperationState::Cancelled } else { OperationState::Done };
        changes.push(ended(operation, state, now_ms));
        Ok((Outcome::Done, changes))
    }

    /// Takes an operation back.
    pub(crate) fn cancel_operation(&self, id: OperationId, now_ms: u64) -> Decision {
        let operation = self.operation(id)?;
        match operation.state {
            OperationState::Cancelled => return Ok((Outcome::Done, Vec::new())),
            OperationState::Done => {
                return Err(format!("operation {id} ({}) is done; it cannot be cancelled", operation.intent));
            }
            OperationState::Running => {}
        }
        let mut changes = self.take_back(operation, now_ms);
        match operation.intent {
            Intent::Drain { node } => changes.push(self.with_state(node, NodeState::Active)?),
            // One that was drained before, or had not joined yet, is not given replicas because its removal is taken back.
            Intent::Remove { node, .. } | Intent::Replace { old: node, .. } => {
                changes.push(self.with_state(node, operation.node_was.unwrap_or(NodeState::Active))?);
            }
            _ => {}
        }
        Ok((Outcome::Done, changes))
    }

    /// What a running operation still wants moved exactly, of what can still be moved: not to a node that has come to leave since.
    pub(crate) fn pending<'a>(&'a self, moves: &'a [PlannedMove]) -> impl Iterator<Item = PlannedMove> + 'a {
        let takes = |node: &NodeId| self.nodes.get(node).is_some_and(|node| node.state == NodeState::Active);
        let can = move |planned: &PlannedMove| {
            self.is_on(planned.shard, planned.from) && !self.is_on(planned.shard, planned.to) && takes(&planned.to)
        };
        moves.iter().copied().filter(can)
    }

    /// The operations that run.
    pub fn running_operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.values().filter(|operation| operation.state == OperationState::Running)
    }

    fn operation(&self, id: OperationId) -> Result<&Operation, String> {
        self.operations.get(&id).ok_or_else(|| format!("there is no operation {id}"))
    }

    fn take_back(&self, operation: &Operation, now_ms: u64) -> Vec<Change> {
        let its = self.moves.values().filter(|moving| moving.operation == operation.id);
        let mut changes: Vec<Change> =
            its.map(|moving| Change::Put(Record::Move(ReplicaMove { cancelled: true, ..*moving }))).collect();
        changes.push(ended(operation, OperationState::Cancelled, now_ms));
        changes
    }

    fn add(&self, id: NodeId) -> Result<Vec<Change>, String> {
        self.check_no_other(id)?;
        match self.known(id)?.state {
            NodeState::Active => Ok(Vec::new()),
            NodeState::Joining => Ok(vec![self.with_state(id, NodeState::Active)?]),
            state => Err(format!("node {id} is {}; only a node that joins is added", nodes::name(state))),
        }
    }

    /// None: it is drained already.
    fn drain(&self, id: NodeId, now_ms: u64) -> Result<Option<Vec<Change>>, String> {
        self.check_no_other(id)?;
        match self.known(id)?.state {
            NodeState::Active => {}
            NodeState::Draining if self.held_by(id) == 0 => return Ok(None),
            NodeState::Draining => return Ok(Some(Vec::new())),
            NodeState::Joining => {
                return Err(format!(
                    "node {id} is joining and has nothing to give; remove it: quorate node remove {id}"
                ));
            }
            NodeState::Removed => return Err(format!("node {id} was removed")),
        }
        self.check_enough_without(id, "draining")?;
        Ok(Some(self.leaves(id, now_ms)?))
    }

    /// The node drains, and what is on its way to it turns back.
    fn leaves(&self, id: NodeId, now_ms: u64) -> Result<Vec<Change>, String> {
        let mut changes = self.take_back_plans_for(id, now_ms);
        let coming = self.moves.values().filter(|moving| moving.to.is_some_and(|to| to.node == id));
        changes.extend(coming.map(|moving| Change::Put(Record::Move(ReplicaMove { cancelled: true, ..*moving }))));
        changes.push(self.with_state(id, NodeState::Draining)?);
        Ok(changes)
    }

    /// Plans that want something on a node that leaves are taken back as a whole: they were made for another cluster.
    fn take_back_plans_for(&self, id: NodeId, now_ms: u64) -> Vec<Change> {
        let wants = |moves| self.pending(moves).any(|planned| planned.to == id);
        let spoilt = self.running_operations().filter(|running| match &running.intent {
            Intent::Move { planned } => wants(std::slice::from_ref(planned)),
            Intent::Rebalance { moves } => wants(moves),
            _ => false,
        });
        spoilt.flat_map(|running| self.take_back(running, now_ms)).collect()
    }

    /// None: it is active already.
    fn undrain(&self, id: NodeId, now_ms: u64) -> Result<Option<Vec<Change>>, String> {
        match self.known(id)?.state {
            NodeState::Active => return Ok(None),
            NodeState::Draining => {}
            state => return Err(format!("node {id} is {}, not draining", nodes::name(state))),
        }
        let mut changes = Vec::new();
        for running in self.running_operations().filter(|running| running.intent.node() == Some(id)) {
            match running.intent {
                Intent::Drain { .. } => changes.extend(self.take_back(running, now_ms)),
                // It goes on to get its share.
                Intent::Add { .. } => {}
                _ => {
                    let Operation { id: other, intent, .. } = running;
                    return Err(format!(
                        "operation {other} is to {intent}; cancel it instead: quorate op cancel {other}"
                    ));
                }
            }
        }
        changes.push(self.with_state(id, NodeState::Active)?);
        Ok(Some(changes))
    }

    /// None: it is removed already.
    fn remove(&self, id: NodeId, dead: bool, now_ms: u64) -> Result<Option<Vec<Change>>, String> {
        let held = self.held_by(id);
        let node = self.known(id)?;
        match node.state {
            NodeState::Removed => return Ok(None),
            // Where it cannot be drained either, that is what to know.
            NodeState::Active if held > 0 => self.check_enough_without(id, "removing")?,
            _ => {}
        }
        self.check_no_other(id)?;
        if !dead && held > 0 {
            return Err(format!(
                "node {id} holds {}; drain it first: quorate node drain {id}; or, if it is dead for good: quorate node remove \
                 {id} --dead --confirm {}",
                self.describe_held(id),
                node.addresses.client
            ));
        }
        if !dead {
            if node.state == NodeState::Active {
                self.check_enough_without(id, "removing")?;
            }
            let mut changes = self.take_back_plans_for(id, now_ms);
            changes.push(self.with_state(id, NodeState::Removed)?);
            return Ok(Some(changes));
        }
        self.check_enough_without(id, "removing")?;
        Ok(Some(self.leaves(id, now_ms)?))
    }

    fn replace(&self, old: NodeId, new: NodeId, now_ms: u64) -> Result<Vec<Change>, String> {
        if old == new {
            return Err(format!(
                "node {old} cannot replace itself; name the node that takes over, which quorate node list shows, with --with"
            ));
        }
        self.check_no_other(old)?;
        match self.known(old)?.state {
            NodeState::Active | NodeState::Draining => {}
            state => return Err(format!("node {old} is {}; there is nothing to replace", nodes::name(state))),
        }
        let mut changes = match self.known(new)?.state {
            NodeState::Active => Vec::new(),
            NodeState::Joining => vec![self.with_state(new, NodeState::Active)?],
            state => return Err(format!("node {new} is {} and takes no replicas", nodes::name(state))),
        };
        let others = self.takers().filter(|node| node.id != old && node.id != new).count() + 1;
        self.check_enough(others, old, "replacing")?;
        changes.extend(self.leaves(old, now_ms)?);
        Ok(changes)
    }

    fn plan(&self, moves: &[PlannedMove]) -> Result<Vec<Change>, String> {
        if moves.is_empty() {
            return Err("there is nothing to move".into());
        }
        if moves.len() > PLAN_MOVES_MAX {
            return Err(format!("{} moves are too many for one operation; at most {PLAN_MOVES_MAX}", moves.len()));
        }
        let mut taken: BTreeSet<ShardId> = BTreeSet::new();
        for running in self.running_operations() {
            match &running.intent {
                Intent::Move { planned } => drop(taken.insert(planned.shard)),
                Intent::Rebalance { moves } => taken.extend(self.pending(moves).map(|planned| planned.shard)),
                _ => {}
            }
        }
        let (mut leaving, mut coming) = (BTreeSet::new(), BTreeSet::new());
        for PlannedMove { shard, from, to } in moves {
            if !leaving.insert((shard, from)) || !coming.insert((shard, to)) {
                return Err(format!("a replica of shard {shard} from node {from} to node {to} is planned twice"));
            }
            let replicas = &self.mapped(*shard)?.replicas;
            if taken.contains(shard) {
                return Err(format!("another operation moves shard {shard}; see: quorate op list"));
            }
            if let Some(moving) = self.moves.get(&shard.group()) {
                return Err(format!(
                    "shard {shard} is in motion for operation {id}; wait for it: quorate op show {id}",
                    id = moving.operation
                ));
            }
            if let Some(emptied) = self.emptied_by(replicas) {
                let Operation { id, intent, .. } = emptied;
                return Err(format!(
                    "operation {id} ({intent}) moves shard {shard}; wait for it: quorate op show {id}, or take it back: quorate op \
                     cancel {id}"
                ));
            }
            self.known(*from)?;
            if !replicas.iter().any(|at| at.node == *from) {
                return Err(format!("node {from} has no replica of shard {shard}"));
            }
            self.check_takes_replica(replicas, *to)
                .map_err(|reason| format!("shard {shard} cannot move to node {to}: {reason}"))?;
        }
        Ok(Vec::new())
    }

    /// The same was asked for before and is done, for good: a node that was removed never comes back under its id.
    fn was_done(&self, intent: &Intent) -> bool {
        self.operations.values().any(|known| known.state == OperationState::Done && known.intent == *intent)
    }

    /// It is so already: whoever asks again did not hear the answer.
    fn is_moved(&self, planned: &PlannedMove) -> Result<bool, String> {
        self.known(planned.from)?;
        Ok(self.is_on(planned.shard, planned.to) && !self.is_on(planned.shard, planned.from))
    }

    /// Another operation made it impossible, or undid it: it gave the target a replica of the shard, took the target away, or took the
    /// replica elsewhere.
    fn is_overtaken(&self, planned: &PlannedMove) -> bool {
        self.is_on(planned.shard, planned.from) || !self.is_on(planned.shard, planned.to)
    }

    fn is_on(&self, shard: ShardId, node: NodeId) -> bool {
        self.shards.get(&shard).is_some_and(|shard| shard.replicas.iter().any(|at| at.node == node))
    }

    fn check_moved(&self, moves: &[PlannedMove]) -> Result<(), String> {
        match self.pending(moves).next() {
            Some(PlannedMove { shard, from, .. }) => Err(format!("shard {shard} is still on node {from}")),
            None => Ok(()),
        }
    }

    fn check_holds_nothing(&self, id: NodeId) -> Result<(), String> {
        match self.held_by(id) {
            0 => Ok(()),
            _ => Err(format!("node {id} still holds {}", self.describe_held(id))),
        }
    }

    /// The operation that empties a node of one of these replicas.
    pub(crate) fn emptied_by(&self, replicas: &[Placement]) -> Option<&Operation> {
        self.running_operations().find(|running| match running.intent {
            Intent::Drain { node } | Intent::Remove { node, .. } | Intent::Replace { old: node, .. } => {
                replicas.iter().any(|at| at.node == node)
            }
            _ => false,
        })
    }

    /// One operation about a node at a time.
    fn check_no_other(&self, id: NodeId) -> Result<(), String> {
        let about = |running: &&Operation| {
            running.intent.node() == Some(id) || matches!(running.intent, Intent::Replace { new, .. } if new == id)
        };
        // A node that is being given its share may be told to give it away again.
        let is_add = |running: &&Operation| matches!(running.intent, Intent::Add { .. });
        match self.running_operations().filter(about).find(|running| !is_add(running)) {
            None => Ok(()),
            Some(Operation { id: other, intent, .. }) => Err(format!(
                "operation {other} ({intent}) runs already; wait for it, or cancel it: quorate op cancel {other}"
            )),
        }
    }

    fn takers(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|node| node.state == NodeState::Active && node.weight > 0)
    }

    fn check_enough_without(&self, id: NodeId, doing: &str) -> Result<(), String> {
        self.check_enough(self.takers().filter(|node| node.id != id).count(), id, doing)
    }

    fn check_enough(&self, others: usize, id: NodeId, doing: &str) -> Result<(), String> {
        let replicas = self.replicas_of_a_shard() as usize;
        if others >= replicas {
            return Ok(());
        }
        Err(format!(
            "{doing} node {id} would leave {others} active nodes for {replicas} replicas of every shard; start another node \
             with --join first"
        ))
    }

    /// Operations that ended long ago, for one more that starts.
    fn surplus(&self) -> impl Iterator<Item = OperationId> {
        let ended = self.operations.values().filter(|operation| operation.state != OperationState::Running);
        let surplus = (self.operations.len() + 1).saturating_sub(OPERATIONS_KEPT_MAX);
        ended.map(|operation| operation.id).take(surplus)
    }
}

fn ended(operation: &Operation, state: OperationState, now_ms: u64) -> Change {
    Change::Put(Record::Operation(Operation { state, ended_ms: now_ms, ..operation.clone() }))
}
