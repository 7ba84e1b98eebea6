//! Creates a link: tries random codes until one is free and acknowledged.

use std::future::Future;
use std::time::Duration;

use tracing::warn;

use crate::Code;
use crate::links::{Created, LinkError, Links};

/// Codes that are tried for one request. Collisions are rare (62^7 codes), so more than a few tries
/// indicate a defect.
const TRIES_MAX: usize = 8;
/// How long one request may take: a few failovers.
pub(crate) const CREATE_DEADLINE: Duration = Duration::from_secs(10);

/// Creates a link to `target` and returns its code. The codes come from `next` ([`Code::random`]
/// outside tests).
///
/// If a code is taken, or the outcome of its write is unknown, the next code is tried. A write that
/// is applied after all then leaves an unused link, and never a second meaning of a code in use.
pub(crate) async fn create<L: Links>(
    links: &L,
    target: &str,
    mut next: impl FnMut() -> Code + Send,
) -> Result<Code, LinkError> {
    let mut last = LinkError::Broken { reason: format!("{TRIES_MAX} random codes were all taken") };
    let tries = async {
        for _ in 0..TRIES_MAX {
            let code = next();
            match links.create(code, target).await {
                Ok(Created::Done) => return Ok(code),
                Ok(Created::Taken) => warn!(%code, "code is taken, trying another one"),
                Err(error @ LinkError::Unknown { .. }) => {
                    warn!(%code, %error, "outcome of a new link is unknown, trying another code");
                    last = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    };
    within(CREATE_DEADLINE, tries).await
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(LinkError::Unknown { reason: format!("no write was acknowledged within {} s", limit.as_secs()) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::memory::MemoryLinks;

    fn codes(texts: &'static [&'static str]) -> impl FnMut() -> Code + Send {
        let mut texts = texts.iter().cycle();
        move || texts.next().unwrap().parse().unwrap()
    }

    /// A taken code keeps its target, and the new link gets another code.
    #[tokio::test]
    async fn a_collision_takes_another_code() {
        let links = MemoryLinks::default();
        links.insert("aaaaaaa", "http://first.example/");
        let code = create(&links, "http://second.example/", codes(&["aaaaaaa", "bbbbbbb"])).await.unwrap();
        assert_eq!(code.as_str(), "bbbbbbb");
        assert_eq!(links.get("aaaaaaa").as_deref(), Some("http://first.example/"));
        assert_eq!(links.get("bbbbbbb").as_deref(), Some("http://second.example/"));
    }

    /// The code of a write with an unknown outcome is not returned, even if the write was applied.
    #[tokio::test]
    async fn a_code_of_an_unknown_outcome_is_never_returned() {
        let links = MemoryLinks::default();
        links.lose_replies(1);
        let code = create(&links, "http://example.org/", codes(&["aaaaaaa", "bbbbbbb"])).await.unwrap();
        assert_eq!(code.as_str(), "bbbbbbb");
        assert!(links.get("aaaaaaa").is_some(), "the write was applied although its reply was lost");
    }

    #[tokio::test]
    async fn only_unknown_outcomes_end_as_unknown() {
        let links = MemoryLinks::default();
        links.lose_replies(usize::MAX);
        let error = create(&links, "http://example.org/", Code::random).await.unwrap_err();
        assert!(matches!(error, LinkError::Unknown { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_write_that_was_not_applied_is_reported_without_a_retry() {
        let links = MemoryLinks::default();
        links.fail(Some(LinkError::Full));
        assert_eq!(create(&links, "http://example.org/", Code::random).await, Err(LinkError::Full));
        assert_eq!(links.creates(), 1);
    }

    #[tokio::test]
    async fn tries_are_bounded() {
        let links = MemoryLinks::default();
        links.insert("aaaaaaa", "http://example.org/");
        let error = create(&links, "http://example.org/", codes(&["aaaaaaa"])).await.unwrap_err();
        assert_eq!(error, LinkError::Broken { reason: "8 random codes were all taken".into() });
    }

    /// A request to a store that never responds ends as unknown. The clock is paused.
    #[tokio::test(start_paused = true)]
    async fn an_unresponsive_store_ends_at_the_deadline() {
        let unresponsive = std::future::pending::<Result<(), LinkError>>();
        assert!(matches!(within(CREATE_DEADLINE, unresponsive).await, Err(LinkError::Unknown { .. })));
    }
}
