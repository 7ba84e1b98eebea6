//! The settings of a playground.

use std::path::PathBuf;

/// The settings of a playground. By default: a temporary directory, proxies, no shortener.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Nodes, 1 to [`NODES_MAX`](crate::NODES_MAX). None: as recorded in `dir`, else
    /// [`NODES_DEFAULT`](crate::NODES_DEFAULT).
    pub nodes: Option<u32>,
    /// Shards, 1 to 4096. None: as recorded in `dir`, else
    /// [`SHARDS_DEFAULT`](crate::SHARDS_DEFAULT).
    pub shards: Option<u32>,
    /// The first port; node i uses the four ports from P + 10 (i − 1) on. None: as recorded in
    /// `dir`, else [`PORT_BASE_DEFAULT`](crate::PORT_BASE_DEFAULT).
    pub port_base: Option<u16>,
    /// Keeps the data; a cluster that is there already is started again. None: a temporary
    /// directory that is removed at the end.
    pub dir: Option<PathBuf>,
    /// Connects the nodes without proxies. Faster, but the cluster cannot be partitioned.
    pub direct: bool,
    /// The shortener's port. None: no shortener.
    pub shortener_port: Option<u16>,
    /// Receives all addresses as JSON once everything serves; removed at the end.
    pub ready_file: Option<PathBuf>,
}
