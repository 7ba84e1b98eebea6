//! Which replica to try next, and what a failed try means for the one after it. Decisions only: nothing is sent here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_types::{NodeId, Rejection};

use crate::Error;
use crate::map::{Map, Shard};
use crate::node::Node;
use crate::operation::Deadline;

/// Which replica an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefer {
    /// The leader.
    Leader,
    /// Any; first the one with the fewest outstanding requests. That keeps away from nodes that are slow or far, as requests pile
    /// up there; among equals they take turns.
    Nearest,
}

/// Why a try was in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There was nobody to try: all were tried since the last pause, or are left alone for a while.
    NoReplica,
    /// It did not leave this process.
    NotSent(String),
    /// It did not leave this process: too much waits already.
    Busy,
    /// It left, and what became of it is not known.
    Lost(String),
    /// The node did not serve it.
    Rejected(Rejection),
    /// The node's answer does not fit the request.
    Unfitting(String),
    /// It was certainly not applied, and the same node may well serve it after a pause.
    Again(&'static str),
}

impl Failure {
    /// Whether this try may have been applied, or may be later.
    pub(crate) fn may_have_applied(&self) -> bool {
        matches!(self, Failure::Lost(_) | Failure::Rejected(Rejection::Unknown { .. }) | Failure::Unfitting(_))
    }

    /// What happened, for a message.
    pub(crate) fn reason(&self) -> String {
        match self {
            Failure::NoReplica => "no replica could be tried".to_owned(),
            Failure::NotSent(reason) | Failure::Lost(reason) | Failure::Unfitting(reason) => reason.clone(),
            Failure::Again(reason) => (*reason).to_owned(),
            Failure::Busy => "too many requests of this client wait for it".to_owned(),
            Failure::Rejected(Rejection::NotLeader { leader: Some(leader) }) => {
                format!("not the leader of the shard, node {leader} is")
            }
            Failure::Rejected(Rejection::NotLeader { leader: None }) => "knows no leader of the shard".to_owned(),
            Failure::Rejected(Rejection::Unavailable { reason } | Rejection::Unknown { reason }) => reason.clone(),
            Failure::Rejected(rejection) => rejection.to_string(),
        }
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another replica, at once.
    AtOnce,
    /// A pause, of at least this.
    Pause {
        /// What the node asked for.
        at_least: Duration,
    },
    /// The map has proved wrong: a newer one; without one, a pause.
    Refresh,
    /// Nothing: no further try can change this.
    End(Error),
}

/// The error of an operation that only a node can serve that this client may not talk to.
fn elsewhere(shard: &Shard, why: &str) -> Error {
    Error::Unreachable {
        reason: format!("shard {}: not served by the nodes that this client is pinned to: {why}", shard.id),
    }
}

/// The search of one operation for the replica that serves it.
///
/// # Invariants
/// * Between two pauses no node is tried twice: redirects in a circle end in a pause.
pub(crate) struct Search {
    prefer: Prefer,
    /// Tried since the last time that all had been tried.
    tried: Vec<NodeId>,
    pauses: u32,
    /// Maps taken over without a pause.
    maps: u32,
    /// The last failure at each node, for the message.
    trail: Vec<(NodeId, String)>,
    /// The last try failed because somebody had too much to do.
    overloaded: bool,
}

/// Newer maps that an operation goes on with at once; after them it pauses even so.
const MAPS_AT_ONCE_MAX: u32 = 3;

impl Search {
    pub(crate) fn new(prefer: Prefer) -> Self {
        Self { prefer, tried: Vec::new(), pauses: 0, maps: 0, trail: Vec::new(), overloaded: false }
    }

    /// Pauses so far.
    pub(crate) fn pauses(&self) -> u32 {
        self.pauses
    }

    pub(crate) fn paused(&mut self) {
        self.pauses += 1;
    }

    /// A newer map was found; whether the operation may go on with it without a pause.
    pub(crate) fn may_go_on_at_once(&mut self) -> bool {
        self.tried.clear();
        self.maps += 1;
        self.maps <= MAPS_AT_ONCE_MAX
    }

    /// The node to try next. It counts as tried from here on.
    pub(crate) fn pick<'a>(&mut self, map: &'a Map, shard: &Shard) -> Option<&'a Arc<Node>> {
        let node = match self.prefer {
            Prefer::Leader => self.candidates(map, shard).next(),
            Prefer::Nearest => self.nearest(map, shard),
        }?;
        self.tried.push(node.target().node);
        Some(node)
    }

    fn candidate<'a>(&self, map: &'a Map, id: NodeId) -> Option<&'a Arc<Node>> {
        map.node(id).filter(|node| !self.tried.contains(&id) && node.is_available())
    }

    /// The leader as far as it is known (it may be a node that the map does not have for the shard yet), then the replicas in
    /// the map's order.
    fn candidates<'a>(&self, map: &'a Map, shard: &Shard) -> impl Iterator<Item = &'a Arc<Node>> {
        let leader = shard.live.leader();
        leader.into_iter().chain(shard.replicas.iter().copied()).filter_map(|id| self.candidate(map, id))
    }

    fn nearest<'a>(&self, map: &'a Map, shard: &Shard) -> Option<&'a Arc<Node>> {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        let count = shard.replicas.len();
        let first = if count > 1 { TURN.fetch_add(1, Ordering::Relaxed) % count } else { 0 };
        let (before, from_first) = shard.replicas.split_at(first);
        from_first
            .iter()
            .chain(before)
            .filter_map(|&id| self.candidate(map, id))
            // Of equals the first.
            .min_by_key(|node| node.outstanding())
    }

    /// Takes note of a failed try, and says what comes next.
    pub(crate) fn after(&mut self, map: &Map, shard: &Shard, failure: Failure) -> Next {
        if failure == Failure::NoReplica {
            self.note_those_left_alone(map, shard);
            // Once a newer map was looked for.
            if self.pauses > 0 && shard.replicas.iter().all(|&id| map.is_barred(id)) {
                return Next::End(elsewhere(shard, "none of its replicas is there"));
            }
            self.tried.clear();
            return Next::Refresh;
        }
        let Some(&node) = self.tried.last() else { return Next::Pause { at_least: Duration::ZERO } };
        self.note(node, failure.reason());
        self.overloaded = matches!(failure, Failure::Busy | Failure::Rejected(Rejection::Overloaded { .. }));
        let next = self.decide(map, shard, node, failure);
        if matches!(next, Next::Pause { .. }) && self.candidates(map, shard).next().is_none() {
            // After the pause all of them may be tried again.
            self.tried.clear();
        }
        next
    }

    fn decide(&mut self, map: &Map, shard: &Shard, node: NodeId, failure: Failure) -> Next {
        let pause = Next::Pause { at_least: Duration::ZERO };
        let live = &shard.live;
        match failure {
            Failure::NotSent(_) | Failure::Lost(_) | Failure::Unfitting(_) => {
                live.forget_leader(node);
                Next::AtOnce
            }
            Failure::Busy | Failure::Again(_) => self.again(node, Duration::ZERO),
            Failure::Rejected(Rejection::NotLeader { leader: Some(leader) }) if leader != node => {
                live.set_leader(leader);
                if map.is_barred(leader) {
                    return Next::End(elsewhere(shard, &format!("node {leader} leads it")));
                }
                if map.node(leader).is_some() { Next::AtOnce } else { Next::Refresh }
            }
            Failure::Rejected(Rejection::NotLeader { .. }) => {
                live.forget_leader(node);
                pause
            }
            Failure::Rejected(Rejection::WrongShard { .. }) => Next::Refresh,
            Failure::Rejected(Rejection::Unavailable { .. }) => {
                live.forget_leader(node);
                if self.prefer == Prefer::Nearest { Next::AtOnce } else { pause }
            }
            Failure::Rejected(Rejection::Overloaded { retry_after_ms }) => {
                self.again(node, Duration::from_millis(retry_after_ms.into()))
            }
            Failure::Rejected(Rejection::Unknown { .. }) => self.again(node, Duration::ZERO),
            Failure::Rejected(Rejection::DiskFull) => Next::End(Error::DiskFull),
            Failure::Rejected(Rejection::Invalid { reason }) => Next::End(Error::Invalid { reason }),
            Failure::NoReplica => pause,
        }
    }

    /// A pause, after which this node may be tried again.
    fn again(&mut self, node: NodeId, at_least: Duration) -> Next {
        self.tried.retain(|&tried| tried != node);
        Next::Pause { at_least }
    }

    fn note(&mut self, node: NodeId, reason: String) {
        match self.trail.iter_mut().find(|(noted, _)| *noted == node) {
            Some(noted) => noted.1 = reason,
            None => self.trail.push((node, reason)),
        }
    }

    fn note_those_left_alone(&mut self, map: &Map, shard: &Shard) {
        for &id in &shard.replicas {
            if self.tried.contains(&id) {
                continue;
            }
            match map.node(id) {
                Some(node) => self.note(id, format!("left alone for a while after: {}", node.trouble())),
                None if map.is_barred(id) => self.note(id, "this client is pinned to others".to_owned()),
                None => self.note(id, "is not in the map".to_owned()),
            }
        }
    }

    /// The error of an operation whose time is over and of which nothing was applied.
    pub(crate) fn in_vain(&self, map: &Map, shard: &Shard, deadline: Deadline) -> Error {
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
            return Error::Overloaded {
                reason: format!("shard {} took nothing within {deadline} ({trail})", shard.id),
            };
        }
        let serve = match self.prefer {
            Prefer::Leader => "no leader with a quorum served it",
            Prefer::Nearest => "no replica served it",
        };
        Error::Unreachable { reason: format!("shard {}: {serve} within {deadline} ({trail})", shard.id) }
    }
}
