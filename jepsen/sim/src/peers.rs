//! The control plane's calls between nodes, over the simulated network.
//!
//! A call takes one delay in each direction, and either message may be lost. The receiver executes
//! a received request even if the caller has crashed or the answer is lost.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use quorate_control::orders::{execute, own_report};
use quorate_control::proposer::propose_here;
use quorate_control::{PeerAddress, PeerError, Peers, ProposeError, Proposed, pings, watch};
use quorate_types::ping::Ping;
use quorate_types::report::{NodeReport, Order, OrderKind};
use quorate_types::topology::{Command, NodeInfo, Topology};
use quorate_types::{NodeId, Rejection};

use crate::counts::Count;
use crate::disk::Life;
use crate::network::Traffic;
use crate::running_node::RunningNode;
use crate::world::World;

/// One node's calls to other nodes, in one of its lives.
pub(crate) struct SimPeers {
    world: Weak<World>,
    from: NodeId,
    life: Arc<Life>,
}

impl SimPeers {
    /// The calls of a node.
    pub(crate) fn new(world: Weak<World>, from: NodeId, life: Arc<Life>) -> Self {
        SimPeers { world, from, life }
    }

    /// Calls a node, which runs `serve`.
    fn call<T: Send + 'static>(
        &self,
        traffic: Traffic,
        to: NodeId,
        serve: impl FnOnce(Arc<RunningNode>) -> BoxFuture<'static, Result<T, PeerError>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, PeerError>> {
        let (world, from, life) = (self.world.clone(), self.from, self.life.clone());
        Box::pin(async move {
            let lost = |what: &str| PeerError::Unanswered(what.to_owned());
            let world = world.upgrade().filter(|_| life.is_alive()).ok_or_else(|| lost("the caller is down"))?;
            if !world.network.pass(traffic, from, to).await {
                return Err(lost("the request was lost"));
            }
            let member = world.member(to).ok_or_else(|| lost("the node is down"))?;
            let receiver = member.life.clone();
            let served = tokio::spawn(serve(member));
            let served = tokio::select! {
                biased;
                () = receiver.ended() => return Err(lost("the connection broke")),
                served = served => served.map_err(|error| lost(&error.to_string()))?,
            };
            if !world.network.pass(traffic, to, from).await || !receiver.is_alive() {
                return Err(lost("the answer was lost"));
            }
            served
        })
    }
}

impl Peers for SimPeers {
    fn update(&self, _nodes: &[NodeInfo]) {
        // The simulated network finds nodes by their ids.
    }

    fn ping(&self, to: &PeerAddress, ping: Ping, _within: Duration) -> BoxFuture<'static, Result<Ping, PeerError>> {
        let counts = self.world.clone();
        self.call(Traffic::Pings, to.node, move |member| {
            if let Some(world) = counts.upgrade() {
                world.counts.one(Count::Pings);
            }
            async move { Ok(pings::answer(&member.plane, &ping)) }.boxed()
        })
    }

    fn report(&self, to: &PeerAddress, _within: Duration) -> BoxFuture<'static, Result<NodeReport, PeerError>> {
        self.call(Traffic::Calls, to.node, |member| async move { Ok(own_report(&member.plane)) }.boxed())
    }

    fn execute(&self, to: &PeerAddress, order: Order, _within: Duration) -> BoxFuture<'static, Result<(), PeerError>> {
        if let Some(world) = self.world.upgrade()
            && matches!(order.what, OrderKind::TransferLeader(_))
        {
            world.counts.one(Count::Transfers);
        }
        self.call(Traffic::Calls, to.node, move |member| {
            async move { Ok(execute(&member.plane, &order).await?) }.boxed()
        })
    }

    fn propose(&self, to: &PeerAddress, command: Command) -> BoxFuture<'static, Result<Proposed, PeerError>> {
        self.call(Traffic::Calls, to.node, move |member| {
            async move {
                let proposed = propose_here(&member.plane, &command).await;
                proposed.map_err(not_proposed)
            }
            .boxed()
        })
    }

    fn watch_topology(
        &self,
        to: &PeerAddress,
        revision: u64,
    ) -> BoxFuture<'static, Result<Option<Topology>, PeerError>> {
        self.call(Traffic::Calls, to.node, move |member| {
            async move {
                let newer = watch::answer(&member.plane.store.feed, revision).await;
                Ok(newer.map(|topology| (*topology).clone()))
            }
            .boxed()
        })
    }
}

/// Sorts the failure of a proposal as a server's status code does.
fn not_proposed(error: ProposeError) -> PeerError {
    match error {
        ProposeError::Rejected(Rejection::Unavailable { .. } | Rejection::Unknown { .. })
        | ProposeError::Unanswered { .. } => PeerError::Unanswered(error.to_string()),
        ProposeError::Rejected(_) | ProposeError::OtherBootstrap | ProposeError::NotYet(_) => {
            PeerError::Refused(error.to_string())
        }
    }
}
