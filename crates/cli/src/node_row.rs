//! A node as it is printed: a row of a table, or an item of a JSON document.

use std::time::Duration;

use quorate_proto::admin::NodeStatus;
use serde::Serialize;

use crate::duration;
use crate::output::{self, id};
use crate::survey::{DRAINING, Survey};

/// A node as it is printed.
#[derive(Debug, Serialize)]
pub(crate) struct NodeRow {
    #[serde(serialize_with = "id")]
    pub(crate) id: u64,
    pub(crate) client_address: String,
    zone: String,
    state: String,
    /// It responds to this machine.
    pub(crate) up: bool,
    /// It does not respond to this machine, but other nodes receive its pings.
    pub(crate) unreachable: bool,
    /// The next step, if it does not respond.
    pub(crate) fix: Option<String>,
    /// It responds, but is cut off from the leader of some shard.
    pub(crate) cut_off: bool,
    version: Option<String>,
    leaders: Option<usize>,
    replicas: Option<usize>,
    disk_free_bytes: Option<u64>,
    lag_entries: Option<u64>,
    uptime_ms: Option<u64>,
    weight: u32,
    /// The approximate size of its replicas on disk.
    data_bytes: Option<u64>,
}

/// The state that is shown for a node that was drained.
const DRAINED: &str = "drained";
/// The columns of a table of nodes.
const NODE_HEADER: [&str; 9] = ["NODE", "ADDRESS", "STATE", "LEADERS", "REPLICAS", "DISK FREE", "LAG", "UP", "VERSION"];
/// The columns of a wide table.
const WIDE_NODE_HEADER: [&str; 12] =
    ["NODE", "ADDRESS", "STATE", "LEADERS", "REPLICAS", "DISK FREE", "LAG", "UP", "VERSION", "ZONE", "WEIGHT", "DATA"];

impl NodeRow {
    /// A node of the survey.
    pub(crate) fn of(survey: &Survey, id: u64) -> NodeRow {
        let (node, status) = survey.nodes.iter().find(|(node, _)| node.id == id).expect("the id comes from this list");
        let status = status.as_ref();
        let shards = |status: &NodeStatus| status.replicas.iter().filter(|r| r.group != 0).count();
        NodeRow {
            id,
            client_address: node.client_address.clone(),
            zone: node.zone.clone(),
            state: if survey.is_drained(id) { DRAINED.to_owned() } else { node.state.clone() },
            fix: status.is_none().then(|| survey.way_back(node)),
            up: status.is_some(),
            unreachable: survey.is_unreachable(id),
            cut_off: survey.is_cut_off(id),
            version: status.map(|status| status.version.clone()),
            leaders: status.map(|_| survey.shards_led_by(id)),
            replicas: status.map(shards),
            disk_free_bytes: status.map(|status| status.disk_free_bytes),
            lag_entries: survey.lag_entries(id),
            uptime_ms: status.map(|status| status.uptime_ms),
            weight: node.weight,
            data_bytes: status.map(|status| status.replicas.iter().map(|replica| replica.data_bytes).sum()),
        }
    }

    /// Whether it was drained: it holds no replica and receives none.
    pub(crate) fn is_drained(&self) -> bool {
        self.state == DRAINED
    }

    /// Whether its replicas move to other nodes.
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

    fn row(&self) -> [String; 9] {
        fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
            value.map_or_else(|| "-".to_owned(), show)
        }
        [
            self.id.to_string(),
            self.client_address.clone(),
            match (self.up, self.cut_off) {
                (false, _) if self.unreachable => "unreachable".to_owned(),
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
