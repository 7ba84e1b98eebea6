//! One node: its circuit breaker, then one attempt over its connection.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::{KvOperation, KvRequest, ShardId};
use tokio::time::Instant;
use tracing::{Instrument, debug_span};

use crate::deadline::Deadline;
use crate::{Attempt, Connection, Health, Network, Target};

/// A node that was silent for less than this is not blamed: its caller was in a hurry.
const SILENCE_MIN: Duration = Duration::from_millis(250);
/// An attempt waits this much longer than the node was told, so that the node's own rejection on
/// time-out arrives.
const GRACE: Duration = Duration::from_millis(100);

/// A shard, and the epoch of its arc that a request is routed by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) shard: ShardId,
    pub(crate) epoch: u64,
}

/// One node of the cluster's map.
pub(crate) struct Node {
    target: Target,
    health: Arc<Health>,
    connection: Arc<dyn Connection>,
}

impl Node {
    pub(crate) fn new(target: Target, network: &dyn Network) -> Self {
        let health = Arc::<Health>::default();
        let connection = network.connection(target.clone(), Arc::clone(&health));
        Self { target, health, connection }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Whether the breaker would let a request through.
    pub(crate) fn is_available(&self) -> bool {
        self.health.would_admit()
    }

    /// The failure that opened the breaker, for a message.
    pub(crate) fn trouble(&self) -> String {
        format!("circuit breaker open: {}", self.health.trouble())
    }

    /// The number of requests that wait or have no reply yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.connection.outstanding()
    }

    /// Sends the operation to a replica of the route's shard, and waits for the result: for
    /// `longest`, or until the deadline.
    pub(crate) async fn attempt(
        &self,
        Route { shard, epoch }: Route,
        operation: KvOperation,
        longest: Duration,
        deadline: Deadline,
    ) -> Attempt {
        if !self.health.admit() {
            return Attempt::NotSent(self.trouble().into());
        }
        let left = deadline.left();
        // Near the deadline the node gets less than the time left, so that its answer arrives.
        let timeout = longest.min(left - (left / 10).min(GRACE));
        let until = deadline.at.min(Instant::now() + timeout + GRACE);
        let request = KvRequest { id: 0, shard, epoch, timeout: Some(timeout), operation };
        let span = debug_span!("attempt", node = self.target.node.0, shard = shard.0);
        let attempt = self.connection.attempt(request, until).instrument(span).await;
        match &attempt {
            Attempt::Served(_) | Attempt::Rejected(_) | Attempt::Malformed(_) => self.health.success(),
            Attempt::Silent { waited } if *waited >= SILENCE_MIN => self.health.failure(&attempt.reason()),
            _ => {}
        }
        attempt
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{ClusterId, Key, NodeId, ReadLevel};

    use super::*;
    use crate::fake::{Act, FakeCluster};

    /// A reply that did not decode used to count neither as a reply nor as a failure, so that a node
    /// that replies could be left alone.
    #[tokio::test(start_paused = true)]
    async fn malformed_reply_counts_as_a_reply() {
        let cluster = FakeCluster::start(1);
        let break_twice = || [Act::Break, Act::Break];
        cluster.node(1).does_in_order(break_twice().into_iter().chain([Act::Garble]).chain(break_twice()));
        let target = Target { cluster: ClusterId(1), node: NodeId(1), address: cluster.address(1) };
        let node = Node::new(target, &cluster.network());
        let attempt = async || {
            let route = Route { shard: ShardId(1), epoch: 1 };
            let within = Duration::from_secs(1);
            let operation = KvOperation::Get { key: Key::new("k").unwrap(), level: ReadLevel::Strong };
            node.attempt(route, operation, within, Deadline::after(within)).await
        };
        for _ in 0..2 {
            attempt().await;
        }
        assert!(matches!(attempt().await, Attempt::Malformed(_)));
        for _ in 0..2 {
            attempt().await;
            assert!(node.is_available(), "{}", node.trouble());
        }
    }
}
