//! The two databases of a node: opened before its replicas, closed after them.

use std::path::PathBuf;
use std::sync::Arc;

use quorate_control::store::sweep;
use quorate_machine::log::LogError;
use quorate_machine::rate_limiter::{RATE_BURST, RATE_MAX, RateLimiter};
use quorate_machine::state::StateError;
use quorate_rocks::{LogOptions, RocksLog, RocksState, StateOptions};

pub(crate) use quorate_control::store::Databases;

use crate::error::NodeError;
use crate::fatal::fail_stop;
use crate::release::only_handle;

/// Opens both databases; gives the limiter of snapshot files, too. Blocks.
pub(crate) fn open(log: PathBuf, state: PathBuf) -> Result<(Databases, Arc<RateLimiter>), NodeError> {
    let log_options = LogOptions { on_fatal: Arc::new(|reason| fail_stop(&reason)), ..LogOptions::default() };
    let log = RocksLog::open(&log, log_options).map_err(log_error)?;
    let export_rate = Arc::new(RateLimiter::new(RATE_MAX, RATE_BURST));
    let options = StateOptions::default().export_rate(export_rate.clone());
    let state = RocksState::open(&state, options).map_err(state_error)?;
    sweep(&log, &state).map_err(state_error)?;
    Ok((Databases { log: Arc::new(log), state: Arc::new(state) }, export_rate))
}

/// Flushes the state, closes both databases and waits until nothing uses them.
pub(crate) async fn close(databases: Databases) -> Result<(), StateError> {
    let flushing = databases.clone();
    let flushed = tokio::task::spawn_blocking(move || {
        let flushed = flushing.state.flush();
        flushing.log.close();
        flushed
    });
    let flushed = flushed.await;
    only_handle(&databases.log, "log").await;
    only_handle(&databases.state, "state").await;
    let released = tokio::task::spawn_blocking(move || drop(databases)).await;
    let failed = |e: tokio::task::JoinError| StateError::Io(e.to_string().into());
    flushed.map_err(failed)?.and(released.map_err(failed))
}

fn log_error(error: LogError) -> NodeError {
    match error {
        LogError::Corrupt { .. } | LogError::Hole { .. } => NodeError::Corrupt(error.to_string()),
        _ => NodeError::Disk(error.to_string()),
    }
}

fn state_error(error: StateError) -> NodeError {
    match error {
        StateError::Corrupt { .. } => NodeError::Corrupt(error.to_string()),
        _ => NodeError::Disk(error.to_string()),
    }
}
