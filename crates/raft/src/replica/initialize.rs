//! Starts a group with its first members.

use std::collections::BTreeMap;

use openraft::errors::{InitializeError, RaftError};
use quorate_types::Rejection;
use quorate_types::topology::Placement;

use super::Replica;
use crate::convert;
use crate::openraft_types::NodeRef;

impl Replica {
    /// Starts the group with exactly these replicas, unless it is running already. Several initial
    /// replicas may call this concurrently if all name the same set.
    pub async fn initialize(&self, initial_replicas: &[Placement]) -> Result<(), Rejection> {
        let members: BTreeMap<u64, NodeRef> =
            initial_replicas.iter().map(|initial| (initial.replica.0, NodeRef(initial.node))).collect();
        match self.core.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(refused)) => Err(Rejection::Invalid { reason: refused.to_string() }),
            Err(RaftError::Fatal(fatal)) => Err(convert::stopped(&fatal)),
        }
    }
}
