//! The tables of runs: what CI and a release test.
//!
//! A run that is added is a row here. Each says what it must have reached; without that it fails.

use std::path::Path;

use crate::run::{Options, Required};

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// Some eight minutes on two cores: every family of faults once.
    Ci,
    /// Some seventy minutes: every workload against every family, longer and faster.
    Release,
}

/// One run of a table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name, and that of its directory.
    pub name: &'static str,
    /// What it is for.
    pub what: &'static str,
    workloads: &'static [&'static str],
    nemeses: &'static [&'static str],
    time_limit: u64,
    rate: f64,
    interval: f64,
    required: Required,
}

impl Suite {
    /// Its runs.
    pub fn entries(self) -> &'static [Entry] {
        match self {
            Suite::Ci => CI,
            Suite::Release => RELEASE,
        }
    }
}

impl Entry {
    /// The run, with its directory below `out`.
    pub fn options(&self, out: &Path, seed: u64) -> Options {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Options {
            workload: owned(self.workloads),
            nemesis: owned(self.nemeses),
            time_limit: self.time_limit,
            rate: Some(self.rate),
            interval: self.interval,
            seed: Some(seed),
            out: Some(out.join(self.name)),
            required: self.required,
            ..Options::default()
        }
    }
}

/// The least that a run must have reached.
const fn required(faults: u64, elections: u64, leaders_hit: u64, snapshots: u64) -> Required {
    Required {
        require_faults: faults,
        require_elections: elections,
        require_leaders_hit: leaders_hit,
        require_snapshots: snapshots,
    }
}

const CI: &[Entry] = &[Entry {
    name: "kill-pause",
    what: "processes die and stop",
    workloads: &["register", "append"],
    nemeses: &["kill", "pause"],
    time_limit: 45,
    rate: 400.0,
    interval: 5.0,
    required: required(1, 3, 2, 0),
}];

const RELEASE: &[Entry] = CI;
