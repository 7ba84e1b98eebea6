//! What a run learns from the nodes' metrics while it lasts: elections, snapshots, logs that were purged to their end.
//!
//! Every node's ops port is asked once in [`EVERY`]. Elections are counted in terms: how much the highest term that any replica
//! of a group has ever shown rises. (A term that a candidate began and nobody won counts, too; how often the leader changed for
//! clients is counted in the history.) Snapshots are the installations that a node counts since its start, added over its lives.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::workload::Http;

/// How often the nodes are asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long a node may take to answer: a stopped one does not.
const ANSWER_MAX: Duration = Duration::from_millis(700);

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Terms that were begun after the first look.
    pub elections: u64,
    /// Snapshots that replicas installed.
    pub snapshots: u64,
    /// Answers of nodes; none means that nothing was seen.
    pub answers: u64,
}

/// Adds up what the nodes say.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// Of each group: the first and the highest term that was seen.
    terms: HashMap<String, (u64, u64)>,
    /// Of each node and group: snapshots in its present life, and in earlier ones.
    snapshots: HashMap<(String, String), (u64, u64)>,
    answers: u64,
}

impl Observed {
    /// Asks the nodes at these ops addresses again and again, until it is told to stop.
    pub(super) async fn watch(ops: Vec<String>, http: Http, stop: CancellationToken) -> Counts {
        let mut observed = Observed::default();
        loop {
            let pages = join_all(ops.iter().map(|address| {
                let (url, http) = (format!("http://{address}/metrics"), http.clone());
                async move { http.get(&url, ANSWER_MAX).await.ok() }
            }));
            for page in pages.await.into_iter().flatten().filter(|page| page.status == 200) {
                observed.read(&page.body);
            }
            tokio::select! {
                () = stop.cancelled() => return observed.counts(),
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    fn read(&mut self, page: &str) {
        self.answers += 1;
        for line in page.lines() {
            let Some((sample, value)) = line.rsplit_once(' ') else { continue };
            let (Some(node), Some(group)) = (label(sample, "node"), label(sample, "group")) else { continue };
            let value = value.parse::<f64>().map_or(0, |value| value as u64);
            if sample.starts_with("quorate_group_term{") {
                let (_, highest) = self.terms.entry(group).or_insert((value, value));
                *highest = value.max(*highest);
            } else if sample.starts_with("quorate_group_snapshots_installed{") {
                let (now, before) = self.snapshots.entry((node, group)).or_default();
                if value < *now {
                    // It counts from its start, and has been started again.
                    *before += *now;
                }
                *now = value;
            }
        }
    }

    fn counts(&self) -> Counts {
        Counts {
            elections: self.terms.values().map(|(first, highest)| highest - first).sum(),
            snapshots: self.snapshots.values().map(|(now, before)| now + before).sum(),
            answers: self.answers,
        }
    }
}

/// The value of a label of a sample.
fn label(sample: &str, name: &str) -> Option<String> {
    let (_, rest) = sample.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Terms rise from where they were first seen, by the highest replica; snapshots survive the restart of their counter.
    #[test]
    fn elections_and_snapshots_add_up() {
        let mut observed = Observed::default();
        observed.read("quorate_group_term{node=\"1\",group=\"3\"} 4\nquorate_group_snapshots_installed{node=\"1\",group=\"3\"} 2\n");
        observed.read("# HELP x y\nquorate_group_term{node=\"2\",group=\"3\"} 7\nquorate_uptime_seconds 1.5\n");
        observed.read("quorate_group_term{node=\"1\",group=\"3\"} 6\nquorate_group_snapshots_installed{node=\"1\",group=\"3\"} 1\n");
        assert_eq!(observed.counts(), Counts { elections: 3, snapshots: 3, answers: 3 });
    }
}
