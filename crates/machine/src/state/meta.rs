//! A replica's own records in [`Space::Meta`]: its head and its membership.

use quorate_types::ReplicaId;
use quorate_types::codec::{self, CodecError, Kind};
use quorate_types::peer::SnapshotMeta;
use quorate_types::state::{Head, StoredMembership};

use super::{StateError, View};
use crate::keys::{HEAD, MEMBERSHIP, Space};

/// An operation of a [`super::Batch`].
type Operation = (Space, Vec<u8>, Option<Vec<u8>>);

/// The replica's head; the default if no entry was ever applied.
pub fn head(view: &dyn View, replica: ReplicaId) -> Result<Head, StateError> {
    read(view, replica, HEAD, |bytes| codec::decode(Kind::Meta, bytes))
}

/// The last applied membership; the default if there was none.
pub fn membership(view: &dyn View, replica: ReplicaId) -> Result<StoredMembership, StateError> {
    read(view, replica, MEMBERSHIP, |bytes| codec::decode(Kind::Meta, bytes))
}

/// The applied log id and membership of the replica's state, as a snapshot announces them.
pub fn snapshot(view: &dyn View, replica: ReplicaId) -> Result<SnapshotMeta, StateError> {
    Ok(SnapshotMeta { applied: head(view, replica)?.applied, membership: membership(view, replica)? })
}

/// The operation that writes a head.
pub(crate) fn put_head(head: &Head) -> Operation {
    (Space::Meta, HEAD.to_vec(), Some(codec::encode(Kind::Meta, head)))
}

/// The operation that writes a membership.
pub(crate) fn put_membership(membership: &StoredMembership) -> Operation {
    (Space::Meta, MEMBERSHIP.to_vec(), Some(codec::encode(Kind::Meta, membership)))
}

fn read<T: Default>(
    view: &dyn View,
    replica: ReplicaId,
    key: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, CodecError>,
) -> Result<T, StateError> {
    let mut found = None;
    view.get_with(replica, Space::Meta, key, &mut |bytes| found = Some(decode(bytes)))?;
    found.transpose().map(Option::unwrap_or_default).map_err(|source| StateError::Corrupt { replica, source })
}
