//! Workloads: the operations of a run's clients, and the rules that the results must obey.
//!
//! A workload is one file with an implementation of [`Workload`], and one line in [`ALL`]. It plans
//! operations, performs them, lists the final reads, and checks its own rules. Plans are a pure
//! function of the seed, except for the arguments of conditional writes, which depend on results of
//! earlier operations. The run does the rest for all workloads: pacing, recording, process numbers,
//! final reads, the checks of linearizability per key and of the log's order.
//!
//! Keys begin with the workload's name and a slash, which separates the workloads in a common
//! history.

mod append;
mod check;
mod contract;
mod counter;
mod http;
mod op;
mod register;
mod registry;
mod retry;
mod rotation;
mod set;
mod shortener;
mod store;

pub use check::{Done, operations};
pub use contract::{Finding, Setting, Workload, rng};
pub use http::{Http, HttpError, Reply};
pub use op::{Access, Completion, Op};
pub use registry::{ALL, by_name};
