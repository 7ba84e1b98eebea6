//! The one binary, `quorate`: it runs nodes and the shortener, makes and inspects clusters, reads and writes keys, and measures.
//!
//! ```text
//!   args        what can be typed; each command group has a file of its own
//!   failure     what went wrong, and with which exit code: the one place that maps errors to codes
//!   kv          put, get, del, cas                        ── quorate_client
//!   survey      topology and nodes as they are now        ── Admin of every node;  zones: what it says of them
//!   status, doctor, shard, nodes, cluster                 on top of survey and admin
//!   manual, explain                                       completions, man pages, exit codes
//!   operation, rebalance                                  what changes the cluster, and goes on by itself
//!   progress    how far an operation is
//!   node, shortener                                       long-running processes
//!   playground  a cluster of child processes
//!   bench       closed-loop load, on Quorate or etcd
//! ```
//!
//! Results go to stdout; progress, hints and errors to stderr. Read `args` next.

/// Writes a line to stderr. Where nobody reads it, it is lost: unlike `eprintln`, which panics, it never costs the exit code.
macro_rules! tell {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

/// The same without the end of the line.
macro_rules! tell_part {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stderr(), $($text)*);
    }};
}

mod admin;
mod args;
mod bench;
mod cluster;
mod doctor;
mod duration;
mod endpoint;
mod explain;
mod failure;
mod kv;
mod leader;
mod log;
mod manual;
mod node;
mod nodes;
mod operation;
mod orphan;
mod output;
mod playground;
mod progress;
mod rebalance;
mod shard;
mod shortener;
mod signals;
mod status;
mod survey;
mod verify;
mod zones;

use std::process::ExitCode;

use clap::Parser as _;

/// A node lives from allocations of all sizes that one thread makes and another frees; the C library's allocator spends a tenth of a
/// busy node's time on them and fragments. The figures are in the README's "Speed".
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match orphan::guard().and_then(|()| args::Cli::parse().run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell_part!("{failure}");
            failure.exit_code()
        }
    }
}
