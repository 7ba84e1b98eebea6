//! Opens replicas: reads their log and state, builds their Raft core, and puts both together.

use std::sync::Arc;
use std::time::Duration;

use quorate_machine::log::Log;
use quorate_machine::state::State;
use quorate_testpoints::Bug;
use quorate_types::{GroupId, ReplicaId};
use tokio::time::Instant;
use tracing::{error, info};

use crate::blocking;
use crate::config::Options;
use crate::core::Core;
use crate::doubt::Doubt;
use crate::election::Election;
use crate::error::OpenError;
use crate::inbound::Inbound;
use crate::log_store::LogStore;
use crate::network_factory::NetworkFactory;
use crate::peer_network::PeerNetwork;
use crate::progress::Progress;
use crate::replica::Replica;
use crate::snapshot_slots::SnapshotsOut;
use crate::state_machine::{GroupSlots, OpenMachine, Raft, StateMachine};

/// Opens the replicas of a node.
pub(crate) struct Opener {
    pub(crate) options: Options,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) state: Arc<dyn State>,
    pub(crate) peers: PeerNetwork,
    pub(crate) snapshots: Arc<SnapshotsOut>,
    /// When the node started.
    pub(crate) started: Instant,
}

impl Opener {
    /// Opens a replica; creates its log if it is new. Its Raft core does not run yet. A replica
    /// whose log shows that it lost entries is marked and refused.
    pub(crate) async fn open(
        &self,
        group: GroupId,
        replica: ReplicaId,
        open_machine: OpenMachine,
    ) -> Result<Replica, OpenError> {
        blocking::in_place(|| self.log.create(replica, group))?;
        let log = self.log.state(replica)?;
        if log.doubtful && !Bug::DoubtfulTakesPart.is_on() {
            blocking::in_place(|| self.log.mark_doubtful(replica))?;
            error!(
                %group, %replica, last = ?log.last,
                "this replica lost log entries that it had confirmed: it stays closed until it is replaced"
            );
            return Err(OpenError::Doubtful(replica));
        }
        let existed = log.vote.is_some() || log.last.is_some();
        let progress = Progress::default();
        let (state, on_fatal) = (self.state.clone(), self.options.on_fatal.clone());
        let slots = GroupSlots { group, snapshots: self.snapshots.clone() };
        let machine = StateMachine::open(state, replica, open_machine, progress.clone(), slots, on_fatal)?;
        if !existed && progress.head().applied.is_some() {
            let reason = "it has a state and no log: its votes are lost, so it must come back as a new replica";
            return Err(OpenError::Raft(reason.to_owned()));
        }
        let doubt = Doubt::default();
        let raft = self.build_core(group, replica, machine, doubt.clone()).await?;
        let election = Arc::new(self.election(group, replica, existed));
        let inbound = Inbound::new(raft.clone(), self.peers.clone(), group, replica, election.clone(), doubt.clone());
        let core = Core { node: self.options.node, group, replica, raft, log: self.log.clone(), progress };
        let opened = Replica::new(core, inbound, election, doubt)?;
        info!(%group, %replica, existed, "replica opened");
        Ok(opened)
    }

    async fn build_core(
        &self,
        group: GroupId,
        replica: ReplicaId,
        machine: StateMachine,
        doubt: Doubt,
    ) -> Result<Raft, OpenError> {
        let config = Arc::new(self.options.timing.core_config());
        let network_factory = NetworkFactory::new(self.peers.clone(), self.snapshots.clone(), group, replica, doubt);
        let log = LogStore::new(self.log.clone(), replica);
        let core = Raft::build(replica.0, config, network_factory, log, machine).await;
        core.map_err(|fatal| OpenError::Raft(fatal.to_string()))
    }

    /// A replica that existed before the node started waits with its votes; a new one has promised
    /// nothing to any leader.
    fn election(&self, group: GroupId, replica: ReplicaId, existed: bool) -> Election {
        let Options { node, timing, .. } = self.options;
        let freeze = if existed { timing.vote_freeze() } else { Duration::ZERO };
        Election::new(node, group, replica, timing.lease(), self.started + freeze)
    }
}
