//! The state store in memory, for tests and simulations. It loses at [`MemoryState::crash`] what was not flushed.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_types::ReplicaId;
use quorate_types::peer::SnapshotMeta;

use super::{Batch, Pinned, State, StateError, View, Visit, meta};
use crate::keys::{Space, is_put_once};
use quorate_testpoints::Bug;

/// One replica's keys and values. Shared with views and pins, and copied when it is changed while one of them holds it.
type Keys = Arc<BTreeMap<(Space, Vec<u8>), Vec<u8>>>;
/// All replicas' keys.
type Replicas = Arc<BTreeMap<ReplicaId, Keys>>;

/// The twin of [`super::RocksState`]: the same promises, in memory.
#[derive(Default)]
pub struct MemoryState {
    halves: Mutex<Halves>,
}

/// What readers see, and what is left of it after a crash.
#[derive(Default)]
struct Halves {
    live: Replicas,
    durable: Replicas,
}

impl MemoryState {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes back to the last flush, as a node does that loses power.
    pub fn crash(&self) {
        let mut halves = self.halves();
        halves.live = halves.durable.clone();
    }

    /// Calls `read` with the state that [`Self::crash`] would leave.
    pub fn view_durable(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), StateError>) -> Result<(), StateError> {
        let durable = self.halves().durable.clone();
        read(&MemoryView(durable))
    }

    fn halves(&self) -> MutexGuard<'_, Halves> {
        // No call panics between two halves of a change.
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> MemoryView {
        MemoryView(self.halves().live.clone())
    }
}

impl State for MemoryState {
    fn view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), StateError>) -> Result<(), StateError> {
        read(&self.now())
    }

    fn write(&self, replica: ReplicaId, batch: Batch) -> Result<(), StateError> {
        let mut halves = self.halves();
        let keys = Arc::make_mut(Arc::make_mut(&mut halves.live).entry(replica).or_default());
        for (space, key, value) in batch.operations {
            // RocksDB forgets such a key for good only if it was put once. Most defects that are switched on end that, too.
            let put_once = is_put_once(space, &key) && !Bug::ALL.iter().any(|bug| bug.is_on());
            let puts = value.is_some();
            let old = match value {
                Some(value) => keys.insert((space, key), value),
                None => keys.remove(&(space, key)),
            };
            assert!(!put_once || puts == old.is_none(), "a session's record is put once, and deleted once after that");
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StateError> {
        let mut halves = self.halves();
        halves.durable = halves.live.clone();
        Ok(())
    }

    fn pin(&self, replica: ReplicaId) -> Result<Box<dyn Pinned>, StateError> {
        let view = self.now();
        let meta = meta::snapshot(&view, replica)?;
        let keys = view.0.get(&replica).cloned().unwrap_or_default();
        Ok(Box::new(MemoryPinned { meta, keys }))
    }

    fn install(&self, replica: ReplicaId, files: &[PathBuf], expected: &SnapshotMeta) -> Result<(), StateError> {
        let [file] = files else {
            let reason = format!("a snapshot in memory is one file, not {}", files.len());
            return Err(StateError::Snapshot { file: String::new(), reason });
        };
        let refused = |reason: &str| StateError::Snapshot { file: file.display().to_string(), reason: reason.into() };
        let bytes = fs::read(file).map_err(|e| refused(&e.to_string()))?;
        let (owner, keys) = flat::decode(&bytes).ok_or_else(|| refused("it is not what was written"))?;
        if owner != replica {
            return Err(refused(&format!("it holds keys that are not replica {replica}'s")));
        }
        let keys: Keys = Arc::new(keys);
        let view = MemoryView(Arc::new(BTreeMap::from([(replica, keys.clone())])));
        if meta::snapshot(&view, replica)? != *expected {
            return Err(refused("it holds another head or membership than was announced"));
        }
        let mut halves = self.halves();
        Arc::make_mut(&mut halves.live).insert(replica, keys.clone());
        Arc::make_mut(&mut halves.durable).insert(replica, keys);
        drop(halves);
        fs::remove_file(file).map_err(io)
    }

    fn destroy(&self, replica: ReplicaId) -> Result<(), StateError> {
        Arc::make_mut(&mut self.halves().live).remove(&replica);
        Ok(())
    }

    fn approximate_bytes(&self, replica: ReplicaId) -> u64 {
        let durable = self.halves().durable.clone();
        let keys = durable.get(&replica).into_iter().flat_map(|keys| keys.iter());
        keys.map(|((_, key), value)| (key.len() + value.len()) as u64).sum()
    }

    fn replicas(&self) -> Result<Vec<ReplicaId>, StateError> {
        Ok(self.now().0.iter().filter(|(_, keys)| !keys.is_empty()).map(|(replica, _)| *replica).collect())
    }
}

/// The whole store at one point in time.
struct MemoryView(Replicas);

impl View for MemoryView {
    fn get_with(
        &self,
        replica: ReplicaId,
        space: Space,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<(), StateError> {
        if let Some(value) = self.0.get(&replica).and_then(|keys| keys.get(&(space, key.to_vec()))) {
            read(value);
        }
        Ok(())
    }

    fn scan(&self, replica: ReplicaId, space: Space, prefix: &[u8], visit: Visit<'_>) -> Result<(), StateError> {
        let Some(keys) = self.0.get(&replica) else { return Ok(()) };
        let from = Bound::Included((space, prefix.to_vec()));
        for ((found, key), value) in keys.range((from, Bound::Unbounded)) {
            if *found != space || !key.starts_with(prefix) || visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// One replica's state at one point in time.
struct MemoryPinned {
    meta: SnapshotMeta,
    keys: Keys,
}

impl Pinned for MemoryPinned {
    fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    fn write_files(&self, dir: &Path, replica: ReplicaId) -> Result<Vec<PathBuf>, StateError> {
        let path = dir.join("state.flat");
        fs::write(&path, flat::encode(replica, &self.keys)).map_err(io)?;
        fs::File::open(&path).and_then(|file| file.sync_all()).map_err(io)?;
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        Ok(vec![path])
    }
}

fn io(error: std::io::Error) -> StateError {
    StateError::Io(error.to_string().into())
}

/// The one file of a snapshot: `replica u64 | (space u8 | key length u32 | key | value length u32 | value)* | crc32c u32`,
/// integers big-endian.
mod flat {
    use super::*;

    pub(super) fn encode(replica: ReplicaId, keys: &BTreeMap<(Space, Vec<u8>), Vec<u8>>) -> Vec<u8> {
        let mut out = replica.0.to_be_bytes().to_vec();
        for ((space, key), value) in keys {
            out.push(*space as u8);
            for part in [key, value] {
                let len = u32::try_from(part.len()).expect("keys and values are far below 4 GiB");
                out.extend_from_slice(&len.to_be_bytes());
                out.extend_from_slice(part);
            }
        }
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_be_bytes());
        out
    }

    /// The replica and its keys; none if the bytes are not what `encode` made.
    #[expect(clippy::type_complexity)]
    pub(super) fn decode(bytes: &[u8]) -> Option<(ReplicaId, BTreeMap<(Space, Vec<u8>), Vec<u8>>)> {
        let (mut rest, checksum) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(rest) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let replica = ReplicaId(u64::from_be_bytes(*take(&mut rest, 8)?.first_chunk()?));
        let mut keys = BTreeMap::new();
        while !rest.is_empty() {
            let space = match take(&mut rest, 1)?[0] {
                0 => Space::Meta,
                1 => Space::Table,
                2 => Space::Data,
                _ => return None,
            };
            let key = part(&mut rest)?;
            keys.insert((space, key), part(&mut rest)?);
        }
        Some((replica, keys))
    }

    fn part(rest: &mut &[u8]) -> Option<Vec<u8>> {
        let len = u32::from_be_bytes(*take(rest, 4)?.first_chunk()?);
        Some(take(rest, len as usize)?.to_vec())
    }

    fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
        let (taken, left) = rest.split_at_checked(len)?;
        *rest = left;
        Some(taken)
    }
}
