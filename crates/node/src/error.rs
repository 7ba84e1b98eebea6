//! Why a node did not start or did not go on, sorted by what whoever started it does next.

use crate::data_dir::DataDirError;

/// Why a node did not start or did not go on. Every text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration is refused. Nothing was touched.
    #[error("{0}")]
    Config(String),
    /// A port is taken. Starting again may work once its holder is gone, so this is not an error of the configuration.
    #[error(
        "cannot listen for {what} connections on {address}: {source}; another process has the port (ss -ltnp names it), or the address is not of this machine: stop that process, or listen elsewhere"
    )]
    Listen {
        /// What for.
        what: &'static str,
        /// Where.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// What is stored there cannot be read.
    #[error("the data directory cannot be served: {0}")]
    Corrupt(String),
    /// The disk failed.
    #[error("disk failure: {0}")]
    Disk(String),
    /// A listener failed while it served.
    #[error("the {what} server failed: {reason}")]
    Server {
        /// Which one.
        what: &'static str,
        /// What the system said.
        reason: String,
    },
}

impl NodeError {
    /// The process's exit code, after sysexits where one fits:
    ///
    /// | Code | Meaning | Starting again |
    /// |---|---|---|
    /// | 1 | a busy port, or another failure | may help |
    /// | 65 | the data is of a newer format, of another cluster, or corrupt | does not help |
    /// | 73 | the data directory is locked or cannot be written | does not help |
    /// | 74 | the disk failed | may help |
    /// | 78 | the configuration is refused | does not help |
    pub fn exit_code(&self) -> u8 {
        match self {
            NodeError::Listen { .. } | NodeError::Server { .. } => 1,
            NodeError::Corrupt(_) => 65,
            NodeError::Disk(_) => crate::fatal::EXIT_CODE,
            NodeError::Config(_) => 78,
            NodeError::DataDir(error) => match error {
                DataDirError::Foreign { .. }
                | DataDirError::TooNew { .. }
                | DataDirError::Corrupt { .. }
                | DataDirError::OtherCluster { .. } => 65,
                DataDirError::Unwritable { .. } | DataDirError::Locked { .. } => 73,
                DataDirError::Io { .. } => crate::fatal::EXIT_CODE,
            },
        }
    }
}
