//! Questions to the nodes of the playground: status, topology, leaders, a test write.

use std::time::Duration;

use futures::future::join_all;
use quorate_client::{AdminError, AdminErrorKind, Client, admin, newest_topology, node_status};
use quorate_proto::admin::{InitClusterRequest, NodeStatus, ReplicaStatus};
use quorate_proto::kv::Role;
use quorate_types::topology::Topology;

use crate::error::{Error, Kind};

/// Written and deleted again to check that the cluster takes writes.
const TEST_KEY: &str = "playground/ready";

/// The status of one node.
pub(crate) async fn status(address: &str, within: Duration) -> Result<NodeStatus, Error> {
    node_status(address, within).await.map_err(failed)
}

/// The status of every node, in the order of the addresses; an error if one is unreachable.
pub(crate) async fn statuses(addresses: &[String], within: Duration) -> Result<Vec<NodeStatus>, Error> {
    join_all(addresses.iter().map(|address| status(address, within))).await.into_iter().collect()
}

/// The newest topology that any of the nodes knows.
pub(crate) async fn topology(addresses: &[String], within: Duration) -> Result<Topology, Error> {
    let none = || Error::new(Kind::Unreachable, "no node returned the cluster map");
    newest_topology(addresses, within).await.map_err(|errors| errors.iter().fold(none(), Error::why))
}

/// Bootstraps a cluster of these nodes. Repeating the call is harmless.
pub(crate) async fn bootstrap(addresses: &[String], replicas: u32, shards: u32, within: Duration) -> Result<(), Error> {
    let first = addresses.first().expect("a playground has at least one node");
    let request = InitClusterRequest { nodes: addresses.to_vec(), replicas, shards };
    let made = async { admin(first, within).await?.init_cluster(request, within).await };
    made.await.map(drop).map_err(|error| match error.kind {
        // A node that refuses to be bootstrapped now also refuses the next attempt.
        AdminErrorKind::Refused => Error::new(Kind::Conflict, "cannot bootstrap the cluster").why(error),
        _ => failed(error),
    })
}

/// Checks that a majority of every group's voters follows one leader.
pub(crate) async fn check_leaders(addresses: &[String], within: Duration) -> Result<(), Error> {
    let topology = topology(addresses, within).await?;
    let answers = join_all(addresses.iter().map(|address| status(address, within))).await;
    let statuses: Vec<NodeStatus> = answers.into_iter().filter_map(Result::ok).collect();
    let groups = topology.shards.iter().map(|shard| shard.id.0).chain([0]);
    match groups.filter(|group| !has_leader(*group, &statuses)).count() {
        0 => Ok(()),
        waiting => Err(Error::new(Kind::Unreachable, format!("{waiting} groups have no leader yet"))),
    }
}

/// Whether a majority of the group's voters follows the leader with the highest term.
fn has_leader(group: u32, statuses: &[NodeStatus]) -> bool {
    let reports = || {
        let all = statuses.iter().flat_map(|node| node.replicas.iter().map(move |replica| (node.id, replica)));
        all.filter(|(_, replica)| replica.group == group)
    };
    let leaders = reports().filter(|(_, replica)| replica.role() == Role::Leader);
    let Some((leader, elected)) = leaders.max_by_key(|(_, replica)| replica.term) else { return false };
    let follows = |&(node, replica): &(u64, &ReplicaStatus)| {
        elected.voters.contains(&node) && (node == leader || replica.leader == leader)
    };
    2 * reports().filter(follows).count() > elected.voters.len()
}

/// Writes and deletes a test key.
pub(crate) async fn check_writes(addresses: &[String], within: Duration) -> Result<(), Error> {
    let written = async {
        let client = Client::builder().endpoints(addresses.to_vec()).deadline(within).connect().await?;
        client.put(TEST_KEY, "yes").await?;
        client.delete(TEST_KEY).await
    };
    written.await.map(drop).map_err(|error| Error::new(Kind::Unreachable, "the test write failed").why(error))
}

fn failed(error: AdminError) -> Error {
    let kind = match error.kind {
        AdminErrorKind::Unreachable | AdminErrorKind::Unanswered | AdminErrorKind::NotLeader => Kind::Unreachable,
        AdminErrorKind::Conflict => Kind::Conflict,
        AdminErrorKind::Invalid => Kind::Usage,
        _ => Kind::Failed,
    };
    Error::new(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, role: Role, leader: u64) -> NodeStatus {
        let replica = ReplicaStatus {
            group: 1,
            role: role.into(),
            term: 3,
            leader,
            voters: vec![1, 2, 3],
            ..ReplicaStatus::default()
        };
        NodeStatus { id, replicas: vec![replica], ..NodeStatus::default() }
    }

    #[test]
    fn a_leader_needs_a_majority_that_follows_it() {
        let alone = [node(1, Role::Leader, 1), node(2, Role::Follower, 0), node(3, Role::Follower, 0)];
        assert!(!has_leader(1, &alone));
        let followed = [node(1, Role::Leader, 1), node(2, Role::Follower, 1)];
        assert!(has_leader(1, &followed));
        assert!(!has_leader(2, &followed), "another group");
        assert!(!has_leader(1, &followed[1..]), "only a follower answers");
    }
}
