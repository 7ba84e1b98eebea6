//! Faults of the network: rules that several faults combine, and partitions that flap.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, Rules};

/// The times for which a flapping partition keeps its state, in milliseconds: shorter and longer
/// than an election.
const FLAP_MS: &[u64] = &[100, 300, 700, 1500];

/// The cancellation of a flapping partition, and its task.
type Flap = (CancellationToken, JoinHandle<anyhow::Result<()>>);

/// The rules that each active fault wants, and the rules in force.
#[derive(Default)]
struct Links {
    wanted: BTreeMap<u64, Rules>,
    in_force: Rules,
}

/// The faults of the network.
pub(super) struct NetworkFaults {
    cluster: Arc<Cluster>,
    links: tokio::sync::Mutex<Links>,
    flaps: Mutex<BTreeMap<u64, Flap>>,
}

impl NetworkFaults {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        NetworkFaults { cluster, links: tokio::sync::Mutex::default(), flaps: Mutex::default() }
    }

    /// Sets or removes the rules of one fault.
    pub(super) async fn set(&self, id: u64, rules: Option<Rules>) -> anyhow::Result<()> {
        let mut links = self.links.lock().await;
        match rules {
            Some(rules) => links.wanted.insert(id, rules),
            None => links.wanted.remove(&id),
        };
        let mut all = Rules::default();
        links.wanted.values().for_each(|rules| all.merge(rules));
        self.cluster.network().change(&links.in_force, &all).await?;
        links.in_force = all;
        Ok(())
    }

    /// The number of links that are cut now.
    pub(super) async fn cut_links(&self) -> usize {
        self.links.lock().await.in_force.cut.len()
    }

    /// Removes and restores the rules of a fault repeatedly, until
    /// [`NetworkFaults::stop_flapping`].
    pub(super) fn flap(self: &Arc<Self>, id: u64, rules: Rules) {
        let (this, stop) = (self.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut turn = usize::try_from(id).unwrap_or(0);
            loop {
                let pause = Duration::from_millis(FLAP_MS[turn % FLAP_MS.len()]);
                if stopped.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return Ok(());
                }
                turn += 1;
                let there = this.links.lock().await.wanted.contains_key(&id);
                this.set(id, (!there).then(|| rules.clone())).await?;
            }
        });
        self.flaps().insert(id, (stop, task));
    }

    /// Stops the flapping of a fault, if it flaps.
    pub(super) async fn stop_flapping(&self, id: u64) -> anyhow::Result<()> {
        let flap = self.flaps().remove(&id);
        let Some((stop, task)) = flap else { return Ok(()) };
        stop.cancel();
        task.await?
    }

    /// Removes the rules of all faults.
    pub(super) async fn heal_all(&self) -> anyhow::Result<()> {
        let flapping: Vec<u64> = self.flaps().keys().copied().collect();
        for id in flapping {
            self.stop_flapping(id).await?;
        }
        let mut links = self.links.lock().await;
        links.wanted.clear();
        if !links.in_force.is_empty() {
            self.cluster.network().change(&links.in_force, &Rules::default()).await?;
            links.in_force = Rules::default();
        }
        Ok(())
    }

    fn flaps(&self) -> MutexGuard<'_, BTreeMap<u64, Flap>> {
        self.flaps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
