//! Links in memory, with failures that tests inject.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use quorate_client::ReadLevel;

use super::{Created, LinkError, Links};
use crate::Code;

/// A store in memory. Cheap to clone: clones share everything.
#[derive(Clone, Default)]
pub(crate) struct MemoryLinks(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    links: HashMap<Code, Arc<str>>,
    lookups: Vec<ReadLevel>,
    creates: usize,
    failure: Option<LinkError>,
    replies_to_lose: usize,
    eventual_is_blind: bool,
}

impl MemoryLinks {
    pub(crate) fn insert(&self, code: &str, target: &str) {
        self.0.lock().unwrap().links.insert(code.parse().unwrap(), target.into());
    }

    pub(crate) fn get(&self, code: &str) -> Option<Arc<str>> {
        self.0.lock().unwrap().links.get(&code.parse().unwrap()).cloned()
    }

    /// From now on all requests fail with this error, and none is applied.
    pub(crate) fn fail(&self, failure: Option<LinkError>) {
        self.0.lock().unwrap().failure = failure;
    }

    /// The next writes are applied, but their outcome is reported as unknown.
    pub(crate) fn lose_replies(&self, count: usize) {
        self.0.lock().unwrap().replies_to_lose = count;
    }

    /// Eventual reads find no link, as from a lagging replica.
    pub(crate) fn hide_from_eventual(&self, hide: bool) {
        self.0.lock().unwrap().eventual_is_blind = hide;
    }

    pub(crate) fn lookups(&self) -> Vec<ReadLevel> {
        self.0.lock().unwrap().lookups.clone()
    }

    pub(crate) fn creates(&self) -> usize {
        self.0.lock().unwrap().creates
    }
}

impl Links for MemoryLinks {
    async fn create(&self, code: Code, target: &str) -> Result<Created, LinkError> {
        let mut state = self.0.lock().unwrap();
        state.creates += 1;
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if state.links.contains_key(&code) {
            return Ok(Created::Taken);
        }
        state.links.insert(code, target.into());
        if state.replies_to_lose > 0 {
            state.replies_to_lose -= 1;
            return Err(LinkError::Unknown { reason: "the reply was lost".into() });
        }
        Ok(Created::Done)
    }

    async fn lookup(&self, code: Code, level: ReadLevel) -> Result<Option<Arc<str>>, LinkError> {
        // Lets concurrent callers arrive before this lookup ends.
        tokio::task::yield_now().await;
        let mut state = self.0.lock().unwrap();
        state.lookups.push(level);
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let hidden = state.eventual_is_blind && level == ReadLevel::Eventual;
        Ok(if hidden { None } else { state.links.get(&code).cloned() })
    }

    async fn probe(&self) -> Result<(), LinkError> {
        self.0.lock().unwrap().failure.clone().map_or(Ok(()), Err)
    }
}
