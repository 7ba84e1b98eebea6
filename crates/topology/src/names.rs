//! Groups and moves as messages name them.

use std::fmt;

use quorate_types::GroupId;
use quorate_types::operation::ReplicaMove;
use quorate_types::topology::Placement;

/// Displays a group as operators know it: `shard 4`, or `the topology group`.
pub(crate) struct GroupName(pub(crate) GroupId);

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.shard() {
            Some(shard) => write!(f, "shard {shard}"),
            None => f.write_str("the topology group"),
        }
    }
}

/// Displays both ends of a move: `replica 7 on node 1 → replica 8 on node 2`.
pub(crate) struct MovePath<'a>(pub(crate) &'a ReplicaMove);

impl fmt::Display for MovePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |at: Option<Placement>| match at {
            Some(Placement { replica, node }) => format!("replica {replica} on node {node}"),
            None => "nothing".to_owned(),
        };
        write!(f, "{} → {}", end(self.0.from), end(self.0.to))
    }
}
