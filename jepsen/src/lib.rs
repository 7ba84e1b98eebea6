//! The partition-testing harness: it starts a real cluster, writes and reads while it breaks the cluster's network, disks,
//! clocks and processes, records what every client saw, and checks the record against what Quorate promises.
//!
//! It knows the store only from outside: the client library, the command line and the processes.
//!
//! ```text
//!   suite ─► run ─┬─ cluster    real processes, networks and disks
//!                 ├─ nemesis    faults, by a schedule
//!                 ├─ workload   what clients do, and what must be true of it
//!                 ├─ history    what they saw ─► check    linearizability, replay
//!                 └─ report     numbers and pictures
//! ```
//!
//! Read `history` next, then `run`.

pub mod check;
pub mod cluster;
pub mod history;
pub mod nemesis;
pub mod report;
pub mod run;
pub mod suite;
pub mod workload;
