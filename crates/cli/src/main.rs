//! The one binary, `quorate`: runs nodes and the shortener, administers clusters, reads and writes
//! keys, and measures.
//!
//! ```text
//!   args          the command line; each command group has a file of its own
//!   connect       --endpoints, --deadline, -o: the flags of every query
//!   failure       errors, causes, hints and exit codes; admin_failure: from admin requests
//!
//!   kv            put, get, del, cas                        ── quorate_client
//!   status, doctor, shard, node                             ┐
//!   op, rebalance, node drain …: change ─► leader ─► watch  ├─ survey ── admin of every node
//!                                          progress, screen ┘  quorum, idle, advice, zones
//!   node start    ── quorate_node
//!   playground    ── quorate_playground
//!   shortener     ── quorate_shortener
//!   bench         load on Quorate or etcd
//!   manual        completions and man pages;  explain: exit codes
//! ```
//!
//! Results go to stdout; progress, hints and errors to stderr. Read `args` next.

/// Writes a line to stderr. Unlike `eprintln`, it ignores errors, so that a closed stderr does not
/// change the exit code.
macro_rules! tell {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

/// Writes text without a line end to stderr, and ignores errors.
macro_rules! tell_part {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stderr(), $($text)*);
    }};
}

mod args;

mod connect;
mod duration;
mod failure;
mod log;
mod output;
mod signals;

mod idle;
mod kv;

mod admin_failure;
mod advice;
mod leader;
mod presence;
mod quorum;
mod survey;
mod zones;

mod doctor;
mod node_row;
mod shard_row;
mod status;
mod verify;

mod change;
mod cluster;
mod confirm;
mod move_replica;
mod node;
mod operation;
mod operations;
mod pause;
mod plan;
mod progress;
mod rebalance;
mod screen;
mod shard;
mod transfer;
mod watch;

mod bench;
mod explain;
mod manual;
mod playground;
mod shortener;

use std::process::ExitCode;

use clap::Parser as _;

use crate::failure::Failure;

/// Nodes allocate on one thread and free on another, in all sizes. The C library's allocator spends
/// a tenth of a busy node's time on this, and fragments.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match quorate_playground::die_with_parent().map_err(Failure::from).and_then(|()| args::Cli::parse().run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell_part!("{failure}");
            failure.exit_code()
        }
    }
}
