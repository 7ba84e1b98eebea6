//! The search of one operation for the replica that serves it: the next replica to try, and the
//! meaning of a failed attempt. Decisions only: nothing is sent here.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::{NodeId, Rejection};

use crate::deadline::Deadline;
use crate::map::{Map, Shard};
use crate::node::Node;
use crate::{Attempt, Error};

/// The replica that an operation prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefer {
    /// The leader.
    Leader,
    /// The replica with the fewest outstanding requests: requests pile up at slow and distant
    /// nodes, so this avoids them.
    Nearest {
        /// Picks among equally busy replicas. Counts up from one operation to the next, so that
        /// replicas take turns.
        turn: usize,
    },
}

/// The step after a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Tries another replica without a pause.
    Immediately,
    /// Pauses, at least that long.
    Pause {
        /// The pause that the node asked for.
        at_least: Duration,
    },
    /// The map proved wrong: fetches a newer one, and pauses if there is none.
    Refresh,
}

/// The error of a pinned router when none of its nodes can serve the operation.
fn pinned_elsewhere(shard: &Shard, why: &str) -> Error {
    Error::Unreachable {
        reason: format!("shard {}: not served by the nodes that this client is pinned to: {why}", shard.id),
    }
}

/// The search of one operation.
///
/// # Invariants
/// * No node is tried twice between two pauses, except a node that asked to be retried. A circle of
///   redirects therefore ends in a pause.
pub(crate) struct Search {
    prefer: Prefer,
    /// The nodes tried since the last time that all had been tried.
    tried: Vec<NodeId>,
    pauses: u32,
    /// Newer maps used without a pause.
    maps: u32,
    /// The last failure at each node, for the error message.
    trail: Vec<(NodeId, String)>,
    /// Whether the last attempt failed because the client or the node was overloaded.
    overloaded: bool,
}

/// Newer maps that an operation uses without a pause. It pauses before it uses further ones.
const MAPS_WITHOUT_PAUSE_MAX: u32 = 3;

impl Search {
    pub(crate) fn new(prefer: Prefer) -> Self {
        Self { prefer, tried: Vec::new(), pauses: 0, maps: 0, trail: Vec::new(), overloaded: false }
    }

    /// The number of pauses so far.
    pub(crate) fn pauses(&self) -> u32 {
        self.pauses
    }

    /// Counts a pause.
    pub(crate) fn paused(&mut self) {
        self.pauses += 1;
    }

    /// Counts a newer map. Returns whether the operation may use it without a pause.
    pub(crate) fn may_retry_without_pause(&mut self) -> bool {
        self.tried.clear();
        self.maps += 1;
        self.maps <= MAPS_WITHOUT_PAUSE_MAX
    }

    /// The node to try next. It counts as tried from now on.
    pub(crate) fn pick<'a>(&mut self, map: &'a Map, shard: &Shard) -> Option<&'a Arc<Node>> {
        let node = match self.prefer {
            Prefer::Leader => self.candidates(map, shard).next(),
            Prefer::Nearest { turn } => self.nearest(map, shard, turn),
        }?;
        let id = node.target().node;
        assert!(!self.tried.contains(&id), "node {id} is picked twice without a pause");
        self.tried.push(id);
        Some(node)
    }

    fn candidate<'a>(&self, map: &'a Map, id: NodeId) -> Option<&'a Arc<Node>> {
        map.node(id).filter(|node| !self.tried.contains(&id) && node.is_available())
    }

    /// The known leader, then the replicas in the map's order. The leader may be a node that the
    /// map does not list for the shard yet.
    fn candidates<'a>(&self, map: &'a Map, shard: &Shard) -> impl Iterator<Item = &'a Arc<Node>> {
        let leader = shard.live.leader();
        leader.into_iter().chain(shard.replicas.iter().copied()).filter_map(|id| self.candidate(map, id))
    }

    fn nearest<'a>(&self, map: &'a Map, shard: &Shard, turn: usize) -> Option<&'a Arc<Node>> {
        let first = turn % shard.replicas.len().max(1);
        let (before, from_first) = shard.replicas.split_at(first);
        from_first
            .iter()
            .chain(before)
            .filter_map(|&id| self.candidate(map, id))
            // The first one of equals.
            .min_by_key(|node| node.outstanding())
    }

    /// Records a failed attempt and decides the next step. An error ends the operation: no further
    /// attempt can succeed.
    pub(crate) fn after(&mut self, map: &Map, shard: &Shard, failed: Attempt) -> Result<Next, Error> {
        if failed == Attempt::NoReplica {
            self.note_untried(map, shard);
            // After the first pause a newer map was looked for.
            if self.pauses > 0 && shard.replicas.iter().all(|&id| map.is_barred(id)) {
                return Err(pinned_elsewhere(shard, "they have no replica of it"));
            }
            self.tried.clear();
            return Ok(Next::Refresh);
        }
        let Some(&node) = self.tried.last() else { return Ok(Next::Pause { at_least: Duration::ZERO }) };
        self.note(node, failed.reason());
        self.overloaded = matches!(failed, Attempt::Busy | Attempt::Rejected(Rejection::Overloaded { .. }));
        let next = match failed {
            Attempt::Rejected(rejection) => self.after_rejection(map, shard, node, rejection)?,
            Attempt::NotSent(_) | Attempt::Lost(_) | Attempt::Malformed(_) | Attempt::Silent { .. } => {
                shard.live.forget_leader(node);
                Next::Immediately
            }
            Attempt::Busy | Attempt::Retry(_) => self.retry_at(node, Duration::ZERO),
            Attempt::Served(_) | Attempt::NoReplica => Next::Pause { at_least: Duration::ZERO },
        };
        if matches!(next, Next::Pause { .. }) && self.candidates(map, shard).next().is_none() {
            // All of them may be tried again after the pause.
            self.tried.clear();
        }
        Ok(next)
    }

    fn after_rejection(&mut self, map: &Map, shard: &Shard, node: NodeId, rejection: Rejection) -> Result<Next, Error> {
        let pause = Next::Pause { at_least: Duration::ZERO };
        let live = &shard.live;
        Ok(match rejection {
            Rejection::NotLeader { leader: Some(leader) } if leader != node => {
                live.set_leader(leader);
                if map.is_barred(leader) {
                    return Err(pinned_elsewhere(shard, &format!("node {leader} leads it")));
                }
                if map.node(leader).is_some() { Next::Immediately } else { Next::Refresh }
            }
            Rejection::NotLeader { .. } => {
                live.forget_leader(node);
                pause
            }
            Rejection::WrongShard { shard: entry } => {
                // A newer entry without this node: its replica, once the leader, has moved away.
                if entry.is_some_and(|entry| entry.replicas.iter().all(|at| at.node != node)) {
                    live.forget_leader(node);
                }
                Next::Refresh
            }
            Rejection::Unavailable { .. } => {
                live.forget_leader(node);
                if self.prefer == Prefer::Leader { pause } else { Next::Immediately }
            }
            Rejection::Overloaded { retry_after_ms } => {
                self.retry_at(node, Duration::from_millis(retry_after_ms.into()))
            }
            Rejection::Unknown { .. } => self.retry_at(node, Duration::ZERO),
            Rejection::DiskFull => return Err(Error::DiskFull),
            Rejection::Invalid { reason } => return Err(Error::Invalid { reason }),
        })
    }

    /// A pause after which the same node may be tried again.
    fn retry_at(&mut self, node: NodeId, at_least: Duration) -> Next {
        self.tried.retain(|&tried| tried != node);
        Next::Pause { at_least }
    }

    fn note(&mut self, node: NodeId, reason: String) {
        match self.trail.iter_mut().find(|(noted, _)| *noted == node) {
            Some(noted) => noted.1 = reason,
            None => self.trail.push((node, reason)),
        }
    }

    /// Notes the reasons why replicas were not tried.
    fn note_untried(&mut self, map: &Map, shard: &Shard) {
        for &id in &shard.replicas {
            if self.tried.contains(&id) {
                continue;
            }
            match map.node(id) {
                Some(node) => self.note(id, node.trouble()),
                None if map.is_barred(id) => self.note(id, "this client is pinned to others".to_owned()),
                None => self.note(id, "is not in the map".to_owned()),
            }
        }
    }

    /// The error of an operation whose deadline has passed and of which nothing was applied.
    pub(crate) fn out_of_time(&self, map: &Map, shard: &Shard, deadline: Deadline) -> Error {
        let trail: Vec<String> = self
            .trail
            .iter()
            .map(|(id, reason)| {
                let address = map.node(*id).map_or("address unknown", |node| &node.target().address);
                format!("node {id} ({address}): {reason}")
            })
            .collect();
        let trail = trail.join("; ");
        if self.overloaded {
            return Error::Overloaded { reason: format!("shard {} was overloaded for {deadline} ({trail})", shard.id) };
        }
        let failure = match self.prefer {
            Prefer::Leader => "no leader with a quorum served it",
            Prefer::Nearest { .. } => "no replica served it",
        };
        Error::Unreachable { reason: format!("shard {}: {failure} within {deadline} ({trail})", shard.id) }
    }
}
