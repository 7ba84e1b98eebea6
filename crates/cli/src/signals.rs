//! Ctrl-C and SIGTERM.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Exit, Failure};

/// Requests to stop this process.
pub(crate) struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    /// From now on the two signals no longer end the process by themselves.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::new(Exit::Other, "cannot listen to signals").cause(error));
        Ok(Stops { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Ready at the first request to stop. A second one ends the process at once, whatever it is doing.
pub(crate) fn shutdown() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let mut stops = Stops::listen()?;
    Ok(async move {
        stops.next().await;
        tokio::spawn(async move {
            stops.next().await;
            tell!("stopped a second time: ending at once");
            std::process::exit(i32::from(Exit::Interrupted as u8));
        });
    })
}

/// A command that Ctrl-C ends with the exit code for it.
pub(crate) async fn or_interrupted(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    or(work, || Failure::new(Exit::Interrupted, "interrupted")).await
}

/// A write that Ctrl-C ends: nobody knows any more what comes of it.
pub(crate) async fn or_unknown(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let unknown = || Failure::new(Exit::Unknown, "interrupted: the outcome is unknown");
    or(work, || unknown().cause("the write may have been applied, or may still be").hint("read the key to see")).await
}

/// A change of the cluster that Ctrl-C ends while nobody knows yet whether it was taken. The hint says how to find out.
pub(crate) async fn or_unknown_value<T>(hint: &str, work: impl Future<Output = T>) -> Result<T, Failure> {
    let mut stops = Stops::listen()?;
    tokio::select! {
        value = work => Ok(value),
        () = stops.next() => {
            Err(Failure::new(Exit::Unknown, "interrupted: nobody knows whether it was started").hint(hint))
        }
    }
}

/// Ready at Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() -> Result<(), Failure> {
    Stops::listen()?.next().await;
    Ok(())
}

async fn or(
    work: impl Future<Output = Result<(), Failure>>,
    interrupted: impl FnOnce() -> Failure,
) -> Result<(), Failure> {
    let mut stops = Stops::listen()?;
    tokio::select! {
        result = work => result,
        () = stops.next() => Err(interrupted()),
    }
}
