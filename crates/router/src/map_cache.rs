//! Where the current map is kept, and how the next one is fetched.
//!
//! The map is a hint: it is fetched once and used until it proves wrong. Many operations find that out together, so fetching is
//! single-flight and limited in rate.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::stream::{FuturesUnordered, StreamExt};
use quorate_types::topology::{ShardInfo, Topology};
use rand::seq::SliceRandom;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use crate::admin::admin;
use crate::map::Map;
use crate::operation::Deadline;
use crate::{Error, RouterConfig};

/// Operations do not fetch the map again sooner than this after the last time.
const REFRESH_INTERVAL: Duration = Duration::from_millis(200);
/// The next endpoint is asked, too, when the ones before have not answered for this long.
const STAGGER: Duration = Duration::from_millis(100);
/// Endpoints that one fetch asks at most.
const ENDPOINTS_MAX: usize = 16;

/// The current map and where it comes from.
pub(crate) struct MapCache {
    config: RouterConfig,
    current: ArcSwapOption<Map>,
    /// When a fetch last ended; held while one runs.
    fetched: tokio::sync::Mutex<Option<Instant>>,
    /// Held while the current map is replaced.
    replacing: Mutex<()>,
}

impl MapCache {
    pub(crate) fn new(config: RouterConfig) -> Self {
        Self {
            config,
            current: ArcSwapOption::empty(),
            fetched: tokio::sync::Mutex::default(),
            replacing: Mutex::default(),
        }
    }

    /// The map, if there is one.
    pub(crate) fn load(&self) -> Option<Arc<Map>> {
        self.current.load_full()
    }

    /// The map; the first one is fetched.
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

    /// Fetches the map now.
    pub(crate) async fn fetch(&self, deadline: Deadline) -> Result<Arc<Map>, Error> {
        let mut fetched = self.lock(deadline).await?;
        let map = self.ask(deadline).await;
        *fetched = Some(Instant::now());
        map
    }

    /// Sees to a newer map than `seen`, which proved wrong, as far as that is possible now. Returns whether there is one.
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

    /// Takes over a shard's entry that a node told, if it is newer. Returns whether it is.
    pub(crate) fn merge(&self, entry: ShardInfo) -> bool {
        let _replacing = self.replacing.lock().expect("nothing panics under this lock");
        let next = self.load().and_then(|map| map.with_entry(entry, &self.config));
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

    /// Asks endpoints until one tells the map: all at once in the end, but one after the other as long as they answer.
    async fn ask(&self, deadline: Deadline) -> Result<Arc<Map>, Error> {
        let addresses = self.addresses();
        // An endpoint that takes longer than a connection may take will not be the one that answers.
        let within = self.config.connect_timeout.min(deadline.left());
        let mut answers: FuturesUnordered<_> = addresses
            .iter()
            .zip(0..)
            .map(|(address, place)| async move {
                sleep(STAGGER * place).await;
                (address, topology(address, within).await)
            })
            .collect();
        let mut tried = Vec::new();
        while let Some((address, answer)) = answers.next().await {
            match answer.and_then(|topology| self.adopt(topology)) {
                Ok(map) => return Ok(map),
                Err(reason) => tried.push(format!("{address}: {reason}")),
            }
        }
        Err(Error::Unreachable { reason: format!("no endpoint told the cluster's map ({})", tried.join("; ")) })
    }

    /// The nodes that are known, in any order, then the endpoints that were configured.
    fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<String> =
            self.load().map_or_else(Vec::new, |map| map.addresses().map(ToOwned::to_owned).collect());
        addresses.shuffle(&mut rand::rng());
        addresses.truncate(ENDPOINTS_MAX);
        for endpoint in &self.config.endpoints {
            if addresses.len() < ENDPOINTS_MAX && !addresses.contains(endpoint) {
                addresses.push(endpoint.clone());
            }
        }
        addresses
    }

    /// Makes a topology the current map, unless the current one is as new.
    fn adopt(&self, topology: Topology) -> Result<Arc<Map>, String> {
        let _replacing = self.replacing.lock().expect("nothing panics under this lock");
        let current = self.load();
        if let Some(current) = &current {
            let (mine, theirs) = (current.topology().cluster.id, topology.cluster.id);
            if mine != theirs {
                return Err(format!("it belongs to another cluster ({theirs}, not {mine})"));
            }
            if topology.revision <= current.topology().revision {
                return Ok(Arc::clone(current));
            }
        }
        let map = Map::new(topology, current.as_deref(), &self.config)
            .map_err(|error| format!("its map is unusable: {error}"))?;
        let map = Arc::new(map);
        self.current.store(Some(Arc::clone(&map)));
        Ok(map)
    }
}

async fn topology(address: &str, within: Duration) -> Result<Topology, String> {
    let client = admin(address, within).await.map_err(|error| error.reason().to_owned())?;
    client.topology(within).await.map_err(|error| error.reason().to_owned())
}
