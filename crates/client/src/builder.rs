//! The settings of a client, and its connection to a cluster.

use std::sync::Arc;
use std::time::Duration;

use quorate_router::{Router, RouterConfig};
use quorate_types::HostPort;

use crate::grpc::Grpc;
use crate::{Client, DEADLINE_DEFAULT, Error};

impl Client {
    /// A builder, to set other than the default settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Connects to the cluster with these endpoints: client addresses (`host:port`) of any of its
    /// nodes, separated by commas.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no endpoint, or one that is not `host:port`;
    /// [`Error::Unreachable`], naming every endpoint and its failure, when none of them returned
    /// the cluster's map within [`DEADLINE_DEFAULT`].
    pub async fn connect(endpoints: &str) -> Result<Client, Error> {
        Self::builder().endpoints(endpoints.split(',').map(str::trim).filter(|part| !part.is_empty())).connect().await
    }
}

/// The settings of a client; from [`Client::builder`].
///
/// ```no_run
/// # use std::time::Duration;
/// # use quorate_client::{Client, Error};
/// # async fn example() -> Result<(), Error> {
/// let endpoints = ["10.0.0.1:7100", "10.0.0.2:7100"];
/// let builder = Client::builder().endpoints(endpoints).deadline(Duration::from_secs(2));
/// let client = builder.connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    deadline: Duration,
    pinned: bool,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self { endpoints: Vec::new(), deadline: DEADLINE_DEFAULT, pinned: false }
    }
}

impl ClientBuilder {
    /// Adds endpoints, each the client address (`host:port`) of a node. One node of the cluster is
    /// enough: the cluster's map names the others. More endpoints tolerate unreachable nodes.
    pub fn endpoints<E: Into<String>>(mut self, endpoints: impl IntoIterator<Item = E>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// Sets how long connecting may take, and every operation without a deadline of its own.
    /// Default: [`DEADLINE_DEFAULT`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Restricts the client to the nodes with the given endpoints. An operation that only another
    /// node can serve fails immediately with [`Error::Unreachable`]: a strong operation if another
    /// node leads the shard, an eventual read if none of these nodes has a replica. For tests and
    /// for looking at one node; applications should leave it off.
    pub fn pinned(mut self) -> Self {
        self.pinned = true;
        self
    }

    /// Fetches the cluster's map from any of the endpoints.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no endpoint, or one that is not `host:port`;
    /// [`Error::Unreachable`], naming every endpoint and its failure, when none of them returned
    /// the map within the deadline.
    pub async fn connect(self) -> Result<Client, Error> {
        let client = self.unconnected()?;
        client.router.connect(client.deadline).await?;
        Ok(client)
    }

    /// The client without the cluster's map: its first operation fetches it.
    pub(crate) fn unconnected(self) -> Result<Client, Error> {
        let parse = |endpoint: &String| {
            endpoint.parse::<HostPort>().map_err(|error| Error::Invalid { reason: format!("endpoint {error}") })
        };
        let endpoints = self.endpoints.iter().map(parse).collect::<Result<_, _>>()?;
        let config = RouterConfig { pinned: self.pinned, ..RouterConfig::new(endpoints) };
        let network = Grpc { connect_timeout: config.connect_timeout };
        let router = Router::new(config, Arc::new(network), rand::random())?;
        Ok(Client { router, deadline: self.deadline })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

    /// Invalid endpoints are refused; unreachable ones are named, within the deadline.
    #[tokio::test]
    async fn connect_errors_name_the_endpoints() {
        assert!(matches!(Client::connect("").await, Err(Error::Invalid { .. })));
        assert!(matches!(Client::connect("127.0.0.1").await, Err(Error::Invalid { .. })));
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let started = Instant::now();
        let error = Client::builder().endpoints([&free]).deadline(Duration::from_secs(1)).connect().await.unwrap_err();
        assert!(matches!(&error, Error::Unreachable { reason } if reason.contains(&free)), "{error}");
        assert!(started.elapsed() < Duration::from_secs(4));
    }

    /// A key or value beyond its limit is refused without a request.
    #[tokio::test]
    async fn limits_are_checked_before_a_request_is_sent() {
        let client =
            Client::builder().endpoints(["127.0.0.1:1"]).deadline(Duration::from_secs(1)).unconnected().unwrap();
        let invalid = |error: Error, text: &str| match error {
            Error::Invalid { reason } => assert!(reason.contains(text), "{reason}"),
            error => panic!("{error}"),
        };
        invalid(client.get("").await.unwrap_err(), "empty");
        invalid(client.put(vec![0; KEY_BYTES_MAX + 1], "v").await.unwrap_err(), "4096");
        invalid(client.put("k", vec![0; VALUE_BYTES_MAX + 1]).await.unwrap_err(), "1048576");
        invalid(client.delete("k").if_value(vec![0; VALUE_BYTES_MAX + 1]).await.unwrap_err(), "1048576");
    }
}
