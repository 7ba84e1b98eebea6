//! How a client is made.

use std::time::Duration;

use quorate_router::{Router, RouterConfig};

use crate::{Client, DEADLINE_DEFAULT, Error};

/// How a client is made; from [`Client::builder`].
///
/// ```no_run
/// # use std::time::Duration;
/// # use quorate_client::{Client, Error};
/// # async fn example() -> Result<(), Error> {
/// let client =
///     Client::builder().endpoints(["10.0.0.1:7100", "10.0.0.2:7100"]).deadline(Duration::from_secs(2)).connect().await?;
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
    /// Adds endpoints, each `host:port` of a node's client port. Any node of the cluster will do, and more than one survives the
    /// loss of one: the others are learned from the cluster's map.
    pub fn endpoints<E: Into<String>>(mut self, endpoints: impl IntoIterator<Item = E>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// How long connecting, and every operation that says nothing else, may take. Default: [`DEADLINE_DEFAULT`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Talks to the nodes with the given endpoints only, which must be written as the cluster's map has them. What another node must
    /// serve fails at once with [`Error::Unreachable`]: a strong operation, where another one leads the shard; an eventual read,
    /// where none of these has a replica. For tests and for looking at one node; applications want to be led to whoever serves.
    pub fn pinned(mut self) -> Self {
        self.pinned = true;
        self
    }

    /// Fetches the cluster's map from any of the endpoints.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when an endpoint is not `host:port` or there is none; [`Error::Unreachable`], naming what was tried,
    /// when no endpoint told the map within the deadline.
    pub async fn connect(self) -> Result<Client, Error> {
        let router = Router::new(RouterConfig { pinned: self.pinned, ..RouterConfig::new(self.endpoints) })?;
        router.connect(self.deadline).await?;
        Ok(Client { router, deadline: self.deadline })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

    /// Endpoints that cannot be are refused; those that nobody listens on are named, inside the deadline.
    #[tokio::test]
    async fn connecting_to_nobody_says_what_was_tried() {
        assert!(matches!(Client::connect("").await, Err(Error::Invalid { .. })));
        assert!(matches!(Client::connect("127.0.0.1").await, Err(Error::Invalid { .. })));
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let started = Instant::now();
        let error = Client::builder().endpoints([&free]).deadline(Duration::from_secs(1)).connect().await.unwrap_err();
        assert!(matches!(&error, Error::Unreachable { reason } if reason.contains(&free)), "{error}");
        assert!(started.elapsed() < Duration::from_secs(4));
    }

    /// What is beyond a limit is refused without asking anybody.
    #[tokio::test]
    async fn limits_are_checked_before_anything_is_sent() {
        let router = Router::new(RouterConfig::new(vec!["127.0.0.1:1".to_owned()])).unwrap();
        let client = Client { router, deadline: Duration::from_secs(1) };
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
