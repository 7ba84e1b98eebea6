//! Where codes lead, remembered in this process for a while.
//!
//! Many requests for the same code that is not cached make one lookup (single-flight). Only links are remembered, never their
//! absence: a link must work as soon as its creation is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache as Moka;
use quorate_client::ReadLevel;

use crate::links::{LinkError, Links};
use crate::{CODE_CHARS, Code};

/// What the cache may hold, in bytes of codes and targets with [`ENTRY_OVERHEAD_BYTES`] for each.
const CACHE_BYTES_MAX: u64 = 64 << 20;
/// What the cache itself keeps for an entry, about.
const ENTRY_OVERHEAD_BYTES: usize = 160;
/// How long a link is served from the cache: how long a link that was removed from the store may still work here. Browsers
/// are told the same.
pub(crate) const CACHE_TTL: Duration = Duration::from_secs(60);

/// Links of a store, and a bounded memory of them.
pub(crate) struct Cache<L> {
    links: L,
    memory: Moka<Code, Arc<str>>,
}

/// Why there is nowhere to redirect to.
#[derive(Clone, Debug)]
pub(crate) enum Miss {
    /// A linearizable read found no such link.
    Absent,
    /// The store did not answer.
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

    /// Where a code leads: from memory, else from the nearest replica, else from the shard's leader, which alone can say
    /// that there is no such link.
    pub(crate) async fn target(&self, code: Code) -> Result<Arc<str>, Miss> {
        self.memory.try_get_with(code, self.read(code)).await.map_err(|miss| Miss::clone(&miss))
    }

    async fn read(&self, code: Code) -> Result<Arc<str>, Miss> {
        // A replica that does not answer is no reason to give up: the leader may.
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

    /// The nearest replica lags: the leader is asked before the answer is "no such link".
    #[tokio::test]
    async fn a_lagging_replica_does_not_hide_a_link() {
        let links = MemoryLinks::default();
        links.insert("aaaaaaa", "http://example.org/");
        links.hide_from_eventual(true);
        let cache = Cache::new(links);
        assert_eq!(&*cache.target(code("aaaaaaa")).await.unwrap(), "http://example.org/");
        assert_eq!(cache.links().lookups(), [ReadLevel::Eventual, ReadLevel::Strong]);
    }

    /// Absence is not remembered: a link made a moment later works at once.
    #[tokio::test]
    async fn an_absent_code_is_asked_for_again() {
        let cache = Cache::new(MemoryLinks::default());
        assert!(matches!(cache.target(code("aaaaaaa")).await, Err(Miss::Absent)));
        cache.links().insert("aaaaaaa", "http://example.org/");
        assert_eq!(&*cache.target(code("aaaaaaa")).await.unwrap(), "http://example.org/");
    }

    /// A failing store is an error and never "no such link"; what is cached is served all the same.
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
