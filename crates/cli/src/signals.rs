//! Ctrl-C and SIGTERM, and their meaning for the running command.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::failure::{Exit, Failure};

/// Requests to stop this process.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    /// Starts listening: from now on the two signals no longer end the process.
    fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::new(Exit::Other, "cannot listen to signals").cause(error));
        Ok(Stops { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next request.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Completes at the first request to stop. A second request exits the process immediately.
pub(crate) fn shutdown() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let mut stops = Stops::listen()?;
    Ok(async move {
        stops.next().await;
        tokio::spawn(async move {
            stops.next().await;
            tell!("second stop request: exiting immediately");
            std::process::exit(i32::from(Exit::Interrupted as u8));
        });
    })
}

/// Every request to stop, as a message.
pub(crate) fn stop_requests() -> Result<mpsc::Receiver<()>, Failure> {
    let mut stops = Stops::listen()?;
    let (sender, requests) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            stops.next().await;
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(requests)
}

/// Runs a command that changes nothing: Ctrl-C ends it with [`Exit::Interrupted`].
pub(crate) async fn or_interrupted(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    or(work, || Failure::new(Exit::Interrupted, "interrupted")).await
}

/// Runs a write: Ctrl-C ends it with [`Exit::Unknown`].
pub(crate) async fn or_unknown(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let unknown = || Failure::new(Exit::Unknown, "interrupted: the outcome is unknown");
    or(work, || unknown().cause("the write may have been applied, or may still be").hint("read the key to find out"))
        .await
}

/// Runs a request for a change of the cluster: Ctrl-C ends it with [`Exit::Unknown`], and `hint`
/// tells how to find out.
pub(crate) async fn or_unknown_value<T>(hint: &str, work: impl Future<Output = T>) -> Result<T, Failure> {
    let mut stops = Stops::listen()?;
    tokio::select! {
        value = work => Ok(value),
        () = stops.next() => {
            Err(Failure::new(Exit::Unknown, "interrupted: the outcome is unknown").hint(hint))
        }
    }
}

/// Completes at Ctrl-C or SIGTERM.
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
