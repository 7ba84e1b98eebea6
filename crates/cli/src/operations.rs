//! Queries the operations of the cluster from the leader of the topology group.

use std::time::Duration;

use quorate_client::{AdminClient, AdminError};
use quorate_proto::admin::{ListOperationsRequest, ListOperationsResponse, Operation};

use crate::connect::Connect;
use crate::failure::{Exit, Failure};
use crate::leader;
use crate::progress::{self, Progress};
use crate::survey::Survey;

/// All operations: the running ones, and the last ones that ended.
pub(crate) async fn all(connect: &Connect) -> Result<Vec<Progress>, Failure> {
    let (listed, survey) = leader::ask(connect, "cannot list the operations", list).await?;
    progresses(listed.operations, &survey)
}

/// The operation with this id.
pub(crate) async fn find(connect: &Connect, id: u64) -> Result<Progress, Failure> {
    let all = all(connect).await?;
    all.into_iter()
        .find(|found| found.id == id)
        .ok_or_else(|| Failure::new(Exit::Usage, format!("there is no operation {id}")).hint("see: quorate op list"))
}

/// The running operations, and the cluster's own upkeep if some of it is stalled. Empty if the
/// leader does not respond.
pub(crate) async fn running(connect: &Connect, survey: &Survey) -> Vec<Progress> {
    let listed = async {
        let node = leader::connect(connect, survey).await.ok()?;
        list(node, connect.deadline).await.ok()
    };
    still_running(listed.await.unwrap_or_default(), survey)
}

async fn list(node: AdminClient, within: Duration) -> Result<ListOperationsResponse, AdminError> {
    node.list_operations(ListOperationsRequest {}, within).await
}

fn progresses(operations: Vec<Operation>, survey: &Survey) -> Result<Vec<Progress>, Failure> {
    operations.into_iter().map(|wire| Progress::new(wire, survey, progress::now_ms())).collect()
}

fn still_running(listed: ListOperationsResponse, survey: &Survey) -> Vec<Progress> {
    let ListOperationsResponse { operations, upkeep_waits } = listed;
    let mut running = progresses(operations, survey).unwrap_or_default();
    running.retain(Progress::runs);
    if !upkeep_waits.is_empty() {
        running.push(Progress::upkeep(upkeep_waits));
    }
    running
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::survey;

    /// Waits that belong to no running operation, such as those of a cancelled move, are shown as
    /// upkeep; they once were shown nowhere.
    #[test]
    fn waits_of_the_upkeep_are_shown() {
        let waits = vec!["shard 1: it has no leader; nodes down: 2, 3".to_owned()];
        let listed = ListOperationsResponse { operations: Vec::new(), upkeep_waits: waits };
        let running = still_running(listed, &survey(&[]));
        assert_eq!(progress::reasons(&running), ["upkeep – shard 1: it has no leader; nodes down: 2, 3"]);
        assert!(still_running(ListOperationsResponse::default(), &survey(&[])).is_empty());
    }
}
