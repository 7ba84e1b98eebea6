//! Deterministic simulation of a cluster: the product's Raft groups, control plane, router, state
//! machine and planner run in one thread. Time, network, disks and faults are simulated; a crash
//! drops unsynced writes; clients record every operation. The same seed gives the same run, byte
//! for byte.
//!
//! ```text
//!   seed ─→ Scenario ─→ World ─┬─ members: quorate_raft::Groups over disk and network,
//!                              │           quorate_control over peers and host
//!                              ├─ clients: quorate_router over connection
//!                              │           ─→ history ─→ linear (the client oracle)
//!                              ├─ faults: cuts, crashes, slow disks, clocks, an operator
//!                              ├─ invariants: checked every 25 ms
//!                              ├─ promise: checked in every message
//!                              └─ heal: ends all faults, bounds the time to progress
//! ```
//!
//! Time is tokio's paused clock: when every task waits, it jumps to the next timer. `README.md` in
//! this directory explains this choice over simulators of sockets or runtimes, and lists the parts
//! that are not simulated.
//!
//! Read `scenario` next, then `world`, `member`, `network`, `disk`.

mod client;
mod command;
mod connection;
mod counts;
mod dead;
mod disk;
mod faults;
mod heal;
mod history;
mod host;
mod invariants;
mod linear;
mod lives;
mod lost_entries;
mod network;
mod panics;
mod peers;
mod product_log;
mod promise;
mod run;
mod running_node;
mod scenario;
mod trace;
mod violations;
mod voters;
mod world;

pub use command::{Summary, command};
pub use counts::{Count, Totals};
pub use quorate_raft::LEASE_MS_DEFAULT;
pub use run::{BUGS, Options, Outcome, run};
