//! `status`: the cluster's health on one screen, and the failures that it still tolerates.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::connect::Ask;
use crate::failure::{Exit, Failure};
use crate::idle::IdleReplica;
use crate::node_row::NodeRow;
use crate::output::{self, Format, count};
use crate::presence::listed;
use crate::progress::{self, Progress};
use crate::quorum::Margin;
use crate::survey::Survey;
use crate::{duration, operations};

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Exit 8 unless the cluster is healthy.
    #[arg(long)]
    check: bool,
    /// Repeat at this interval until Ctrl-C.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "2s",
          value_parser = duration::parse)]
    watch: Option<Duration>,
    #[command(flatten)]
    ask: Ask,
}

/// Wait reasons that are shown at most.
const WAITS_SHOWN_MAX: usize = 5;
/// Replicas that do not take part in their group and are shown at most, of each kind.
const IDLE_SHOWN_MAX: usize = 5;
/// Moves the cursor home and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

impl StatusArgs {
    /// Prints the status. An unhealthy cluster is a failure only with `--check`.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        loop {
            let shown = self.show().await;
            let Some(pause) = self.watch else { return shown };
            if let Err(failure) = shown {
                tell_part!("{failure}");
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn show(&self) -> Result<(), Failure> {
        let Ask { connect, .. } = &self.ask;
        let survey = Survey::take(connect).await?;
        let status = Status::of(&survey, &operations::running(connect, &survey).await);
        let clear = if self.watch.is_some() && std::io::stdout().is_terminal() { CLEAR } else { "" };
        let format = self.ask.format();
        output::show(format, "ClusterStatus", &status, || format!("{clear}{}", status.screen(format == Format::Wide)))?;
        if self.check && status.health != Health::Ok {
            return Err(Failure::new(Exit::CheckFailed, "the cluster is not healthy").hint("quorate doctor"));
        }
        Ok(())
    }
}

/// The health of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    /// All replicas are present, and every group has a leader.
    Ok,
    /// All data can be read and written, but a replica or a node is missing.
    Degraded,
    /// A shard has no quorum or no leader: strong reads and writes wait.
    Unavailable,
}

#[derive(Debug, Serialize)]
struct Status {
    cluster_id: String,
    revision: u64,
    health: Health,
    /// Shards that serve neither strong reads nor writes.
    unavailable_shards: Vec<String>,
    /// Shards with a missing replica.
    degraded_shards: Vec<String>,
    /// Replicas that lost log entries that they had confirmed. The cluster replaces them.
    doubtful_replicas: Vec<IdleReplica>,
    /// Replicas that do not catch up although their node answers.
    stalled_replicas: Vec<IdleReplica>,
    /// The number of arbitrary nodes that may still fail before a shard or the topology group
    /// stops.
    failures_tolerated: u64,
    /// Replicas in motion.
    moving: usize,
    /// The approximate bytes that running operations still have to move.
    left_bytes: u64,
    /// The remaining time of running operations, if known.
    time_left_ms: Option<u64>,
    /// Whether replica moves are paused.
    paused: bool,
    /// The wait reasons of running operations.
    waits: Vec<String>,
    /// Shards whose replicas share a zone although other zones exist.
    crowded_shards: Vec<String>,
    /// The reason why the replicas of a shard cannot be in distinct zones.
    scarce_zones: Option<String>,
    shards: usize,
    replicas: u32,
    nodes: Vec<NodeRow>,
}

impl Status {
    fn of(survey: &Survey, running: &[Progress]) -> Status {
        let shards: Vec<u32> = survey.topology.shards.iter().map(|shard| shard.id).collect();
        let margins: Vec<_> = shards.iter().map(|&shard| (shard, survey.margin(shard))).collect();
        let topology = survey.margin(0);
        let named = |which: &dyn Fn(&Margin) -> bool| {
            margins.iter().filter(|(_, margin)| which(margin)).map(|(shard, _)| shard.to_string()).collect::<Vec<_>>()
        };
        let unavailable_shards = named(&|margin| margin.spare < 0 || !margin.led);
        let degraded_shards = named(&|margin| !margin.complete);
        let down = survey.nodes.iter().any(|(node, status)| status.is_none() && !survey.is_drained(node.id));
        let health = if !unavailable_shards.is_empty() {
            Health::Unavailable
        } else if !degraded_shards.is_empty() || !topology.complete || !topology.led || down {
            Health::Degraded
        } else {
            Health::Ok
        };
        let spare = margins.iter().map(|(_, margin)| margin.spare).chain([topology.spare]).min().unwrap_or(0);
        Status {
            cluster_id: survey.topology.cluster_id.clone(),
            revision: survey.topology.revision,
            health,
            unavailable_shards,
            degraded_shards,
            doubtful_replicas: survey.doubtful(),
            stalled_replicas: survey.stalled(),
            failures_tolerated: u64::try_from(spare).unwrap_or(0),
            moving: survey.topology.moves.len(),
            paused: survey.topology.paused,
            left_bytes: running.iter().map(|progress| progress.left_bytes).sum(),
            // The longest of all; unknown if one of them is.
            time_left_ms: running
                .iter()
                .map(|progress| progress.time_left_ms)
                .max_by_key(|left| left.unwrap_or(u64::MAX))
                .flatten(),
            waits: progress::reasons(running),
            scarce_zones: survey.scarce_zones(None),
            crowded_shards: survey.crowded_shards().iter().map(ToString::to_string).collect(),
            shards: shards.len(),
            replicas: survey.topology.replicas,
            nodes: survey.nodes.iter().map(|(node, _)| NodeRow::of(survey, node.id)).collect(),
        }
    }

    fn screen(&self, wide: bool) -> String {
        let Status { cluster_id, revision, shards, replicas, nodes, .. } = self;
        let tolerated = match self.failures_tolerated {
            1 => "1 more node".to_owned(),
            many => format!("{many} more nodes"),
        };
        format!(
            "cluster  {cluster_id}   revision {revision}   {} nodes, {shards} shards × {replicas} replicas\n\
             health   {}\n\
             failures tolerated now: {tolerated}\n\
             {}\n\
             {}{}",
            nodes.len(),
            self.verdict(),
            self.motion(),
            NodeRow::table(nodes, wide),
            self.next().map(|line| format!("next: {line}\n")).unwrap_or_default(),
        )
    }

    fn verdict(&self) -> String {
        match self.health {
            Health::Ok => "OK – all data available, all replicas present".to_owned(),
            Health::Degraded => match self.degraded_shards.len() {
                0 => match self.unreachable() {
                    unreachable if unreachable.is_empty() => {
                        "DEGRADED – all data available, a node or a replica of the topology group is down".to_owned()
                    }
                    unreachable => {
                        let be = if unreachable.len() == 1 { "is" } else { "are" };
                        format!("DEGRADED – all data available, {} {be} unreachable from here", listed(&unreachable))
                    }
                },
                count => {
                    format!("DEGRADED – all data available, {count} of {} shards are missing a replica", self.shards)
                }
            },
            Health::Unavailable => format!(
                "UNAVAILABLE – no strong reads and no writes for {} of {} shards ({}); eventual reads still work",
                self.unavailable_shards.len(),
                self.shards,
                self.unavailable_shards.join(", "),
            ),
        }
    }

    /// Lines on replicas that do not take part, moves, stalled operations and zones.
    fn motion(&self) -> String {
        let mut lines = idle_lines("doubtful", &self.doubtful_replicas);
        lines += &idle_lines("stalled ", &self.stalled_replicas);
        if self.moving > 0 {
            let size =
                if self.left_bytes > 0 { format!(", {} left", output::bytes(self.left_bytes)) } else { String::new() };
            let left = self.time_left_ms.map(|ms| format!(", ~{}", duration::rough(Duration::from_millis(ms))));
            lines += &format!(
                "moving   {}{size}{}   (quorate op list)\n",
                count(self.moving, "replica"),
                left.unwrap_or_default()
            );
        }
        if self.paused {
            lines += "paused   no new replica moves start   (quorate rebalance resume)\n";
        }
        for wait in self.waits.iter().take(WAITS_SHOWN_MAX) {
            lines += &format!("waits    {wait}\n");
        }
        if !self.crowded_shards.is_empty() {
            let shards = self.crowded_shards.join(", ");
            lines += &format!(
                "zones    shards {shards} have replicas in the same zone although other zones exist   \
                 (quorate rebalance plan)\n"
            );
        }
        if let Some(scarce) = &self.scarce_zones {
            lines += &format!("zones    {scarce}\n");
        }
        lines
    }

    /// The nodes that are unreachable from here, if no node is down.
    fn unreachable(&self) -> Vec<u64> {
        let absent = self.nodes.iter().filter(|node| !node.up && !node.is_drained());
        match absent.clone().all(|node| node.unreachable) {
            true => absent.map(|node| node.id).collect(),
            false => vec![],
        }
    }

    /// Whether the cluster does not need the node: it was drained, or its drain continues without
    /// it.
    fn can_do_without(&self, node: &NodeRow) -> bool {
        node.is_drained() || node.is_draining() && self.unavailable_shards.is_empty()
    }

    /// The next step for replicas that do not take part in their group.
    fn idle_advice(&self) -> Option<String> {
        if !self.doubtful_replicas.is_empty() {
            let nodes = nodes_of(&self.doubtful_replicas);
            let replaced = match self.paused {
                true => "to have the doubtful replicas replaced, resume moves: quorate rebalance resume",
                false => "the cluster replaces the doubtful replicas by itself",
            };
            return Some(format!("check the disk of node {nodes}: it lost log entries; {replaced}"));
        }
        let nodes = nodes_of(&self.stalled_replicas);
        (!nodes.is_empty()).then(|| format!("check disk and network of node {nodes}: replicas there do not catch up"))
    }

    fn next(&self) -> Option<String> {
        let is_down = |node: &&NodeRow| !node.up && !node.unreachable && !self.can_do_without(node);
        let down: Vec<&NodeRow> = self.nodes.iter().filter(is_down).collect();
        let cut_off: Vec<String> =
            self.nodes.iter().filter(|node| node.cut_off).map(|node| node.id.to_string()).collect();
        match &down[..] {
            [] if !cut_off.is_empty() => Some(format!(
                "node {} is cut off from the leaders of some shards: repair the network between the nodes' peer ports",
                cut_off.join(", ")
            )),
            [] => {
                let stopped = self.nodes.iter().find(|node| !node.up).and_then(|node| node.fix.clone());
                self.idle_advice().or(stopped)
            }
            [one] => one.fix.clone(),
            many => {
                let many: Vec<String> =
                    many.iter().map(|node| format!("{} ({})", node.id, node.client_address)).collect();
                Some(format!(
                    "nodes {} are down: restart them; they catch up automatically   (quorate doctor)",
                    many.join(", ")
                ))
            }
        }
    }
}

/// One line for each replica that does not take part in its group.
fn idle_lines(kind: &str, replicas: &[IdleReplica]) -> String {
    let mut lines: String =
        replicas.iter().take(IDLE_SHOWN_MAX).map(|replica| format!("{kind} {replica}   (quorate doctor)\n")).collect();
    if replicas.len() > IDLE_SHOWN_MAX {
        lines += &format!("{kind} and {} more\n", replicas.len() - IDLE_SHOWN_MAX);
    }
    lines
}

/// The nodes of these replicas, once each.
fn nodes_of(replicas: &[IdleReplica]) -> String {
    let nodes: BTreeSet<u64> = replicas.iter().map(|replica| replica.node).collect();
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::survey::tests::{doubtful_on, survey, unreachable};

    #[test]
    fn the_screen_of_a_healthy_cluster() {
        let screen = Status::of(&survey(&[]), &[]).screen(false);
        let lines: Vec<&str> = screen.lines().map(str::trim_end).collect();
        assert_eq!(lines[0], format!("cluster  {}   revision 5   3 nodes, 2 shards × 3 replicas", "7c1e".repeat(8)));
        assert_eq!(lines[1], "health   OK – all data available, all replicas present");
        assert_eq!(lines[2], "failures tolerated now: 1 more node");
        let words: Vec<&str> = lines[5].split_whitespace().collect();
        assert_eq!(words, ["1", "127.0.0.1:7100", "active", "1", "2", "5.0", "GiB", "1", "1m", "0.1.0"]);
        assert_eq!(lines.len(), 8, "no next step");
    }

    #[test]
    fn a_node_that_is_cut_off_is_degraded_and_named() {
        let mut survey = survey(&[]);
        survey.nodes[2].1.as_mut().unwrap().replicas.iter_mut().for_each(|report| report.leader = 0);
        let status = Status::of(&survey, &[]);
        assert_eq!((status.health, status.failures_tolerated), (Health::Degraded, 0));
        let screen = status.screen(false);
        assert!(screen.contains("cut off") && screen.contains("next: node 3 is cut off from the leaders"), "{screen}");
    }

    #[test]
    fn one_node_down_is_degraded_and_the_next_step_is_named() {
        let status = Status::of(&survey(&[3]), &[]);
        assert_eq!((status.health, status.failures_tolerated), (Health::Degraded, 0));
        let screen = status.screen(false);
        assert!(screen.contains("DEGRADED – all data available, 2 of 2 shards are missing a replica"), "{screen}");
        assert!(screen.contains("failures tolerated now: 0 more nodes"), "{screen}");
        assert!(
            screen.contains("next: restart node 3, it catches up automatically; if it is lost for good:"),
            "{screen}"
        );
    }

    /// A node that only this machine does not reach was once shown as down, with the advice to remove
    /// it as dead.
    #[test]
    fn node_that_is_unreachable_from_here_is_not_down() {
        let status = Status::of(&unreachable(&[1, 3]), &[]);
        assert_eq!((status.health, status.failures_tolerated), (Health::Degraded, 1));
        let screen = status.screen(false);
        assert!(screen.contains("DEGRADED – all data available, nodes 1, 3 are unreachable from here"), "{screen}");
        assert!(screen.contains("next: node 1 is up: node 2 receives its pings; repair the network"), "{screen}");
        assert!(!screen.contains("down") && !screen.contains("--dead"), "{screen}");
        // Beside a node that is down, that one comes first.
        let mut survey = unreachable(&[1, 3]);
        survey.nodes[1].1.as_mut().unwrap().pings.retain(|ping| ping.from != 3);
        let screen = Status::of(&survey, &[]).screen(false);
        assert!(screen.contains("next: restart node 3, it catches up automatically\n"), "{screen}");
    }

    /// A replica that lost its log entries was once counted as present.
    #[test]
    fn doubtful_replica_is_degraded_and_named() {
        let status = Status::of(&doubtful_on(3, 1), &[]);
        assert_eq!((status.health, status.failures_tolerated), (Health::Degraded, 0));
        assert_eq!(status.degraded_shards, ["1"]);
        let screen = status.screen(false);
        assert!(!screen.contains("OK"), "{screen}");
        assert!(screen.contains("doubtful shard 1: the replica on node 3 lost log entries"), "{screen}");
        assert!(screen.contains("next: check the disk of node 3: it lost log entries; the cluster"), "{screen}");
        let mut paused = doubtful_on(3, 1);
        paused.topology.paused = true;
        let screen = Status::of(&paused, &[]).screen(false);
        assert!(
            screen.contains("it lost log entries; to have the doubtful replicas replaced, resume moves"),
            "{screen}"
        );
        let text = output::json("ClusterStatus", &status);
        let document: Value = serde_json::from_str(&text).unwrap();
        let named = json!([{ "group": 1, "replica": "13", "node": "3", "reason": "doubtful" }]);
        assert_eq!(document["doubtful_replicas"], named);
        assert_eq!(document["stalled_replicas"], json!([]));
    }

    #[test]
    fn replica_that_does_not_catch_up_is_degraded_and_named() {
        let mut survey = survey(&[]);
        let stalled = quorate_proto::admin::StalledReplica { replica: 13, node: 3, entries: 120, stalled_ms: 45_000 };
        survey.nodes[0].1.as_mut().unwrap().replicas[1].stalled = vec![stalled];
        let status = Status::of(&survey, &[]);
        assert_eq!((status.health, status.failures_tolerated), (Health::Degraded, 0));
        let screen = status.screen(false);
        let line = "stalled  shard 1: the replica on node 3 is 120 entries behind, without progress for 45s";
        assert!(screen.contains(line), "{screen}");
        assert!(screen.contains("next: check disk and network of node 3"), "{screen}");
    }

    #[test]
    fn without_a_quorum_it_is_unavailable() {
        let status = Status::of(&survey(&[1, 3]), &[]);
        assert_eq!(status.health, Health::Unavailable);
        assert_eq!(status.unavailable_shards, ["1", "2"]);
        assert!(status.screen(false).contains("nodes 1 (127.0.0.1:7100), 3 (127.0.0.1:7120) are down"));
    }

    #[test]
    fn json_has_the_same_facts() {
        let text = output::json("ClusterStatus", &Status::of(&survey(&[3]), &[]));
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["kind"], "ClusterStatus");
        assert_eq!((&document["health"], &document["failures_tolerated"]), (&json!("degraded"), &json!(0)));
        assert_eq!(document["nodes"][0]["id"], json!("1"));
        assert_eq!(document["nodes"][2]["up"], json!(false));
        assert_eq!(document["degraded_shards"], json!(["1", "2"]));
    }

    #[test]
    fn moves_are_shown_with_their_bytes_and_time() {
        let mut survey = survey(&[]);
        survey.topology.moves.push(quorate_proto::admin::ReplicaMove::default());
        let moving = Progress { left_bytes: 3 << 29, time_left_ms: Some(200_000), ..Progress::default() };
        let screen = Status::of(&survey, std::slice::from_ref(&moving)).screen(false);
        assert!(screen.contains("moving   1 replica, 1.5 GiB left, ~3m   (quorate op list)"), "{screen}");
        let unknown = Progress { time_left_ms: None, waits: vec!["node 4 is down".into()], ..moving.clone() };
        let screen = Status::of(&survey, &[moving, unknown]).screen(false);
        assert!(screen.contains("moving   1 replica, 3.0 GiB left   (quorate op list)"), "{screen}");
        assert!(screen.contains("waits     – node 4 is down"), "{screen}");
    }

    #[test]
    fn too_few_zones_are_shown() {
        let mut survey = survey(&[]);
        for (node, _) in &mut survey.nodes {
            node.zone = "a".into();
        }
        let screen = Status::of(&survey, &[]).screen(true);
        assert!(screen.contains("zones    the 3 replicas of a shard cannot be in distinct zones"), "{screen}");
        assert!(screen.contains("ZONE") && screen.contains("9.0 MiB"), "{screen}");
    }
}
