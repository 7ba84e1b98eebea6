//! A run: a cluster, clients that work on it, faults that break it, and then the question whether it kept its promises.
//!
//! ```text
//!   start ── load + nemesis ── heal ── load goes on ── final reads ── convergence ── state hashes ── dismantle ── check ── report
//!              │    │                                     │
//!              │    └ nemesis.jsonl                       │
//!              └───────────── history.jsonl ──────────────┘
//! ```
//!
//! Read `phases` next, then `clients`.

mod account;
mod clients;
mod coverage;
mod faults;
mod finale;
mod observed;
mod options;
mod phases;
mod recorder;
mod shorteners;
mod subject;
mod verdict;
mod votes;

pub use clients::Pace;
pub use observed::Counts;
pub use options::{NetworkChoice, Options, Required};
pub use phases::run;

/// The file of events.
pub const HISTORY: &str = "history.jsonl";
/// The file of faults.
pub const NEMESIS: &str = "nemesis.jsonl";
/// The directory of the nodes' logs.
pub const LOGS: &str = "logs";
