//! Encodes changes of a replica's state into batches of the state database.

use quorate_types::ReplicaId;
use rocksdb::WriteBatch;

use quorate_machine::keys::{Space, is_put_once, state_key_into, state_range};
use quorate_machine::state::Batch;

/// All operations of a batch. A key that is put once is deleted with a `SingleDelete`.
pub(super) fn encode(replica: ReplicaId, batch: &Batch) -> WriteBatch {
    let mut writes = WriteBatch::default();
    let mut full_key = Vec::new();
    for (space, key, value) in &batch.operations {
        state_key_into(&mut full_key, replica, *space, key);
        match value {
            Some(value) => writes.put(&full_key, value),
            None if is_put_once(*space, key) => writes.single_delete(&full_key),
            None => writes.delete(&full_key),
        }
    }
    writes
}

/// The head and the membership of a batch alone, for the seeded bug `AppliedBeforeData`.
pub(super) fn encode_head(replica: ReplicaId, batch: &Batch) -> WriteBatch {
    let meta = batch.operations.iter().filter(|(space, ..)| *space == Space::Meta);
    encode(replica, &Batch { operations: meta.cloned().collect() })
}

/// The deletion of a replica's whole state.
pub(super) fn deletion(replica: ReplicaId) -> WriteBatch {
    let (start, end) = state_range(replica);
    let mut writes = WriteBatch::default();
    writes.delete_range(start, end);
    writes
}
