//! Starts a cluster from nothing until it has taken a write.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::children::Children;
use crate::error::{Error, Kind};
use crate::probe;
use crate::running::Running;
use crate::shortener::{self, SHORTENER};
use crate::spawn::start_node;

/// How long each step may take. The slowest is a node that replays much data.
const STEP_DEADLINE: Duration = Duration::from_secs(60);
/// How long one question to a process may take.
const ASK_DEADLINE: Duration = Duration::from_secs(2);
/// The pause between two questions.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A cluster that serves.
#[derive(Debug)]
pub(crate) struct Started {
    /// The ids that the cluster assigned to the nodes, in the order of the layout.
    pub(crate) node_ids: Vec<u64>,
    /// Whether the cluster existed before.
    pub(crate) restarted: bool,
    pub(crate) took: Duration,
}

/// Starts all processes and waits until they serve. A process that exits meanwhile fails the start
/// with the end of its log. `show` reports each step.
pub(crate) async fn start(running: &mut Running, show: fn(&str)) -> Result<Started, Error> {
    let began = Instant::now();
    let Running { layout, children, links, .. } = running;
    for node in &layout.nodes {
        if let Some(links) = links.as_mut() {
            links.add(node).await?;
        }
    }
    for place in 0..layout.nodes.len() {
        start_node(place, layout, children, links.as_ref())?;
    }
    let nodes = &layout.endpoints();
    show(&format!("starting {} nodes …\n", nodes.len()));
    let statuses = retry(children, "the nodes did not respond", || probe::statuses(nodes, ASK_DEADLINE)).await?;

    let restarted = statuses.iter().all(|status| !status.cluster_id.is_empty());
    if !restarted {
        let (replicas, shards) = (layout.replicas, layout.shards);
        show(&format!("bootstrapping the cluster: {shards} shards × {replicas} replicas …\n"));
        let bootstrap = || probe::bootstrap(nodes, replicas, shards, STEP_DEADLINE);
        retry(children, "the cluster was not bootstrapped", bootstrap).await?;
    }
    show("waiting for shard leaders and a test write …\n");
    retry(children, "not every shard elected a leader", || probe::check_leaders(nodes, ASK_DEADLINE)).await?;
    retry(children, "the test write did not succeed", || probe::check_writes(nodes, ASK_DEADLINE)).await?;
    let statuses = retry(children, "the nodes did not respond", || probe::statuses(nodes, ASK_DEADLINE)).await?;

    if let Some(address) = &layout.shortener {
        children.start(SHORTENER, &shortener::args(layout, address), &layout.logs)?;
        show("starting the shortener …\n");
        let ready = || shortener::check_ready(address, ASK_DEADLINE);
        retry(children, "the shortener was not ready", ready).await?;
    }
    let node_ids = statuses.iter().map(|status| status.id).collect();
    Ok(Started { node_ids, restarted, took: began.elapsed() })
}

/// Repeats a question until it succeeds, for at most [`STEP_DEADLINE`] and while all children run.
/// Errors that a retry cannot change are returned immediately.
async fn retry<T, F>(children: &mut Children, failure: &str, mut ask: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let deadline = Instant::now() + STEP_DEADLINE;
    loop {
        let last = tokio::select! {
            answer = ask() => match answer {
                Ok(answer) => return Ok(answer),
                Err(error) if matches!(error.kind, Kind::Usage | Kind::Conflict) => return Err(error),
                Err(error) => error,
            },
            death = children.next_death() => return Err(death.into_error()),
        };
        if Instant::now() >= deadline {
            let what = format!("{failure} within {} s", STEP_DEADLINE.as_secs());
            return Err(Error::new(Kind::Unreachable, what).why(last.in_one_line()));
        }
        sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question that never succeeds ends with its last error. The clock is paused.
    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded_and_ends_with_the_last_error() {
        let refuse = || async { Err::<(), _>(Error::new(Kind::Failed, "3 groups have no leader yet")) };
        let failure = "not every shard elected a leader";
        let error = retry(&mut Children::default(), failure, refuse).await.unwrap_err();
        assert_eq!(error.what, "not every shard elected a leader within 60 s");
        assert_eq!(error.why, ["3 groups have no leader yet"]);
    }
}
