//! `shortener`: runs the URL shortener as a process.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use quorate_shortener::{Config, serve};
use tracing::{info, warn};
use url::Url;

use crate::connect::Connect;
use crate::failure::{Exit, Failure};
use crate::log::LogArgs;
use crate::signals;

/// The pause between two attempts to connect to the cluster.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub(crate) struct ShortenerArgs {
    /// Listen address for HTTP.
    #[arg(long, env = "QUORATE_SHORTENER_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Prefix of short URLs as users see them; by default http:// and the listen address.
    #[arg(long, env = "QUORATE_SHORTENER_BASE_URL", value_name = "URL")]
    base_url: Option<Url>,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    log: LogArgs,
}

impl ShortenerArgs {
    /// Serves until SIGTERM or Ctrl-C. Waits for a cluster that is not reachable yet.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        self.log.start()?;
        let shutdown = signals::shutdown()?;
        tokio::pin!(shutdown);
        let client = loop {
            tokio::select! {
                connected = self.connect.client() => match connected {
                    Ok((client, _)) => break client,
                    Err(failure) => warn!(%failure, "cluster not reachable yet; retrying"),
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
        // `shutdown` is pinned here and still needed, so `serve` gets a channel instead.
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
        quorate_shortener::Error::BaseUrl { .. } => (Exit::Usage, "choose another --base-url"),
        quorate_shortener::Error::Listen { .. } => {
            (Exit::Other, "stop the process that uses the port, or choose another --listen")
        }
        quorate_shortener::Error::Serve(_) => (Exit::Other, "see the log"),
    };
    Failure::new(exit, "the shortener cannot serve").chain(&error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_named_with_a_hint() {
        let source = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let listen = "127.0.0.1:8080".parse().unwrap();
        let text = failed(quorate_shortener::Error::Listen { listen, source }).to_string();
        assert!(text.contains("cannot listen on 127.0.0.1:8080"), "{text}");
        assert!(text.contains("hint:  stop the process that uses the port, or choose another --listen"), "{text}");
    }
}
