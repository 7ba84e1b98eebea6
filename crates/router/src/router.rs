//! The router: the handle that operations start from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quorate_types::topology::Topology;
use quorate_types::{Key, ReadLevel, Record, Served, Write};

use crate::map_cache::MapCache;
use crate::operation::Deadline;
use crate::{Error, RouterConfig, Written};

/// Sends operations to the replicas that serve them. Cheap to clone; clones share the map, the connections (one per node) and
/// the sessions (one per shard).
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
    /// A router that has not connected yet: the first operation, or [`Router::connect`], fetches the map.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no endpoint, or one that is not `host:port`.
    pub fn new(config: RouterConfig) -> Result<Self, Error> {
        config.check()?;
        Ok(Self { maps: Arc::new(MapCache::new(config)) })
    }

    /// Fetches the map from any endpoint, if there is none yet.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], naming what was tried, when no endpoint told it within that time.
    pub async fn connect(&self, within: Duration) -> Result<(), Error> {
        self.maps.get(Deadline::after(within)).await.map(drop)
    }

    /// The map as it is cached; none before the first one was fetched.
    pub fn topology(&self) -> Option<Arc<Topology>> {
        self.maps.load().map(|map| Arc::clone(map.topology()))
    }

    /// Fetches the map now, whatever is cached, and returns the newest that is known then.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], naming what was tried, when no endpoint told it within that time.
    pub async fn refresh(&self, within: Duration) -> Result<Arc<Topology>, Error> {
        Ok(Arc::clone(self.maps.fetch(Deadline::after(within)).await?.topology()))
    }

    /// Reads a key at a level, within that time. See [`Error`] for what can go wrong; a read never applies anything.
    pub async fn get(&self, key: Key, level: ReadLevel, within: Duration) -> Result<Served<Option<Record>>, Error> {
        crate::read::get(self, key, level, Deadline::after(within)).await
    }

    /// Makes a change, within that time. When this returns `Ok` it is durable on a majority of the shard's replicas.
    ///
    /// When the future is dropped before it is done, the change may or may not be applied.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the condition did not hold; [`Error::Unknown`] when the change may or may not have been applied;
    /// any other when nothing was applied.
    pub async fn write(&self, write: Write, within: Duration) -> Result<Served<Written>, Error> {
        crate::write::write(self, write, Deadline::after(within)).await
    }
}
