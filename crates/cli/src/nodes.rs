//! `node list`, `show`, `drain`, `undrain`, `remove`, `replace`: the nodes of a cluster.

use std::time::Duration;

use clap::Args;
use quorate_proto::admin::NodeStatus;
use quorate_proto::kv::Shard;
use quorate_types::NodeId;
use quorate_types::operation::Intent;
use serde::Serialize;

use crate::args::Ask;
use crate::duration;
use crate::failure::{Exit, Failure};
use crate::operation::{Change, carry_out, confirm};
use crate::output::{self, Format, Kinds, count, id};
use crate::survey::{DRAINING, REMOVED, Survey};

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Only nodes of this zone.
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// The node's id.
    id: u64,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args, Debug)]
pub(crate) struct OneArgs {
    /// The node's id.
    id: u64,
    #[command(flatten)]
    change: Change,
}

#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// The node's id.
    id: u64,
    /// It will never come back: its replicas are made anew elsewhere.
    #[arg(long, requires = "confirm")]
    dead: bool,
    /// The node's client address, typed to be sure that it is the right one.
    #[arg(long, value_name = "HOST:PORT", requires = "dead")]
    confirm: Option<String>,
    #[command(flatten)]
    change: Change,
}

#[derive(Args, Debug)]
pub(crate) struct ReplaceArgs {
    /// The id of the node that leaves.
    id: u64,
    /// The id of the node that takes over.
    #[arg(long, value_name = "ID")]
    with: u64,
    #[command(flatten)]
    change: Change,
}

/// Lists the nodes.
pub(crate) async fn list(args: ListArgs) -> Result<(), Failure> {
    let survey = Survey::take(&args.ask.connect).await?;
    let rows = of_zone(&survey, args.zone.as_deref())?;
    output::show_all(args.ask.format(), KINDS, rows, |rows| NodeRow::table(rows, args.ask.format() == Format::Wide))
}

/// Shows one node.
pub(crate) async fn show(args: ShowArgs) -> Result<(), Failure> {
    let survey = Survey::take(&args.ask.connect).await?;
    known(&survey, args.id)?;
    let row = NodeRow::of(&survey, args.id);
    let format = args.ask.format();
    output::show(format, KINDS.item, &row, || NodeRow::table(std::slice::from_ref(&row), format == Format::Wide))
}

const KINDS: Kinds = Kinds { list: "NodeList", item: "Node" };

/// The nodes of a zone, or all. A zone that no node names is a slip of the keyboard.
fn of_zone(survey: &Survey, zone: Option<&str>) -> Result<Vec<NodeRow>, Failure> {
    let zones = survey.zones();
    if let Some(unknown) = zone.filter(|zone| !zones.contains(zone)) {
        let known: Vec<&str> = zones.into_iter().collect();
        return Err(Failure::new(Exit::Usage, format!("no node is in a zone '{}'", unknown.escape_debug())).hint(
            match known.is_empty() {
                true => "no node names a zone: quorate node start --zone NAME".to_owned(),
                false => format!("the zones are {}", known.join(", ")),
            },
        ));
    }
    let of_zone = survey.nodes.iter().filter(|(node, _)| zone.is_none_or(|zone| node.zone == zone));
    Ok(of_zone.map(|(node, _)| NodeRow::of(survey, node.id)).collect())
}

/// Warns if the replicas of a shard cannot be in distinct zones any more when a node has left.
fn warn_of_zones(survey: &Survey, leaving: u64) {
    if let Some(scarce) = survey.scarce_zones(Some(leaving)) {
        tell!("warning: {scarce}; they will be as far apart as is possible");
    }
}

/// Moves a node's replicas to others.
pub(crate) async fn drain(OneArgs { id, change }: OneArgs) -> Result<(), Failure> {
    let survey = Survey::take(&change.connect).await?;
    known(&survey, id)?;
    let (leaders, replicas) = holds(&survey, id);
    let size = output::bytes(held_bytes(&survey, id));
    tell!(
        "plan: hand over {}, move {} ({size}) away from node {id}{}",
        count(leaders, "leader"),
        count(replicas, "replica"),
        if survey.without_quorum().is_empty() { "; every shard keeps its quorum" } else { "" },
    );
    warn_of_lost_quorums(&survey);
    warn_of_zones(&survey, id);
    confirm(&format!("Drain node {id}?"), &change)?;
    let done = format!("node {id} is drained; it is safe to stop it.  next: quorate node remove {id}");
    carry_out(&change, Intent::Drain { node: NodeId(id) }, 0, &done).await
}

/// Lets a node that was draining keep what it has.
pub(crate) async fn undrain(OneArgs { id, change }: OneArgs) -> Result<(), Failure> {
    let survey = Survey::take(&change.connect).await?;
    known(&survey, id)?;
    if change.dry_run {
        tell!("plan: node {id} keeps what it has and takes replicas again");
    }
    // Nothing comes back to it by itself.
    let next = if holds(&survey, id).1 == 0 { ", and holds nothing.  next: quorate rebalance apply" } else { "" };
    carry_out(&change, Intent::Undrain { node: NodeId(id) }, 0, &format!("node {id} is active{next}")).await
}

/// Removes a node for good.
pub(crate) async fn remove(RemoveArgs { id, dead, confirm: typed, change }: RemoveArgs) -> Result<(), Failure> {
    let survey = Survey::take(&change.connect).await?;
    let removed = is_removed(&survey, id);
    if !removed {
        known(&survey, id)?;
    }
    let (_, replicas) = holds(&survey, id);
    if dead {
        tell!(
            "plan: make {} of node {id} anew on other nodes, then forget it; what only it has is lost",
            count(replicas, "replica"),
        );
    } else {
        tell!("plan: node {id} leaves the cluster for good; its id is never used again");
    }
    warn_of_zones(&survey, id);
    if dead && !removed {
        check_dead(&survey, id, typed.as_deref().unwrap_or_default())?;
    } else if !removed {
        confirm(&format!("Remove node {id}?"), &change)?;
    }
    let intent = Intent::Remove { node: NodeId(id), dead };
    carry_out(&change, intent, 0, &format!("node {id} is removed")).await
}

/// Puts one node in the place of another.
pub(crate) async fn replace(ReplaceArgs { id, with, change }: ReplaceArgs) -> Result<(), Failure> {
    let survey = Survey::take(&change.connect).await?;
    let intent = Intent::Replace { old: NodeId(id), new: NodeId(with) };
    let done = format!("node {id} is replaced and removed; it is safe to stop it");
    // Whoever asks again after it is done did not hear the answer: the cluster knows whether it was this that removed it.
    if is_removed(&survey, id) {
        return carry_out(&change, intent, 0, &done).await;
    }
    known(&survey, id)?;
    known(&survey, with)?;
    if id == with {
        return Err(Failure::new(Exit::Usage, format!("node {id} cannot replace itself"))
            .hint("name the node that takes over: quorate node list"));
    }
    let size = output::bytes(held_bytes(&survey, id));
    let (there, elsewhere) = taken_over(&survey, id, with);
    let beside = match elsewhere {
        0 => String::new(),
        some => format!(" and {} to others, as node {with} has one of the same shard", count(some, "replica")),
    };
    tell!(
        "plan: move {} ({size} in all) of node {id} to node {with}{beside}, then remove node {id} for good",
        count(there, "replica"),
    );
    if !survey.silent([with]).is_empty() {
        tell!("warning: node {with} does not answer; after half a minute without it, others take the replicas");
    }
    warn_of_zones(&survey, id);
    confirm(&format!("Replace node {id} with node {with}?"), &change)?;
    carry_out(&change, intent, 0, &done).await
}

/// Of a node's replicas, how many another one can take over, and how many it cannot since it has one of their shard.
fn taken_over(survey: &Survey, old: u64, new: u64) -> (usize, usize) {
    let has = |shard: &&Shard, node: u64| shard.replicas.iter().any(|at| at.node == node);
    let leaving: Vec<&Shard> = survey.topology.shards.iter().filter(|shard| has(shard, old)).collect();
    let elsewhere = leaving.iter().filter(|shard| has(shard, new)).count();
    (leaving.len() - elsewhere, elsewhere)
}

/// Warns of shards that cannot move.
fn warn_of_lost_quorums(survey: &Survey) {
    let lost: Vec<String> = survey.without_quorum().iter().map(ToString::to_string).collect();
    if !lost.is_empty() {
        tell!("warning: shards {} have no quorum now, and do not move until they have one", lost.join(", "));
    }
}

/// Warns of targets that do not answer.
pub(crate) fn warn_of_silence(survey: &Survey, targets: impl IntoIterator<Item = u64>) {
    for node in survey.silent(targets) {
        tell!("warning: {}", silence(node));
    }
}

/// What comes of moves to a node that does not answer.
pub(crate) fn silence(node: u64) -> String {
    format!("node {node} does not answer; what is to move there waits until it does")
}

/// A node that answers is not dead, and whoever removes one types its address.
fn check_dead(survey: &Survey, id: u64, typed: &str) -> Result<(), Failure> {
    let (node, status) = survey.nodes.iter().find(|(node, _)| node.id == id).expect("it was just found");
    if status.is_some() {
        return Err(Failure::new(Exit::Refused, format!("cannot remove node {id} as dead"))
            .cause(format!("it answers at {}", node.client_address))
            .hint(match survey.can_do_without(id) {
                true => format!("drain it, then remove it: quorate node drain {id}"),
                false => format!("start another node with --join, then drain this one: quorate node drain {id}"),
            }));
    }
    if typed != node.client_address {
        return Err(Failure::new(Exit::Usage, format!("node {id} is at {}, not at '{typed}'", node.client_address))
            .hint(format!("to be sure, type its address: --confirm {}", node.client_address)));
    }
    let hit = survey.topology.shards.iter().filter(|shard| shard.replicas.iter().any(|at| at.node == id));
    let stuck: Vec<String> =
        hit.filter(|shard| survey.margin(shard.id).spare < 0).map(|shard| shard.id.to_string()).collect();
    if stuck.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("cannot remove node {id}"))
        .cause(format!("shards {} have no quorum; their data may be on it alone", stuck.join(", ")))
        .hint("start the nodes that are down first: quorate status"))
}

fn is_removed(survey: &Survey, id: u64) -> bool {
    survey.topology.nodes.iter().any(|node| node.id == id && node.state == REMOVED)
}

/// The node, as long as it is in the cluster.
fn known(survey: &Survey, id: u64) -> Result<(), Failure> {
    if survey.nodes.iter().any(|(node, _)| node.id == id) {
        return Ok(());
    }
    let removed = survey.topology.nodes.iter().any(|node| node.id == id);
    let message = if removed { format!("node {id} was removed") } else { format!("the cluster has no node {id}") };
    let ids: Vec<String> = survey.nodes.iter().map(|(node, _)| node.id.to_string()).collect();
    Err(Failure::new(Exit::Usage, message).hint(format!("its nodes are {}", ids.join(", "))))
}

/// A node as it is printed.
#[derive(Debug, Serialize)]
pub(crate) struct NodeRow {
    #[serde(serialize_with = "id")]
    pub(crate) id: u64,
    pub(crate) client_address: String,
    zone: String,
    state: String,
    pub(crate) up: bool,
    /// What to do about it, where it does not answer.
    pub(crate) fix: Option<String>,
    /// It answers, but hears nothing of the leader of some shard.
    pub(crate) cut_off: bool,
    version: Option<String>,
    leaders: Option<usize>,
    replicas: Option<usize>,
    disk_free_bytes: Option<u64>,
    lag_entries: Option<u64>,
    uptime_ms: Option<u64>,
    weight: u32,
    /// About how many bytes its replicas have on disk.
    data_bytes: Option<u64>,
}

/// The state of a node that was drained, as it is shown.
const DRAINED: &str = "drained";
/// The columns of a table of nodes.
const NODE_HEADER: [&str; 9] = ["NODE", "ADDRESS", "STATE", "LEADERS", "REPLICAS", "DISK FREE", "LAG", "UP", "VERSION"];
/// The columns of a wide one.
const WIDE_NODE_HEADER: [&str; 12] =
    ["NODE", "ADDRESS", "STATE", "LEADERS", "REPLICAS", "DISK FREE", "LAG", "UP", "VERSION", "ZONE", "WEIGHT", "DATA"];

impl NodeRow {
    /// A node of the survey.
    pub(crate) fn of(survey: &Survey, id: u64) -> NodeRow {
        let (node, status) = survey.nodes.iter().find(|(node, _)| node.id == id).expect("the id comes from this list");
        let status = status.as_ref();
        let shards = |status: &NodeStatus| status.replicas.iter().filter(|r| r.group != 0).count();
        let leads =
            |_: &NodeStatus| survey.topology.shards.iter().filter(|shard| survey.leader(shard.id) == Some(id)).count();
        NodeRow {
            id,
            client_address: node.client_address.clone(),
            zone: node.zone.clone(),
            state: if survey.is_drained(id) { DRAINED.to_owned() } else { node.state.clone() },
            fix: status.is_none().then(|| survey.way_back(node)),
            up: status.is_some(),
            cut_off: survey.is_cut_off(id),
            version: status.map(|status| status.version.clone()),
            leaders: status.map(leads),
            replicas: status.map(shards),
            disk_free_bytes: status.map(|status| status.disk_free_bytes),
            lag_entries: survey.lag_entries(id),
            uptime_ms: status.map(|status| status.uptime_ms),
            weight: node.weight,
            data_bytes: status.map(|status| status.replicas.iter().map(|replica| replica.data_bytes).sum()),
        }
    }

    /// Whether it holds nothing any more, and is to take nothing.
    pub(crate) fn is_drained(&self) -> bool {
        self.state == DRAINED
    }

    /// Whether it gives its replicas away.
    pub(crate) fn is_draining(&self) -> bool {
        self.state == DRAINING
    }

    /// A table of nodes.
    pub(crate) fn table(rows: &[NodeRow], wide: bool) -> String {
        match wide {
            false => output::table(NODE_HEADER, rows.iter().map(NodeRow::row)),
            true => output::table(WIDE_NODE_HEADER, rows.iter().map(NodeRow::wide_row)),
        }
    }

    fn wide_row(&self) -> [String; 12] {
        let [id, address, state, leaders, replicas, disk, lag, up, version] = self.row();
        let zone = if self.zone.is_empty() { "-".to_owned() } else { self.zone.clone() };
        let data = self.data_bytes.map_or_else(|| "-".to_owned(), output::bytes);
        [id, address, state, leaders, replicas, disk, lag, up, version, zone, self.weight.to_string(), data]
    }

    /// Its row.
    fn row(&self) -> [String; 9] {
        fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
            value.map_or_else(|| "-".to_owned(), show)
        }
        [
            self.id.to_string(),
            self.client_address.clone(),
            match (self.up, self.cut_off) {
                (false, _) if self.is_drained() => "stopped".to_owned(),
                (false, _) => "down".to_owned(),
                (true, true) => "cut off".to_owned(),
                (true, false) => self.state.clone(),
            },
            or_dash(self.leaders, |count| count.to_string()),
            or_dash(self.replicas, |count| count.to_string()),
            or_dash(self.disk_free_bytes, output::bytes),
            or_dash(self.lag_entries, |entries| entries.to_string()),
            or_dash(self.uptime_ms, |ms| duration::rough(Duration::from_millis(ms))),
            or_dash(self.version.clone(), |version| version),
        ]
    }
}

/// How many shards a node leads, and how many replicas it has.
fn holds(survey: &Survey, id: u64) -> (usize, usize) {
    let shards = &survey.topology.shards;
    let leads = shards.iter().filter(|shard| survey.leader(shard.id) == Some(id)).count();
    let replicas = shards.iter().filter(|shard| shard.replicas.iter().any(|at| at.node == id)).count();
    (leads, replicas)
}

/// About how many bytes the replicas on a node have.
pub(crate) fn held_bytes(survey: &Survey, id: u64) -> u64 {
    let held = survey.topology.shards.iter().filter(|shard| shard.replicas.iter().any(|at| at.node == id));
    held.map(|shard| survey.size_bytes(shard.id)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::survey;

    #[test]
    fn an_unknown_zone_is_refused_with_those_that_there_are() {
        let mut survey = survey(&[]);
        let refused = |survey: &Survey, zone| of_zone(survey, Some(zone)).unwrap_err().to_string();
        assert!(refused(&survey, "east").contains("no node names a zone"));
        survey.nodes[0].0.zone = "west".into();
        survey.nodes[1].0.zone = "north".into();
        assert_eq!(
            refused(&survey, "east"),
            "error: no node is in a zone 'east'\n  hint:  the zones are north, west\n"
        );
        assert_eq!(of_zone(&survey, Some("west")).unwrap().len(), 1);
        assert_eq!(of_zone(&survey, None).unwrap().len(), 3);
    }

    /// The plan of a replacement said that all replicas go to the new node, also those whose shards it had already.
    #[test]
    fn a_node_takes_over_what_it_has_none_of() {
        let mut survey = survey(&[]);
        assert_eq!(taken_over(&survey, 1, 2), (0, 2));
        survey.topology.shards[0].replicas.retain(|at| at.node != 2);
        assert_eq!(taken_over(&survey, 1, 2), (1, 1));
        assert_eq!(taken_over(&survey, 1, 9), (2, 0));
    }

    #[test]
    fn a_node_has_the_bytes_of_its_shards() {
        assert_eq!(held_bytes(&survey(&[]), 2), 9 << 20);
        assert_eq!(held_bytes(&survey(&[]), 7), 0);
    }
}
