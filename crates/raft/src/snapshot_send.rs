//! Sends snapshots: asks the receiver, then streams the files of the pinned state to it.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::Vote;
use quorate_types::peer::{SnapshotHeader, SnapshotRefusal};
use tracing::{Instrument, info_span, warn};

use crate::peer_link::PeerLink;
use crate::snapshot_data::Pin;
use crate::snapshot_files::SnapshotFiles;
use crate::snapshot_slots::SnapshotsOut;
use crate::transport::SnapshotUnsent;

/// The pause after a snapshot that a busy receiver refused, for all groups: its slots are taken for
/// longer than that.
const BUSY_PAUSE: Duration = Duration::from_millis(250);
/// The pause after a snapshot that a receiver without space refused. Space comes back slowly.
const NO_SPACE_PAUSE: Duration = Duration::from_secs(5);
/// The pause after a snapshot that was refused as bad: its data is here, and may still be bad. Each
/// attempt costs a whole transfer.
const BAD_PAUSE: Duration = Duration::from_secs(10);

impl SnapshotsOut {
    /// Sends a snapshot over the link and waits until it is installed. Returns the receiver's vote.
    ///
    /// After a refusal it releases the pin and its slot, and pauses. The length of the pause
    /// depends on the reason. openraft then asks for a new snapshot.
    pub(crate) async fn send(self: &Arc<Self>, link: &PeerLink, vote: Vote, pin: Pin) -> Result<Vote, SnapshotUnsent> {
        let PeerLink { group, from, to, node, .. } = link;
        let span = info_span!("send_snapshot", %group, %from, %to, to_node = %node, term = vote.term);
        async {
            let Some(offer) = self.doubts.offer(*node) else {
                return Err(SnapshotUnsent::Failed(format!("node {node} does not answer another snapshot")));
            };
            let meta = pin.meta().clone();
            let header = SnapshotHeader { group: *group, from: *from, to: *to, vote, meta, bytes: pin.bytes() };
            let files = SnapshotFiles::new(self.clone(), pin, *to);
            let sent = link.peers.transport().send_snapshot(*node, header, files).await;
            self.ended(*from, *to, sent.as_ref().err().map(ToString::to_string));
            match &sent {
                Ok(_) => offer.answered(),
                Err(SnapshotUnsent::Failed(_)) => offer.failed(),
                Err(SnapshotUnsent::Refused(SnapshotRefusal::Busy { .. })) => {
                    offer.refused_as_busy();
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(SnapshotUnsent::Refused(refusal)) => {
                    offer.answered();
                    pause_after(refusal).await;
                }
            }
            sent
        }
        .instrument(span)
        .await
    }
}

async fn pause_after(refusal: &SnapshotRefusal) {
    match refusal {
        SnapshotRefusal::Bad { .. } => {
            warn!(%refusal, pause = ?BAD_PAUSE, "snapshot refused as bad: the state of this replica may be damaged");
            tokio::time::sleep(BAD_PAUSE).await;
        }
        SnapshotRefusal::NoSpace { .. } => {
            warn!(%refusal, pause = ?NO_SPACE_PAUSE, "snapshot refused");
            tokio::time::sleep(NO_SPACE_PAUSE).await;
        }
        // openraft's own pause is enough.
        SnapshotRefusal::Busy { .. } | SnapshotRefusal::NoReplica { .. } | SnapshotRefusal::Failed { .. } => {}
    }
}
