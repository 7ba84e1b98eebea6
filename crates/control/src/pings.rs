//! Pings every other node once a second. One task of a node sends them all; at most one ping to a
//! node is outstanding.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use quorate_types::NodeId;
use quorate_types::ping::Ping;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::debug;

use crate::peers::{PeerAddress, PeerError};
use crate::plane::Plane;

/// Answers a ping that this node received: with its own.
pub fn answer(plane: &Plane, ping: &Ping) -> Ping {
    let now = Instant::now();
    plane.liveness.receive(ping, now);
    plane.liveness.ping(now)
}

/// A ping without an answer yet, and the node that it was sent to.
type Outstanding = BoxFuture<'static, (NodeId, Result<Ping, PeerError>)>;

/// Sends pings until the node stops.
pub(crate) async fn run(plane: Plane) {
    let mut tick = interval(plane.liveness.timing().interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut outstanding: FuturesUnordered<Outstanding> = FuturesUnordered::new();
    let mut pinged = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            Some((node, answer)) = outstanding.next(), if !outstanding.is_empty() => {
                pinged.remove(&node);
                match answer {
                    Ok(ping) => plane.liveness.receive(&ping, Instant::now()),
                    Err(error) => debug!(%node, %error, "no answer to a ping"),
                }
            }
            _ = tick.tick() => {
                for peer in others(&plane) {
                    if pinged.insert(peer.node) {
                        outstanding.push(send(&plane, peer));
                    }
                }
            }
        }
        assert_eq!(pinged.len(), outstanding.len(), "one ping to a node is outstanding");
    }
}

/// The other living nodes; none for a node that was removed, which all others would refuse.
fn others(plane: &Plane) -> Vec<PeerAddress> {
    let own = plane.store.identity.node;
    let Some(map) = plane.store.feed.latest() else { return Vec::new() };
    plane.liveness.sends(&map.topology, Instant::now());
    if map.topology.is_removed(own) {
        return Vec::new();
    }
    map.topology.living().filter(|node| node.id != own).map(PeerAddress::from).collect()
}

fn send(plane: &Plane, to: PeerAddress) -> Outstanding {
    let within = plane.liveness.timing().timeout();
    let sent = plane.peers.ping(&to, plane.liveness.ping(Instant::now()), within);
    Box::pin(async move {
        let late = |_| Err(PeerError::Unanswered("no answer".to_owned()));
        let answer = timeout(within, sent).await.unwrap_or_else(late);
        // The address may have passed to another node.
        let answer = answer.and_then(|ping| match ping.node == to.node {
            true => Ok(ping),
            false => Err(PeerError::Refused(format!("node {} answered", ping.node))),
        });
        (to.node, answer)
    })
}
