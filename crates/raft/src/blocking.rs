//! Work that blocks a thread. On a multi-threaded runtime other threads take over the waiting
//! tasks. Simulations run on a single-threaded runtime: there the work runs in place, always at the
//! same point.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

fn has_one_thread() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}

/// Blocks this thread; its waiting tasks move to another one.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    if has_one_thread() { work() } else { tokio::task::block_in_place(work) }
}

/// Drops a value whose end blocks this thread; also where the runtime is gone already.
pub(crate) fn drop_in_place<T>(value: T) {
    match Handle::try_current() {
        Ok(_) => in_place(|| drop(value)),
        Err(_) => drop(value),
    }
}

/// Blocks a thread of the blocking pool. An error means that the work panicked, or that the runtime
/// is stopping.
pub(crate) async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if has_one_thread() { Ok(work()) } else { tokio::task::spawn_blocking(work).await }
}
