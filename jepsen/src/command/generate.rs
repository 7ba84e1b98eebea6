//! `quorate-jepsen generate`: generates a history of a correct store, for measuring the checker.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use quorate_jepsen::history::generate::{Generator, Kind, Shape};
use quorate_jepsen::history::jsonl;

/// Generate a history of a correct store (jsonl) from a seed, for measuring the checker.
#[derive(Debug, Args)]
pub(super) struct Generate {
    /// The workload's operations.
    #[arg(long, value_enum, default_value = "register")]
    kind: KindName,
    /// Number of operations.
    #[arg(long, default_value_t = Shape::default().operations)]
    operations: u64,
    /// Number of keys.
    #[arg(long, default_value_t = Shape::default().keys, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    keys: u64,
    /// Number of keys in use at a time.
    #[arg(long, default_value_t = Shape::default().keys_in_use)]
    keys_in_use: u64,
    /// Maximum number of concurrently open operations.
    #[arg(long, default_value_t = Shape::default().processes, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    processes: u64,
    /// Share of operations with an unknown outcome, 0 to 1.
    #[arg(long, default_value_t = Shape::default().unknown, value_parser = share)]
    unknown: f64,
    /// Number of distinct written values; 0 writes every value once.
    #[arg(long, default_value_t = 0)]
    values: u64,
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Output file; stdout by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindName {
    /// Reads, writes and compare-and-sets; model cas-register.
    Register,
    /// Like register, plus versions, deletions and eventual reads; model kv-version.
    KvVersion,
    /// Additions to counters; model counter.
    Counter,
    /// Additions to sets; model set.
    Set,
}

fn share(text: &str) -> anyhow::Result<f64> {
    let share: f64 = text.parse().with_context(|| format!("'{text}' is not a number"))?;
    anyhow::ensure!((0.0..=1.0).contains(&share), "a share is between 0 and 1");
    Ok(share)
}

impl Generate {
    pub(super) fn run(self) -> ExitCode {
        let shape = Shape {
            kind: match self.kind {
                KindName::Register => Kind::Register,
                KindName::KvVersion => Kind::KvVersion,
                KindName::Counter => Kind::Counter,
                KindName::Set => Kind::Set,
            },
            operations: self.operations,
            keys: self.keys,
            keys_in_use: self.keys_in_use,
            processes: self.processes,
            unknown: self.unknown,
            values: self.values,
            seed: self.seed,
            ..Shape::default()
        };
        let writer: std::io::Result<Box<dyn Write>> = match &self.out {
            Some(path) => File::create(path).map(|file| Box::new(file) as Box<dyn Write>),
            None => Ok(Box::new(std::io::stdout().lock())),
        };
        let written = writer.and_then(|writer| jsonl::write(BufWriter::new(writer), Generator::new(shape)));
        match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: cannot write the history: {error}");
                ExitCode::FAILURE
            }
        }
    }
}
