//! The network with privilege: every node, the clients and the harness have one network namespace
//! each. All are connected by a bridge in a router namespace, where nftables drops the packets of
//! cut links and a percentage of the packets of lossy links.
//!
//! ```text
//!   TAG-n1 ─ eth0 ══ n1 ┐               table bridge quorate:
//!   TAG-n2 ─ eth0 ══ n2 ┤ br0 in          cut   { 10.87.0.1 . 10.87.0.2 → drop, with a counter }
//!   TAG-clients ════ c  ┤ TAG-router      loss  { 10.87.0.1 . 10.87.0.3 → drop at random }
//!   TAG-control ════ x  ┘ the harness's own requests; never cut
//! ```
//!
//! A change of several links is one transaction of `nft`: it affects the whole cluster at one
//! instant.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use super::delays::Delays;
use super::links::{Link, Rules};
use super::scratch::NAMESPACES;
use super::unsupported::Unsupported;
use super::{threads, tool};

/// The host numbers of the clients and of the harness.
const CLIENTS: u8 = 250;
const CONTROL: u8 = 251;
/// A port on which no process listens.
const DISCARD: u16 = 9;
/// The most nodes that have an address.
pub(crate) const NODES_MAX: usize = 200;

const TABLE: &str = "
table bridge quorate {
  set cut {
    type ipv4_addr . ipv4_addr
    counter
  }
  map loss {
    type ipv4_addr . ipv4_addr : verdict
  }
  chain links {
    type filter hook forward priority 0; policy accept;
    ip saddr . ip daddr @cut drop
    ip saddr . ip daddr vmap @loss
  }
}
";

/// The namespaces of a run.
pub(crate) struct Namespaces {
    tag: String,
    /// The delays of each node's packets, the first node's first.
    delays: tokio::sync::Mutex<Vec<Delays>>,
}

/// The address of a node, numbered from 1.
pub(crate) fn node_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 87, 0, u8::try_from(number).expect("at most NODES_MAX nodes"))
}

/// Checks that this process may create network namespaces.
pub(crate) fn supported() -> Result<(), Unsupported> {
    if !rustix::process::geteuid().is_root() {
        return Err(Unsupported::NotRoot("creating network namespaces"));
    }
    tool::find("ip").and_then(|()| tool::find("nft")).and_then(|()| tool::find("nsenter"))
}

impl Namespaces {
    /// Creates all namespaces, the bridge, and the tables for cut and lossy links.
    pub(crate) async fn create(tag: &str, nodes: usize) -> anyhow::Result<Self> {
        let delays = tokio::sync::Mutex::new(vec![]);
        let this = Namespaces { tag: tag.to_owned(), delays };
        *this.delays.lock().await = (1..=nodes).map(|number| Delays::new(this.of_node(number))).collect();
        let mut hosts = vec![("clients".to_owned(), CLIENTS), ("control".to_owned(), CONTROL)];
        for number in 1..=nodes {
            hosts.push((format!("n{number}"), node_address(number).octets()[3]));
        }
        let mut batch = format!("netns add {tag}-router\n");
        for (name, _) in &hosts {
            batch += &format!("netns add {tag}-{name}\n");
            batch += &format!("link add {name} netns {tag}-router type veth peer name eth0 netns {tag}-{name}\n");
        }
        tool::feed("ip", &["-batch", "-"], &batch).await?;
        let mut router = "link add br0 type bridge forward_delay 0 stp_state 0\nlink set br0 up\n".to_owned();
        for (name, address) in &hosts {
            router += &format!("link set {name} master br0\nlink set {name} up\n");
            let inside = format!("link set lo up\naddr add 10.87.0.{address}/24 dev eth0\nlink set eth0 up\n");
            tool::feed("ip", &["-n", &format!("{tag}-{name}"), "-batch", "-"], &inside).await?;
        }
        tool::feed("ip", &["-n", &format!("{tag}-router"), "-batch", "-"], &router).await?;
        this.nft(TABLE).await?;
        Ok(this)
    }

    /// The file that names a namespace of the run.
    fn path(&self, name: &str) -> PathBuf {
        Path::new(NAMESPACES).join(format!("{}-{name}", self.tag))
    }

    /// A node's namespace.
    pub(crate) fn of_node(&self, number: usize) -> PathBuf {
        self.path(&format!("n{number}"))
    }

    /// The clients' namespace.
    pub(crate) fn of_clients(&self) -> PathBuf {
        self.path("clients")
    }

    /// The harness's own namespace.
    pub(crate) fn of_control(&self) -> PathBuf {
        self.path("control")
    }

    async fn nft(&self, input: &str) -> anyhow::Result<String> {
        let net = format!("--net={}", self.path("router").display());
        tool::feed("nsenter", &[&net, "nft", "-f", "-"], input).await
    }

    /// Changes the network's rules from `old` to `new`. Links that stay cut keep their counters.
    pub(crate) async fn change(&self, old: &Rules, new: &Rules) -> anyhow::Result<()> {
        let mut batch = String::new();
        for link in old.cut.difference(&new.cut) {
            batch += &format!("delete element bridge quorate cut {{ {} }}\n", pair(*link));
        }
        for link in new.cut.difference(&old.cut) {
            batch += &format!("add element bridge quorate cut {{ {} }}\n", pair(*link));
        }
        for (link, percent) in &old.loss_percent {
            if new.loss_percent.get(link) != Some(percent) {
                batch += &format!("delete element bridge quorate loss {{ {} }}\n", pair(*link));
            }
        }
        for (link, percent) in &new.loss_percent {
            if old.loss_percent.get(link) != Some(percent) {
                // The chain may exist from an earlier fault; its counter continues.
                let chain = format!("lose{percent}");
                batch += &format!("add chain bridge quorate {chain}\nflush chain bridge quorate {chain}\n");
                batch += &format!("add rule bridge quorate {chain} numgen random mod 100 < {percent} counter drop\n");
                batch += &format!("add element bridge quorate loss {{ {} : jump {chain} }}\n", pair(*link));
            }
        }
        if !batch.is_empty() {
            self.nft(&batch).await?;
        }
        if old.delay != new.delay {
            for (number, delays) in (1..).zip(self.delays.lock().await.iter_mut()) {
                let sent = new.delay.iter().filter(|(link, _)| link.from == number);
                delays.set(sent.map(|(link, delay)| (node_address(link.to), *delay)).collect()).await?;
            }
        }
        self.change_rates(old, new).await
    }

    /// Packets delayed so far.
    pub(crate) async fn delayed(&self) -> u64 {
        self.delays.lock().await.iter().map(Delays::held).sum()
    }

    /// Limits the bandwidth towards a node: a token bucket on the bridge's port towards it.
    async fn change_rates(&self, old: &Rules, new: &Rules) -> anyhow::Result<()> {
        let router = format!("{}-router", self.tag);
        for node in old.rate_kbit.keys().filter(|node| !new.rate_kbit.contains_key(node)) {
            tool::run("tc", &["-n", &router, "qdisc", "del", "dev", &format!("n{node}"), "root"]).await?;
        }
        for (node, kbit) in &new.rate_kbit {
            if old.rate_kbit.get(node) != Some(kbit) {
                let (port, rate) = (format!("n{node}"), format!("{kbit}kbit"));
                let bucket = ["rate", &rate, "burst", "16kb", "latency", "100ms"];
                let replace = ["-n", &router, "qdisc", "replace", "dev", &port, "root", "tbf"];
                tool::run("tc", &[&replace[..], &bucket[..]].concat()).await?;
            }
        }
        Ok(())
    }

    /// Sends a packet over a link, from one node's namespace to the other node's address.
    pub(crate) async fn probe(&self, link: Link) -> anyhow::Result<()> {
        let to = (node_address(link.to), DISCARD);
        let probe = move || std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(b"jepsen", to);
        threads::visit(self.of_node(link.from), probe).await??;
        Ok(())
    }

    /// Packets dropped on each link that is cut now, since it was cut.
    pub(crate) async fn dropped(&self) -> anyhow::Result<BTreeMap<Link, u64>> {
        let net = format!("--net={}", self.path("router").display());
        let list = ["nft", "-j", "list", "set", "bridge", "quorate", "cut"];
        let text = tool::run("nsenter", &[&[net.as_str()], &list[..]].concat()).await?;
        let listed: Value = serde_json::from_str(&text)?;
        let sets = listed["nftables"].as_array().context("nft lists an array")?;
        let mut dropped = BTreeMap::new();
        for element in sets.iter().filter_map(|object| object["set"]["elem"].as_array()).flatten() {
            let element = &element["elem"];
            let host = |side: usize| -> Option<usize> {
                let address: Ipv4Addr = element["val"]["concat"][side].as_str()?.parse().ok()?;
                Some(address.octets()[3].into())
            };
            let (from, to) = host(0).zip(host(1)).context("an element of two addresses")?;
            dropped.insert(Link { from, to }, element["counter"]["packets"].as_u64().unwrap_or(0));
        }
        Ok(dropped)
    }

    /// Packets lost at random, on all lossy links together.
    pub(crate) async fn lost(&self) -> anyhow::Result<u64> {
        let net = format!("--net={}", self.path("router").display());
        let list = ["nft", "-j", "list", "table", "bridge", "quorate"];
        let text = tool::run("nsenter", &[&[net.as_str()], &list[..]].concat()).await?;
        let listed: Value = serde_json::from_str(&text)?;
        let objects = listed["nftables"].as_array().context("nft lists an array")?;
        let rules = objects.iter().filter_map(|object| object["rule"]["expr"].as_array()).flatten();
        Ok(rules.filter_map(|expression| expression["counter"]["packets"].as_u64()).sum())
    }

    /// Packets that were delayed or dropped by the bandwidth limit of a node. `None` without a
    /// limit.
    pub(crate) async fn rate_limited(&self, number: usize) -> anyhow::Result<Option<u64>> {
        let router = format!("{}-router", self.tag);
        let show = ["-n", &router, "-s", "-j", "qdisc", "show", "dev", &format!("n{number}")];
        let listed: Value = serde_json::from_str(&tool::run("tc", &show).await?)?;
        let bucket = listed.as_array().and_then(|all| all.iter().find(|queue| queue["kind"] == "tbf"));
        Ok(bucket.map(|queue| queue["overlimits"].as_u64().unwrap_or(0) + queue["drops"].as_u64().unwrap_or(0)))
    }
}

fn pair(link: Link) -> String {
    format!("{} . {}", node_address(link.from), node_address(link.to))
}
