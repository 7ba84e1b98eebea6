//! The server: listens, serves, and stops in bounded time.

use std::future::{Future, IntoFuture};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quorate_client::Client;
use quorate_connections::{Connections, Limits};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tracing::{info, warn};
use url::Url;

use crate::Store;
use crate::http::routes;

/// How long requests may take once the shutdown has begun.
const DRAIN_DEADLINE: Duration = Duration::from_secs(15);

/// Limits on connections. The idle time-out is longer than any request takes.
const CONNECTIONS: Limits =
    Limits { at_a_time: 4096, beginning: Duration::from_secs(30), silence: Duration::from_secs(30) };

/// The addresses of the shortener.
#[derive(Clone, Debug)]
pub struct Config {
    /// The listen address; port 0 selects a free port.
    pub listen: SocketAddr,
    /// The prefix of short URLs as users see them; none: `http://` and the listen address.
    pub base_url: Option<Url>,
}

/// The reason why the shortener stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The base URL cannot be the prefix of a short URL. Choose another one.
    #[error("base URL '{url}': {reason}")]
    BaseUrl {
        /// The base URL.
        url: Url,
        /// The rule that it violates.
        reason: &'static str,
    },
    /// The listen address is not available. Choose another one, or stop the process that uses it.
    #[error("cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Serving failed.
    #[error("serving HTTP failed")]
    Serve(#[source] io::Error),
}

/// Serves until `shutdown` completes, then finishes the requests in progress, for at most 15 s.
pub async fn serve(
    config: Config,
    client: Client,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let listen = config.listen;
    if let Some(url) = &config.base_url {
        check_base_url(url)?;
    }
    let listener = TcpListener::bind(listen).await.map_err(|source| Error::Listen { listen, source })?;
    let address = listener.local_addr().map_err(|source| Error::Listen { listen, source })?;
    let unnamed = config.base_url.is_none();
    let base_url = config.base_url.map_or_else(|| format!("http://{address}"), String::from);
    if unnamed && address.ip().is_unspecified() {
        warn!(base_url, "short URLs begin with an unreachable address: set --base-url");
    }
    info!(%address, base_url, "shortener serves");

    let (stopping, stopped) = oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        info!("shortener stops: finishing requests in progress");
        let _ = stopping.send(());
    };
    let served = axum::serve(Connections::new(listener, CONNECTIONS), routes(Store::new(client), &base_url))
        .with_graceful_shutdown(shutdown);
    tokio::select! {
        result = served.into_future() => result.map_err(Error::Serve),
        () = overdue(stopped) => {
            warn!(seconds = DRAIN_DEADLINE.as_secs(), "aborting requests that did not finish in time");
            Ok(())
        }
    }
}

/// Completes when the shutdown has lasted longer than [`DRAIN_DEADLINE`].
async fn overdue(stopped: oneshot::Receiver<()>) {
    match stopped.await {
        Ok(()) => tokio::time::sleep(DRAIN_DEADLINE).await,
        Err(_) => std::future::pending().await,
    }
}

fn check_base_url(url: &Url) -> Result<(), Error> {
    let reason = if !matches!(url.scheme(), "http" | "https") {
        "only http and https are accepted"
    } else if url.query().is_some() || url.fragment().is_some() {
        "it must not have a query or a fragment"
    } else {
        return Ok(());
    };
    Err(Error::BaseUrl { url: url.clone(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_checked_before_anything_listens() {
        let check = |text: &str| check_base_url(&text.parse().unwrap()).map_err(|error| error.to_string());
        assert_eq!(check("https://sho.rt"), Ok(()));
        assert_eq!(check("https://example.org/s/"), Ok(()));
        assert!(check("ftp://sho.rt").unwrap_err().contains("only http and https"));
        assert!(check("https://sho.rt/?x").unwrap_err().contains("query"));
    }
}
