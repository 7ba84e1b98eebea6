//! The control loops of a node.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use quorate_machine::rate_limiter::RateLimiter;

use crate::plane::Plane;
use crate::{agent, pings, reconciler, throttle, watch};

/// The control loops of a node, for its owner to run until the node stops: agent, topology watch,
/// pings, throttle of these rate limiters, reconciler. `unresponsive_after` is
/// [`UNRESPONSIVE_AFTER`](crate::reporters::UNRESPONSIVE_AFTER) in production; simulations shorten
/// it.
pub fn loops(
    plane: &Plane,
    limiters: Vec<Arc<RateLimiter>>,
    unresponsive_after: Duration,
) -> [BoxFuture<'static, ()>; 5] {
    let plane = || plane.clone();
    [
        agent::run(plane()).boxed(),
        watch::run(plane()).boxed(),
        pings::run(plane()).boxed(),
        throttle::run(plane(), limiters).boxed(),
        reconciler::run(plane(), unresponsive_after).boxed(),
    ]
}
