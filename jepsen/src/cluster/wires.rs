//! What carries the nodes' messages, and what can be done to it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde_json::{Value, json};

use super::Cluster;
use super::links::{Link, Rules};
use super::namespaces::Namespaces;

const LOOK: Duration = Duration::from_millis(20);

/// What carries the messages.
pub(crate) enum Wires {
    Namespaces(Namespaces),
    Loopback,
}

impl Cluster {
    /// Whether this network can do what the rules ask for; the error says why not.
    pub fn can(&self, rules: &Rules) -> Result<(), String> {
        match &self.network {
            Wires::Namespaces(_) if rules.delay.is_empty() => Ok(()),
            Wires::Namespaces(_) => Err("links cannot be delayed".to_owned()),
            Wires::Loopback => Err("links on loopback cannot be changed".to_owned()),
        }
    }

    /// Makes the network do what `new` says, where it did what `old` says.
    pub(crate) async fn change_links(&self, old: &Rules, new: &Rules) -> anyhow::Result<()> {
        match &self.network {
            Wires::Namespaces(namespaces) => namespaces.change(old, new).await,
            Wires::Loopback => bail!("links on loopback cannot be changed"),
        }
    }

    /// How many packets were dropped on each link that is cut, since it was cut.
    pub async fn dropped(&self) -> anyhow::Result<BTreeMap<Link, u64>> {
        match &self.network {
            Wires::Namespaces(namespaces) => namespaces.dropped().await,
            Wires::Loopback => Ok(BTreeMap::new()),
        }
    }

    /// Waits until it shows that the network does what the rules say, and gives what was seen: a packet of ours was dropped on
    /// every link that is cut, packets were lost, narrow links have their queues.
    pub(crate) async fn evidence(&self, rules: &Rules, within: Duration) -> anyhow::Result<Value> {
        let Wires::Namespaces(namespaces) = &self.network else { return Ok(Value::Null) };
        let deadline = Instant::now() + within;
        for link in &rules.cut {
            namespaces.probe(*link).await?;
        }
        let mut seen = json!({});
        loop {
            let dropped = namespaces.dropped().await?;
            let silent: Vec<&Link> =
                rules.cut.iter().filter(|link| dropped.get(link).is_none_or(|n| *n == 0)).collect();
            if silent.is_empty() {
                break;
            }
            ensure!(Instant::now() < deadline, "nothing was dropped on {silent:?}");
            tokio::time::sleep(LOOK).await;
        }
        if !rules.cut.is_empty() {
            let dropped: u64 = namespaces.dropped().await?.values().sum();
            seen["dropped_packets"] = json!(dropped);
        }
        if !rules.loss_percent.is_empty() {
            let before = namespaces.lost().await?;
            while namespaces.lost().await? == before {
                ensure!(Instant::now() < deadline, "no packet was lost");
                tokio::time::sleep(LOOK).await;
            }
            seen["lost_packets"] = json!(namespaces.lost().await?);
        }
        for node in rules.rate_kbit.keys() {
            let waited = namespaces.narrowed(*node).await?;
            ensure!(waited.is_some(), "the port of node {node} is not narrow");
        }
        Ok(seen)
    }
}
