//! Faults: installed, verified, held, healed, verified again, and recorded in a journal.
//!
//! ```text
//!   Schedule ─ which fault when ─► Nemesis::install ─ Planner ─► Injection ─ inject ─► the cluster
//!                                  Nemesis::heal    ◄─ Active ─────────────── undo ──►
//!                                    ├─► Ledger: active faults, excused nodes, damaged nodes,
//!                                    │           findings
//!                                    └─► Journal: nemesis.jsonl
//! ```
//!
//! A fault that this machine does not support is *unable*, a fault that is not possible at the
//! moment is *skipped*, both with the reason. A fault whose injection failed halfway is
//! *indeterminate*; its effects are undone. None of these counts as a fault that the cluster
//! survived.
//!
//! Read `fault` for the list of faults, `plan` for the choice of targets, `injection` for the
//! changes that a fault makes, then `lifecycle`.

mod bits;
mod damage;
mod disk;
mod fail_point;
mod fault;
mod injection;
mod journal;
mod ledger;
mod lifecycle;
mod membership;
mod network;
mod partition;
mod plan;
mod refusal;
mod repair;
mod schedule;
mod view;

pub use fault::{Class, Fault, UnknownFault};
pub use journal::{Journal, Line, Phase};
pub use ledger::Finding;
pub use lifecycle::{Active, Nemesis, Outcome};
pub use schedule::{Schedule, Summary};
