//! What every node says of itself, as the reconciler asks for it in each of its rounds.
//!
//! A node that does not answer in time holds up one round, not all of them: the next ones hardly wait for it until it has answered again.
//! A report is at most [`REPORT_TIMEOUT`] old when it is taken, and the round waits as long again for the slowest: every step that is
//! planned from it is safe late, too.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures::future::join_all;
use quorate_topology::Reports;
use quorate_types::NodeId;
use quorate_types::report::NodeReport;
use quorate_types::topology::{Identity, NodeInfo, NodeState, Topology};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::handshake;
use crate::peer::PeerCaller;

/// How long a node may take to report; one that takes longer counts as down for this round.
pub(crate) const REPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a round waits for a node that did not answer in the last one. It is asked on meanwhile.
const SLOW_TIMEOUT: Duration = Duration::from_millis(50);
/// How long a node may stay away until nobody waits for it: what moves there is taken back where another node can have it. Longer than
/// a restart takes; a copy that is taken back is made anew.
const SILENT: Duration = Duration::from_secs(30);

/// The nodes that are asked.
#[derive(Default)]
pub(crate) struct Reporters {
    nodes: HashMap<NodeId, Reporter<PeerCaller>>,
}

/// A node, asked over a `C`.
struct Reporter<C> {
    /// When it last answered; at first when it was first asked.
    heard: Instant,
    /// It did not answer in the last round.
    slow: bool,
    /// The connection to it, while it is not being asked.
    caller: Option<C>,
    asked: Option<Asked<C>>,
}

/// A question under way.
type Asked<C> = AbortOnDropHandle<Result<Answer<C>, String>>;

struct Answer<C> {
    caller: C,
    report: NodeReport,
    at: Instant,
}

impl Reporters {
    /// Asks every other node that is not removed, all at once. `own` is what this one says of itself.
    pub(crate) async fn ask(&mut self, topology: &Topology, identity: Identity, own: NodeReport) -> Reports {
        let others = topology.nodes.iter().filter(|node| node.state != NodeState::Removed && node.id != identity.node);
        let others: HashMap<NodeId, &NodeInfo> = others.map(|node| (node.id, node)).collect();
        self.nodes.retain(|id, _| others.contains_key(id));
        for id in others.keys() {
            self.nodes.entry(*id).or_insert_with(Reporter::new);
        }
        let asked = self.nodes.iter_mut().map(|(id, reporter)| {
            let node = others[id];
            reporter.ask(|caller| ask(caller, node, identity))
        });
        let reports: Vec<NodeReport> = join_all(asked).await.into_iter().flatten().collect();
        let unresponsive: BTreeSet<NodeId> =
            self.nodes.iter().filter(|(_, reporter)| reporter.heard.elapsed() >= SILENT).map(|(id, _)| *id).collect();
        Reports { nodes: reports.into_iter().chain([own]).collect(), unresponsive, ..Reports::default() }
    }
}

impl<C> Reporter<C> {
    fn new() -> Self {
        Reporter { heard: Instant::now(), slow: false, caller: None, asked: None }
    }

    /// What the node says; none if it does not in time.
    async fn ask(&mut self, begin: impl FnOnce(Option<C>) -> Asked<C>) -> Option<NodeReport> {
        let mut asked = match self.asked.take() {
            Some(asked) => asked,
            None => begin(self.caller.take()),
        };
        let within = if self.slow { SLOW_TIMEOUT } else { REPORT_TIMEOUT };
        let Ok(answer) = timeout(within, &mut asked).await else {
            (self.slow, self.asked) = (true, Some(asked));
            return None;
        };
        match answer.unwrap_or_else(|ended| Err(ended.to_string())) {
            Ok(Answer { caller, report, at }) => {
                (self.heard, self.slow, self.caller) = (at, false, Some(caller));
                // One that came between two rounds may be old.
                (at.elapsed() < REPORT_TIMEOUT).then_some(report)
            }
            Err(reason) => {
                debug!(reason, "no report");
                self.slow = true;
                None
            }
        }
    }
}

fn ask(caller: Option<PeerCaller>, node: &NodeInfo, identity: Identity) -> Asked<PeerCaller> {
    let (address, hello) = (node.addresses.peer.clone(), handshake::hello(identity.cluster, identity.node, node.id));
    let answer = async move {
        let mut caller = match caller {
            Some(caller) => caller,
            None => PeerCaller::connect(&address).await?,
        };
        let report = caller.report(hello).await?;
        Ok(Answer { caller, report, at: Instant::now() })
    };
    let answer = async { timeout(REPORT_TIMEOUT, answer).await.unwrap_or_else(|_| Err("no answer".to_owned())) };
    AbortOnDropHandle::new(tokio::spawn(answer))
}

#[cfg(test)]
mod tests {
    use quorate_types::report::Foreground;

    use super::*;

    /// A node that answers after so long.
    fn after(ms: u64) -> impl FnOnce(Option<()>) -> Asked<()> {
        move |_| {
            AbortOnDropHandle::new(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                let report = NodeReport {
                    node: NodeId(2),
                    uptime_ms: 0,
                    disk_free_bytes: 0,
                    disk_full: false,
                    foreground: Foreground::Idle,
                    replicas: Vec::new(),
                };
                Ok(Answer { caller: (), report, at: Instant::now() })
            }))
        }
    }

    fn never(_: Option<()>) -> Asked<()> {
        AbortOnDropHandle::new(tokio::spawn(async {
            tokio::time::sleep(REPORT_TIMEOUT).await;
            Err("no answer".to_owned())
        }))
    }

    /// A node that was stopped (SIGSTOP) held up every round by a second.
    #[tokio::test(start_paused = true)]
    async fn a_node_that_hangs_held_up_every_round() {
        let mut reporter = Reporter::new();
        let began = Instant::now();
        assert!(reporter.ask(never).await.is_none());
        assert!(began.elapsed() >= REPORT_TIMEOUT);
        for _ in 0..10 {
            let began = Instant::now();
            assert!(reporter.ask(never).await.is_none());
            assert!(began.elapsed() <= SLOW_TIMEOUT * 2, "{:?}", began.elapsed());
        }
        assert!(reporter.heard.elapsed() < SILENT);
        tokio::time::sleep(SILENT).await;
        assert!(reporter.ask(never).await.is_none());
        assert!(reporter.heard.elapsed() >= SILENT);
        // It is heard again, also if it takes longer than a round waits for it.
        let mut rounds = 0;
        while reporter.ask(after(180)).await.is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            rounds += 1;
            assert!(rounds < 20, "it is never heard");
        }
        assert!(reporter.heard.elapsed() < SILENT);
        assert!(!reporter.slow && reporter.ask(after(600)).await.is_some(), "and is waited for as before");
    }

    /// What was said between two rounds that are far apart is old; the node was heard all the same.
    #[tokio::test(start_paused = true)]
    async fn an_old_report_is_not_taken() {
        let mut reporter = Reporter::new();
        reporter.slow = true;
        assert!(reporter.ask(after(200)).await.is_none());
        tokio::time::sleep(REPORT_TIMEOUT * 2).await;
        assert!(reporter.ask(after(0)).await.is_none());
        assert!(!reporter.slow);
        assert!(reporter.ask(after(0)).await.is_some());
    }
}
