//! Waits until shared handles are released, so that the node's successor finds their resources
//! free.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

/// How long a stopping node waits for others to release a handle.
const RELEASE_MAX: Duration = Duration::from_secs(2);
/// How often it checks.
const RELEASE_POLL: Duration = Duration::from_millis(5);

/// Waits until this handle is the only one, for at most 2 s.
pub(crate) async fn only_handle<T: ?Sized>(handle: &Arc<T>, what: &str) {
    let deadline = Instant::now() + RELEASE_MAX;
    while Arc::strong_count(handle) > 1 {
        if Instant::now() > deadline {
            warn!(what, "still in use while the node stops");
            return;
        }
        tokio::time::sleep(RELEASE_POLL).await;
    }
}
