//! Deterministic simulation: the real code of the groups, the log and state twins, the topology's machine and planner, in one
//! thread, with simulated time, a seeded network, disks that forget what was not synced, and clients that record what they saw.
//! The same seed gives the same run, to the byte.
//!
//! ```text
//!   seed ─→ Scenario ─→ World ─┬─ members: quorate_raft::Groups over disk (gated twins) and network (seeded transport)
//!                              │           quorate_control: the product's control plane over peers and host
//!                              ├─ clients ─→ history ─→ linear (the client oracle)
//!                              ├─ faults: cuts, crashes, slow disks, clocks, an operator
//!                              ├─ invariants, promises: looked at every 25 ms, and in every message
//!                              └─ heal: everything mended, a bound on the time to progress
//! ```
//!
//! Time is tokio's, paused: it moves when every task waits, to the next timer. Why this and not a simulator of sockets or of
//! runtimes, what is simulated and what is not: `README.md` in this directory.
//!
//! Read `scenario` next, then `world`, `member`, `network`, `disk`.

mod client;
mod command;
mod connection;
mod counts;
mod defect;
mod disk;
mod faults;
mod heal;
mod history;
mod host;
mod invariants;
mod linear;
mod lives;
mod member;
mod network;
mod panics;
mod peers;
mod product_log;
mod promise;
mod run;
mod scenario;
mod trace;
mod violations;
mod world;

pub use command::{Summary, command};
pub use counts::{Count, Totals};
pub use defect::Defect;
pub use run::{Options, Outcome, run};
