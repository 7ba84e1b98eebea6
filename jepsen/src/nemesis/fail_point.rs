//! Nodes that die at a named step of a write, an election, a snapshot or a move.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use quorate_testpoints::FailPoint;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use serde_json::{Value, json};

use super::ledger::Ledger;
use super::membership::{MembershipFaults, choose_move, purge_logs};
use super::repair::Repair;
use super::view::holds;
use crate::cluster::{Cluster, leaders_of};

/// The longest time until a node reaches the step.
const STEP_MAX: Duration = Duration::from_secs(15);
/// The pause between two looks whether the node has died.
const POLL: Duration = Duration::from_millis(2);

/// The node that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// The leader of the topology group, which runs the reconciler.
    Reconciler,
    /// The leader of the shard.
    Leader,
    /// The node that receives a replica.
    Target,
    /// The node that gives up its replica.
    Source,
    /// A follower of the shard.
    Holder,
}

/// The action that brings a node to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// A replica moves.
    Move,
    /// Clients write, which they do all the time.
    Load,
    /// The leadership is transferred to another replica.
    Transfer,
    /// The node purges its logs.
    Purge,
}

/// The steps at which a node can die, the node that reaches each step, and the cause.
const STEPS: &[(Victim, FailPoint, Cause)] = &[
    (Victim::Reconciler, FailPoint::StartMovePlanned, Cause::Move),
    (Victim::Reconciler, FailPoint::StartMoveDone, Cause::Move),
    (Victim::Reconciler, FailPoint::AddLearnerPlanned, Cause::Move),
    (Victim::Leader, FailPoint::AddLearnerReceived, Cause::Move),
    (Victim::Leader, FailPoint::AddLearnerDone, Cause::Move),
    (Victim::Target, FailPoint::ReplicaMade, Cause::Move),
    (Victim::Leader, FailPoint::SnapshotWritten, Cause::Move),
    (Victim::Target, FailPoint::SnapshotStaged, Cause::Move),
    (Victim::Target, FailPoint::SnapshotInstalled, Cause::Move),
    (Victim::Reconciler, FailPoint::ChangeVotersPlanned, Cause::Move),
    (Victim::Leader, FailPoint::ChangeVotersReceived, Cause::Move),
    (Victim::Leader, FailPoint::JointChangeApplied, Cause::Move),
    (Victim::Target, FailPoint::JointChangeApplied, Cause::Move),
    (Victim::Leader, FailPoint::ChangeVotersDone, Cause::Move),
    (Victim::Reconciler, FailPoint::FinishMovePlanned, Cause::Move),
    (Victim::Reconciler, FailPoint::FinishMoveDone, Cause::Move),
    (Victim::Source, FailPoint::ReplicaLeaves, Cause::Move),
    (Victim::Source, FailPoint::TombstoneWritten, Cause::Move),
    (Victim::Reconciler, FailPoint::FinishOperationPlanned, Cause::Move),
    (Victim::Reconciler, FailPoint::FinishOperationDone, Cause::Move),
    (Victim::Leader, FailPoint::AppendUnwritten, Cause::Load),
    (Victim::Leader, FailPoint::AppendWritten, Cause::Load),
    (Victim::Holder, FailPoint::AppendUnwritten, Cause::Load),
    (Victim::Holder, FailPoint::AppendWritten, Cause::Load),
    (Victim::Leader, FailPoint::EntriesUnapplied, Cause::Load),
    (Victim::Leader, FailPoint::EntriesApplied, Cause::Load),
    (Victim::Holder, FailPoint::EntriesApplied, Cause::Load),
    (Victim::Holder, FailPoint::VoteUnwritten, Cause::Transfer),
    (Victim::Holder, FailPoint::VoteWritten, Cause::Transfer),
    (Victim::Holder, FailPoint::VoteSaved, Cause::Transfer),
    (Victim::Holder, FailPoint::StateFlushed, Cause::Purge),
    (Victim::Holder, FailPoint::PurgeUnwritten, Cause::Purge),
    (Victim::Holder, FailPoint::PurgeWritten, Cause::Purge),
];

/// Arms and disarms fail points.
pub(super) struct FailPoints<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) ledger: &'a Ledger,
    pub(super) repair: &'a Repair,
}

impl FailPoints<'_> {
    fn membership(&self) -> MembershipFaults<'_> {
        MembershipFaults { cluster: self.cluster, repair: self.repair }
    }

    /// Arms a random step on the node that will reach it, and causes the node to reach it.
    pub(super) async fn die_at_step(&self, seed: u64) -> anyhow::Result<Value> {
        let mut rng = StdRng::seed_from_u64(seed);
        let admin = self.cluster.admin();
        let statuses = admin.statuses().await;
        let (victim, step, cause) = *STEPS.choose(&mut rng).context("there are steps")?;
        let chosen = choose_move(&statuses, &mut rng)?;
        let leaders = leaders_of(&statuses);
        let leader = leaders.get(&chosen.shard).copied();
        let number = match victim {
            Victim::Reconciler => leaders.get(&0).copied(),
            Victim::Leader => leader,
            Victim::Target => self.cluster.number_of(chosen.to),
            Victim::Source => self.cluster.number_of(chosen.from),
            Victim::Holder => {
                let holders = statuses.iter().filter(|(_, status)| holds(status, chosen.shard));
                holders.map(|(number, _)| *number).filter(|number| Some(*number) != leader).choose(&mut rng)
            }
        };
        let number = number.with_context(|| format!("no node is the {victim:?}"))?;
        if step.name().starts_with("snapshot") {
            purge_logs(self.cluster, &statuses.keys().copied().collect::<Vec<_>>()).await?;
        }
        self.ledger.records().excused.insert(number);
        self.cluster.processes().set_fail_point(number, step)?;
        match cause {
            Cause::Load => {}
            Cause::Move => self.membership().begin_move(&chosen).await?,
            Cause::Transfer => {
                let to = statuses.get(&number).context("no status of the node")?.id.to_string();
                // The command fails if the node dies during the transfer.
                admin.run(&["shard", "transfer-leader", &chosen.shard.to_string(), "--to", &to]).await?;
            }
            Cause::Purge => drop(admin.compact(number).await),
        }
        if !self.dies_at_step(number).await {
            self.ledger.records().excused.remove(&number);
            bail!("{victim:?} {number} did not die at {step}");
        }
        Ok(json!({ "step": step.name(), "victim": format!("{victim:?}"), "node": number, "shard": chosen.shard }))
    }

    /// Waits until a node has died; returns whether it died at its fail point.
    async fn dies_at_step(&self, number: usize) -> bool {
        let deadline = Instant::now() + STEP_MAX;
        while self.cluster.node(number).died().is_none() {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        self.cluster.node(number).died_at_fail_point()
    }

    /// Cuts a node's power right after its vote. The node aborts right after the vote, so that no
    /// later sync can make the vote durable by accident.
    pub(super) async fn cut_power_at_vote(&self, voter: usize, shard: u32, to: u64) -> anyhow::Result<Value> {
        self.cluster.processes().set_fail_point(voter, FailPoint::VoteSaved)?;
        let (shard, to) = (shard.to_string(), to.to_string());
        let transfer = ["shard", "transfer-leader", &shard, "--to", &to];
        let cut = async {
            ensure!(self.dies_at_step(voter).await, "node {voter} did not vote, or died for another reason");
            self.cluster.processes().power_cut(&[voter]).await
        };
        let (output, cut) = tokio::join!(self.cluster.admin().run(&transfer), cut);
        cut?;
        Ok(json!({ "lost power": [voter], "transfer": output?.code }))
    }

    /// Disarms the fail point, restarts the node that died, and waits until the move is done.
    pub(super) async fn undo(&self) -> anyhow::Result<Value> {
        self.cluster.processes().clear_fail_point()?;
        self.repair.restart_fallen().await?;
        let excused: Vec<usize> = self.ledger.records().excused.iter().copied().collect();
        self.ledger.withdraw_excuse(excused);
        self.membership().wait_for_operations().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps that no cause of this fault reaches reliably. A new fail point must be rare, or be added
    /// here or to the table.
    fn is_excluded(point: FailPoint) -> bool {
        point.is_rare() || matches!(point, FailPoint::TransferLeaderReceived | FailPoint::TransferLeaderDone)
    }

    #[test]
    fn every_fail_point_is_in_the_table_or_excluded() {
        for point in FailPoint::ALL {
            let listed = STEPS.iter().any(|(_, step, _)| step == point);
            assert_ne!(listed, is_excluded(*point), "{point}");
        }
    }
}
