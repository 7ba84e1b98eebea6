//! The network between the nodes, and the evidence that it follows its rules.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use super::delays;
use super::links::{Link, Rules};
use super::namespaces::Namespaces;
use super::proxies::Proxies;
use super::unsupported::Unsupported;

const POLL: Duration = Duration::from_millis(20);

/// The network between the nodes.
pub struct Network(Carrier);

enum Carrier {
    Namespaces(Namespaces),
    Loopback(Proxies),
}

impl Network {
    pub(super) fn of_namespaces(namespaces: Namespaces) -> Self {
        Network(Carrier::Namespaces(namespaces))
    }

    pub(super) fn of_proxies(proxies: Proxies) -> Self {
        Network(Carrier::Loopback(proxies))
    }

    /// Announces the new process of a node: proxies recognize senders by their process.
    pub(super) fn add_process(&self, pid: u32, number: usize) {
        if let Carrier::Loopback(proxies) = &self.0 {
            proxies.add_process(pid, number);
        }
    }

    /// Checks that this network can follow the rules.
    pub fn check_supported(&self, rules: &Rules) -> Result<(), Unsupported> {
        match &self.0 {
            Carrier::Namespaces(_) if !rules.delay.is_empty() => delays::supported(),
            Carrier::Loopback(_) if !rules.loss_percent.is_empty() => Err(Unsupported::LossOnLoopback),
            Carrier::Loopback(_) if !rules.rate_kbit.is_empty() => Err(Unsupported::BandwidthOnLoopback),
            _ => Ok(()),
        }
    }

    /// The namespaces, if the network consists of them.
    pub(super) fn namespaces(&self) -> Option<&Namespaces> {
        match &self.0 {
            Carrier::Namespaces(namespaces) => Some(namespaces),
            Carrier::Loopback(_) => None,
        }
    }

    /// Changes the network's rules from `old` to `new`.
    pub(crate) async fn change(&self, old: &Rules, new: &Rules) -> anyhow::Result<()> {
        match &self.0 {
            Carrier::Namespaces(namespaces) => namespaces.change(old, new).await,
            Carrier::Loopback(proxies) => {
                proxies.change(new);
                Ok(())
            }
        }
    }

    /// Packets dropped on each cut link since it was cut. On loopback: how often bytes had to wait.
    pub async fn dropped(&self) -> anyhow::Result<BTreeMap<Link, u64>> {
        match &self.0 {
            Carrier::Namespaces(namespaces) => namespaces.dropped().await,
            Carrier::Loopback(proxies) => Ok(proxies.waited()),
        }
    }

    /// Packets delayed since the cluster was started. On loopback: chunks of bytes.
    pub async fn delayed(&self) -> u64 {
        match &self.0 {
            Carrier::Namespaces(namespaces) => namespaces.delayed().await,
            Carrier::Loopback(proxies) => proxies.held(),
        }
    }

    /// Waits for evidence that the network follows the rules, and returns it: every cut link
    /// dropped a probe packet, packets were lost or delayed, links with a bandwidth limit have
    /// their queues.
    pub(crate) async fn evidence(&self, rules: &Rules, within: Duration) -> anyhow::Result<Value> {
        let deadline = Instant::now() + within;
        let mut seen = json!({});
        if !rules.delay.is_empty() {
            let before = self.delayed().await;
            while self.delayed().await == before {
                ensure!(Instant::now() < deadline, "no packet was delayed");
                tokio::time::sleep(POLL).await;
            }
            seen["held_back"] = json!(self.delayed().await - before);
        }
        match &self.0 {
            Carrier::Namespaces(namespaces) => evidence_in_namespaces(namespaces, rules, deadline, &mut seen).await?,
            Carrier::Loopback(proxies) => {
                // Nodes without a common group exchange no messages: evidence on one link is
                // enough.
                while !rules.cut.is_empty() && proxies.waited().values().all(|waited| *waited == 0) {
                    ensure!(Instant::now() < deadline, "no bytes wait on the cut links");
                    tokio::time::sleep(POLL).await;
                }
                seen["links_that_wait"] = json!(proxies.waited().len());
            }
        }
        Ok(seen)
    }
}

async fn evidence_in_namespaces(
    namespaces: &Namespaces,
    rules: &Rules,
    deadline: Instant,
    seen: &mut Value,
) -> anyhow::Result<()> {
    for link in &rules.cut {
        namespaces.probe(*link).await?;
    }
    loop {
        let dropped = namespaces.dropped().await?;
        let without: Vec<&Link> =
            rules.cut.iter().filter(|link| dropped.get(link).is_none_or(|packets| *packets == 0)).collect();
        if without.is_empty() {
            break;
        }
        ensure!(Instant::now() < deadline, "no packet was dropped on {without:?}");
        tokio::time::sleep(POLL).await;
    }
    if !rules.cut.is_empty() {
        seen["dropped_packets"] = json!(namespaces.dropped().await?.values().sum::<u64>());
    }
    if !rules.loss_percent.is_empty() {
        let before = namespaces.lost().await?;
        while namespaces.lost().await? == before {
            ensure!(Instant::now() < deadline, "no packet was lost");
            tokio::time::sleep(POLL).await;
        }
        seen["lost_packets"] = json!(namespaces.lost().await? - before);
    }
    for node in rules.rate_kbit.keys() {
        let limited = namespaces.rate_limited(*node).await?;
        ensure!(limited.is_some(), "the port of node {node} has no bandwidth limit");
    }
    Ok(())
}
