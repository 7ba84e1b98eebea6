//! `doctor`: checks the cluster, and prints a fix for each problem.

use clap::Args;
use quorate_proto::admin::Node;
use serde::Serialize;

use crate::connect::Ask;
use crate::failure::{Exit, Failure};
use crate::output::{self, Kinds};
use crate::survey::Survey;
use crate::{operations, progress};

/// Stalled operations that are shown at most.
const WAITS_SHOWN_MAX: usize = 3;
/// Less free disk space than this is reported, in bytes.
const DISK_FREE_MIN: u64 = 2 << 30;
/// A replica that is more entries behind than this is reported.
const LAG_ENTRIES_MAX: u64 = 10_000;

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    ask: Ask,
}

const KINDS: Kinds = Kinds { list: "Diagnosis", item: "Check" };

/// The result of a check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    /// `ok`, `warning`, `failed`.
    verdict: &'static str,
    detail: String,
    fix: String,
}

impl DoctorArgs {
    /// Runs the checks and prints the results. Exit 8 if a check failed; warnings are no failure.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let survey = Survey::take(&self.ask.connect).await?;
        let waits = progress::reasons(&operations::running(&self.ask.connect, &survey).await);
        let checks = checks(&survey, &waits);
        let failed = checks.iter().filter(|check| check.verdict == "failed").count();
        output::show_all(self.ask.format(), KINDS, checks, |checks| checks.iter().map(line).collect())?;
        if failed == 0 {
            return Ok(());
        }
        Err(Failure::new(Exit::CheckFailed, format!("{failed} checks failed")))
    }
}

fn line(check: &Check) -> String {
    let sign = match check.verdict {
        "ok" => '✓',
        "warning" => '!',
        _ => '✗',
    };
    let fix = if check.fix.is_empty() { String::new() } else { format!("\n    fix: {}", check.fix) };
    format!("{sign} {}: {}{fix}\n", check.name, check.detail)
}

fn checks(survey: &Survey, waits: &[String]) -> Vec<Check> {
    vec![
        nodes_are_reachable(survey),
        nodes_are_connected(survey),
        groups_have_leaders(survey),
        replicas_are_present(survey),
        logs_are_whole(survey),
        replicas_catch_up(survey),
        survives_a_node(survey),
        topology_group(survey),
        zones(survey),
        versions(survey),
        disks(survey),
        lag(survey),
        operations(survey, waits),
    ]
}

fn check(name: &'static str, bad: &[String], verdict: &'static str, good: &str, fix: &str) -> Check {
    if bad.is_empty() {
        return Check { name, verdict: "ok", detail: good.to_owned(), fix: String::new() };
    }
    Check { name, verdict, detail: bad.join("; "), fix: fix.to_owned() }
}

fn nodes_are_reachable(survey: &Survey) -> Check {
    let down = survey.nodes.iter().filter(|(_, status)| status.is_none()).map(|(node, _)| node);
    let (drained, down): (Vec<&Node>, Vec<&Node>) = down.partition(|node| survey.is_drained(node.id));
    let verdict = if down.is_empty() { "warning" } else { "failed" };
    let all: Vec<&Node> = down.into_iter().chain(drained).collect();
    let found: Vec<String> = all
        .iter()
        .map(|node| {
            let state = if survey.is_unreachable(node.id) { "unreachable from here" } else { "down" };
            format!("node {} ({}) is {state}", node.id, node.client_address)
        })
        .collect();
    let fixes: Vec<String> = all.iter().map(|node| survey.way_back(node)).collect();
    check("nodes", &found, verdict, "every node is reachable", &fixes.join("; "))
}

fn nodes_are_connected(survey: &Survey) -> Check {
    let cut_off = survey.nodes.iter().filter(|(node, _)| survey.is_cut_off(node.id));
    let cut_off: Vec<String> = cut_off
        .map(|(node, _)| format!("node {} ({}) is cut off from the leaders of some shards", node.id, node.peer_address))
        .collect();
    check(
        "network",
        &cut_off,
        "failed",
        "every node is connected to the shard leaders",
        "repair the network between the nodes' peer ports",
    )
}

fn groups_have_leaders(survey: &Survey) -> Check {
    let leaderless = survey.shard_ids().filter(|shard| !survey.margin(*shard).led);
    let leaderless: Vec<String> = leaderless.map(|shard| format!("shard {shard} has no leader")).collect();
    let fix = "restart the nodes that are down; a shard without a majority of its replicas cannot elect a leader";
    check("leaders", &leaderless, "failed", "every shard has a leader", fix)
}

fn replicas_are_present(survey: &Survey) -> Check {
    let short = survey.shard_ids().filter(|shard| !survey.margin(*shard).complete);
    let short: Vec<String> = short.map(|shard| shard.to_string()).collect();
    let short =
        if short.is_empty() { vec![] } else { vec![format!("shards {} are missing a replica", short.join(", "))] };
    check(
        "replicas",
        &short,
        "failed",
        "all replicas are present",
        "restart the nodes that are down or cut off, or replace them",
    )
}

fn logs_are_whole(survey: &Survey) -> Check {
    let doubtful: Vec<String> = survey.doubtful().iter().map(ToString::to_string).collect();
    check(
        "logs",
        &doubtful,
        "failed",
        "no replica lost log entries",
        "check the disk of the node; the cluster replaces the replica by itself while a majority of the others is up \
         and moves are not paused",
    )
}

fn replicas_catch_up(survey: &Survey) -> Check {
    let stalled: Vec<String> = survey.stalled().iter().map(ToString::to_string).collect();
    check(
        "progress",
        &stalled,
        "failed",
        "every replica follows its leader",
        "check the node's disk and network; restart it, or replace it: quorate node replace",
    )
}

fn survives_a_node(survey: &Survey) -> Check {
    let spare = survey.shard_ids().chain([0]).map(|group| survey.margin(group).spare).min().unwrap_or(0);
    let bad =
        if spare < 1 { vec!["one more node failure stops a shard or the topology group".to_owned()] } else { vec![] };
    let fix = match survey.topology.replicas {
        1 => "the cluster was created with one replica per shard; only a new cluster can have more",
        _ => "mend the other failed checks, or add a node: quorate node start --join …",
    };
    check("failures", &bad, "warning", "any one node may fail", fix)
}

fn topology_group(survey: &Survey) -> Check {
    let voters = survey.topology.topology_replicas.len();
    let bad = if voters.is_multiple_of(2) { vec![format!("the topology group has {voters} voters")] } else { vec![] };
    check(
        "topology",
        &bad,
        "warning",
        "the topology group has an odd number of voters",
        "wait: the cluster adjusts its voters automatically",
    )
}

fn zones(survey: &Survey) -> Check {
    let crowded = survey.crowded_shards();
    let bad: Vec<String> = crowded
        .iter()
        .map(|shard| format!("shard {shard} has replicas in the same zone although other zones exist"))
        .collect();
    if let (true, Some(scarce)) = (bad.is_empty(), survey.scarce_zones(None)) {
        let fix = "start nodes in other zones: quorate node start --zone NAME --join …";
        return check("zones", &[scarce], "warning", "", fix);
    }
    check(
        "zones",
        &bad,
        "warning",
        "replicas are spread across zones",
        "quorate rebalance plan, then: quorate rebalance apply",
    )
}

fn versions(survey: &Survey) -> Check {
    let mut versions: Vec<&str> =
        survey.nodes.iter().filter_map(|(_, status)| Some(status.as_ref()?.version.as_str())).collect();
    versions.sort_unstable();
    versions.dedup();
    let bad = if versions.len() > 1 { vec![format!("the nodes run versions {}", versions.join(", "))] } else { vec![] };
    check("versions", &bad, "warning", "every node runs the same version", "finish the upgrade, a node at a time")
}

fn disks(survey: &Survey) -> Check {
    let full = |(node, status): &(Node, Option<quorate_proto::admin::NodeStatus>)| {
        let free = status.as_ref()?.disk_free_bytes;
        (free < DISK_FREE_MIN).then(|| format!("node {} has {} MiB of free disk space", node.id, free >> 20))
    };
    let bad: Vec<String> = survey.nodes.iter().filter_map(full).collect();
    check(
        "disks",
        &bad,
        "warning",
        "every disk has free space",
        "free disk space, or add a node: quorate node start --join …",
    )
}

fn lag(survey: &Survey) -> Check {
    let behind = survey.nodes.iter().filter_map(|(node, _)| {
        let entries = survey.lag_entries(node.id)?;
        (entries > LAG_ENTRIES_MAX).then(|| format!("node {} is up to {entries} entries behind", node.id))
    });
    check(
        "lag",
        &behind.collect::<Vec<_>>(),
        "warning",
        "every replica is up to date",
        "wait; if the lag grows, check the node's disk and network",
    )
}

fn operations(survey: &Survey, waits: &[String]) -> Check {
    let mut bad: Vec<String> = waits.iter().take(WAITS_SHOWN_MAX).cloned().collect();
    if waits.len() > WAITS_SHOWN_MAX {
        bad.push(format!("and {} more", waits.len() - WAITS_SHOWN_MAX));
    }
    if survey.topology.paused {
        bad.push("moves are paused".to_owned());
    }
    check(
        "operations",
        &bad,
        "warning",
        "no stalled operations",
        match survey.topology.paused {
            true => "resume moves: quorate rebalance resume",
            false => {
                "moves in progress need no action; blocked ones resume when their node returns or is removed, or cancel \
                 them: quorate op cancel ID"
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use quorate_proto::admin::{NodeStatus, StalledReplica};
    use quorate_proto::kv::Role;

    use super::*;
    use crate::survey::DRAINING;
    use crate::survey::tests::{doubtful_on, survey, unreachable};

    const NO_WAITS: &[String] = &[];

    /// The checks that do not pass, with their verdicts. Each has a fix.
    fn found(survey: &Survey, waits: &[String]) -> Vec<(&'static str, &'static str)> {
        let bad = checks(survey, waits).into_iter().filter(|check| check.verdict != "ok");
        let named = |check: Check| {
            assert!(!check.fix.is_empty(), "{check:?}");
            (check.name, check.verdict)
        };
        bad.map(named).collect()
    }

    fn text(survey: &Survey, waits: &[String]) -> String {
        checks(survey, waits).iter().map(line).collect()
    }

    #[test]
    fn healthy_cluster_passes_every_check() {
        assert_eq!(found(&survey(&[]), NO_WAITS), []);
        assert!(text(&survey(&[]), NO_WAITS).lines().all(|line| line.starts_with("✓ ")));
    }

    #[test]
    fn node_that_is_down_is_found() {
        let survey = survey(&[3]);
        assert_eq!(found(&survey, NO_WAITS), [("nodes", "failed"), ("replicas", "failed"), ("failures", "warning")]);
        let text = text(&survey, NO_WAITS);
        assert!(text.contains("✗ nodes: node 3 (127.0.0.1:7120) is down"), "{text}");
        assert!(text.contains("fix: restart node 3, it catches up automatically"), "{text}");
    }

    #[test]
    fn node_that_is_unreachable_from_here_is_found() {
        let survey = unreachable(&[3]);
        assert_eq!(found(&survey, NO_WAITS), [("nodes", "failed")]);
        let text = text(&survey, NO_WAITS);
        assert!(text.contains("✗ nodes: node 3 (127.0.0.1:7120) is unreachable from here"), "{text}");
        assert!(text.contains("fix: node 3 is up: nodes 1, 2 receive its pings"), "{text}");
    }

    #[test]
    fn drained_and_stopped_node_is_a_warning() {
        let mut survey = survey(&[3]);
        for state in [&mut survey.topology.nodes[2].state, &mut survey.nodes[2].0.state] {
            *state = DRAINING.into();
        }
        survey.topology.topology_replicas.retain(|at| at.node != 3);
        survey.topology.shards.iter_mut().for_each(|shard| shard.replicas.retain(|at| at.node != 3));
        assert_eq!(checks(&survey, NO_WAITS)[0].verdict, "warning");
        assert_eq!(checks(&survey, NO_WAITS)[0].fix, "node 3 is drained and stopped: quorate node remove 3");
    }

    #[test]
    fn node_that_is_cut_off_is_found() {
        let mut survey = survey(&[]);
        survey.nodes[2].1.as_mut().unwrap().replicas.iter_mut().for_each(|report| report.leader = 0);
        let missing = [("network", "failed"), ("replicas", "failed"), ("failures", "warning")];
        assert_eq!(found(&survey, NO_WAITS), missing);
        assert!(text(&survey, NO_WAITS).contains("is cut off from the leaders of some shards"));
    }

    #[test]
    fn shard_without_a_leader_is_found() {
        let mut survey = survey(&[]);
        for (_, status) in &mut survey.nodes {
            let report = &mut status.as_mut().unwrap().replicas[1];
            (report.leader, report.role) = (0, Role::Candidate.into());
        }
        assert_eq!(found(&survey, NO_WAITS), [("leaders", "failed")]);
        assert!(text(&survey, NO_WAITS).contains("✗ leaders: shard 1 has no leader"));
    }

    #[test]
    fn missing_replica_is_found() {
        let mut survey = survey(&[]);
        survey.nodes[2].1.as_mut().unwrap().replicas.retain(|report| report.group != 1);
        assert_eq!(found(&survey, NO_WAITS), [("replicas", "failed"), ("failures", "warning")]);
        assert!(text(&survey, NO_WAITS).contains("✗ replicas: shards 1 are missing a replica"));
    }

    #[test]
    fn replicas_that_take_no_part_are_found() {
        let mut survey = doubtful_on(3, 1);
        let stalled = StalledReplica { replica: 23, node: 3, entries: 9, stalled_ms: 60_000 };
        survey.nodes[1].1.as_mut().unwrap().replicas[2].stalled = vec![stalled];
        let idle = [("replicas", "failed"), ("logs", "failed"), ("progress", "failed"), ("failures", "warning")];
        assert_eq!(found(&survey, NO_WAITS), idle);
        let text = text(&survey, NO_WAITS);
        assert!(text.contains("✗ logs: shard 1: the replica on node 3 lost log entries"), "{text}");
        assert!(text.contains("✗ progress: shard 2: the replica on node 3 is 9 entries behind"), "{text}");
    }

    #[test]
    fn cluster_with_one_replica_a_shard_survives_no_failure() {
        let mut survey = survey(&[]);
        survey.topology.replicas = 1;
        survey.topology.shards.iter_mut().for_each(|shard| shard.replicas.truncate(1));
        for (node, status) in &mut survey.nodes {
            let reports = &mut status.as_mut().unwrap().replicas;
            reports.retain(|report| report.group == 0 || node.id == 1);
            for report in reports.iter_mut().filter(|report| report.group != 0) {
                (report.voters, report.role) = (vec![1], Role::Leader.into());
            }
        }
        assert_eq!(found(&survey, NO_WAITS), [("failures", "warning")]);
        assert!(text(&survey, NO_WAITS).contains("only a new cluster can have more"));
    }

    #[test]
    fn even_number_of_voters_is_found() {
        let mut survey = survey(&[]);
        survey.topology.topology_replicas.pop();
        assert_eq!(found(&survey, NO_WAITS), [("topology", "warning")]);
    }

    #[test]
    fn replicas_in_one_zone_are_found() {
        let mut survey = survey(&[]);
        let zones = |survey: &mut Survey, zones: [&str; 3]| {
            for ((node, _), zone) in survey.nodes.iter_mut().zip(zones) {
                node.zone = zone.into();
                survey.topology.nodes[node.id as usize - 1].zone = zone.into();
            }
        };
        zones(&mut survey, ["a", "a", "b"]);
        assert_eq!(found(&survey, NO_WAITS), [("zones", "warning")]);
        assert!(text(&survey, NO_WAITS).contains("quorate node start --zone NAME"));
        let fourth = Node { id: 4, zone: "c".into(), ..survey.topology.nodes[0].clone() };
        let status = survey.nodes[0].1.clone().map(|status| NodeStatus { id: 4, replicas: vec![], ..status });
        survey.topology.nodes.push(fourth.clone());
        survey.nodes.push((fourth, status));
        assert_eq!(found(&survey, NO_WAITS), [("zones", "warning")]);
        assert!(text(&survey, NO_WAITS).contains("! zones: shard 1 has replicas in the same zone"));
    }

    #[test]
    fn mixed_versions_and_full_disks_are_found() {
        let mut survey = survey(&[]);
        let status = survey.nodes[1].1.as_mut().unwrap();
        (status.version, status.disk_free_bytes) = ("0.2.0".into(), 1 << 30);
        assert_eq!(found(&survey, NO_WAITS), [("versions", "warning"), ("disks", "warning")]);
        let text = text(&survey, NO_WAITS);
        assert!(text.contains("! versions: the nodes run versions 0.1.0, 0.2.0"), "{text}");
        assert!(text.contains("! disks: node 2 has 1024 MiB of free disk space"), "{text}");
    }

    #[test]
    fn slow_replica_is_found() {
        let mut survey = survey(&[]);
        let report = &mut survey.nodes[0].1.as_mut().unwrap().replicas[1];
        (report.last_log_index, report.applied_index) = (20_000, 20_000);
        assert_eq!(found(&survey, NO_WAITS), [("lag", "warning")]);
        assert!(text(&survey, NO_WAITS).contains("! lag: node 2 is up to 19902 entries behind; node 3 is"));
    }

    #[test]
    fn stalled_operations_are_found() {
        let mut survey = survey(&[]);
        let waits = ["shard 1: target node 3 is unreachable".to_owned()];
        assert_eq!(found(&survey, &waits), [("operations", "warning")]);
        assert!(text(&survey, &waits).contains("! operations: shard 1: target node 3 is unreachable"));
        survey.topology.paused = true;
        assert_eq!(found(&survey, NO_WAITS), [("operations", "warning")]);
        assert!(text(&survey, NO_WAITS).contains("moves are paused\n    fix: resume moves: quorate rebalance resume"));
    }
}
