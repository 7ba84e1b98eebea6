//! The interface of a workload.

use std::path::Path;

use futures::future::BoxFuture;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::op::{Access, Completion, Op};
use super::store;
use crate::history::Event;

/// The parameters of a workload.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The run's seed.
    pub seed: u64,
    /// The number of keys in use at a time. Fewer keys mean more contention.
    pub keys: u64,
    /// A part of every key after the workload's name, so that runs on the same cluster use
    /// different keys.
    pub prefix: &'a str,
    /// A file of URLs for the shortener, one per line. Without it, URLs are generated.
    pub urls: Option<&'a Path>,
}

/// A violation of a workload's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The violation in a sentence.
    pub what: String,
    /// The events that prove it.
    pub events: Vec<u64>,
}

/// A workload. To be correct:
///
/// * `plan` may be called concurrently and in any order of `n`. It writes each value to a key only
///   once, so that a value identifies its write.
/// * `perform` returns `Fail` only if the operation has no effect, now or later, and `Info` if that
///   is unknown. It never retries an operation that may have taken effect.
/// * `check` reports only violations that no correct store can cause, regardless of the faults.
pub trait Workload: Send + Sync {
    /// The name of the workload, which is also the prefix of its keys.
    fn name(&self) -> &'static str;

    /// Plans the `n`-th operation, counted from 0. `rng` is seeded with the run's seed and `n`.
    fn plan(&self, n: u64, rng: &mut StdRng) -> Op;

    /// Performs an operation.
    fn perform(&self, access: Access, op: Op) -> BoxFuture<'_, Completion> {
        Box::pin(store::perform(access, op))
    }

    /// Receives the completion of an operation. Later plans may depend on it.
    fn observe(&self, _op: &Op, _completion: &Completion) {}

    /// The model for the checks of linearizability per key (strong operations) and of eventual
    /// reads: they must return a value that was written, and not from the future. `None`: only
    /// `check` applies.
    fn model(&self) -> Option<&'static str>;

    /// Whether the events can be replayed in log order: they have index, value and version.
    fn is_replayable(&self) -> bool {
        true
    }

    /// The number of shortener processes that the workload needs.
    fn shorteners(&self) -> usize {
        0
    }

    /// The final reads after `planned` operations. They cover every key, so that a lost
    /// acknowledged write cannot stay hidden.
    fn finals(&self, planned: u64) -> Vec<Op>;

    /// Checks the workload's own rules, beyond its model.
    fn check(&self, _events: &[Event]) -> Vec<Finding> {
        Vec::new()
    }
}

/// The random number generator of a workload's `n`-th operation.
pub fn rng(seed: u64, name: &str, n: u64) -> StdRng {
    // FNV-1a separates the workloads of a run; an odd multiplier separates the values of `n`.
    let stream = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    StdRng::seed_from_u64(seed ^ stream ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
