//! A cache of links in this process.
//!
//! Concurrent requests for a code that is not cached share one lookup (single-flight). The absence
//! of a link is never cached, because a link must work as soon as its creation is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache as Moka;
use quorate_client::ReadLevel;

use crate::links::{LinkError, Links};
use crate::{CODE_CHARS, Code};

/// The size of the cache, in bytes of codes and targets plus [`ENTRY_OVERHEAD_BYTES`] for each.
const CACHE_BYTES_MAX: u64 = 64 << 20;
/// The approximate overhead of an entry.
const ENTRY_OVERHEAD_BYTES: usize = 160;
/// How long a link is served from the cache, and by browsers: a link that was removed from the
/// store may work that much longer.
pub(crate) const CACHE_TTL: Duration = Duration::from_secs(60);

/// The links of a store, with a bounded cache.
pub(crate) struct Cache<L> {
    links: L,
    memory: Moka<Code, Arc<str>>,
}

/// The reason why a code has no target.
#[derive(Clone, Debug)]
pub(crate) enum Miss {
    /// A linearizable read found no such link.
    Absent,
    /// The store failed.
    Failed(LinkError),
}

impl<L: Links> Cache<L> {
    pub(crate) fn new(links: L) -> Self {
        let memory = Moka::builder()
            .max_capacity(CACHE_BYTES_MAX)
            .weigher(|_: &Code, target: &Arc<str>| weight(target))
            .time_to_live(CACHE_TTL)
            .build();
        Cache { links, memory }
    }

    /// The store itself.
    pub(crate) fn links(&self) -> &L {
        &self.links
    }

    /// The target of a code: from the cache, else from the nearest replica, else from the shard's
    /// leader. Only the leader can tell that there is no such link.
    pub(crate) async fn target(&self, code: Code) -> Result<Arc<str>, Miss> {
        self.memory.try_get_with(code, self.read(code)).await.map_err(|miss| Miss::clone(&miss))
    }

    async fn read(&self, code: Code) -> Result<Arc<str>, Miss> {
        // If the replica does not respond, the leader may.
        if let Ok(Some(target)) = self.links.lookup(code, ReadLevel::Eventual).await {
            return Ok(target);
        }
        match self.links.lookup(code, ReadLevel::Strong).await {
            Ok(Some(target)) => Ok(target),
            Ok(None) => Err(Miss::Absent),
            Err(error) => Err(Miss::Failed(error)),
        }
    }
}

fn weight(target: &str) -> u32 {
    u32::try_from(CODE_CHARS + target.len() + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::memory::MemoryLinks;

    fn code(text: &str) -> Code {
        text.parse().unwrap()
    }

    /// A thousand requests for one cold code read the store once.
    #[tokio::test]
    async fn concurrent_misses_share_one_lookup() {
        let links = MemoryLinks::default();
        links.insert("aaaaaaa", "http://example.org/");
        let cache = Arc::new(Cache::new(links));
        let waiting: Vec<_> = (0..1_000)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { cache.target(code("aaaaaaa")).await.unwrap() })
            })
            .collect();
        for task in waiting {
            assert_eq!(&*task.await.unwrap(), "http://example.org/");
        }
        assert_eq!(cache.links().lookups(), [ReadLevel::Eventual]);
    }

    /// If the nearest replica lags, the leader is asked before the answer is "no such link".
    #[tokio::test]
    async fn a_lagging_replica_does_not_hide_a_link() {
        let links = MemoryLinks::default();
        links.insert("aaaaaaa", "http://example.org/");
        links.hide_from_eventual(true);
        let cache = Cache::new(links);
        assert_eq!(&*cache.target(code("aaaaaaa")).await.unwrap(), "http://example.org/");
        assert_eq!(cache.links().lookups(), [ReadLevel::Eventual, ReadLevel::Strong]);
    }

    /// Absence is not cached: a link that is created later works immediately.
    #[tokio::test]
    async fn an_absent_code_is_looked_up_again() {
        let cache = Cache::new(MemoryLinks::default());
        assert!(matches!(cache.target(code("aaaaaaa")).await, Err(Miss::Absent)));
        cache.links().insert("aaaaaaa", "http://example.org/");
        assert_eq!(&*cache.target(code("aaaaaaa")).await.unwrap(), "http://example.org/");
    }

    /// A failing store is an error and never "no such link"; cached links are still served.
    #[tokio::test]
    async fn an_unreachable_store_is_not_an_absent_link() {
        let links = MemoryLinks::default();
        links.insert("aaaaaaa", "http://example.org/");
        let cache = Cache::new(links);
        cache.target(code("aaaaaaa")).await.unwrap();
        cache.links().fail(Some(LinkError::Unreachable { reason: "no route".into() }));
        assert!(cache.target(code("aaaaaaa")).await.is_ok());
        assert!(matches!(cache.target(code("bbbbbbb")).await, Err(Miss::Failed(LinkError::Unreachable { .. }))));
    }

    #[test]
    fn an_entry_weighs_more_than_its_bytes() {
        assert_eq!(weight("http://example.org/"), 7 + 19 + 160);
    }
}
