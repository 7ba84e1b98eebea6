//! Counts from the nodes' metrics during a run: elections and snapshots.
//!
//! Every node's ops port is polled once per [`EVERY`]. An election is a rise of the highest term
//! that any replica of a group has reported. It also counts terms whose candidate did not win;
//! leader changes as seen by clients are counted in the history. Snapshots are the installations
//! that each node counts since its start, summed over its restarts.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::report::Counts;
use crate::workload::Http;

/// The pause between two polls.
const EVERY: Duration = Duration::from_secs(1);
/// The time-out of a poll. Paused nodes do not answer.
const ANSWER_MAX: Duration = Duration::from_millis(700);

/// The state of the counting.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// For each group, the first and the highest term reported.
    terms: HashMap<String, (u64, u64)>,
    /// For each node and group, the snapshots since the node's last start, and before it.
    snapshots: HashMap<(String, String), (u64, u64)>,
    answers: u64,
}

impl Observed {
    /// Polls the nodes at these ops addresses until `stop` is cancelled.
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
                    // The node was restarted, and counts from zero again.
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

    /// Elections count from the first reported term; snapshots are summed over restarts.
    #[test]
    fn elections_and_snapshots_add_up() {
        let mut observed = Observed::default();
        observed.read("quorate_group_term{node=\"1\",group=\"3\"} 4\nquorate_group_snapshots_installed{node=\"1\",group=\"3\"} 2\n");
        observed.read("# HELP x y\nquorate_group_term{node=\"2\",group=\"3\"} 7\nquorate_uptime_seconds 1.5\n");
        observed.read("quorate_group_term{node=\"1\",group=\"3\"} 6\nquorate_group_snapshots_installed{node=\"1\",group=\"3\"} 1\n");
        assert_eq!(observed.counts(), Counts { elections: 3, snapshots: 3, answers: 3 });
    }
}
