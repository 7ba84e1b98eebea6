//! Why a fault is not installed, sorted by whether a later attempt can succeed.

use super::fault::Fault;
use crate::cluster::Unsupported;

/// The fault can never be installed on this machine, or with the binary under test.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unable {
    /// Plain directories cannot fail.
    #[error("disk faults need disk images")]
    DiskImages,
    /// Plain directories keep unsynced data when power is cut.
    #[error("power cuts need disk images")]
    PowerCuts,
    /// The binary was built without fail points.
    #[error("the binary under test has no fail points: build it with the feature 'bugs'")]
    FailPoints,
    /// The nodes run without libfaketime.
    #[error("the nodes were started with real clocks")]
    Clocks,
    /// The network cannot do it.
    #[error(transparent)]
    Network(#[from] Unsupported),
}

/// The fault is not possible at the moment.
#[derive(Debug, thiserror::Error)]
pub(super) enum Skip {
    /// Every running node is the target of another fault.
    #[error("every node is the target of another fault")]
    NoFreeNode,
    /// No free node leads a group.
    #[error("no free node is a leader")]
    NoLeader,
    /// The shape of the partition needs a leader or more nodes.
    #[error("no leader is known, or there are too few nodes")]
    NoPartition,
    /// No shard has two free followers.
    #[error("no free node can be asked for a vote")]
    NoVoter,
    /// No node answered, so its version is unknown.
    #[error("no node reports whether it has fail points")]
    FailPointsUnknown,
    /// Another fault took a target between planning and installation.
    #[error("node {0} became the target of another fault during planning")]
    Taken(usize),
    /// Two destructive faults at a time could destroy a majority's data.
    #[error("{0} is not healed yet, and both faults together may destroy the data of a majority")]
    Destructive(Fault),
    /// A dead node is being given up: further faults would delay the judgement without end.
    #[error("the cluster is judging whether a node is dead")]
    Judging,
    /// A disk may hold damaged data.
    #[error("the disk of node {0} may be damaged")]
    Damaged(usize),
    /// A destructive fault needs all replicas.
    #[error("replicas are missing or moving: a destructive fault is not allowed now")]
    Unhealthy,
    /// The cluster's health is unknown.
    #[error("the cluster does not report whether all replicas are present: {0:#}")]
    HealthUnknown(anyhow::Error),
}
