//! A replica moves, and one node crashes at a named step: the leader of the topology group, the
//! leader of the shard, the target, or the source. Every move completes with three equal replicas,
//! and no orphan.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use quorate_client::admin;
use quorate_proto::admin::{CompactLogsRequest, NodeStatus};
use quorate_testpoints::FailPoint;
use quorate_tests::{Cluster, ClusterOptions, eventually, run_cli};
use serde_json::Value;

const SHARDS: u32 = 2;
/// Enough entries that some are purged and a new replica needs a snapshot.
const KEYS: usize = 3_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// Steps that a run may miss: a fast follower gets the log where a slow one needs a snapshot.
const MISSED_MAX: usize = 3;
const ASK: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// The node that leads the topology group.
    Reconciler,
    /// The node that leads the shard.
    Leader,
    /// The node that receives the replica.
    Target,
    /// The node that the replica leaves.
    Source,
}

/// The crashes: a node and a step.
const STEPS: &[(Victim, FailPoint)] = &[
    (Victim::Reconciler, FailPoint::StartMovePlanned),
    (Victim::Reconciler, FailPoint::StartMoveDone),
    (Victim::Reconciler, FailPoint::AddLearnerPlanned),
    (Victim::Leader, FailPoint::AddLearnerReceived),
    (Victim::Leader, FailPoint::AddLearnerDone),
    (Victim::Target, FailPoint::ReplicaMade),
    (Victim::Target, FailPoint::SnapshotStaged),
    (Victim::Target, FailPoint::SnapshotInstalled),
    (Victim::Leader, FailPoint::TransferLeaderReceived),
    (Victim::Leader, FailPoint::TransferLeaderDone),
    (Victim::Reconciler, FailPoint::ChangeVotersPlanned),
    (Victim::Leader, FailPoint::ChangeVotersReceived),
    (Victim::Leader, FailPoint::JointChangeApplied),
    (Victim::Target, FailPoint::JointChangeApplied),
    (Victim::Leader, FailPoint::ChangeVotersDone),
    (Victim::Reconciler, FailPoint::FinishMovePlanned),
    (Victim::Reconciler, FailPoint::FinishMoveDone),
    (Victim::Source, FailPoint::ReplicaLeaves),
    (Victim::Source, FailPoint::TombstoneWritten),
    (Victim::Reconciler, FailPoint::FinishOperationPlanned),
    (Victim::Reconciler, FailPoint::FinishOperationDone),
];

/// Steps that a move does not reach reliably, and the steps of every write. A new fail point must
/// be rare, or be added here or to the table.
fn is_excluded(point: FailPoint) -> bool {
    use FailPoint::*;
    let is_of_writes = matches!(
        point,
        SnapshotWritten
            | AppendUnwritten
            | AppendWritten
            | EntriesUnapplied
            | EntriesApplied
            | VoteUnwritten
            | VoteWritten
            | VoteSaved
            | StateFlushed
            | PurgeUnwritten
            | PurgeWritten
    );
    point.is_rare() || is_of_writes
}

#[test]
fn every_fail_point_is_in_the_table_or_excluded() {
    for point in FailPoint::ALL {
        let listed = STEPS.iter().any(|(_, step)| step == point);
        assert_ne!(listed, is_excluded(*point), "{point}");
    }
}

struct Lab {
    cluster: Cluster,
    points: PathBuf,
    _dir: tempfile::TempDir,
}

impl Lab {
    async fn start(nodes: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let points = dir.path().join("points");
        let environment = vec![("QUORATE_FAIL_POINTS".to_owned(), points.display().to_string())];
        let options = ClusterOptions { nodes, shards: SHARDS, environment, ..ClusterOptions::default() };
        Ok(Lab { cluster: Cluster::start(options).await?, points, _dir: dir })
    }

    async fn write(&self, round: usize) -> anyhow::Result<()> {
        let client = self.cluster.client(PATIENCE).await?;
        let mut writes = tokio::task::JoinSet::new();
        let keys = if round == 0 { KEYS } else { 50 };
        for key in 0..keys {
            let client = client.clone();
            writes.spawn(async move { client.put(format!("key-{key}"), format!("round {round}")).await });
            if writes.len() >= 4 {
                writes.join_next().await.context("a write is in progress")???;
            }
        }
        while let Some(write) = writes.join_next().await {
            write??;
        }
        Ok(())
    }

    async fn status(&self, number: usize) -> Option<NodeStatus> {
        admin(&self.cluster.endpoint(number), ASK).await.ok()?.node(ASK).await.ok()
    }

    /// The number of the node with this id.
    async fn numbered(&self, id: u64) -> anyhow::Result<usize> {
        for number in 1..=self.cluster.len() {
            if self.status(number).await.is_some_and(|status| status.id == id) {
                return Ok(number);
            }
        }
        anyhow::bail!("no node has the id {id}")
    }

    async fn leader(&self, group: u32) -> anyhow::Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for number in 1..=self.cluster.len() {
                let Some(status) = self.status(number).await else { continue };
                if status.replicas.iter().any(|replica| replica.group == group && replica.leader == status.id) {
                    return Ok(status.id);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("group {group} has no leader")
    }

    async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        let output = run_cli(&self.cluster.endpoints(), &arguments).await?;
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The ids of the nodes that have a replica of shard 1.
    async fn replicas(&self) -> anyhow::Result<BTreeSet<u64>> {
        self.replicas_of(1).await
    }

    async fn replicas_of(&self, shard: u32) -> anyhow::Result<BTreeSet<u64>> {
        let shard = self.json(&["shard", "show", &shard.to_string()]).await?;
        let replicas = shard["replicas"].as_array().context("a list of replicas")?;
        replicas.iter().map(|at| Ok(at["node"].as_str().context("a node")?.parse()?)).collect()
    }

    /// Moves a replica of shard 1 and crashes the victim at the step. Returns whether the step was
    /// reached.
    async fn run(&mut self, victim: Victim, step: FailPoint) -> anyhow::Result<bool> {
        let has = self.replicas().await?;
        let target = (1..=4).find(|id| !has.contains(id)).context("one node has no replica")?;
        let (leader, reconciler) = (self.leader(1).await?, self.leader(0).await?);
        // A leader that leaves transfers its leadership first. In the other steps it must crash as
        // the leader.
        let leaves = step.name().starts_with("transfer-leader");
        let source = *has.iter().find(|id| (**id == leader) == leaves).context("a shard has three replicas")?;
        let victim_id = match victim {
            Victim::Reconciler => reconciler,
            Victim::Leader => leader,
            Victim::Target => target,
            Victim::Source => source,
        };
        let number = self.numbered(victim_id).await?;
        // A new replica needs a snapshot if its leader has purged the first entries.
        for number in 1..=4 {
            admin(&self.cluster.endpoint(number), PATIENCE)
                .await?
                .compact_logs(CompactLogsRequest {}, PATIENCE)
                .await?;
        }
        let pid = self.cluster.pid(number).context("the victim is running")?;
        std::fs::write(&self.points, format!("{pid} {step}"))?;
        let (from, to) = (source.to_string(), target.to_string());
        let arguments = ["shard", "move", "1", "--from", &from, "--to", &to, "--yes", "--no-wait"];
        let started = run_cli(&self.cluster.endpoints(), &arguments).await?;
        let said = String::from_utf8_lossy(&started.stderr).into_owned();
        // The node that received the command may be the one that crashed.
        let deadline = Instant::now() + PATIENCE;
        let mut died = false;
        while Instant::now() < deadline {
            let done = self.replicas().await.is_ok_and(|has| has.contains(&target) && !has.contains(&source));
            let ended = done && self.at_rest().await;
            // Checked last: the victim may crash, and another node finish its work, during the
            // query above.
            died = self.cluster.has_died(number)?;
            if died || ended {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::fs::write(&self.points, "")?;
        if died {
            // The other nodes continue without it for a while.
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.cluster.restart(number).await?;
        }
        let moved = eventually("the move is done", PATIENCE, || async {
            self.at_rest().await && self.replicas().await.is_ok_and(|has| has.contains(&target))
        });
        if let Err(error) = moved.await {
            let list = self.json(&["op", "list"]).await?;
            return Err(error.context(format!("{said}\n{list}\n{}", self.cluster.log_tail(number))));
        }
        Ok(died)
    }

    async fn at_rest(&self) -> bool {
        let Ok(list) = self.json(&["op", "list"]).await else { return false };
        list["items"]
            .as_array()
            .is_some_and(|operations| operations.iter().all(|operation| operation["state"] == "done"))
    }

    /// Checks that each shard has three equal replicas, and no others.
    async fn check(&self) -> anyhow::Result<()> {
        let whole = eventually("every shard has three replicas, and no orphan", PATIENCE, || async {
            let mut held = 0;
            for number in 1..=4 {
                let Some(status) = self.status(number).await else { return false };
                held += status.replicas.iter().filter(|replica| replica.group != 0).count();
            }
            held == 3 * SHARDS as usize
        });
        whole.await?;
        let verified = run_cli(&self.cluster.endpoints(), &["shard", "verify", "--deadline", "30s"]).await?;
        ensure!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn move_completes_after_a_crash_at_every_step() -> anyhow::Result<()> {
    let mut lab = Lab::start(4).await?;
    lab.write(0).await?;
    let mut missed = Vec::new();
    for (round, (victim, step)) in STEPS.iter().enumerate() {
        let died = lab.run(*victim, *step).await.with_context(|| format!("{victim:?} crashes at {step}"))?;
        lab.write(round + 1).await.with_context(|| format!("writes after {victim:?} crashed at {step}"))?;
        lab.check().await.with_context(|| format!("after {victim:?} crashed at {step}"))?;
        println!("{victim:?} at {step}: {}", if died { "crashed" } else { "step not reached" });
        if !died {
            missed.push((victim, step));
        }
    }
    ensure!(missed.len() <= MISSED_MAX, "steps that were not reached: {missed:?}");
    Ok(())
}

/// A move to a node that died is planned again to another node. Such a move once waited forever.
#[tokio::test(flavor = "multi_thread")]
async fn move_to_a_dead_node_is_planned_again() -> anyhow::Result<()> {
    let mut lab = Lab::start(5).await?;
    lab.write(0).await?;
    let first = lab.replicas().await?;
    let new = (1..=5).find(|id| !first.contains(id)).context("two nodes have no replica of shard 1")?;
    let old = *first.first().context("a shard has replicas")?;
    let before: Vec<BTreeSet<u64>> = vec![first, lab.replicas_of(2).await?];
    let number = lab.numbered(new).await?;
    let pid = lab.cluster.pid(number).context("the new node is running")?;
    std::fs::write(&lab.points, format!("{pid} {}", FailPoint::ReplicaMade))?;
    let arguments = ["node", "replace", &old.to_string(), "--with", &new.to_string(), "--yes", "--no-wait"];
    let started = run_cli(&lab.cluster.endpoints(), &arguments).await?;
    ensure!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let deadline = Instant::now() + PATIENCE;
    while !lab.cluster.has_died(number)? {
        ensure!(Instant::now() < deadline, "the new node created no replica");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eventually("the operation completes without the dead node", PATIENCE, || lab.at_rest()).await?;
    for (shard, had) in (1..).zip(before) {
        let has = lab.replicas_of(shard).await?;
        ensure!(has.len() == 3 && !has.contains(&old), "shard {shard} is on {has:?}");
        ensure!(!has.contains(&new) || had.contains(&new), "shard {shard} moved to the dead node: {has:?}");
    }
    lab.write(1).await
}
