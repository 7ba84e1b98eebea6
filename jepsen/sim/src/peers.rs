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
use quorate_control::{PeerAddress, PeerError, Peers, Proposed, watch};
use quorate_types::NodeId;
use quorate_types::report::{NodeReport, Order, OrderKind};
use quorate_types::topology::{Command, NodeInfo, Topology};

use crate::counts::Count;
use crate::disk::Life;
use crate::member::Member;
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
        to: NodeId,
        serve: impl FnOnce(Arc<Member>) -> BoxFuture<'static, Result<T, PeerError>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, PeerError>> {
        let (world, from, life) = (self.world.clone(), self.from, self.life.clone());
        Box::pin(async move {
            let lost = |what: &str| PeerError::Unanswered(what.to_owned());
            let world = world.upgrade().filter(|_| life.is_alive()).ok_or_else(|| lost("the caller is down"))?;
            if !world.network.pass(from, to).await {
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
            if !world.network.pass(to, from).await || !receiver.is_alive() {
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

    fn report(&self, to: &PeerAddress, _within: Duration) -> BoxFuture<'static, Result<NodeReport, PeerError>> {
        self.call(to.node, |member| async move { Ok(own_report(&member.plane)) }.boxed())
    }

    fn execute(&self, to: &PeerAddress, order: Order, _within: Duration) -> BoxFuture<'static, Result<(), PeerError>> {
        if let Some(world) = self.world.upgrade()
            && matches!(order.what, OrderKind::TransferLeader(_))
        {
            world.counts.one(Count::Transfers);
        }
        self.call(to.node, move |member| {
            async move { execute(&member.plane, &order).await.map_err(|error| PeerError::Refused(error.to_string())) }
                .boxed()
        })
    }

    fn propose(&self, to: &PeerAddress, command: Command) -> BoxFuture<'static, Result<Proposed, PeerError>> {
        self.call(to.node, move |member| {
            async move {
                let proposed = propose_here(&member.plane.store, &command).await;
                proposed.map_err(|error| PeerError::Refused(error.to_string()))
            }
            .boxed()
        })
    }

    fn watch_topology(
        &self,
        to: &PeerAddress,
        revision: u64,
    ) -> BoxFuture<'static, Result<Option<Topology>, PeerError>> {
        self.call(to.node, move |member| {
            async move {
                let newer = watch::answer(&member.plane.store.feed, revision).await;
                Ok(newer.map(|topology| (*topology).clone()))
            }
            .boxed()
        })
    }
}
