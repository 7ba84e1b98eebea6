//! A run: start a cluster, put load on it, inject faults, heal them, and check the promises.
//!
//! ```text
//!   start ─ load + nemesis ─ heal ─ load ─ final reads ─ convergence ─ state hashes ─ dismantle
//!             │    └ nemesis.jsonl ────┐        │                                        │
//!             └────── history.jsonl ───┴────────┘                        check ─ report ◄┘
//! ```
//!
//! Read `phases` next, then `collect`, `clients` and `finish`.

mod account;
mod clients;
mod collect;
mod connections;
mod coverage;
mod failure;
mod faults;
mod files;
mod finale;
mod finish;
mod judge;
mod load;
mod observed;
mod options;
mod phases;
mod progress;
mod recorder;
mod shorteners;
mod subject;
mod verdict;
mod votes;

pub use clients::Loop;
pub use files::{HISTORY, LOGS, NEMESIS};
pub use options::{ClusterOptions, FaultOptions, LoadOptions, NetworkChoice, Options, Required};
pub use phases::run;
