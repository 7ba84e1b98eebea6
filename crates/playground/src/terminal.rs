//! The user at the terminal: sees progress, and asks to stop.

use std::fmt;

use tokio::sync::mpsc;

/// The connection to the user. The binary decides where text goes and which signals stop it.
#[derive(Debug)]
pub struct Terminal {
    /// Shows text on stderr, as it is: line ends are part of it.
    pub show: fn(&str),
    /// One message for each request to stop. The first stops the playground gracefully, the second
    /// kills its processes. After the sender is gone there are no further requests.
    pub stops: mpsc::Receiver<()>,
}

impl Terminal {
    /// Shows one line.
    pub(crate) fn line(&self, line: impl fmt::Display) {
        (self.show)(&format!("{line}\n"));
    }

    /// Waits for the next request to stop.
    pub(crate) async fn stopped(&mut self) {
        if self.stops.recv().await.is_none() {
            std::future::pending().await
        }
    }
}
