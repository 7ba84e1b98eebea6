//! Threads in a network namespace. A namespace belongs to a thread: a socket belongs to the
//! namespace of the thread that opened it, and stays there even if another thread uses it.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Runtime};

/// A runtime whose threads are in a network namespace, given by its file, or in this thread's own.
pub(crate) fn runtime(name: &str, threads: usize, namespace: Option<PathBuf>) -> anyhow::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name(name).enable_all();
    if let Some(path) = namespace {
        // A thread in another namespace would test the wrong network.
        builder.on_thread_start(move || enter(&path).unwrap_or_else(|error| panic!("{error:#}")));
    }
    Ok(builder.build()?)
}

/// A runtime for clients. Dropping it is allowed in asynchronous code too, and does not wait for
/// tasks.
pub struct ClientRuntime(Option<Runtime>);

impl ClientRuntime {
    pub(crate) fn new(runtime: Runtime) -> Self {
        ClientRuntime(Some(runtime))
    }
}

impl std::ops::Deref for ClientRuntime {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("present until the runtime is dropped")
    }
}

impl Drop for ClientRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Moves this thread into a network namespace, given by its file.
pub(crate) fn enter(path: &Path) -> anyhow::Result<()> {
    let shown = || format!("cannot enter {}", path.display());
    let namespace = File::open(path).with_context(shown)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).with_context(shown)
}

/// Runs a closure in a network namespace, on a thread that ends afterwards: it could not leave the
/// namespace.
pub(crate) async fn visit<T, F>(path: PathBuf, work: F) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let visitor = std::thread::spawn(move || enter(&path).map(|()| work()));
    let joined = tokio::task::spawn_blocking(move || visitor.join()).await?;
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
