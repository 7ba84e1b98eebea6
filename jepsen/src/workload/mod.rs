//! Workloads: what the clients of a run do, and what must be true of what they saw.
//!
//! A workload is one file that implements [`Workload`], and one line in [`ALL`]. It plans operations (a pure function of the
//! seed, apart from the arguments of conditional writes, which follow what clients saw), performs one, says which keys are read
//! at the end, and checks what is special about it. What all workloads share is not its business: pacing, recording, process
//! numbers, final reads, linearizability per key, the replay of the log's order.
//!
//! Keys begin with the workload's name and a slash: that is how a history of several workloads is taken apart again.

mod append;
mod check;
mod counter;
mod http;
mod register;
mod retry;
mod set;
mod shortener;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use quorate_client::{Client, ReadLevel};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;

pub use check::{Done, operations};
pub use http::{Http, HttpError, Reply};

use crate::history::{Action, Event, EventKind};

/// What makes one of the workloads; the seed is the run's.
type Make = fn(&Setting) -> anyhow::Result<Arc<dyn Workload>>;

/// Every workload by its name, in the order in which help and documentation list them. A new one is a line here.
pub const ALL: &[(&str, Make)] = &[
    ("register", |setting| Ok(Arc::new(register::Register::new(setting)))),
    ("append", |setting| Ok(Arc::new(append::Append::new(setting)))),
    ("counter", |setting| Ok(Arc::new(counter::Counter::new(setting)))),
    ("set", |setting| Ok(Arc::new(set::Set::new(setting)))),
    ("shortener", |setting| Ok(Arc::new(shortener::Shortener::new(setting)?))),
];

/// What a workload is made with.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The run's seed.
    pub seed: u64,
    /// Keys that are in use at a time; fewer keys mean more contention.
    pub keys: u64,
    /// Stands in every key after the workload's name: on a cluster that is used again, keys of an earlier run are no beginning.
    pub prefix: &'a str,
    /// A file of URLs, one a line, for the shortener; without one they are made up.
    pub urls: Option<&'a Path>,
}

/// The workload of that name.
///
/// # Errors
///
/// An unknown name, with the names that there are; whatever making it says.
pub fn by_name(name: &str, setting: &Setting<'_>) -> anyhow::Result<Arc<dyn Workload>> {
    let known = || ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let found = ALL.iter().find(|(known, _)| *known == name);
    let (_, make) = found.ok_or_else(|| anyhow::anyhow!("unknown workload '{name}'; there are: {}", known()))?;
    make(setting)
}

/// One operation, planned and not yet begun.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// What it does.
    pub f: Action,
    /// On which key of the store, which is the key in the history too.
    pub key: String,
    /// Its argument; see [`Action`].
    pub value: Value,
    /// Of a read: its level.
    pub level: ReadLevel,
}

impl Op {
    /// An operation that is not an eventual read.
    pub fn new(f: Action, key: impl Into<String>, value: impl Into<Value>) -> Self {
        Op { f, key: key.into(), value: value.into(), level: ReadLevel::Strong }
    }

    /// A read of a key.
    pub fn read(key: impl Into<String>, level: ReadLevel) -> Self {
        Op { f: Action::Read, key: key.into(), value: Value::Null, level }
    }
}

/// How an operation ended: what its closing event says.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// `Ok`, `Fail` or `Info`.
    pub kind: EventKind,
    /// The result; see [`Action`].
    pub value: Value,
    /// The store refused the condition.
    pub refused: bool,
    /// What a refused write found.
    pub found: Option<Value>,
    /// The version written, read or found.
    pub version: Option<u64>,
    /// Why it failed or is unknown.
    pub error: Option<String>,
    /// Who served it, and of which state it speaks.
    pub by: Option<quorate_client::ServedBy>,
}

impl Completion {
    /// It happened, with this result.
    pub fn ok(value: Value) -> Self {
        Self { kind: EventKind::Ok, value, refused: false, found: None, version: None, error: None, by: None }
    }

    /// It did not happen and never will.
    pub fn fail(error: impl Into<String>) -> Self {
        Self { kind: EventKind::Fail, error: Some(error.into()), ..Self::ok(Value::Null) }
    }

    /// It may or may not happen, now or later.
    pub fn info(error: impl Into<String>) -> Self {
        Self { kind: EventKind::Info, error: Some(error.into()), ..Self::ok(Value::Null) }
    }
}

/// Through what a client performs its operations.
#[derive(Clone, Debug)]
pub struct Access {
    /// A client of the store.
    pub client: Client,
    /// How long one operation may take.
    pub deadline: Duration,
    /// The addresses of the shorteners, if the workload asked for them.
    pub shorteners: Arc<[String]>,
    /// For HTTP.
    pub http: Http,
    /// A number that differs from operation to operation, to spread them over shorteners.
    pub turn: u64,
}

/// Something that must not be, and where in the history it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What, in a sentence.
    pub what: String,
    /// The events that show it.
    pub events: Vec<u64>,
}

/// A workload. To be correct:
///
/// * `plan` may be called by many clients at a time and in any order of `n`, and every value that it writes to a key is written
///   to that key only once: a value tells who wrote it.
/// * `perform` says `Fail` only when nothing was applied and nothing ever will be, and `Info` whenever that is in doubt. It never
///   repeats by itself what may have been applied.
/// * `check` reports only what no correct store can show, whatever the faults were.
pub trait Workload: Send + Sync {
    /// Its name, also the beginning of its keys.
    fn name(&self) -> &'static str;

    /// Its `n`-th operation, counted from 0; `rng` is seeded by the run's seed and `n`.
    fn plan(&self, n: u64, rng: &mut StdRng) -> Op;

    /// Does it.
    fn perform(&self, access: Access, op: Op) -> BoxFuture<'_, Completion> {
        Box::pin(store::perform(access, op))
    }

    /// Hears what a client saw; the plan may follow it.
    fn observe(&self, _op: &Op, _completion: &Completion) {}

    /// The model that its operations follow. By it strong operations are checked for linearizability, key by key, and eventual
    /// reads for what they promise: a value that was written, and not from the future. None: only `check` says.
    fn model(&self) -> Option<&'static str>;

    /// Whether the log's order can be replayed over its events: they carry index, value and version.
    fn is_replayable(&self) -> bool {
        true
    }

    /// How many shortener processes it wants beside the cluster.
    fn shorteners(&self) -> usize {
        0
    }

    /// The reads that end a run of `planned` operations: after them nothing that was acknowledged can hide.
    fn finals(&self, planned: u64) -> Vec<Op>;

    /// What is special about it: what must be true of its events beside what its model says.
    fn check(&self, _events: &[Event]) -> Vec<Finding> {
        Vec::new()
    }
}

/// The random numbers of a workload's `n`-th operation.
pub fn rng(seed: u64, name: &str, n: u64) -> StdRng {
    // FNV-1a tells the workloads of one run apart; an odd multiplier keeps every n apart.
    let stream = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    StdRng::seed_from_u64(seed ^ stream ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Keys that come and go: `keys` slots, each of which changes to a new key after about `each` operations, no two at a time.
#[derive(Clone, Debug)]
struct Rotation {
    /// What keys begin with.
    name: String,
    slots: u64,
    each: u64,
}

impl Rotation {
    fn new(workload: &str, setting: &Setting<'_>, each: u64) -> Self {
        Rotation { name: format!("{workload}/{}", setting.prefix), slots: setting.keys, each }
    }

    /// The key of a slot at the `n`-th operation.
    fn key(&self, slot: u64, n: u64) -> String {
        self.named(slot, self.generation(slot, n))
    }

    fn generation(&self, slot: u64, n: u64) -> u64 {
        (n + slot * self.each) / (self.slots * self.each)
    }

    fn named(&self, slot: u64, generation: u64) -> String {
        format!("{}{slot}.{generation}", self.name)
    }

    /// Every key that the first `planned` operations can have used.
    fn all(&self, planned: u64) -> impl Iterator<Item = String> + '_ {
        let last = planned.saturating_sub(1);
        let generations = move |slot| 0..=self.generation(slot, last);
        (0..self.slots).flat_map(move |slot| generations(slot).map(move |generation| self.named(slot, generation)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> Setting<'static> {
        Setting { seed: 7, keys: 10, prefix: "", urls: None }
    }

    /// The same seed plans the same operations, another seed plans others, and the order of asking does not matter.
    #[test]
    fn a_plan_is_a_function_of_the_seed() {
        for (name, make) in ALL {
            let plan = |seed, order: &mut dyn Iterator<Item = u64>| {
                let workload = make(&setting()).unwrap();
                let mut planned: Vec<(u64, Op)> =
                    order.map(|n| (n, workload.plan(n, &mut rng(seed, name, n)))).collect();
                planned.sort_by_key(|(n, _)| *n);
                planned
            };
            assert_eq!(plan(1, &mut (0..300)), plan(1, &mut (0..300).rev()), "{name}");
            assert_ne!(plan(1, &mut (0..300)), plan(2, &mut (0..300)), "{name}");
        }
    }

    /// Every key that is used is read at the end, no value is written twice to a key, and keys say whose they are.
    #[test]
    fn final_reads_miss_no_key_and_values_are_unique() {
        for (name, make) in ALL.iter().filter(|(name, _)| *name != "shortener") {
            let workload = make(&setting()).unwrap();
            let finals: std::collections::HashSet<String> =
                workload.finals(5_000).into_iter().map(|read| read.key).collect();
            let mut written = std::collections::HashSet::new();
            for n in 0..5_000 {
                let op = workload.plan(n, &mut rng(3, name, n));
                assert!(op.key.starts_with(&format!("{name}/")), "{op:?}");
                assert!(finals.contains(&op.key), "{op:?}");
                let unique = matches!(op.f, Action::Write | Action::Append);
                assert!(!unique || written.insert((op.key.clone(), op.value.to_string())), "{op:?} twice");
            }
        }
    }

    #[test]
    fn an_unknown_workload_is_refused_with_the_names_there_are() {
        let error = by_name("bank", &setting()).map(drop).unwrap_err().to_string();
        assert!(error.contains("bank") && error.contains("register") && error.contains("shortener"), "{error}");
    }

    /// A slot's key changes now and then, and not all at once.
    #[test]
    fn keys_rotate_one_after_the_other() {
        let rotation = Rotation { name: "r/".into(), slots: 4, each: 10 };
        let at = |n| (0..4).map(|slot| rotation.key(slot, n)).collect::<Vec<_>>();
        for n in 1..200 {
            let changed = at(n).iter().zip(at(n - 1)).filter(|(now, before)| **now != *before).count();
            assert!(changed <= 1, "{n}");
        }
        assert_ne!(at(0), at(41));
    }
}
