//! The names of the files in a run's directory.

/// The history: one event a line.
pub const HISTORY: &str = "history.jsonl";
/// The journal of the faults.
pub const NEMESIS: &str = "nemesis.jsonl";
/// The directory of the nodes' logs.
pub const LOGS: &str = "logs";
