//! The schedule of faults, chosen by a seed: one fault after the other, or one of each class at a
//! time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fault::{Class, Fault};
use super::lifecycle::{Nemesis, Outcome};

/// The pause between two looks for nodes that ended by themselves.
const POLL: Duration = Duration::from_millis(200);
/// The longest time for which overlapping faults may leave shards without a quorum.
const QUORUM_LOST_MAX: Duration = Duration::from_secs(3);

/// The faults of a run and their timing.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The faults. Each is installed once in a random order, then once more in another order, and
    /// so on.
    pub faults: Vec<Fault>,
    /// The pause after a fault was healed.
    pub gap: Range<Duration>,
    /// The duration of a fault.
    pub hold: Range<Duration>,
    /// The seed of every choice. It determines the faults, but not the behaviour of the cluster:
    /// two runs of one seed differ.
    pub seed: u64,
    /// Whether faults of different classes overlap. Each class then has its own sequence of faults.
    pub overlap: bool,
}

/// The results of a schedule, by the names of the faults.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// How often each fault was installed.
    pub installed: BTreeMap<String, u64>,
    /// How often each fault was skipped or unable, and the last reason.
    pub skipped: BTreeMap<String, (u64, String)>,
    /// How often each injection failed halfway, and the last error.
    pub indeterminate: BTreeMap<String, (u64, String)>,
    /// The errors of healing. Any error is a failure of the harness.
    pub not_healed: Vec<String>,
}

impl Schedule {
    /// Installs and heals faults until `stop` is cancelled; heals the active ones then. Does not
    /// wait until the cluster is healthy: [`Nemesis::settle`] does.
    pub async fn run(self, nemesis: Arc<Nemesis>, stop: CancellationToken) -> Summary {
        let mut lanes: BTreeMap<Option<Class>, Vec<Fault>> = BTreeMap::new();
        for fault in &self.faults {
            lanes.entry(self.overlap.then(|| fault.class())).or_default().push(*fault);
        }
        let mut running = JoinSet::new();
        for (number, faults) in (0_u64..).zip(lanes.into_values()) {
            let rng = StdRng::seed_from_u64(self.seed.wrapping_add(number));
            running.spawn(lane(nemesis.clone(), self.clone(), faults, rng, stop.clone()));
        }
        let restarting = tokio::spawn(restart_fallen(nemesis, stop));
        let mut summary = Summary::default();
        while let Some(lane) = running.join_next().await {
            match lane {
                Ok(lane) => summary.add(lane),
                Err(error) => summary.not_healed.push(format!("a schedule ended: {error}")),
            }
        }
        if let Err(error) = restarting.await {
            summary.not_healed.push(format!("the task that restarts nodes ended: {error}"));
        }
        summary
    }
}

/// Restarts nodes that ended by themselves, until `stop` is cancelled.
async fn restart_fallen(nemesis: Arc<Nemesis>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(POLL)).await.is_some() {
        if let Err(error) = nemesis.restart_fallen().await {
            eprintln!("nemesis: {error:#}");
        }
    }
}

/// Installs and heals one fault after the other.
async fn lane(
    nemesis: Arc<Nemesis>,
    schedule: Schedule,
    faults: Vec<Fault>,
    mut rng: StdRng,
    stop: CancellationToken,
) -> Summary {
    let mut summary = Summary::default();
    let mut left: Vec<Fault> = Vec::new();
    while stop.run_until_cancelled(tokio::time::sleep(within(&schedule.gap, &mut rng))).await.is_some() {
        if left.is_empty() {
            left = faults.clone();
            left.shuffle(&mut rng);
        }
        let Some(fault) = left.pop() else { break };
        let hold = within(&schedule.hold, &mut rng);
        // Each fault has its own random numbers, so that its plan does not depend on the fate of
        // earlier faults.
        let mut own = StdRng::seed_from_u64(rng.random());
        match nemesis.install(fault, &mut own).await {
            Outcome::Installed(active) => {
                *summary.installed.entry(fault.name()).or_default() += 1;
                let hold = active.duration().unwrap_or(hold);
                let hold = if schedule.overlap && active.quorum_lost() { hold.min(QUORUM_LOST_MAX) } else { hold };
                stop.run_until_cancelled(tokio::time::sleep(hold)).await;
                if let Err(error) = nemesis.heal(active).await {
                    summary.not_healed.push(format!("{error:#}"));
                }
            }
            Outcome::Skipped { why } | Outcome::Unable { why } => count(&mut summary.skipped, fault, why),
            Outcome::Indeterminate { why } => count(&mut summary.indeterminate, fault, why),
        }
    }
    summary
}

fn within(range: &Range<Duration>, rng: &mut StdRng) -> Duration {
    if range.is_empty() { range.start } else { rng.random_range(range.clone()) }
}

fn count(counts: &mut BTreeMap<String, (u64, String)>, fault: Fault, why: String) {
    let entry = counts.entry(fault.name()).or_default();
    *entry = (entry.0 + 1, why);
}

impl Summary {
    fn add(&mut self, other: Summary) {
        for (name, times) in other.installed {
            *self.installed.entry(name).or_default() += times;
        }
        for (mine, others) in [(&mut self.skipped, other.skipped), (&mut self.indeterminate, other.indeterminate)] {
            for (name, (times, why)) in others {
                let entry = mine.entry(name).or_default();
                *entry = (entry.0 + times, why);
            }
        }
        self.not_healed.extend(other.not_healed);
    }
}
