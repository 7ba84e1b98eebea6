//! A fingerprint of a replica's state, to show that replicas agree.

use std::hash::Hasher;
use std::ops::ControlFlow;

use quorate_types::ReplicaId;
use quorate_types::state::Head;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::keys::Space;
use crate::state::{StateError, View, meta};

/// What a replica's state is, in few bytes. Two replicas of a group that applied the same log prefix have equal ones, wherever
/// and in whatever files their state lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHash {
    /// The head: applied entry, revision, clock, arc and epoch, sessions opened.
    pub head: Head,
    /// User records, expired ones included that are not removed yet.
    pub records: u64,
    /// Hash of the user records and of the machine's tables, in the order of their keys. The replica's id is not in it.
    pub hash: u128,
}

/// Reads a replica's whole state and hashes it. Takes as long as the state is large.
pub fn state_hash(view: &dyn View, replica: ReplicaId) -> Result<StateHash, StateError> {
    let mut hasher = SipHasher13::new();
    let mut records = 0;
    for space in [Space::Table, Space::Data] {
        hasher.write_u8(space as u8);
        view.scan(replica, space, &[], &mut |key, value| {
            for part in [key, value] {
                // With their lengths, so that no two different sequences of keys and values are the same bytes.
                hasher.write_u64(part.len() as u64);
                hasher.write(part);
            }
            records += u64::from(space == Space::Data);
            ControlFlow::Continue(())
        })?;
    }
    Ok(StateHash { head: meta::head(view, replica)?, records, hash: hasher.finish128().as_u128() })
}
