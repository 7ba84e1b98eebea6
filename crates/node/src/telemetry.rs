//! The node's metrics: installed once per process; gauges are refreshed by each scrape.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_util::MetricKindMask;
use quorate_types::Role;
use tracing::warn;

use crate::node::Node;

/// How often histograms are summed up if nothing scrapes them, so that they stay small.
pub(crate) const UPKEEP: Duration = Duration::from_secs(5);
/// Upper bounds of the histogram buckets, in seconds.
const SECONDS: [f64; 14] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// A gauge that was not set for this long before a scrape is dropped: its replica has left this
/// node. The gauges of present replicas are set again by each scrape.
const GAUGE_IDLE_MAX: Duration = Duration::from_secs(5);

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder of this process. Several nodes in one process share it.
pub(crate) fn install() {
    HANDLE.get_or_init(|| {
        let recorder = recorder(GAUGE_IDLE_MAX);
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            warn!("another metrics recorder is installed, /metrics stays empty");
        }
        describe();
        handle
    });
}

fn recorder(gauge_idle_max: Duration) -> PrometheusRecorder {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .unwrap_or_else(|_| PrometheusBuilder::new())
        .idle_timeout(MetricKindMask::GAUGE, Some(gauge_idle_max))
        .build_recorder()
}

/// Sums up histograms.
pub(crate) fn upkeep() {
    if let Some(handle) = HANDLE.get() {
        handle.run_upkeep();
    }
}

/// All metrics in Prometheus' text format.
pub(crate) fn render() -> String {
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Sets the gauges of a node to their present values.
pub(crate) fn refresh(node: &Node) {
    gauge!("quorate_disk_free_bytes").set(node.disk.free_bytes() as f64);
    gauge!("quorate_disk_below_reserve").set(f64::from(node.disk.is_full()));
    gauge!("quorate_uptime_seconds").set(node.life.uptime_ms() as f64 / 1000.0);
    let Some(member) = node.cluster_node() else { return };
    gauge!("quorate_log_queue_bytes").set(member.store().log.queued_bytes() as f64);
    if let Some(map) = member.store().feed.latest() {
        gauge!("quorate_topology_revision").set(map.topology.revision as f64);
    }
    let own = member.store().identity.node.to_string();
    for status in member.store().groups.statuses() {
        let labels = [("node", own.clone()), ("group", status.group.to_string())];
        let set = |name: &'static str, value: f64| gauge!(name, &labels).set(value);
        set("quorate_group_has_leader", f64::from(status.leader.is_some()));
        set("quorate_group_is_leader", f64::from(status.role == Role::Leader));
        set("quorate_group_term", status.term as f64);
        set("quorate_group_last_log_index", status.last_log_index.unwrap_or(0) as f64);
        set("quorate_group_applied_index", status.applied_index.unwrap_or(0) as f64);
        set("quorate_group_log_bytes", status.log_bytes as f64);
        set("quorate_group_snapshots_installed", status.snapshots_installed as f64);
        set("quorate_group_stalled_members", status.stalled.len() as f64);
        set("quorate_group_doubtful", 0.0);
    }
    for (_, group) in member.store().groups.doubtful() {
        let labels = [("node", own.clone()), ("group", group.to_string())];
        gauge!("quorate_group_doubtful", &labels).set(1.0);
    }
}

fn describe() {
    describe_counter!("quorate_requests_total", "Requests of clients by kind and outcome");
    describe_histogram!("quorate_request_batch_seconds", "Time to serve a batch of requests of one kind");
    describe_gauge!("quorate_disk_free_bytes", "Free bytes on the disk of the data directory");
    describe_gauge!("quorate_disk_below_reserve", "1 while the disk is below its reserve and puts are refused");
    describe_gauge!("quorate_uptime_seconds", "Time since the node started");
    describe_gauge!("quorate_log_queue_bytes", "Bytes that wait for the writer of the log");
    describe_gauge!(
        "quorate_snapshot_rate_bytes_per_second",
        "Rate limit of snapshot transfers; lower while clients' requests are slow"
    );
    describe_counter!(
        "quorate_snapshots_refused_total",
        "Snapshots of this node that their receivers refused, by reason: busy, no_space, no_replica, bad, failed"
    );
    describe_gauge!("quorate_topology_revision", "Revision of the topology that the node acts on");
    describe_gauge!(
        "quorate_group_has_leader",
        "1 while the replica knows a leader of its group; group 0 is the topology group"
    );
    describe_gauge!("quorate_group_is_leader", "1 while the replica believes that it leads its group");
    describe_gauge!("quorate_group_term", "The replica's term");
    describe_gauge!("quorate_group_last_log_index", "Index of the last entry of the replica's log");
    describe_gauge!("quorate_group_applied_index", "Index of the last entry that the replica applied");
    describe_gauge!("quorate_group_log_bytes", "Bytes of log that the replica keeps");
    describe_gauge!(
        "quorate_group_stalled_members",
        "Members of the group that are behind and made no progress for 30 s; 0 unless the replica leads"
    );
    describe_gauge!(
        "quorate_group_doubtful",
        "1 while a replica that lost log entries waits for its replacement; it takes no part in its group"
    );
    describe_gauge!("quorate_group_snapshots_installed", "Snapshots that the replica installed since the node started");
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A node from which a shard had moved away used to report the shard as leaderless until its
    /// restart.
    #[test]
    fn gauges_of_a_moved_replica_disappear() {
        let recorder = recorder(Duration::from_millis(20));
        let handle = recorder.handle();
        let refresh = |group: &'static str| {
            metrics::with_local_recorder(&recorder, || gauge!("quorate_group_has_leader", "group" => group).set(0.0));
        };
        refresh("1");
        assert!(handle.render().contains("group=\"1\""));
        let started = Instant::now();
        loop {
            refresh("2");
            let rendered = handle.render();
            assert!(rendered.contains("group=\"2\""), "{rendered}");
            if !rendered.contains("group=\"1\"") {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "{rendered}");
            std::thread::yield_now();
        }
    }
}
