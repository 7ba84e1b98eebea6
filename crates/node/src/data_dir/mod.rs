//! The data directory: the node that it belongs to, and the process that holds it.
//!
//! ```text
//!   LOCK        held (flock) by the process that serves the directory; its text is the process id
//!   FORMAT      {"format":1,"written_by":"0.1.0"}; the first file of all
//!   BOOTSTRAP   the cluster's bootstrap, on initial nodes            ┐ envelopes (types::codec),
//!   IDENTITY    cluster id and node id; refuses every other cluster  │ replaced as a whole
//!   TOPOLOGY    the latest topology seen: addresses after a restart  ┘
//!   STORED      the databases were made: a node that has lost them does not start
//!   log/        the shared Raft log          state/     the applied state
//!   snapshots/  outgoing snapshots           staging/   incoming snapshots; both emptied at start
//! ```
//!
//! A start deletes files that a crash left half-written, empties `snapshots/` and `staging/`, and
//! keeps everything else.

mod error;
mod format;
mod lock;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use quorate_testpoints::Bug;
use quorate_types::codec::CodecError;
use quorate_types::topology::{Bootstrap, Identity, Topology};
use quorate_types::{ClusterId, NodeId};

pub use self::error::DataDirError;
use self::format::{FORMAT, FORMAT_VERSION, Format};
use crate::durable;

/// Only the node's own user reads its data.
const DIR_MODE: u32 = 0o700;

const BOOTSTRAP: &str = "BOOTSTRAP";
const IDENTITY: &str = "IDENTITY";
const TOPOLOGY: &str = "TOPOLOGY";
const STORED: &str = "STORED";

/// A data directory that this process holds. Dropping it releases the lock.
///
/// # Invariants
/// * The lock is held until this value is dropped: no other process uses the directory meanwhile.
///
/// * Identity and bootstrap are written once; a different one is refused.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is absent, locks it, and refuses a directory that this release
    /// cannot serve.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let unwritable = |source| DataDirError::Unwritable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(path).map_err(unwritable)?;
        let lock = lock::take(path)?;
        let dir = DataDir { path: path.to_owned(), _lock: lock };
        dir.delete_half_written().map_err(unwritable)?;
        dir.check_format()?;
        dir.check_identity()?;
        for scratch in [dir.snapshots(), dir.staging()] {
            empty(&scratch).map_err(unwritable)?;
        }
        Ok(dir)
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the shared log.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The directory of the applied state.
    pub(crate) fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// The directory of outgoing snapshots.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// The directory of incoming snapshots.
    pub(crate) fn staging(&self) -> PathBuf {
        self.path.join("staging")
    }

    /// The node that the directory belongs to; none while it is in no cluster.
    pub(crate) fn identity(&self) -> Result<Option<Identity>, DataDirError> {
        self.read(IDENTITY, Identity::decode)
    }

    /// The bootstrap of the cluster, if this node is an initial node.
    pub(crate) fn bootstrap(&self) -> Result<Option<Bootstrap>, DataDirError> {
        self.read(BOOTSTRAP, Bootstrap::decode)
    }

    /// The latest recorded topology.
    pub(crate) fn topology(&self) -> Result<Option<Topology>, DataDirError> {
        self.read(TOPOLOGY, Topology::decode)
    }

    /// Binds the directory to this node for good; durable on return. Refuses a directory that is
    /// bound to another node.
    pub(crate) fn record_identity(&self, identity: Identity) -> Result<(), DataDirError> {
        match self.identity()? {
            Some(own) if own == identity => Ok(()),
            Some(_) => Err(self.not_of(&format!("node {} of cluster {}", identity.node, identity.cluster))?),
            None => self.write(IDENTITY, &identity.encode()),
        }
    }

    /// Records the bootstrap of a cluster and this node's identity in it; durable on return.
    /// Refuses a bootstrap that differs from the recorded one.
    pub(crate) fn record_bootstrap(&self, bootstrap: &Bootstrap, node: NodeId) -> Result<(), DataDirError> {
        match self.bootstrap()? {
            Some(own) if own == *bootstrap => {}
            Some(own) => {
                return Err(DataDirError::OtherCluster {
                    path: self.path.clone(),
                    own: Identity { cluster: own.cluster.id, node },
                    other: format!("cluster {}", bootstrap.cluster.id),
                });
            }
            None => self.write(BOOTSTRAP, &bootstrap.encode())?,
        }
        self.record_identity(Identity { cluster: bootstrap.cluster.id, node })
    }

    /// Records the latest topology; durable on return.
    pub(crate) fn record_topology(&self, topology: &Topology) -> Result<(), DataDirError> {
        self.write(TOPOLOGY, &topology.encode())
    }

    /// Records that the databases were created; durable on return. Called before any promise rests
    /// on them.
    pub(crate) fn record_stored(&self) -> Result<(), DataDirError> {
        if self.was_stored()? { Ok(()) } else { self.write(STORED, b"the databases were made\n") }
    }

    /// Refuses a directory whose databases were created and are missing. With empty databases the
    /// node would forget its votes and acknowledged entries, and could help to elect a leader that
    /// lacks them.
    pub(crate) fn check_stored(&self) -> Result<(), DataDirError> {
        if !self.was_stored()? || Bug::WipedKeepsIdentity.is_on() {
            return Ok(());
        }
        let corrupt = |path, what: &str| {
            let reason = format!(
                "{what} gone, and with it this node's votes and entries; put it back, or let the node join with an empty \
                 data directory as a new one"
            );
            Err(DataDirError::Corrupt { path, reason })
        };
        for lost in [self.log(), self.state()] {
            if !lost.join("CURRENT").exists() {
                return corrupt(lost, "this database is");
            }
        }
        let log = self.log();
        match quorate_rocks::has_write_ahead_log(&log) {
            Ok(true) => Ok(()),
            Ok(false) => corrupt(log, "this database's write-ahead log (*.log) is"),
            Err(source) => Err(DataDirError::Io { path: log, source }),
        }
    }

    /// Refuses a directory that has data and no identity: the node would join as a new one, beside
    /// its old data.
    fn check_identity(&self) -> Result<(), DataDirError> {
        if !self.was_stored()? || self.identity()?.is_some() {
            return Ok(());
        }
        let reason = "it is gone, and with it whose data this is; put it back, or let the node join with an empty data directory as \
                      a new one";
        Err(DataDirError::Corrupt { path: self.path.join(IDENTITY), reason: reason.to_owned() })
    }

    fn was_stored(&self) -> Result<bool, DataDirError> {
        Ok(self.read(STORED, |_| Ok(()))?.is_some())
    }

    /// The error for a cluster that this directory does not belong to.
    pub(crate) fn not_of_cluster(&self, other: ClusterId) -> Result<DataDirError, DataDirError> {
        self.not_of(&format!("cluster {other}"))
    }

    fn not_of(&self, other: &str) -> Result<DataDirError, DataDirError> {
        let own = self.identity()?.unwrap_or(Identity { cluster: ClusterId(0), node: NodeId(0) });
        Ok(DataDirError::OtherCluster { path: self.path.clone(), own, other: other.to_owned() })
    }

    fn read<T>(&self, name: &str, decode: fn(&[u8]) -> Result<T, CodecError>) -> Result<Option<T>, DataDirError> {
        let path = self.path.join(name);
        let bytes =
            durable::read(&self.path, name).map_err(|source| DataDirError::Io { path: path.clone(), source })?;
        let value = bytes.map(|bytes| decode(&bytes)).transpose();
        value.map_err(|e| DataDirError::Corrupt { path, reason: e.to_string() })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        durable::write(&self.path, name, bytes)
            .map_err(|source| DataDirError::Io { path: self.path.join(name), source })
    }

    fn check_format(&self) -> Result<(), DataDirError> {
        let path = self.path.join(FORMAT);
        let io = |source| DataDirError::Io { path: path.clone(), source };
        let Some(bytes) = durable::read(&self.path, FORMAT).map_err(io)? else {
            if let Some(found) = self.foreign_entry().map_err(io)? {
                return Err(DataDirError::Foreign { path: self.path.clone(), found });
            }
            let format = Format { format: FORMAT_VERSION, written_by: env!("CARGO_PKG_VERSION").to_owned() };
            let text = serde_json::to_vec(&format).expect("a struct of a number and a text is JSON");
            let unwritable = |source| DataDirError::Unwritable { path: self.path.clone(), source };
            return durable::write(&self.path, FORMAT, &text).map_err(unwritable);
        };
        let format: Format = serde_json::from_slice(&bytes)
            .map_err(|e| DataDirError::Corrupt { path: path.clone(), reason: e.to_string() })?;
        if format.format > FORMAT_VERSION {
            let Format { format, written_by } = format;
            return Err(DataDirError::TooNew { path: self.path.clone(), format, written_by });
        }
        Ok(())
    }

    /// A file or directory that an unformatted directory does not have.
    fn foreign_entry(&self) -> io::Result<Option<String>> {
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // A new file system has `lost+found`.
            if name != lock::LOCK && name != "lost+found" {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Deletes the temporary file of a replacement that a crash interrupted.
    fn delete_half_written(&self) -> io::Result<()> {
        for name in [FORMAT, BOOTSTRAP, IDENTITY, TOPOLOGY] {
            match fs::remove_file(self.path.join(format!("{name}{}", durable::TEMP_SUFFIX))) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

fn empty(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    DirBuilder::new().mode(DIR_MODE).create(dir)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use quorate_types::topology::ClusterInfo;

    use super::*;

    fn bootstrap(cluster: u128) -> Bootstrap {
        let cluster = ClusterInfo { id: ClusterId(cluster), hash_key: [7; 16], replicas: 3, shards: 4 };
        Bootstrap { cluster, nodes: Vec::new(), topology_replicas: Vec::new() }
    }

    #[test]
    fn new_directory_is_private_and_has_no_identity() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let dir = DataDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(dir.identity().unwrap(), None);
        assert_eq!(dir.bootstrap().unwrap(), None);
        assert!(dir.snapshots().is_dir() && dir.staging().is_dir());
    }

    /// The refusal names the process that holds the directory, and the lock goes with its holder.
    #[test]
    fn a_held_directory_names_its_holder() {
        let temp = tempfile::tempdir().unwrap();
        let held = DataDir::open(temp.path()).unwrap();
        let refusal = DataDir::open(temp.path()).unwrap_err();
        assert!(refusal.to_string().contains(&format!("process {}", std::process::id())), "{refusal}");
        assert_eq!(crate::NodeError::from(refusal).exit_code(), 73);
        drop(held);
        DataDir::open(temp.path()).unwrap();
    }

    /// A holder in another process: `flock` of util-linux holds the file and has written its id into
    /// it, as a node would.
    #[test]
    fn a_directory_held_by_another_process_names_that_process() {
        let temp = tempfile::tempdir().unwrap();
        drop(DataDir::open(temp.path()).unwrap());
        let script = r#"printf %s $$ > LOCK; echo held; read line"#;
        let mut holder = std::process::Command::new("flock")
            .args(["LOCK", "sh", "-c", script])
            .current_dir(temp.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("util-linux is there on every Linux machine");
        let mut said = [0; 5];
        holder.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        let pid = fs::read_to_string(temp.path().join(lock::LOCK)).unwrap();
        let refusal = DataDir::open(temp.path()).unwrap_err();
        drop(holder.stdin.take());
        holder.wait().unwrap();
        assert_ne!(pid, std::process::id().to_string());
        assert!(refusal.to_string().contains(&format!("process {pid}")), "{refusal}");
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let text = r#"{"format":2,"written_by":"9.9.9"}"#;
        fs::write(temp.path().join(FORMAT), text).unwrap();
        let refusal = DataDir::open(temp.path()).unwrap_err();
        assert!(refusal.to_string().contains("format 2, written by release 9.9.9"), "{refusal}");
        assert_eq!(crate::NodeError::from(refusal).exit_code(), 65);
        assert_eq!(fs::read_to_string(temp.path().join(FORMAT)).unwrap(), text);
    }

    #[test]
    fn a_directory_of_something_else_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.tex"), "do not lose me").unwrap();
        let refusal = DataDir::open(temp.path()).unwrap_err();
        assert!(refusal.to_string().contains("thesis.tex"), "{refusal}");
        assert_eq!(crate::NodeError::from(refusal).exit_code(), 65);
    }

    #[test]
    fn a_path_that_cannot_be_made_is_unwritable() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        let refusal = DataDir::open(&file.join("dir")).unwrap_err();
        assert_eq!(crate::NodeError::from(refusal).exit_code(), 73);
    }

    /// A crash in the middle of writing leaves the old file or none, and the next start deletes the
    /// temporary file.
    #[test]
    fn leftovers_of_a_crash_are_cleared_and_records_stay() {
        let temp = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: ClusterId(5), node: NodeId(2) };
        let dir = DataDir::open(temp.path()).unwrap();
        dir.record_identity(identity).unwrap();
        fs::write(temp.path().join("IDENTITY.tmp"), "half").unwrap();
        fs::create_dir(dir.staging().join("4")).unwrap();
        fs::write(dir.staging().join("4/0"), "part of a snapshot").unwrap();
        fs::write(dir.snapshots().join("1"), "part of a snapshot").unwrap();
        drop(dir);
        let dir = DataDir::open(temp.path()).unwrap();
        assert_eq!(dir.identity().unwrap(), Some(identity));
        assert!(!temp.path().join("IDENTITY.tmp").exists());
        assert_eq!(fs::read_dir(dir.staging()).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.snapshots()).unwrap().count(), 0);
    }

    /// A crash between the bootstrap and the identity is finished by recording the same bootstrap again.
    #[test]
    fn repeated_record_is_harmless_and_another_cluster_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        dir.write(BOOTSTRAP, &bootstrap(5).encode()).unwrap();
        assert_eq!(dir.identity().unwrap(), None);
        dir.record_bootstrap(&bootstrap(5), NodeId(2)).unwrap();
        dir.record_bootstrap(&bootstrap(5), NodeId(2)).unwrap();
        assert_eq!(dir.identity().unwrap(), Some(Identity { cluster: ClusterId(5), node: NodeId(2) }));
        let refusal = dir.record_bootstrap(&bootstrap(6), NodeId(2)).unwrap_err();
        assert!(refusal.to_string().contains("belongs to node 2"), "{refusal}");
        assert_eq!(crate::NodeError::from(refusal).exit_code(), 65);
        assert!(dir.record_identity(Identity { cluster: ClusterId(5), node: NodeId(3) }).is_err());
        assert_eq!(dir.bootstrap().unwrap(), Some(bootstrap(5)));
    }

    /// A node whose identity was lost started as one in no cluster, with its old data beside it.
    #[test]
    fn data_without_an_identity_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        dir.record_identity(Identity { cluster: ClusterId(5), node: NodeId(2) }).unwrap();
        dir.record_stored().unwrap();
        drop(dir);
        drop(DataDir::open(temp.path()).unwrap());
        fs::remove_file(temp.path().join(IDENTITY)).unwrap();
        let refusal = DataDir::open(temp.path()).unwrap_err();
        assert!(refusal.to_string().contains("whose data this is"), "{refusal}");
        assert_eq!(crate::NodeError::from(refusal).exit_code(), 65);
    }

    #[test]
    fn a_flipped_bit_in_the_identity_is_corruption() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        dir.record_identity(Identity { cluster: ClusterId(5), node: NodeId(2) }).unwrap();
        let file = temp.path().join(IDENTITY);
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
        let refusal = dir.identity().unwrap_err();
        assert!(refusal.to_string().contains("IDENTITY is corrupt"), "{refusal}");
        assert_eq!(crate::NodeError::from(refusal).exit_code(), 65);
    }
}
