//! The clients of a run.

use std::time::Duration;

use anyhow::Context as _;
use quorate_client::{Client, ClientBuilder};

use super::collect::Collector;

/// The time-out of a client's connection to a serving cluster.
const CONNECT_MAX: Duration = Duration::from_secs(10);

impl Collector<'_> {
    /// A client that knows every endpoint, and for each node a client that knows only its endpoint.
    pub(super) async fn connect(&self) -> anyhow::Result<Vec<Client>> {
        let endpoints = &self.subject.endpoints;
        let all = std::iter::once(endpoints.clone()).chain(endpoints.iter().map(|one| vec![one.clone()]));
        let deadline = self.options.load.deadline();
        self.connected(all.map(|endpoints| Client::builder().endpoints(endpoints).deadline(deadline))).await
    }

    /// For each node a client that sends requests to no other node.
    pub(super) async fn connect_pinned(&self) -> anyhow::Result<Vec<Client>> {
        let deadline = self.options.load.deadline();
        let one = |endpoint: &String| Client::builder().endpoints([endpoint]).deadline(deadline).pinned();
        self.connected(self.subject.endpoints.iter().map(one)).await
    }

    async fn connected(&self, builders: impl Iterator<Item = ClientBuilder>) -> anyhow::Result<Vec<Client>> {
        let mut connections = Vec::new();
        for builder in builders {
            let client = async move { tokio::time::timeout(CONNECT_MAX, builder.connect()).await };
            connections.push(self.subject.clients().spawn(client).await?.context("connecting timed out")??);
        }
        Ok(connections)
    }
}
