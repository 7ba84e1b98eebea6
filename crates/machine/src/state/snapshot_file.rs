//! The snapshots of the state store in memory, each a single file:
//! `replica u64 | (space u8 | key length u32 | key | value length u32 | value)* | crc32c u32`, with
//! big-endian integers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_types::ReplicaId;
use quorate_types::peer::SnapshotMeta;

use super::{Export, Pinned, StateError};
use crate::keys::Space;

type Contents = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// Keys and values of one replica. Shared with views and pins, and copied on write while one of
/// them exists.
pub(super) type Keys = Arc<Contents>;

/// One replica's state at one point in time.
pub(super) struct MemoryPinned {
    pub(super) meta: SnapshotMeta,
    pub(super) keys: Keys,
}

impl Pinned for MemoryPinned {
    fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    fn bytes(&self) -> u64 {
        self.keys.iter().map(|((_, key), value)| (key.len() + value.len()) as u64).sum()
    }

    fn export(&self, dir: &Path, replica: ReplicaId) -> Result<Box<dyn Export>, StateError> {
        let path = dir.join("state.flat");
        fs::write(&path, encode(replica, &self.keys)).map_err(io)?;
        fs::File::open(&path).and_then(|file| file.sync_all()).map_err(io)?;
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        Ok(Box::new(OneFile(Some(path))))
    }
}

/// The file of an export.
struct OneFile(Option<PathBuf>);

impl Export for OneFile {
    fn next_file(&mut self) -> Result<Option<PathBuf>, StateError> {
        Ok(self.0.take())
    }
}

fn io(error: std::io::Error) -> StateError {
    StateError::Io(error.to_string().into())
}

/// Reads the keys in a snapshot's file, which must be undamaged and belong to this replica.
pub(super) fn verified(files: &[PathBuf], replica: ReplicaId) -> Result<Contents, StateError> {
    let bytes = bytes_of(files)?;
    let is_whole = bytes
        .split_last_chunk::<4>()
        .is_some_and(|(content, checksum)| crc32c::crc32c(content) == u32::from_be_bytes(*checksum));
    match decode(&bytes).filter(|_| is_whole) {
        Some((owner, keys)) if owner == replica => Ok(keys),
        Some(_) => Err(refused(files, format!("it holds keys that are not replica {replica}'s"))),
        None => Err(refused(files, "the file is corrupt: it has a wrong checksum".into())),
    }
}

/// Reads the keys in a snapshot's file. Like an ingestion into RocksDB it verifies no checksum.
pub(super) fn read(files: &[PathBuf]) -> Result<Contents, StateError> {
    let decoded = decode(&bytes_of(files)?);
    decoded.map(|(_, keys)| keys).ok_or_else(|| refused(files, "the file is no snapshot".into()))
}

fn bytes_of(files: &[PathBuf]) -> Result<Vec<u8>, StateError> {
    let [file] = files else {
        return Err(refused(files, format!("an in-memory snapshot has one file, not {}", files.len())));
    };
    fs::read(file).map_err(io)
}

/// The refusal of a snapshot.
pub(super) fn refused(files: &[PathBuf], reason: String) -> StateError {
    StateError::Snapshot { file: files.first().map(|file| file.display().to_string()).unwrap_or_default(), reason }
}

/// Removes the files of an installed snapshot.
pub(super) fn remove(files: &[PathBuf]) -> Result<(), StateError> {
    files.iter().try_for_each(|file| fs::remove_file(file).map_err(io))
}

fn encode(replica: ReplicaId, keys: &Contents) -> Vec<u8> {
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

/// Parses a file into the replica and its keys; none if it has another structure.
fn decode(bytes: &[u8]) -> Option<(ReplicaId, Contents)> {
    let (mut rest, _checksum) = bytes.split_last_chunk::<4>()?;
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
