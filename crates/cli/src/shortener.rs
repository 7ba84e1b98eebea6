//! `shortener`: the URL shortener as a process.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use quorate_shortener::{Config, serve};
use tracing::{info, warn};
use url::Url;

use crate::args::Connect;
use crate::failure::{Exit, Failure};
use crate::log::LogArgs;
use crate::signals;

/// How long to wait between two tries to find the cluster.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub(crate) struct ShortenerArgs {
    /// Where to listen for HTTP.
    #[arg(long, env = "QUORATE_SHORTENER_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// What short URLs begin with, as users see it; without it, http:// and the address that is listened on.
    #[arg(long, env = "QUORATE_SHORTENER_BASE_URL", value_name = "URL")]
    base_url: Option<Url>,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    log: LogArgs,
}

impl ShortenerArgs {
    /// Serves until it is told to stop. A cluster that is not there yet is waited for.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        self.log.start()?;
        let shutdown = signals::shutdown()?;
        tokio::pin!(shutdown);
        let client = loop {
            tokio::select! {
                connected = self.connect.client() => match connected {
                    Ok((client, _)) => break client,
                    Err(failure) => warn!(%failure, "the cluster is not there yet; trying again"),
                },
                () = &mut shutdown => return Ok(()),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_PAUSE) => {}
                () = &mut shutdown => return Ok(()),
            }
        };
        info!(endpoints = self.connect.endpoints.join(","), "connected to the cluster");
        let config = Config { listen: self.listen, base_url: self.base_url };
        // The future is pinned here, and is all that `serve` waits for.
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let served = serve(config, client, async move {
            let _ = stopped.await;
        });
        tokio::pin!(served);
        tokio::select! {
            result = &mut served => result.map_err(failed),
            () = &mut shutdown => {
                let _ = stop.send(());
                served.await.map_err(failed)
            }
        }
    }
}

fn failed(error: quorate_shortener::Error) -> Failure {
    let (exit, hint) = match &error {
        quorate_shortener::Error::BaseUrl { .. } => (Exit::Usage, "give another --base-url"),
        quorate_shortener::Error::Listen { .. } => (Exit::Other, "stop who uses the port, or give another --listen"),
        quorate_shortener::Error::Serve(_) => (Exit::Other, "see the log"),
    };
    Failure::new(exit, "the shortener cannot serve").chain(&error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_named_with_what_to_do() {
        let source = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let listen = "127.0.0.1:8080".parse().unwrap();
        let text = failed(quorate_shortener::Error::Listen { listen, source }).to_string();
        assert!(text.contains("cannot listen on 127.0.0.1:8080"), "{text}");
        assert!(text.contains("hint:  stop who uses the port, or give another --listen"), "{text}");
    }
}
