//! The router's handle: the map, the connections and the sessions that all its operations share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quorate_types::topology::Topology;

use crate::deadline::Deadline;
use crate::map_cache::MapCache;
use crate::{Error, Network, RouterConfig};

/// Sends operations to the replicas that serve them. Cheap to clone: clones share the map, the
/// connections (one a node) and the sessions (one a shard).
///
/// Dropping the last clone closes the connections.
#[derive(Clone)]
pub struct Router {
    pub(crate) maps: Arc<MapCache>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("revision", &self.topology().map(|topology| topology.revision)).finish()
    }
}

impl Router {
    /// A router over a network. It connects to no node yet: [`Router::connect`] or the first
    /// operation fetches the map. The seed determines the jitter of pauses and the order in which
    /// nodes are asked for the map.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no endpoint.
    pub fn new(config: RouterConfig, network: Arc<dyn Network>, seed: u64) -> Result<Self, Error> {
        if config.endpoints.is_empty() {
            let reason = "no endpoint was given; name at least one as host:port".to_owned();
            return Err(Error::Invalid { reason });
        }
        Ok(Self { maps: Arc::new(MapCache::new(config, network, seed)) })
    }

    /// Fetches the map from any endpoint, if there is none yet.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], naming every endpoint and its failure, when none of them returned
    /// the map in time.
    pub async fn connect(&self, within: Duration) -> Result<(), Error> {
        self.maps.get(Deadline::after(within)).await.map(drop)
    }

    /// The cached map. None before the first one was fetched.
    pub fn topology(&self) -> Option<Arc<Topology>> {
        self.maps.load().map(|map| Arc::clone(map.topology()))
    }

    /// Fetches the map now, and returns the newer one of the fetched and the cached map.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], naming every endpoint and its failure, when none of them returned
    /// the map in time.
    pub async fn refresh(&self, within: Duration) -> Result<Arc<Topology>, Error> {
        Ok(Arc::clone(self.maps.fetch(Deadline::after(within)).await?.topology()))
    }
}
