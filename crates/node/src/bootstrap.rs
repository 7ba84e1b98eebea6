//! Bootstraps a cluster, once: harmless to repeat, safe to crash in, refused for other nodes.
//!
//! ```text
//!   init, at the first of the initial nodes          every other initial node
//!     ask each node for its status
//!     record the bootstrap (cluster id, hash key,
//!       nodes, topology voters), durably
//!     Bootstrap ────────────────────────────→ record it, durably; or refuse: another is recorded
//!     all have confirmed: propose Command::Bootstrap
//!       ────────────────────────────────→ a topology voter starts the group and proposes
//!     wait until the topology is published
//! ```
//!
//! A crash at any point leaves records that agree; repeating the call completes the missing steps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quorate_proto::admin::{InitClusterRequest, InitClusterResponse, NodeStatus};
use quorate_topology::{SHARDS_MAX, bootstrap_shards, plan_bootstrap};
use quorate_types::topology::{Bootstrap, ClusterInfo, Command, NodeAddresses, NodeInfo, NodeState, Outcome};
use quorate_types::{ClusterId, HostPort, NodeId};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::info;

use crate::cluster_node::ClusterNode;
use crate::fatal::fail_stop;
use crate::life::Life;
use crate::node::Node;
use crate::peer::{PeerCaller, get_node, get_nodes};
use crate::refusal::Refusal;
use crate::tasks::enter_cluster;

/// How long the topology group may take to start and to apply its first command.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves `InitCluster`. Completes even if the caller disconnects: a bootstrap must not stop
/// half-way.
pub(crate) async fn init(node: Arc<Node>, request: InitClusterRequest) -> Result<InitClusterResponse, Refusal> {
    let wanted = Wanted::check(request)?;
    let life = node.life.clone();
    finish(&life, async move { bootstrap(&node, wanted).await }).await
}

/// Serves `Bootstrap`: records another node's bootstrap of a cluster with this node.
pub(crate) async fn accept(node: Arc<Node>, bootstrap: Bootstrap) -> Result<Bootstrap, Refusal> {
    let life = node.life.clone();
    finish(&life, async move { accept_bootstrap(&node, bootstrap).await }).await
}

/// Runs to completion, even if the caller stops waiting; ends early only if the node closes.
async fn finish<T: Send + 'static>(
    life: &Life,
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let (done, result) = oneshot::channel();
    life.spawn(async move {
        // An error means that the caller stopped waiting.
        let _ = done.send(work.await);
    });
    result.await.unwrap_or_else(|_| Err(Refusal::Unavailable("the node stopped meanwhile".to_owned())))
}

async fn bootstrap(node: &Arc<Node>, wanted: Wanted) -> Result<InitClusterResponse, Refusal> {
    let busy = |_| Refusal::Busy("a cluster is being bootstrapped here already; wait for it".to_owned());
    let deciding = node.deciding.try_lock().map_err(busy)?;
    let (bootstrap, already) = match on_record(node)? {
        Some(bootstrap) => {
            wanted.check_same(&bootstrap).await?;
            (bootstrap, true)
        }
        None => (wanted.plan(node).await?, false),
    };
    let member = record(node, &bootstrap).await?;
    drop(deciding);

    let cluster_id = bootstrap.cluster.id.to_string();
    if already && member.store().feed.latest().is_some() {
        return Ok(InitClusterResponse { cluster_id, already });
    }
    distribute(node, &bootstrap).await?;
    let shards = bootstrap_shards(&bootstrap).map_err(|e| Refusal::Invalid(e.to_string()))?;
    let command = Command::Bootstrap(bootstrap, shards);
    if let Outcome::Refused(reason) = member.proposer().propose(&command, START_TIMEOUT).await? {
        return Err(Refusal::AlreadyExists(reason));
    }
    let published = timeout(START_TIMEOUT, member.store().feed.first()).await;
    published.map_err(|_| {
        Refusal::Unavailable("the cluster is bootstrapped, but this node has not received its topology yet".into())
    })?;
    info!(cluster = cluster_id, already, "cluster bootstrapped");
    Ok(InitClusterResponse { cluster_id, already })
}

async fn accept_bootstrap(node: &Arc<Node>, bootstrap: Bootstrap) -> Result<Bootstrap, Refusal> {
    let busy = |_| Refusal::Busy("this node is deciding which cluster it belongs to; try again".to_owned());
    let _deciding = node.deciding.try_lock().map_err(busy)?;
    if let Some(own) = on_record(node)?
        && own != bootstrap
    {
        return Err(Refusal::AlreadyExists(format!(
            "this node belongs to {}, not to {}",
            describe(&own),
            describe(&bootstrap)
        )));
    }
    record(node, &bootstrap).await?;
    Ok(bootstrap)
}

/// The requested cluster, checked without asking other nodes.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    /// Client addresses, sorted and distinct.
    nodes: Vec<String>,
    replicas: u32,
    shards: u32,
}

impl Wanted {
    fn check(request: InitClusterRequest) -> Result<Self, Refusal> {
        let InitClusterRequest { nodes, replicas, shards } = request;
        if ![1, 3, 5].contains(&replicas) {
            return Err(Refusal::Invalid(format!("{replicas} replicas are not possible; choose 1, 3 or 5")));
        }
        if shards == 0 || shards > SHARDS_MAX {
            return Err(Refusal::Invalid(format!("{shards} shards are not possible; choose 1 to {SHARDS_MAX}")));
        }
        for address in &nodes {
            address.parse::<HostPort>().map_err(|error| Refusal::Invalid(error.to_string()))?;
        }
        let distinct: BTreeSet<String> = nodes.iter().cloned().collect();
        if distinct.len() < nodes.len() {
            return Err(Refusal::Invalid("a node is named twice".to_owned()));
        }
        if nodes.len() < replicas as usize {
            return Err(Refusal::Invalid(format!(
                "{replicas} replicas need at least {replicas} nodes, and there are {}; name more nodes or ask for fewer replicas",
                nodes.len()
            )));
        }
        Ok(Wanted { nodes: distinct.into_iter().collect(), replicas, shards })
    }

    /// Checks that the recorded bootstrap is the requested one.
    async fn check_same(&self, bootstrap: &Bootstrap) -> Result<(), Refusal> {
        let recorded: BTreeSet<&str> = bootstrap.nodes.iter().map(|node| node.addresses.client.as_str()).collect();
        // The operator may name a node by another address than the node advertises.
        let resolved = join_all(self.nodes.iter().map(async |address| {
            if recorded.contains(address.as_str()) {
                return address.clone();
            }
            get_node(address).await.map_or_else(|_| address.clone(), |status| status.client_address)
        }));
        let wanted: BTreeSet<String> = resolved.await.into_iter().collect();
        let same_nodes = wanted.iter().map(String::as_str).eq(recorded.iter().copied());
        if same_nodes && self.replicas == bootstrap.cluster.replicas && self.shards == bootstrap.cluster.shards {
            return Ok(());
        }
        Err(Refusal::AlreadyExists(format!(
            "this node belongs to {}; the request names the nodes {} with {} replicas and {} shards",
            describe(bootstrap),
            self.nodes.join(", "),
            self.replicas,
            self.shards
        )))
    }

    /// Asks every node for its status, and makes the bootstrap. Only the first of the nodes does
    /// so: two bootstraps for one set of nodes are never made concurrently.
    async fn plan(&self, node: &Node) -> Result<Bootstrap, Refusal> {
        let answers = get_nodes(self.nodes.iter()).await;
        let mut statuses = Vec::with_capacity(answers.len());
        for (address, answer) in answers {
            let status = answer.map_err(|reason| {
                Refusal::Unavailable(format!(
                    "node {address} does not answer: {reason}; start it, or check its address"
                ))
            })?;
            statuses.push((address, status));
        }
        if !statuses.iter().any(|(_, status)| status.client_address == node.addresses.client) {
            let own = &node.addresses.client;
            return Err(Refusal::Invalid(format!(
                "this node, {own}, is not in the request; send the request to one of its nodes"
            )));
        }
        let (first, status) = &statuses[0];
        if status.client_address != node.addresses.client {
            return Err(Refusal::Precondition(format!(
                "only the first node bootstraps a cluster: send the request to {first}"
            )));
        }
        if let Some((address, status)) = statuses.iter().find(|(_, status)| !status.cluster_id.is_empty()) {
            return Err(Refusal::AlreadyExists(format!(
                "node {address} belongs to cluster {} already",
                status.cluster_id
            )));
        }
        let nodes: Vec<NodeInfo> = (1..).map(NodeId).zip(statuses).map(|(id, (_, status))| info(id, status)).collect();
        let cluster = ClusterInfo {
            id: ClusterId(rand::random()),
            hash_key: rand::random(),
            replicas: self.replicas,
            shards: self.shards,
        };
        let (bootstrap, _) = plan_bootstrap(&cluster, &nodes).map_err(|e| Refusal::Invalid(e.to_string()))?;
        Ok(bootstrap)
    }
}

fn info(id: NodeId, status: NodeStatus) -> NodeInfo {
    let NodeStatus { client_address: client, peer_address: peer, ops_address: ops, zone, weight, .. } = status;
    NodeInfo { id, addresses: NodeAddresses { client, peer, ops }, zone, weight, state: NodeState::Active }
}

/// The bootstrap recorded here. A node that joined its cluster later has none.
fn on_record(node: &Node) -> Result<Option<Bootstrap>, Refusal> {
    let bootstrap = node.data.bootstrap().unwrap_or_else(|e| fail_stop(&e.to_string()));
    match (bootstrap, node.cluster_node()) {
        (Some(bootstrap), _) => Ok(Some(bootstrap)),
        (None, Some(member)) => Err(Refusal::AlreadyExists(format!(
            "this node belongs to cluster {} already",
            member.store().identity.cluster
        ))),
        (None, None) => Ok(None),
    }
}

/// Records the bootstrap durably and enters the cluster. Harmless if both were done before.
async fn record(node: &Arc<Node>, bootstrap: &Bootstrap) -> Result<Arc<ClusterNode>, Refusal> {
    let own = match node.cluster_node() {
        Some(member) => member.store().identity.node,
        None => own_id(bootstrap, &node.addresses)?,
    };
    let (recorder, copy) = (node.clone(), bootstrap.clone());
    let recorded = tokio::task::spawn_blocking(move || recorder.data.record_bootstrap(&copy, own)).await;
    match recorded {
        Ok(Ok(())) => {}
        Ok(Err(error @ crate::data_dir::DataDirError::OtherCluster { .. })) => {
            return Err(Refusal::AlreadyExists(error.to_string()));
        }
        Ok(Err(error)) => fail_stop(&error.to_string()),
        Err(error) => return Err(Refusal::Unavailable(error.to_string())),
    }
    // The bootstrap is on record: a node that cannot enter must not continue as if it were not.
    enter_cluster(node).await.unwrap_or_else(|error| fail_stop(&error.to_string()));
    Ok(node.joined().await)
}

fn own_id(bootstrap: &Bootstrap, own: &NodeAddresses) -> Result<NodeId, Refusal> {
    let found = bootstrap.nodes.iter().find(|node| node.addresses == *own);
    found.map(|node| node.id).ok_or_else(|| {
        Refusal::Invalid(format!(
            "the bootstrap is for {}, and none of them is this node, {}",
            describe(bootstrap),
            own.client
        ))
    })
}

/// Sends the bootstrap to every other initial node. All must record it before the cluster may
/// start.
async fn distribute(node: &Node, bootstrap: &Bootstrap) -> Result<(), Refusal> {
    let others = bootstrap.nodes.iter().filter(|other| other.addresses != node.addresses);
    let answers = join_all(others.map(async |other| {
        let confirmed = async { PeerCaller::connect(&other.addresses.peer).await?.bootstrap(bootstrap).await };
        confirmed.await.map_err(|reason| (&other.addresses, reason))
    }));
    for answer in answers.await {
        answer.map_err(|(at, reason)| {
            Refusal::Unavailable(format!(
                "node {} (peer address {}) has not confirmed: {reason}; fix the cause and run the same command again",
                at.client, at.peer
            ))
        })?;
    }
    Ok(())
}

fn describe(bootstrap: &Bootstrap) -> String {
    let nodes: Vec<&str> = bootstrap.nodes.iter().map(|node| node.addresses.client.as_str()).collect();
    let ClusterInfo { id, replicas, shards, .. } = &bootstrap.cluster;
    format!("cluster {id} of the nodes {} with {replicas} replicas and {shards} shards", nodes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(nodes: &[&str], replicas: u32, shards: u32) -> Result<Wanted, Refusal> {
        let nodes = nodes.iter().map(|&node| node.to_owned()).collect();
        Wanted::check(InitClusterRequest { nodes, replicas, shards })
    }

    fn bootstrap(nodes: &[&str]) -> Bootstrap {
        let cluster = ClusterInfo { id: ClusterId(1), hash_key: [1; 16], replicas: 3, shards: 16 };
        let info = |(id, client): (u64, &&str)| NodeInfo {
            id: NodeId(id),
            addresses: NodeAddresses {
                client: (*client).to_owned(),
                peer: format!("{client}1"),
                ops: format!("{client}2"),
            },
            zone: String::new(),
            weight: 100,
            state: NodeState::Active,
        };
        let nodes: Vec<_> = (1..).zip(nodes).map(info).collect();
        plan_bootstrap(&cluster, &nodes).unwrap().0
    }

    #[test]
    fn impossible_cluster_is_refused_by_name() {
        let three = ["a:1", "b:1", "c:1"];
        let cases = [
            (wanted(&three, 2, 16), "2 replicas are not possible"),
            (wanted(&three, 7, 16), "7 replicas are not possible"),
            (wanted(&three, 5, 16), "need at least 5 nodes"),
            (wanted(&three, 3, 0), "0 shards"),
            (wanted(&three, 3, 4097), "4097 shards"),
            (wanted(&["a:1", "b:1", "a:1"], 3, 16), "named twice"),
            (wanted(&["a:1", "b:1", "c"], 3, 16), "host:port"),
            (wanted(&[], 1, 16), "need at least 1 nodes"),
        ];
        for (result, words) in cases {
            let refusal = result.unwrap_err();
            assert!(refusal.to_string().contains(words), "'{refusal}' should say '{words}'");
        }
        assert_eq!(wanted(&["c:1", "a:1", "b:1"], 3, 4096).unwrap().nodes, three);
    }

    #[tokio::test]
    async fn repeated_request_is_recognised_in_any_order_and_other_nodes_are_refused() {
        let recorded = bootstrap(&["a:1", "b:1", "c:1"]);
        let check = async |nodes: &[&str], replicas, shards| {
            wanted(nodes, replicas, shards).unwrap().check_same(&recorded).await
        };
        check(&["c:1", "b:1", "a:1"], 3, 16).await.unwrap();
        // No process listens on port 9 of the loopback interface: the name stands for itself.
        let refusal = check(&["a:1", "b:1", "127.0.0.1:9"], 3, 16).await.unwrap_err();
        assert!(refusal.to_string().contains("of the nodes a:1, b:1, c:1 with 3 replicas"), "{refusal}");
        assert!(refusal.to_string().contains("the request names the nodes 127.0.0.1:9, a:1, b:1"), "{refusal}");
        for (replicas, shards) in [(1, 16), (3, 8)] {
            let refusal = check(&["a:1", "b:1", "c:1"], replicas, shards).await.unwrap_err();
            assert!(matches!(refusal, Refusal::AlreadyExists(_)), "{refusal}");
        }
    }

    #[test]
    fn bootstrap_of_other_nodes_is_not_recorded() {
        let recorded = bootstrap(&["a:1", "b:1", "c:1"]);
        let own = recorded.nodes[1].addresses.clone();
        assert_eq!(own_id(&recorded, &own).unwrap(), NodeId(2));
        let stranger = NodeAddresses { client: "d:1".into(), ..own };
        assert!(own_id(&recorded, &stranger).unwrap_err().to_string().contains("none of them is this node, d:1"));
    }
}
