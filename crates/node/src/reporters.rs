//! What every node says of itself, as the reconciler asks for it in each of its rounds.
//!
//! A node that does not answer in time holds up one round, not all of them: the next ones hardly wait for it until it has answered again.

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
    nodes: HashMap<NodeId, Reporter>,
}

struct Reporter {
    /// When it last answered; at first when it was first asked.
    heard: Instant,
    /// It did not answer in the last round.
    slow: bool,
    /// The connection to it, while it is not being asked.
    caller: Option<PeerCaller>,
    asked: Option<AbortOnDropHandle<Result<Answer, String>>>,
}

struct Answer {
    caller: PeerCaller,
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
        let asked = self.nodes.iter_mut().map(|(id, reporter)| reporter.ask(others[id], identity));
        let reports: Vec<NodeReport> = join_all(asked).await.into_iter().flatten().collect();
        let silent: BTreeSet<NodeId> =
            self.nodes.iter().filter(|(_, reporter)| reporter.heard.elapsed() >= SILENT).map(|(id, _)| *id).collect();
        Reports::new(reports.into_iter().chain([own])).with_silent(silent)
    }
}

impl Reporter {
    fn new() -> Self {
        Reporter { heard: Instant::now(), slow: false, caller: None, asked: None }
    }

    /// What the node says; none if it does not in time.
    async fn ask(&mut self, node: &NodeInfo, identity: Identity) -> Option<NodeReport> {
        let mut asked = match self.asked.take() {
            Some(asked) => asked,
            None => ask(self.caller.take(), node, identity),
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
                debug!(node = %node.id, reason, "no report");
                self.slow = true;
                None
            }
        }
    }
}

fn ask(caller: Option<PeerCaller>, node: &NodeInfo, identity: Identity) -> AbortOnDropHandle<Result<Answer, String>> {
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
