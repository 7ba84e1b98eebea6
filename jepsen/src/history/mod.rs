//! Histories: every operation that the clients of a run invoked and every result that they
//! observed, as events in real-time order. `history.jsonl` holds one JSON object per event.
//!
//! The fields are Jepsen's (`index`, `time`, `process`, `type`, `f`, `value`, `error`), plus the
//! details of our replies (`key`, `version`, `node`, `shard`, `log_index`, `revision`, `level`).
//! Other fields are refused.
//!
//! * A process has at most one open operation: its `invoke`, closed by the same process's next
//!   event.
//! * `ok`: the operation took effect between the two events. A conditional write that the store
//!   refused is `ok` with `refused` set: it observed `found` (the key's value) and changed nothing.
//! * `fail`: the operation did not take effect and never will.
//! * `info`, or no closing event: the operation may take effect once at any time after its
//!   `invoke`, or never. Its process is not used again.
//!
//! ```text
//!   file ─► parse (jsonl, edn, porcupine) ─► Event … ─► operation::Pairing ─► Operation …
//! ```
//!
//! [`parse`] reads the formats of other recorders into the same events; events in memory go to
//! [`operation::pair`]. Read `operation` next.

pub mod edn;
mod error;
mod event;
pub mod generate;
pub mod jsonl;
pub mod operation;
pub mod parse;
pub mod porcupine;

pub use error::{ParseError, ReadError};
pub use event::{Action, Event, EventKind};
pub use operation::{Level, Operation, Outcome};
pub use parse::Format;
