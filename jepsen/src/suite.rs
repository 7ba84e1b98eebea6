//! The suites: tables of runs for CI and for a release.
//!
//! Each row is a run with its required coverage; a run that misses it fails. A new run is a new
//! row.

use std::path::Path;

use crate::run::{ClusterOptions, FaultOptions, LoadOptions, Loop, Options, Required};

/// A table of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// About eight minutes on two cores: every family of faults once.
    Ci,
    /// About sixty minutes: every family longer and faster, then half an hour of all faults
    /// together.
    Release,
}

/// A run of a table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name of the run and of its directory.
    pub name: &'static str,
    /// The purpose of the run.
    pub what: &'static str,
    workloads: &'static [&'static str],
    nemeses: &'static [&'static str],
    time_limit: u64,
    pace: Loop,
    log_retained_bytes: Option<u64>,
    interval: f64,
    overlap: bool,
    pin: bool,
    required: Required,
}

impl Suite {
    /// The runs of the suite.
    pub fn entries(self) -> &'static [Entry] {
        match self {
            Suite::Ci => CI,
            Suite::Release => RELEASE,
        }
    }
}

impl Entry {
    /// The options of the run, with its directory below `out`.
    pub fn options(&self, out: &Path, seed: u64) -> Options {
        let (rate, concurrency) = match self.pace {
            Loop::Open { rate } => (Some(rate), None),
            Loop::Closed { concurrency } => (None, Some(concurrency)),
        };
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Options {
            load: LoadOptions {
                workload: owned(self.workloads),
                time_limit: self.time_limit,
                rate,
                concurrency,
                pin: self.pin,
                ..LoadOptions::default()
            },
            faults: FaultOptions {
                nemesis: owned(self.nemeses),
                interval: self.interval,
                overlap: self.overlap,
                bug: None,
            },
            cluster: ClusterOptions { log_retained_bytes: self.log_retained_bytes, ..ClusterOptions::default() },
            seed: Some(seed),
            out: Some(out.join(self.name)),
            no_history: false,
            required: self.required,
        }
    }
}

/// The required coverage of a run.
const fn required(faults: u64, elections: u64, leaders_hit: u64, snapshots: u64) -> Required {
    Required {
        require_faults: faults,
        require_elections: elections,
        require_leaders_hit: leaders_hit,
        require_snapshots: snapshots,
    }
}

const CI: &[Entry] = &[
    Entry {
        name: "partitions",
        what: "network partitions of every shape",
        workloads: &["register", "set"],
        nemeses: &["partition"],
        required: required(4, 3, 2, 0),
        ..CI_RUN
    },
    Entry {
        name: "kill-power",
        what: "processes are killed, and power cuts lose unsynced data",
        workloads: &["register", "set"],
        nemeses: &["kill", "power-cut"],
        required: required(2, 3, 2, 0),
        ..CI_RUN
    },
    Entry {
        name: "pause-clock",
        what: "leaders pause and resume, clocks jump",
        workloads: &["register", "counter"],
        nemeses: &["pause-leaders", "clock-jump"],
        required: required(2, 2, 2, 0),
        ..CI_RUN
    },
    Entry {
        name: "membership",
        what: "leaderships are transferred, replicas move, nodes join and leave",
        workloads: &["register", "append"],
        nemeses: &["purge-logs", "transfer-leaders", "move-shard", "churn"],
        required: required(1, 2, 0, 1),
        ..CI_RUN
    },
    Entry {
        name: "disks",
        what: "disks are full, slow or hung, or fail to sync",
        workloads: &["register", "counter"],
        nemeses: &["disk-full", "sync-fails", "slow-disk", "hung-disk"],
        required: required(1, 1, 1, 0),
        ..CI_RUN
    },
    Entry {
        name: "shortener",
        what: "short links while nodes are killed or partitioned, and logs are purged",
        workloads: &["shortener", "set"],
        nemeses: &["kill-one", "partition-leader", "purge-logs"],
        required: required(1, 2, 1, 0),
        ..CI_RUN
    },
];

/// The defaults of the CI runs.
const CI_RUN: Entry = Entry {
    name: "",
    what: "",
    workloads: &[],
    nemeses: &[],
    time_limit: 45,
    pace: Loop::Open { rate: 300.0 },
    log_retained_bytes: None,
    interval: 4.0,
    overlap: false,
    pin: false,
    required: required(1, 0, 0, 0),
};

const RELEASE: &[Entry] = &[
    Entry {
        name: "partitions",
        workloads: &["register"],
        nemeses: &["partition"],
        required: required(6, 6, 4, 0),
        ..RELEASE_RUN
    },
    Entry {
        name: "partitions-append",
        workloads: &["append", "counter"],
        nemeses: &["partition-leader", "partition-halves", "partition-one-way", "partition-flapping"],
        required: required(1, 6, 4, 0),
        ..RELEASE_RUN
    },
    Entry {
        name: "pinned",
        what: "every client is pinned to one node, and keeps asking partitioned or paused leaders",
        workloads: &["register", "counter"],
        nemeses: &["partition-leader", "partition-one-way", "partition-minority", "pause-leaders"],
        pin: true,
        required: required(1, 6, 4, 0),
        ..RELEASE_RUN
    },
    Entry {
        name: "slow-network",
        workloads: &["register", "set"],
        nemeses: &["loss", "latency", "bandwidth"],
        required: required(2, 1, 2, 0),
        ..RELEASE_RUN
    },
    Entry {
        name: "kill",
        workloads: &["register", "append"],
        nemeses: &["kill"],
        required: required(6, 6, 4, 0),
        ..RELEASE_RUN
    },
    Entry {
        name: "power",
        workloads: &["register", "set"],
        nemeses: &["power-cut"],
        required: required(6, 6, 4, 0),
        ..RELEASE_RUN
    },
    Entry {
        name: "pause",
        workloads: &["register", "counter"],
        nemeses: &["pause-leaders"],
        required: required(6, 4, 6, 0),
        ..RELEASE_RUN
    },
    Entry {
        name: "clock",
        workloads: &["register", "append"],
        nemeses: &["clock-jump", "pause-leaders"],
        required: required(3, 2, 3, 0),
        ..RELEASE_RUN
    },
    Entry {
        name: "disks",
        workloads: &["register", "append"],
        nemeses: &["disk-full", "sync-fails", "disk-dies", "slow-disk", "hung-disk"],
        time_limit: 150,
        required: required(1, 3, 2, 0),
        ..RELEASE_RUN
    },
    Entry {
        name: "rot",
        workloads: &["register", "set"],
        nemeses: &["bit-flip", "wiped-disk", "purge-logs"],
        time_limit: 150,
        required: required(1, 2, 0, 1),
        ..RELEASE_RUN
    },
    Entry {
        name: "membership",
        workloads: &["register", "append"],
        nemeses: &["purge-logs", "transfer-leaders", "move-shard", "churn", "fail-point"],
        time_limit: 150,
        required: required(1, 6, 0, 1),
        ..RELEASE_RUN
    },
    Entry {
        name: "shortener",
        workloads: &["shortener", "set"],
        nemeses: &["kill", "partition", "purge-logs", "pause-leaders"],
        required: required(1, 6, 3, 0),
        ..RELEASE_RUN
    },
    Entry {
        name: "everything",
        what: "half an hour of all faults together at full speed, with logs so short that snapshots are frequent",
        workloads: &["register", "append", "set"],
        nemeses: &["network", "process", "clock-jump", "disk", "log", "membership"],
        time_limit: 1_800,
        pace: Loop::Closed { concurrency: 64 },
        log_retained_bytes: Some(64 << 10),
        // Six classes overlap: a longer interval leaves times of undisturbed work.
        interval: 6.0,
        overlap: true,
        pin: false,
        required: required(10, 100, 30, 30),
    },
];

/// The defaults of the release runs.
const RELEASE_RUN: Entry = Entry {
    what: "a minute and a half, or two and a half for faults that heal slowly",
    time_limit: 90,
    pace: Loop::Open { rate: 500.0 },
    ..CI_RUN
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::Fault;
    use crate::workload::{Setting, by_name};

    /// The seconds that starting, healing, final reads and checking add to a run, measured on two
    /// cores.
    const OVERHEAD: u64 = 40;

    /// Every row names known workloads and faults, requires coverage, and has its own directory;
    /// each suite fits its time.
    #[test]
    fn suites_are_valid_and_fit_their_time() {
        let setting = Setting { seed: 1, keys: 1, prefix: "", urls: None };
        for (suite, minutes) in [(Suite::Ci, 12), (Suite::Release, 75)] {
            let mut names = std::collections::HashSet::new();
            let mut seconds = 0;
            for entry in suite.entries() {
                assert!(names.insert(entry.name), "{}", entry.name);
                let options = entry.options(Path::new("out"), 1);
                options.check().unwrap();
                assert!(options.load.workload.iter().all(|name| by_name(name, &setting).is_ok()), "{}", entry.name);
                assert!(options.faults.nemesis.iter().all(|name| Fault::parse_list(name).is_ok()), "{}", entry.name);
                assert!(options.required.require_faults > 0);
                seconds += entry.time_limit + OVERHEAD;
            }
            assert!(seconds <= minutes * 60, "{suite:?}: {seconds} s");
        }
    }
}
