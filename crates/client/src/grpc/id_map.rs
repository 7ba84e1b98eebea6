//! A map by request id.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by request id.
pub(super) type IdMap<V> = HashMap<u64, V, BuildHasherDefault<IdHasher>>;

/// A hasher for ids, which count up and need no real hashing.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        // A hash table takes its tag from the high bits, so they must vary.
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
