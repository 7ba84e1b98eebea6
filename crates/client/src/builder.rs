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
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self { endpoints: Vec::new(), deadline: DEADLINE_DEFAULT }
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

    /// Fetches the cluster's map from any of the endpoints.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when an endpoint is not `host:port` or there is none; [`Error::Unreachable`], naming what was tried,
    /// when no endpoint told the map within the deadline.
    pub async fn connect(self) -> Result<Client, Error> {
        let router = Router::new(RouterConfig::new(self.endpoints))?;
        router.connect(self.deadline).await?;
        Ok(Client { router, deadline: self.deadline })
    }
}
