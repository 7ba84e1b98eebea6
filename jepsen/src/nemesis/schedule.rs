//! Which fault when: one after the other, or one of each class at the same time; by a seed.

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

use super::{Class, Fault, Nemesis, Outcome};

/// The longest time for which faults together may leave shards without a quorum.
const QUORUM_LOST_MAX: Duration = Duration::from_secs(3);

/// Which faults a run has, and how often.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Each comes by once in a random order, then again in another.
    pub faults: Vec<Fault>,
    /// How long the cluster is left alone after a fault was healed.
    pub gap: Range<Duration>,
    /// How long a fault lasts.
    pub hold: Range<Duration>,
    /// Whatever is chosen is chosen by this. (What the cluster does in between is not: the same seed gives the same faults, not
    /// the same run.)
    pub seed: u64,
    /// Faults of different classes at the same time, each class at its own pace.
    pub overlap: bool,
}

/// What a schedule has done, by the names of the faults.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// How often each was there.
    pub installed: BTreeMap<String, u64>,
    /// How often each could not be made, and the last reason.
    pub skipped: BTreeMap<String, (u64, String)>,
    /// How often each went wrong half way, and the last reason.
    pub indeterminate: BTreeMap<String, (u64, String)>,
    /// What could not be taken away. Not empty means that the harness has failed.
    pub not_healed: Vec<String>,
}

impl Schedule {
    /// Breaks the cluster until it is told to stop, then takes away what is there. It does not wait until the cluster is well
    /// again: that is [`Nemesis::settle`].
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
        let tending = tokio::spawn(tend(nemesis, stop));
        let mut summary = Summary::default();
        while let Some(lane) = running.join_next().await {
            match lane {
                Ok(lane) => summary.add(lane),
                Err(error) => summary.not_healed.push(format!("a schedule ended: {error}")),
            }
        }
        if let Err(error) = tending.await {
            summary.not_healed.push(format!("nobody looks after the nodes: {error}"));
        }
        summary
    }
}

/// Starts nodes that died, now and then.
async fn tend(nemesis: Arc<Nemesis>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(super::LOOK)).await.is_some() {
        if let Err(error) = nemesis.tend().await {
            eprintln!("nemesis: {error:#}");
        }
    }
}

/// One fault after the other.
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
        // Each fault draws from its own numbers: what one draws does not depend on how another one went.
        let mut own = StdRng::seed_from_u64(rng.random());
        match nemesis.install(fault, &mut own).await {
            Outcome::Installed(active) => {
                *summary.installed.entry(fault.name()).or_default() += 1;
                let hold = active.lasts().unwrap_or(hold);
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
