//! The nodes that did not answer the last snapshot offered to them, or were busy. Such a node gets
//! one offer at a time, so that a silent node never takes all slots from the others, and a busy one
//! is not asked by every group.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_types::NodeId;

/// A node that may not answer, or may be busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// No offer is under way.
    Idle,
    /// One offer is under way; others must wait for its end.
    Offered,
}

/// The nodes in doubt. Bounded by the nodes that the cluster has had.
#[derive(Default)]
pub(crate) struct Doubts(Mutex<HashMap<NodeId, Doubt>>);

impl Doubts {
    /// An offer to a node may begin; none if another one to the same silent node is under way.
    pub(crate) fn offer(self: &Arc<Self>, node: NodeId) -> Option<Offer> {
        let mut doubts = self.doubts();
        match doubts.get_mut(&node) {
            Some(Doubt::Offered) => return None,
            Some(doubt) => *doubt = Doubt::Offered,
            None => {}
        }
        Some(Offer { doubts: self.clone(), node })
    }

    fn doubts(&self) -> MutexGuard<'_, HashMap<NodeId, Doubt>> {
        self.0.lock().expect("only a broken invariant poisons this lock")
    }
}

/// An offer under way. If it is dropped without an answer, a node in doubt stays in doubt.
pub(crate) struct Offer {
    doubts: Arc<Doubts>,
    node: NodeId,
}

impl Offer {
    /// The node has answered.
    pub(crate) fn answered(self) {
        self.doubts.doubts().remove(&self.node);
    }

    /// The node is busy: no other offer to it begins before this one is dropped.
    pub(crate) fn refused_as_busy(&self) {
        self.doubts.doubts().insert(self.node, Doubt::Offered);
    }

    /// The node has not answered.
    pub(crate) fn failed(self) {
        self.doubts.doubts().insert(self.node, Doubt::Idle);
    }
}

impl Drop for Offer {
    /// A cancelled offer says nothing about the node.
    fn drop(&mut self) {
        if let Some(doubt) = self.doubts.doubts().get_mut(&self.node) {
            *doubt = Doubt::Idle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that did not answer, or was busy, gets one offer at a time until it accepts one; other
    /// nodes are not affected.
    #[test]
    fn node_in_doubt_gets_one_offer_at_a_time() {
        let doubts = Arc::new(Doubts::default());
        let (one, two) = (doubts.offer(NodeId(1)).unwrap(), doubts.offer(NodeId(1)).unwrap());
        one.failed();
        let three = doubts.offer(NodeId(1)).unwrap();
        assert!(doubts.offer(NodeId(1)).is_none());
        assert!(doubts.offer(NodeId(2)).is_some());
        drop(three);
        let four = doubts.offer(NodeId(1)).unwrap();
        assert!(doubts.offer(NodeId(1)).is_none());
        two.answered();
        four.answered();
        let (five, _six) = (doubts.offer(NodeId(1)).unwrap(), doubts.offer(NodeId(1)).unwrap());
        five.refused_as_busy();
        assert!(doubts.offer(NodeId(1)).is_none());
        drop(five);
        assert!(doubts.offer(NodeId(1)).is_some());
    }
}
