//! Collects the reports of all nodes, once in each round of the reconciler.
//!
//! An unresponsive node delays one round by [`REPORT_TIMEOUT`]; later rounds give it 50 ms until it
//! responds again. A report is at most [`REPORT_TIMEOUT`] old when a round takes it, and the round
//! may wait as long again for the slowest node: every step planned from a report is safe when it is
//! late.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use quorate_topology::Reports;
use quorate_types::NodeId;
use quorate_types::report::NodeReport;
use quorate_types::topology::{NodeInfo, Topology};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::peers::{PeerAddress, PeerError};
use crate::plane::Plane;

/// How long a node may take to report; a slower one counts as down in this round.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a round waits for a node that missed the last round. Its request stays open meanwhile.
const SLOW_TIMEOUT: Duration = Duration::from_millis(50);
/// A node that has not reported for this long is unresponsive: moves to it are redirected where
/// another node can take the replica. Longer than a restart takes, as a cancelled copy starts from
/// zero.
pub const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(30);

/// The nodes that are asked for reports.
pub(crate) struct Reporters {
    nodes: BTreeMap<NodeId, Reporter>,
    unresponsive_after: Duration,
}

/// One node that is asked for reports.
struct Reporter {
    /// When the node last answered; until then, when it was first asked.
    answered_at: Instant,
    /// The node missed the last round.
    is_slow: bool,
    /// The open request.
    request: Option<AbortOnDropHandle<Result<Received, PeerError>>>,
}

struct Received {
    report: NodeReport,
    at: Instant,
}

impl Reporters {
    /// An empty table. Nodes that have not answered for `unresponsive_after` are reported as
    /// unresponsive.
    pub(crate) fn new(unresponsive_after: Duration) -> Self {
        Reporters { nodes: BTreeMap::new(), unresponsive_after }
    }

    /// Asks every other node that is not removed, concurrently. `own` is this node's report.
    pub(crate) async fn ask(&mut self, topology: &Topology, plane: &Plane, own: NodeReport) -> Reports {
        let others = topology.living().filter(|node| node.id != own.node);
        let others: BTreeMap<NodeId, &NodeInfo> = others.map(|node| (node.id, node)).collect();
        self.nodes.retain(|id, _| others.contains_key(id));
        for id in others.keys() {
            self.nodes.entry(*id).or_insert_with(Reporter::new);
        }
        let asked = self.nodes.iter_mut().map(|(id, reporter)| {
            let peer = PeerAddress::from(others[id]);
            reporter.ask(move || plane.peers.report(&peer, REPORT_TIMEOUT))
        });
        let reports: Vec<NodeReport> = join_all(asked).await.into_iter().flatten().collect();
        let unresponsive = self.nodes.iter().filter(|(_, reporter)| reporter.silence() >= self.unresponsive_after);
        let unresponsive: BTreeSet<NodeId> = unresponsive.map(|(id, _)| *id).collect();
        Reports { nodes: reports.into_iter().chain([own]).collect(), unresponsive, ..Reports::default() }
    }
}

impl Reporter {
    fn new() -> Self {
        Reporter { answered_at: Instant::now(), is_slow: false, request: None }
    }

    /// How long the node has not answered.
    fn silence(&self) -> Duration {
        self.answered_at.elapsed()
    }

    /// The node's report, or `None` if it does not arrive in time.
    async fn ask(
        &mut self,
        begin: impl FnOnce() -> BoxFuture<'static, Result<NodeReport, PeerError>>,
    ) -> Option<NodeReport> {
        let mut request = self.request.take().unwrap_or_else(|| open(begin()));
        let within = if self.is_slow { SLOW_TIMEOUT } else { REPORT_TIMEOUT };
        let Ok(answer) = timeout(within, &mut request).await else {
            (self.is_slow, self.request) = (true, Some(request));
            return None;
        };
        match answer.unwrap_or_else(|ended| Err(PeerError::Unanswered(ended.to_string()))) {
            Ok(Received { report, at }) => {
                (self.answered_at, self.is_slow) = (at, false);
                // A report that arrived between two rounds may be too old.
                (at.elapsed() < REPORT_TIMEOUT).then_some(report)
            }
            Err(error) => {
                debug!(%error, "no report");
                self.is_slow = true;
                None
            }
        }
    }
}

/// Runs a request on a task of its own, so that it outlasts the round that began it.
fn open(request: BoxFuture<'static, Result<NodeReport, PeerError>>) -> AbortOnDropHandle<Result<Received, PeerError>> {
    AbortOnDropHandle::new(tokio::spawn(async {
        match timeout(REPORT_TIMEOUT, request).await {
            Ok(answer) => answer.map(|report| Received { report, at: Instant::now() }),
            Err(_) => Err(PeerError::Unanswered("no answer".to_owned())),
        }
    }))
}

#[cfg(test)]
mod tests {
    use quorate_types::report::Foreground;

    use super::*;

    type Request = BoxFuture<'static, Result<NodeReport, PeerError>>;

    /// A node that answers after some milliseconds.
    fn after(ms: u64) -> impl FnOnce() -> Request {
        move || {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Ok(NodeReport {
                    node: NodeId(2),
                    uptime_ms: 0,
                    disk_free_bytes: 0,
                    disk_room_bytes: 0,
                    disk_full: false,
                    foreground: Foreground::Idle,
                    replicas: Vec::new(),
                })
            })
        }
    }

    /// A node that does not answer.
    fn never() -> Request {
        Box::pin(std::future::pending())
    }

    /// A node that was stopped (SIGSTOP) used to delay every round by a second.
    #[tokio::test(start_paused = true)]
    async fn an_unresponsive_node_delays_one_round() {
        let mut reporter = Reporter::new();
        let began = Instant::now();
        assert!(reporter.ask(never).await.is_none());
        assert!(began.elapsed() >= REPORT_TIMEOUT);
        for _ in 0..10 {
            let began = Instant::now();
            assert!(reporter.ask(never).await.is_none());
            assert!(began.elapsed() <= SLOW_TIMEOUT * 2, "{:?}", began.elapsed());
        }
        assert!(reporter.silence() < UNRESPONSIVE_AFTER);
        tokio::time::sleep(UNRESPONSIVE_AFTER).await;
        assert!(reporter.ask(never).await.is_none());
        assert!(reporter.silence() >= UNRESPONSIVE_AFTER);
        // Its report arrives again, even if it takes longer than a round waits for it.
        let mut rounds = 0;
        while reporter.ask(after(180)).await.is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            rounds += 1;
            assert!(rounds < 20, "its report never arrives");
        }
        assert!(reporter.silence() < UNRESPONSIVE_AFTER);
        assert!(!reporter.is_slow && reporter.ask(after(600)).await.is_some(), "rounds wait for it as before");
    }

    /// Shows that a report that arrived between two distant rounds is not used, but counts as a sign
    /// of life.
    #[tokio::test(start_paused = true)]
    async fn an_old_report_is_not_used() {
        let mut reporter = Reporter::new();
        reporter.is_slow = true;
        assert!(reporter.ask(after(200)).await.is_none());
        tokio::time::sleep(REPORT_TIMEOUT * 2).await;
        assert!(reporter.ask(after(0)).await.is_none());
        assert!(!reporter.is_slow);
        assert!(reporter.ask(after(0)).await.is_some());
    }
}
