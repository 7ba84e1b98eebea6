//! The numbers of a run, computed from its history, its faults and the nodes' metrics.

use std::collections::BTreeMap;

use crate::history::EventKind;
use crate::report::availability::{Availability, quantile};
use crate::report::faults::Faults;
use crate::report::results::{Ended, Failover, Unavailable};
use crate::report::{Counts, Outcome, Results};
use crate::workload::Done;

/// The facts of a run beside its operations.
pub(super) struct Facts<'a> {
    /// The faults.
    pub faults: &'a Faults,
    /// The counts from the nodes' metrics.
    pub counts: Counts,
    /// The begin and end of the load.
    pub load: (u64, u64),
    /// Operations that were not started because too many were in flight.
    pub shed: u64,
    /// The command that repeats the run.
    pub command: String,
    /// The seed.
    pub seed: u64,
    /// The kinds of network and disks.
    pub network: String,
}

impl Facts<'_> {
    /// The results without checks.
    pub(super) fn account(self, operations: &[Done<'_>]) -> Results {
        let mut by_name: BTreeMap<String, Ended> = BTreeMap::new();
        let mut under_load: BTreeMap<String, Ended> = BTreeMap::new();
        let mut total = Ended::default();
        let (from, until) = self.load;
        for done in operations {
            count(by_name.entry(name(done)).or_default(), done);
            count(&mut total, done);
            if (from..until).contains(&done.invoke.time) {
                count(under_load.entry(workload(done).to_owned()).or_default(), done);
            }
        }
        let in_load = |done: &&Done<'_>| done.kind() == EventKind::Ok && (from..until).contains(&done.end());
        let mut latencies: Vec<u64> =
            operations.iter().filter(in_load).map(|done| done.end() - done.invoke.time).collect();
        latencies.sort_unstable();
        let ms = |part| quantile(&latencies, part).map(|ns| ns as f64 / 1e6);
        let availability = Availability::of(operations, self.load);
        let windows = &self.faults.windows;
        let unavailable = availability.longest(windows).into_iter().map(|(kind, gap)| {
            (kind, Unavailable { longest_ms: gap.ms(), shard: gap.shard, from_ms: gap.from / 1_000_000 })
        });
        Results {
            outcome: Outcome::Pass,
            checks: Vec::new(),
            operations: by_name,
            total,
            under_load,
            shed: self.shed,
            ok_per_second: latencies.len() as f64 / ((until - from).max(1) as f64 / 1e9),
            latency_ms: ms(0.5).zip(ms(0.99)).map(|(p50, p99)| [p50, p99]),
            faults: self.faults.counts.clone(),
            unavailable: unavailable.collect(),
            failover: failover(&availability.failovers(windows)),
            leader_changes: availability.leader_changes(),
            counts: self.counts,
            load: self.load,
            command: self.command,
            seed: self.seed,
            network: self.network,
        }
    }
}

fn count(ended: &mut Ended, done: &Done<'_>) {
    match done.kind() {
        EventKind::Ok => ended.ok += 1,
        EventKind::Fail => ended.fail += 1,
        EventKind::Info | EventKind::Invoke => ended.info += 1,
    }
    ended.refused += u64::from(done.completion.is_some_and(|completion| completion.refused));
}

/// The name of an operation's workload: the prefix of its key.
fn workload<'a>(done: &Done<'a>) -> &'a str {
    done.invoke.key.as_deref().and_then(|key| key.split('/').next()).unwrap_or_default()
}

/// The workload and action of an operation, and its read level if that is eventual.
fn name(done: &Done<'_>) -> String {
    let workload = workload(done);
    let action =
        serde_json::to_value(done.invoke.f).ok().and_then(|f| f.as_str().map(str::to_owned)).unwrap_or_default();
    match done.invoke.level.as_deref() {
        Some(level) => format!("{workload} {action} ({level})"),
        None => format!("{workload} {action}"),
    }
}

fn failover(sorted_ms: &[u64]) -> Failover {
    let at = |part| quantile(sorted_ms, part).unwrap_or(0);
    Failover { count: sorted_ms.len() as u64, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
}
