//! What all operations share: a deadline, and the steps from a try that failed to the next one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quorate_types::{KvAnswer, KvOperation, KvRequest, Rejection, Served};
use tokio::time::{Instant, sleep};

use crate::map::{Map, Shard};
use crate::node::Try;
use crate::search::{Failure, Next, Search};
use crate::{Error, Router, backoff};

/// The longest that an operation may take.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// How much longer than it told the node a try waits for the reply, so that the node's own "I give up" arrives.
const GRACE: Duration = Duration::from_millis(100);

/// Until when an operation goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    within: Duration,
}

impl Deadline {
    pub(crate) fn after(within: Duration) -> Self {
        let within = within.min(LONGEST);
        Self { at: Instant::now() + within, within }
    }

    /// What is left of the time.
    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.within.as_millis())
    }
}

/// One step of an operation: the answer of the replica that served it, or why this try was in vain.
pub(crate) enum Step {
    Answered(Served<KvAnswer>),
    Failed(Failure),
}

/// Sends the operation to the replica that the search picks, and waits for what becomes of it: for `longest`, or to the deadline.
pub(crate) async fn step(
    map: &Map,
    shard: &Shard,
    search: &mut Search,
    operation: KvOperation,
    longest: Duration,
    deadline: Deadline,
) -> Step {
    let Some(node) = search.pick(map, shard) else { return Step::Failed(Failure::NoReplica) };
    let left = deadline.left();
    // Near the deadline the node is told less than what is left, so that its answer arrives in time.
    let told = longest.min(left - (left / 10).min(GRACE));
    let until = deadline.at.min(Instant::now() + told + GRACE);
    let request = KvRequest { id: 0, shard: shard.id, epoch: shard.epoch, timeout: Some(told), operation };
    match node.attempt(request, until).await {
        Try::Served(served) => Step::Answered(served),
        Try::Rejected(rejection) => Step::Failed(Failure::Rejected(rejection)),
        Try::NotSent(reason) => Step::Failed(Failure::NotSent(reason)),
        Try::Busy => Step::Failed(Failure::Busy),
        Try::Lost(reason) => Step::Failed(Failure::Lost(reason)),
    }
}

/// Does what must be done before the next try. An error means that there is none: it says that this and all earlier tries were
/// in vain, which is the truth unless one of them may have been applied.
pub(crate) async fn recover(
    router: &Router,
    map: &Arc<Map>,
    shard: &Shard,
    search: &mut Search,
    failure: Failure,
    deadline: Deadline,
) -> Result<(), Error> {
    let entry = match &failure {
        Failure::Rejected(Rejection::WrongShard { shard: Some(entry) }) => Some(entry.clone()),
        _ => None,
    };
    let at_least = match search.after(map, shard, failure) {
        Next::AtOnce => Duration::ZERO,
        Next::Pause { at_least } => at_least.max(backoff::pause(search.pauses(), rand::random())),
        Next::Refresh => {
            let newer = entry.is_some_and(|entry| router.maps.merge(entry)) || router.maps.refresh(map, deadline).await;
            if newer && search.may_go_on_at_once() {
                Duration::ZERO
            } else {
                backoff::pause(search.pauses(), rand::random())
            }
        }
        Next::End(error) => return Err(error),
    };
    if Instant::now() + at_least >= deadline.at {
        return Err(search.in_vain(map, shard, deadline));
    }
    if !at_least.is_zero() {
        search.paused();
        sleep(at_least).await;
    }
    Ok(())
}
