//! Bounds of a check, and the passes that shrink its search.

use std::time::Duration;

use serde_json::Value;

/// Default time limit of the search in one key.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Default time limit of the search in all keys of a history.
pub const TOTAL_DEFAULT: Duration = Duration::from_secs(600);
/// Memory limit of the search in one key: on two cores, two such searches stay below 1 GB.
pub const MEMORY_BYTES_MAX: usize = 384 << 20;

/// Bounds and options of a check.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time limit of the search in one key; beyond it the verdict is *unknown*.
    pub timeout: Duration,
    /// Time limit of the whole check; keys that are not finished by then are *unknown*.
    pub total: Duration,
    /// Memory limit of the search in one key, in bytes; beyond it the verdict is *unknown*.
    pub memory_bytes_max: usize,
    /// Number of keys searched in parallel.
    pub threads: usize,
    /// Initial value of a register, key or set of registers; null (the default) means absent.
    pub initial: Value,
    /// Passes that shrink the search. All by default; none of them changes a verdict.
    pub passes: Passes,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            timeout: TIMEOUT_DEFAULT,
            total: TOTAL_DEFAULT,
            memory_bytes_max: MEMORY_BYTES_MAX,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            initial: Value::Null,
            passes: Passes::ALL,
        }
    }
}

/// The enabled passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// Drop reads without a reply.
    pub drop_reads: bool,
    /// Let observed unknown writes return before their observers do.
    pub bound_observed: bool,
    /// Drop unknown writes that no operation can have observed.
    pub drop_unobserved: bool,
    /// Immediately place reads and refusals that fit.
    pub eager: bool,
    /// Order equal operations.
    pub symmetric: bool,
    /// Skip dominated configurations.
    pub dominated: bool,
}

impl Passes {
    /// All passes.
    pub const ALL: Passes = Passes {
        drop_reads: true,
        bound_observed: true,
        drop_unobserved: true,
        eager: true,
        symmetric: true,
        dominated: true,
    };
    /// No passes: the plain search, for comparison.
    pub const NONE: Passes = Passes {
        drop_reads: false,
        bound_observed: false,
        drop_unobserved: false,
        eager: false,
        symmetric: false,
        dominated: false,
    };
}
