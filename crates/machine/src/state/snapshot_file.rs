//! The snapshots of the state store in memory, each a single file:
//! `replica u64 | (space u8 | key length u32 | key | value length u32 | value)* | crc32c u32`, with
//! big-endian integers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_types::ReplicaId;
use quorate_types::peer::SnapshotMeta;

use super::{Pinned, StateError};
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

    fn write_files(&self, dir: &Path, replica: ReplicaId) -> Result<Vec<PathBuf>, StateError> {
        let path = dir.join("state.flat");
        fs::write(&path, encode(replica, &self.keys)).map_err(io)?;
        fs::File::open(&path).and_then(|file| file.sync_all()).map_err(io)?;
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        Ok(vec![path])
    }
}

fn io(error: std::io::Error) -> StateError {
    StateError::Io(error.to_string().into())
}

/// Reads the keys in a snapshot's file, which must belong to this replica.
pub(super) fn read(files: &[PathBuf], replica: ReplicaId) -> Result<Contents, StateError> {
    let [file] = files else {
        return Err(refused(files, format!("an in-memory snapshot has one file, not {}", files.len())));
    };
    let bytes = fs::read(file).map_err(|error| refused(files, error.to_string()))?;
    match decode(&bytes) {
        Some((owner, keys)) if owner == replica => Ok(keys),
        Some(_) => Err(refused(files, format!("it holds keys that are not replica {replica}'s"))),
        None => Err(refused(files, "the file is corrupt".into())),
    }
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

/// Parses a file into the replica and its keys; none if `encode` did not write these bytes.
fn decode(bytes: &[u8]) -> Option<(ReplicaId, Contents)> {
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
