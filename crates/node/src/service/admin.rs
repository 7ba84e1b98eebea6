//! The Admin service: the topology, this node's status, and operators' requests.

use std::sync::Arc;

use quorate_control::Plane;
use quorate_control::liveness::NAMED_MAX;
use quorate_machine::state_hash;
use quorate_proto::WireError;
use quorate_proto::admin as wire;
use quorate_proto::admin::admin_server::Admin;
use quorate_proto::kv;
use quorate_types::operation::{Intent, OperationId};
use quorate_types::{GroupId, NodeId, ReplicaId, ShardId};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::cluster_node::ClusterNode;
use crate::fatal::fail_stop;
use crate::node::Node;
use crate::operations::{Listing, OperationRequest};
use crate::refusal::Refusal;
use crate::{bootstrap, operations};

/// Serves the Admin calls.
pub(crate) struct AdminService {
    node: Arc<Node>,
}

impl AdminService {
    /// The Admin service of a node.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        AdminService { node }
    }

    fn cluster_node(&self) -> Result<Arc<ClusterNode>, Refusal> {
        self.node.require_member()
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn get_topology(&self, _: Request<wire::GetTopologyRequest>) -> Result<Response<wire::Topology>, Status> {
        let map = self.cluster_node()?.store().feed.latest().ok_or(Refusal::NoCluster)?;
        Ok(Response::new(wire::Topology::from((*map.topology).clone())))
    }

    async fn get_node(&self, _: Request<wire::GetNodeRequest>) -> Result<Response<wire::NodeStatus>, Status> {
        let node = &self.node;
        let alone = wire::NodeStatus {
            client_address: node.addresses.client.clone(),
            peer_address: node.addresses.peer.clone(),
            ops_address: node.addresses.ops.clone(),
            version: crate::VERSION.to_owned(),
            uptime_ms: node.life.uptime_ms(),
            disk_free_bytes: node.disk.free_bytes(),
            zone: node.config.zone.clone(),
            weight: node.config.weight,
            ..wire::NodeStatus::default()
        };
        let Some(member) = node.cluster_node() else {
            // A node that is opening its data still reports its identity: it must not look like a
            // node that lost it.
            let identity = node.data.identity().ok().flatten();
            let (id, cluster_id) = identity.map(|own| (own.node.0, own.cluster.to_string())).unwrap_or_default();
            return Ok(Response::new(wire::NodeStatus { id, cluster_id, ..alone }));
        };
        let groups = &member.store().groups;
        let (statuses, doubtful) = (groups.statuses(), groups.doubtful());
        let state = member.store().state.clone();
        let (pings, judged) = liveness(&member.plane);
        // Reads indexes that may be on disk.
        let replicas = tokio::task::spawn_blocking(move || {
            let sized = |status: wire::ReplicaStatus| {
                let data_bytes = state.approximate_bytes(ReplicaId(status.replica));
                wire::ReplicaStatus { data_bytes, ..status }
            };
            let doubtful = doubtful.into_iter().map(|(replica, group)| doubtful_status(replica, group));
            statuses.into_iter().map(replica_status).chain(doubtful).map(sized).collect()
        });
        Ok(Response::new(wire::NodeStatus {
            id: member.store().identity.node.0,
            cluster_id: member.store().identity.cluster.to_string(),
            pings,
            judged,
            replicas: replicas.await.map_err(|error| Refusal::Unavailable(error.to_string()))?,
            ..alone
        }))
    }

    async fn init_cluster(
        &self,
        request: Request<wire::InitClusterRequest>,
    ) -> Result<Response<wire::InitClusterResponse>, Status> {
        Ok(Response::new(bootstrap::init(self.node.clone(), request.into_inner()).await?))
    }

    async fn hash_shard(
        &self,
        request: Request<wire::HashShardRequest>,
    ) -> Result<Response<wire::HashShardResponse>, Status> {
        let shard = ShardId(request.into_inner().shard);
        let member = self.cluster_node()?;
        let absent = || Refusal::NotFound(format!("this node has no replica of shard {shard}"));
        let replica = member.store().shards.get(shard).ok_or_else(absent)?.replica().id();
        let state = member.store().state.clone();
        let hashed = tokio::task::spawn_blocking(move || {
            let mut hash = None;
            state.view(&mut |view| {
                hash = Some(state_hash(view, replica)?);
                Ok(())
            })?;
            Ok(hash.expect("the view called back"))
        });
        let hash = match hashed.await {
            Ok(Ok(hash)) => hash,
            Ok(Err(error)) => {
                let error: quorate_machine::state::StateError = error;
                fail_stop(&error.to_string())
            }
            Err(error) => return Err(Refusal::Unavailable(error.to_string()).into()),
        };
        Ok(Response::new(wire::HashShardResponse {
            applied_index: hash.head.applied.map_or(0, |applied| applied.index),
            revision: hash.head.revision,
            records: hash.records,
            hash: format!("{:032x}", hash.hash),
        }))
    }

    async fn compact_logs(
        &self,
        _: Request<wire::CompactLogsRequest>,
    ) -> Result<Response<wire::CompactLogsResponse>, Status> {
        let purged_entries = self.cluster_node()?.store().groups.compact().await.map_err(|_| Refusal::Stopping)?;
        Ok(Response::new(wire::CompactLogsResponse { purged_entries }))
    }

    async fn start_operation(
        &self,
        request: Request<wire::StartOperationRequest>,
    ) -> Result<Response<wire::StartOperationResponse>, Status> {
        let wire::StartOperationRequest { intent, planned_on, dry_run, confirm } = request.into_inner();
        let invalid = |error: WireError| Refusal::Invalid(error.to_string());
        let intent = Intent::try_from(intent.unwrap_or_default()).map_err(invalid)?;
        let member = self.cluster_node()?;
        let request = OperationRequest { intent, planned_on, confirm };
        let started = if dry_run {
            operations::try_out(&member, request).await?
        } else {
            operations::start(&member, request).await?
        };
        Ok(Response::new(wire::StartOperationResponse {
            operation: started.map_or(0, |(id, _)| id.0),
            already: started.is_none_or(|(_, already)| already),
        }))
    }

    async fn cancel_operation(
        &self,
        request: Request<wire::CancelOperationRequest>,
    ) -> Result<Response<wire::CancelOperationResponse>, Status> {
        operations::cancel(&*self.cluster_node()?, OperationId(request.into_inner().operation)).await?;
        Ok(Response::new(wire::CancelOperationResponse {}))
    }

    async fn list_operations(
        &self,
        _: Request<wire::ListOperationsRequest>,
    ) -> Result<Response<wire::ListOperationsResponse>, Status> {
        let Listing { operations, upkeep_waits } = operations::list(&*self.cluster_node()?).await?;
        let operations = operations.into_iter().map(|(operation, progress)| quorate_proto::admin::Operation {
            moving: progress.moving,
            left: progress.left,
            waits: progress.waits,
            ..operation.into()
        });
        Ok(Response::new(wire::ListOperationsResponse { operations: operations.collect(), upkeep_waits }))
    }

    async fn pause_moves(
        &self,
        request: Request<wire::PauseMovesRequest>,
    ) -> Result<Response<wire::PauseMovesResponse>, Status> {
        operations::pause(&*self.cluster_node()?, request.into_inner().paused).await?;
        Ok(Response::new(wire::PauseMovesResponse {}))
    }

    async fn plan_moves(
        &self,
        _: Request<wire::PlanMovesRequest>,
    ) -> Result<Response<wire::PlanMovesResponse>, Status> {
        let (revision, moves) = operations::plan(&*self.cluster_node()?).await?;
        Ok(Response::new(wire::PlanMovesResponse { revision, moves: moves.into_iter().map(Into::into).collect() }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let wire::TransferLeaderRequest { shard, to_node } = request.into_inner();
        operations::transfer_leader(&*self.cluster_node()?, ShardId(shard), NodeId(to_node)).await?;
        Ok(Response::new(wire::TransferLeaderResponse {}))
    }
}

/// The pings that this node received, and the judgement of the cluster if it is this node's to
/// make.
fn liveness(plane: &Plane) -> (Vec<wire::ReceivedPing>, Vec<wire::Liveness>) {
    let now = Instant::now();
    let received = plane.liveness.ping(now).received.into_iter();
    let pings = received.map(|ping| wire::ReceivedPing { from: ping.from.0, ago_ms: ping.ago_ms }).collect();
    let judged = plane
        .store
        .topology_group()
        .zip(plane.store.feed.latest())
        .and_then(|(group, map)| plane.liveness.judgement(&map.topology, group.status().term, now));
    let judged = judged.into_iter().flatten().map(|(NodeId(node), receivers)| wire::Liveness {
        node,
        received_by_count: u32::try_from(receivers.len()).unwrap_or(u32::MAX),
        received_by: receivers.into_iter().take(NAMED_MAX).map(|NodeId(node)| node).collect(),
    });
    (pings, judged.collect())
}

fn replica_status(status: quorate_raft::ReplicaStatus) -> wire::ReplicaStatus {
    wire::ReplicaStatus {
        group: status.group.0,
        replica: status.replica.0,
        role: kv::Role::from(status.role).into(),
        term: status.term,
        leader: status.leader.map_or(0, |NodeId(node)| node),
        last_log_index: status.last_log_index.unwrap_or(0),
        applied_index: status.applied_index.unwrap_or(0),
        purged_index: status.purged_index.unwrap_or(0),
        revision: status.head.revision,
        epoch: status.head.epoch,
        log_bytes: status.log_bytes,
        voters: status.voters.into_iter().map(|NodeId(node)| node).collect(),
        snapshots_installed: status.snapshots_installed,
        stalled: status.stalled.into_iter().map(stalled_replica).collect(),
        ..wire::ReplicaStatus::default()
    }
}

fn stalled_replica(stalled: quorate_raft::Stalled) -> wire::StalledReplica {
    wire::StalledReplica {
        replica: stalled.replica.0,
        node: stalled.node.0,
        entries: stalled.entries,
        stalled_ms: u64::try_from(stalled.since.as_millis()).unwrap_or(u64::MAX),
    }
}

/// The status of a replica that lost log entries: it takes no part in its group.
fn doubtful_status(replica: ReplicaId, group: GroupId) -> wire::ReplicaStatus {
    wire::ReplicaStatus {
        group: group.0,
        replica: replica.0,
        role: kv::Role::Stopped.into(),
        doubtful: true,
        ..wire::ReplicaStatus::default()
    }
}
