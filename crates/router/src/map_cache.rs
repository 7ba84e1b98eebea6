//! The cache of the cluster's map.
//!
//! The map is a hint: it is fetched once and used until it proves wrong. Many operations find that
//! out together, so only one fetch runs at a time, and fetches are limited in rate.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::stream::{FuturesUnordered, StreamExt};
use quorate_ring::ArcError;
use quorate_types::ClusterId;
use quorate_types::topology::{ShardInfo, Topology};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use crate::deadline::Deadline;
use crate::map::Map;
use crate::randomness::Randomness;
use crate::{Error, Network, RouterConfig};

/// The shortest time between two fetches that operations cause.
const REFRESH_INTERVAL: Duration = Duration::from_millis(200);
/// One more endpoint is asked each time that this has passed without an answer.
const STAGGER: Duration = Duration::from_millis(100);
/// The most endpoints that one fetch asks.
const ENDPOINTS_MAX: usize = 16;

/// The current map, and the network it is fetched from.
pub(crate) struct MapCache {
    config: RouterConfig,
    network: Arc<dyn Network>,
    current: ArcSwapOption<Map>,
    /// The end of the last fetch. Locked while a fetch runs.
    fetched: tokio::sync::Mutex<Option<Instant>>,
    /// Locked while the current map is replaced.
    replacing: Mutex<()>,
    /// The source of jitter.
    pub(crate) randomness: Randomness,
}

/// The reason why a fetched topology cannot become the current map.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it belongs to another cluster ({theirs}, not {ours})")]
    OtherCluster { ours: ClusterId, theirs: ClusterId },
    #[error("its map is unusable: {0}")]
    Arcs(#[from] ArcError),
}

impl MapCache {
    pub(crate) fn new(config: RouterConfig, network: Arc<dyn Network>, seed: u64) -> Self {
        Self {
            config,
            network,
            current: ArcSwapOption::empty(),
            fetched: tokio::sync::Mutex::default(),
            replacing: Mutex::default(),
            randomness: Randomness::new(seed),
        }
    }

    /// The map, if there is one.
    pub(crate) fn load(&self) -> Option<Arc<Map>> {
        self.current.load_full()
    }

    /// The current map. Fetches the first one.
    pub(crate) async fn get(&self, deadline: Deadline) -> Result<Arc<Map>, Error> {
        if let Some(map) = self.load() {
            return Ok(map);
        }
        let mut fetched = self.lock(deadline).await?;
        if let Some(map) = self.load() {
            return Ok(map);
        }
        let map = self.ask(deadline).await;
        *fetched = Some(Instant::now());
        map
    }

    /// Fetches the map now, even if there is one.
    pub(crate) async fn fetch(&self, deadline: Deadline) -> Result<Arc<Map>, Error> {
        let mut fetched = self.lock(deadline).await?;
        let map = self.ask(deadline).await;
        *fetched = Some(Instant::now());
        map
    }

    /// Looks for a newer map than `seen`, which proved wrong. Returns whether there is one now.
    pub(crate) async fn refresh(&self, seen: &Arc<Map>, deadline: Deadline) -> bool {
        let is_newer = || self.load().is_some_and(|map| !Arc::ptr_eq(&map, seen));
        let Ok(mut fetched) = self.lock(deadline).await else { return is_newer() };
        let too_soon = fetched.is_some_and(|last| last.elapsed() < REFRESH_INTERVAL);
        if !is_newer() && !too_soon {
            if let Err(error) = self.ask(deadline).await {
                debug!(%error, "map not refreshed");
            }
            *fetched = Some(Instant::now());
        }
        is_newer()
    }

    /// Merges a shard's entry that a node returned, if it is newer. Returns whether it is.
    pub(crate) fn merge(&self, entry: ShardInfo) -> bool {
        let _replacing = self.replacing.lock().expect("only a broken invariant poisons this lock");
        let next = self.load().and_then(|map| map.with_entry(entry, &self.config, &*self.network));
        let is_newer = next.is_some();
        if let Some(next) = next {
            self.current.store(Some(Arc::new(next)));
        }
        is_newer
    }

    async fn lock(&self, deadline: Deadline) -> Result<tokio::sync::MutexGuard<'_, Option<Instant>>, Error> {
        timeout_at(deadline.at, self.fetched.lock())
            .await
            .map_err(|_| Error::Unreachable { reason: format!("no map of the cluster within {deadline}") })
    }

    /// Asks endpoints until one returns the map. Starts with one endpoint and adds another one
    /// every [`STAGGER`].
    async fn ask(&self, deadline: Deadline) -> Result<Arc<Map>, Error> {
        let addresses = self.addresses();
        // An endpoint that takes longer than a connection may take is unlikely to answer.
        let within = self.config.connect_timeout.min(deadline.left());
        let mut answers: FuturesUnordered<_> = addresses
            .iter()
            .zip(0..)
            .map(|(address, place)| async move {
                sleep(STAGGER * place).await;
                (address, self.network.topology(address, within).await)
            })
            .collect();
        let mut tried = Vec::new();
        while let Some((address, answer)) = answers.next().await {
            let reason = match answer.map(|topology| self.adopt(topology)) {
                Ok(Ok(map)) => return Ok(map),
                Ok(Err(unusable)) => unusable.to_string(),
                Err(unavailable) => unavailable.to_string(),
            };
            tried.push(format!("{address}: {reason}"));
        }
        Err(Error::Unreachable { reason: format!("no endpoint returned the cluster's map ({})", tried.join("; ")) })
    }

    /// The known nodes in random order, then the configured endpoints.
    fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<String> =
            self.load().map_or_else(Vec::new, |map| map.addresses().map(ToOwned::to_owned).collect());
        self.randomness.shuffle(&mut addresses);
        addresses.truncate(ENDPOINTS_MAX);
        for endpoint in &self.config.endpoints {
            let endpoint = endpoint.to_string();
            if addresses.len() < ENDPOINTS_MAX && !addresses.contains(&endpoint) {
                addresses.push(endpoint);
            }
        }
        addresses
    }

    /// Makes a topology the current map, unless the current one is as new.
    fn adopt(&self, topology: Topology) -> Result<Arc<Map>, Unusable> {
        let _replacing = self.replacing.lock().expect("only a broken invariant poisons this lock");
        let current = self.load();
        if let Some(current) = &current {
            let (ours, theirs) = (current.topology().cluster.id, topology.cluster.id);
            if ours != theirs {
                return Err(Unusable::OtherCluster { ours, theirs });
            }
            if topology.revision <= current.topology().revision {
                return Ok(Arc::clone(current));
            }
        }
        let map = Arc::new(Map::new(topology, current.as_deref(), &self.config, &*self.network)?);
        self.current.store(Some(Arc::clone(&map)));
        Ok(map)
    }
}
