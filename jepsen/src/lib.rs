//! The fault-injection harness. It starts a real cluster, writes and reads while it injects faults
//! into the network, disks, clocks and processes, records every operation with its result, and
//! checks the record against Quorate's promises.
//!
//! It knows the store only from outside: through the client library, the command line and the
//! processes.
//!
//! ```text
//!   suite ─► run ─┬─ cluster    real processes, networks and disks
//!                 ├─ nemesis    faults on a schedule
//!                 ├─ workload   operations of the clients, and their rules
//!                 ├─ history    operations with results ─► check    linearizability, replay
//!                 └─ report     numbers and plots
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
