//! A fingerprint of a replica's state, for comparing replicas.

use std::hash::Hasher;
use std::ops::ControlFlow;

use quorate_types::ReplicaId;
use quorate_types::state::Head;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::keys::Space;
use crate::state::{StateError, View, meta};

/// Fingerprint of a replica's state. Replicas of a group that applied the same log prefix have
/// equal fingerprints, regardless of the nodes and files that hold their states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHash {
    /// The head: applied entry, revision, clock, arc and epoch, sessions opened.
    pub head: Head,
    /// Number of user records, including expired ones that are not removed yet.
    pub records: u64,
    /// Hash of the user records and the machine's tables, in key order. Excludes the replica's id.
    pub hash: u128,
}

/// Reads and hashes a replica's whole state. Takes time linear in the size of the state.
pub fn state_hash(view: &dyn View, replica: ReplicaId) -> Result<StateHash, StateError> {
    let mut hasher = SipHasher13::new();
    let mut records = 0;
    for space in [Space::Table, Space::Data] {
        hasher.write_u8(space as u8);
        view.scan(replica, space, &[], &mut |key, value| {
            for part in [key, value] {
                // Includes the lengths, so that different sequences of keys and values never form
                // the same bytes.
                hasher.write_u64(part.len() as u64);
                hasher.write(part);
            }
            records += u64::from(space == Space::Data);
            ControlFlow::Continue(())
        })?;
    }
    Ok(StateHash { head: meta::head(view, replica)?, records, hash: hasher.finish128().as_u128() })
}
