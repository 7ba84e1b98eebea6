//! What carries the nodes' messages, and what can be done to it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use super::Cluster;
use super::delays;
use super::links::{Link, Rules};
use super::namespaces::Namespaces;
use super::proxies::Proxies;

const LOOK: Duration = Duration::from_millis(20);

/// What carries the messages.
pub(crate) enum Wires {
    Namespaces(Namespaces),
    Loopback(Proxies),
}

impl Cluster {
    /// Whether this network can do what the rules ask for; the error says why not.
    pub fn can(&self, rules: &Rules) -> Result<(), String> {
        match &self.network()? {
            Wires::Namespaces(_) if !rules.delay.is_empty() => delays::possible(),
            Wires::Loopback(_) if !rules.loss_percent.is_empty() => {
                Err("a proxy on loopback cannot lose packets: that needs network namespaces, and they root".to_owned())
            }
            Wires::Loopback(_) if !rules.rate_kbit.is_empty() => {
                Err("links on loopback cannot be narrow: that needs network namespaces, and they root".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn network(&self) -> Result<&Wires, String> {
        self.network.as_ref().ok_or_else(|| "the cluster has no network".to_owned())
    }

    /// Makes the network do what `new` says, where it did what `old` says.
    pub(crate) async fn change_links(&self, old: &Rules, new: &Rules) -> anyhow::Result<()> {
        match self.network().map_err(anyhow::Error::msg)? {
            Wires::Namespaces(namespaces) => namespaces.change(old, new).await,
            Wires::Loopback(proxies) => {
                proxies.change(new);
                Ok(())
            }
        }
    }

    /// How many packets were dropped on each link that is cut, since it was cut. (On loopback: how often bytes had to wait.)
    pub async fn dropped(&self) -> anyhow::Result<BTreeMap<Link, u64>> {
        match self.network().map_err(anyhow::Error::msg)? {
            Wires::Namespaces(namespaces) => namespaces.dropped().await,
            Wires::Loopback(proxies) => Ok(proxies.waited()),
        }
    }

    /// How many packets were held back on delayed links since the cluster was started.
    pub async fn delayed(&self) -> u64 {
        match self.network() {
            Ok(Wires::Namespaces(namespaces)) => namespaces.delayed().await,
            Ok(Wires::Loopback(proxies)) => proxies.held(),
            Err(_) => 0,
        }
    }

    /// Waits until it shows that the network does what the rules say, and gives what was seen: a packet of ours was dropped on
    /// every link that is cut, packets were lost or held back, narrow links have their queues.
    pub(crate) async fn evidence(&self, rules: &Rules, within: Duration) -> anyhow::Result<Value> {
        let deadline = Instant::now() + within;
        let mut seen = json!({});
        if !rules.delay.is_empty() {
            let before = self.delayed().await;
            while self.delayed().await == before {
                ensure!(Instant::now() < deadline, "no packet was held back");
                tokio::time::sleep(LOOK).await;
            }
            seen["held_back"] = json!(self.delayed().await - before);
        }
        let namespaces = match self.network().map_err(anyhow::Error::msg)? {
            Wires::Namespaces(namespaces) => namespaces,
            Wires::Loopback(proxies) => {
                // Nodes that share no group say nothing to each other: one link shows that the rules hold.
                while !rules.cut.is_empty() && proxies.waited().values().all(|waited| *waited == 0) {
                    ensure!(Instant::now() < deadline, "nothing waits on links that are cut");
                    tokio::time::sleep(LOOK).await;
                }
                seen["links_that_wait"] = json!(proxies.waited().len());
                return Ok(seen);
            }
        };
        for link in &rules.cut {
            namespaces.probe(*link).await?;
        }
        loop {
            let dropped = namespaces.dropped().await?;
            let silent: Vec<&Link> =
                rules.cut.iter().filter(|link| dropped.get(link).is_none_or(|packets| *packets == 0)).collect();
            if silent.is_empty() {
                break;
            }
            ensure!(Instant::now() < deadline, "nothing was dropped on {silent:?}");
            tokio::time::sleep(LOOK).await;
        }
        if !rules.cut.is_empty() {
            seen["dropped_packets"] = json!(namespaces.dropped().await?.values().sum::<u64>());
        }
        if !rules.loss_percent.is_empty() {
            let before = namespaces.lost().await?;
            while namespaces.lost().await? == before {
                ensure!(Instant::now() < deadline, "no packet was lost");
                tokio::time::sleep(LOOK).await;
            }
            seen["lost_packets"] = json!(namespaces.lost().await? - before);
        }
        for node in rules.rate_kbit.keys() {
            let waited = namespaces.narrowed(*node).await?;
            ensure!(waited.is_some(), "the port of node {node} is not narrow");
        }
        Ok(seen)
    }
}
