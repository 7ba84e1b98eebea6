//! The flags that select a cluster and a deadline, shared by all commands that ask the cluster.

use std::time::{Duration, Instant};

use clap::Args;
use quorate_client::Client;
use quorate_types::{HostPort, HostPortError};

use crate::duration;
use crate::failure::Failure;
use crate::output::{Format, Output};

/// The client address of a node with default settings.
pub(crate) const ENDPOINT_DEFAULT: &str = "127.0.0.1:7100";

/// Parses the `host:port` of a command line. A leading `http://` and a trailing slash are ignored.
pub(crate) fn endpoint(text: &str) -> Result<String, HostPortError> {
    let text = text.trim();
    let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    text.parse::<HostPort>().map(|address| address.to_string())
}

/// The cluster that a command connects to, and the deadline of the whole command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Connect {
    /// Client addresses of any nodes of the cluster; the other nodes are found through them.
    #[arg(
        short = 'e',
        long,
        env = "QUORATE_ENDPOINTS",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        default_value = ENDPOINT_DEFAULT,
        value_parser = endpoint
    )]
    pub(crate) endpoints: Vec<String>,
    /// How long to try before giving up, such as 500ms, 5s or 1m.
    #[arg(long, env = "QUORATE_DEADLINE", value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    pub(crate) deadline: Duration,
}

/// The flags of a query: the cluster, and the format of the result.
#[derive(Args, Clone, Debug)]
pub(crate) struct Ask {
    #[command(flatten)]
    pub(crate) connect: Connect,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl Ask {
    /// The format of the result.
    pub(crate) fn format(&self) -> Format {
        self.output.output
    }
}

impl Connect {
    /// Connects a client, and returns the part of the deadline that is left.
    pub(crate) async fn client(&self) -> Result<(Client, Duration), Failure> {
        let began = Instant::now();
        let builder = Client::builder().endpoints(self.endpoints.clone()).deadline(self.deadline);
        let client = builder.connect().await;
        let client = client.map_err(|error| Failure::from_client("cannot connect to the cluster", error))?;
        Ok((client, self.deadline.saturating_sub(began.elapsed())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        let parsed = |text| endpoint(text).ok();
        assert_eq!(parsed("a.example:7100").as_deref(), Some("a.example:7100"));
        assert_eq!(parsed(" http://127.0.0.1:2379/ ").as_deref(), Some("127.0.0.1:2379"));
        assert_eq!(parsed("[::1]:7100").as_deref(), Some("[::1]:7100"));
        for bad in ["", "a", ":7100", "a:", "a:0", "a:65536", "a:x", "::1:7100", "a/b:1", "u@h:1"] {
            assert!(endpoint(bad).is_err(), "{bad:?}");
        }
    }
}
