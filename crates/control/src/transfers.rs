//! The leader transfers that one reconciler has ordered, as the planner must know them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_types::{GroupId, NodeId};
use tokio::time::Instant;

/// How long a group that was ordered to transfer its leader counts as led by the new node: longer
/// than the order and the next reports take.
const TRANSFER_COOLDOWN: Duration = Duration::from_secs(5);
/// Back-off before a failed leader transfer is tried again; transfers of other groups go first.
const TRANSFER_RETRY_AFTER: Duration = Duration::from_secs(30);

/// The leader transfers that one reconciler has ordered.
///
/// # Invariants
/// * A group that ended a transfer without success is not among the recent ones.
#[derive(Default)]
pub(crate) struct Transfers {
    /// The node that each group's leader was last transferred to, and when.
    recent: BTreeMap<GroupId, (NodeId, Instant)>,
    /// When the last transfer of each group failed.
    failed: BTreeMap<GroupId, Instant>,
}

impl Transfers {
    /// A transfer to a node was ordered.
    pub(crate) fn ordered(&mut self, group: GroupId, to: NodeId) {
        self.recent.insert(group, (to, Instant::now()));
    }

    /// An order of the group was executed: its leader answers again.
    pub(crate) fn order_done(&mut self, group: GroupId) {
        self.failed.remove(&group);
    }

    /// An order of the group failed; `was_transfer` if it was a leader transfer.
    pub(crate) fn order_failed(&mut self, group: GroupId, was_transfer: bool) {
        if was_transfer {
            self.failed.insert(group, Instant::now());
        }
        self.recent.remove(&group);
    }

    /// The groups whose leader was transferred less than [`TRANSFER_COOLDOWN`] ago, and the node
    /// that it was transferred to.
    pub(crate) fn recent(&mut self) -> BTreeMap<GroupId, NodeId> {
        self.recent.retain(|_, (_, at)| at.elapsed() < TRANSFER_COOLDOWN);
        self.recent.iter().map(|(group, (node, _))| (*group, *node)).collect()
    }

    /// The groups whose last transfer failed less than [`TRANSFER_RETRY_AFTER`] ago.
    pub(crate) fn failed(&mut self) -> BTreeSet<GroupId> {
        self.failed.retain(|_, at| at.elapsed() < TRANSFER_RETRY_AFTER);
        self.failed.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(1);

    /// Shows that a transfer counts for a while, and a failed one is put off for a longer while.
    #[tokio::test(start_paused = true)]
    async fn failed_transfers_are_put_off() {
        let mut transfers = Transfers::default();
        transfers.ordered(GROUP, NodeId(2));
        assert_eq!(transfers.recent(), BTreeMap::from([(GROUP, NodeId(2))]));
        tokio::time::advance(TRANSFER_COOLDOWN).await;
        assert!(transfers.recent().is_empty());
        transfers.ordered(GROUP, NodeId(3));
        transfers.order_failed(GROUP, true);
        assert!(transfers.recent().is_empty(), "the leader stayed where it was");
        assert_eq!(transfers.failed(), BTreeSet::from([GROUP]));
        tokio::time::advance(TRANSFER_RETRY_AFTER).await;
        assert!(transfers.failed().is_empty());
    }
}
