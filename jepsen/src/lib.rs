//! The partition-testing harness: it starts a real cluster, writes and reads while it breaks the cluster's network, disks,
//! clocks and processes, records what every client saw, and checks the record against what Quorate promises.
//!
//! It knows the store only from outside: the client library, the command line and the processes. Read `history` next.

pub mod cluster;
pub mod history;
pub mod nemesis;
