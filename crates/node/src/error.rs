//! Why a node did not start or stopped, sorted by the operator's next step.

use crate::config::ConfigError;
use crate::data_dir::DataDirError;

/// Why a node did not start or stopped. Every message names the next step.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration is refused. Neither disk nor ports were touched.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A port is taken. Starting again may work once its holder is gone, so this is not a
    /// configuration error.
    #[error(
        "cannot listen for {what} connections on {address}: {source}; another process has the port (ss -ltnp names it), or the address is not of this machine: stop that process, or listen elsewhere"
    )]
    Listen {
        /// The port's use.
        what: &'static str,
        /// The address.
        address: std::net::SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The stored data cannot be read.
    #[error("the data directory cannot be served: {0}")]
    Corrupt(String),
    /// The disk failed.
    #[error("disk failure: {0}")]
    Disk(String),
    /// A listener failed while it served.
    #[error("the {what} server failed: {reason}")]
    Server {
        /// The server.
        what: &'static str,
        /// The system's error.
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
