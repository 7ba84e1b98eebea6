//! Work that blocks a thread: on a runtime of several threads the others go on meanwhile. On a runtime of one thread, which is
//! what simulations run on, there is nobody to make room for: the work is done right here, and always at the same point.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

fn has_one_thread() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}

/// Blocks this thread; the tasks that wait for it go elsewhere.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    if has_one_thread() { work() } else { tokio::task::block_in_place(work) }
}

/// Blocks a thread that is there for it. An error means that the work panicked, or that the runtime is stopping.
pub(crate) async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if has_one_thread() { Ok(work()) } else { tokio::task::spawn_blocking(work).await }
}
