//! Why a data directory cannot be used.

use std::io;
use std::path::PathBuf;

use quorate_types::topology::Identity;

use super::format::{FORMAT, FORMAT_VERSION};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be created or written.
    #[error("the data directory {} cannot be written: {source}; check that it exists and belongs to this user", path.display())]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another process holds it.
    #[error(
        "the data directory {} is in use by process {}; stop that node, or use another --data-dir",
        path.display(), pid.as_deref().unwrap_or("(unknown)")
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, from the lock file.
        pid: Option<String>,
    },
    /// It holds a file that no node has created.
    #[error(
        "{} is not a data directory: it has no {FORMAT} file, but it has '{found}'; use an empty directory", path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// A foreign file in it.
        found: String,
    },
    /// A newer release wrote it.
    #[error(
        "the data directory {} has format {format}, written by release {written_by}; this release reads formats up to \
         {FORMAT_VERSION}: use the newer release", path.display()
    )]
    TooNew {
        /// The directory.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The release that wrote it.
        written_by: String,
    },
    /// A file is corrupt.
    #[error("{} is corrupt: {reason}; replace this node by a new one with an empty data directory", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The defect.
        reason: String,
    },
    /// It belongs to another cluster, or to another node of this one.
    #[error(
        "the data directory {} belongs to node {} of cluster {}, not to {other}; use the data directory of this node, or an \
         empty one", path.display(), .own.node, .own.cluster
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster and node that it belongs to.
        own: Identity,
        /// The cluster or node that tried to use it.
        other: String,
    },
    /// The disk failed.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
