//! `quorate-jepsen generate`: a made-up history of a correct store, to measure the checker with.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use quorate_jepsen::history::generate::{Generator, Kind, Shape};
use quorate_jepsen::history::jsonl;

/// Writes a made-up history of a correct store (jsonl), the same for the same seed. To measure the checker with.
#[derive(Debug, Args)]
pub(super) struct Generate {
    /// What the operations are.
    #[arg(long, value_enum, default_value = "register")]
    kind: KindName,
    /// How many operations there are.
    #[arg(long, default_value_t = Shape::default().operations)]
    operations: u64,
    /// On how many keys.
    #[arg(long, default_value_t = Shape::default().keys, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    keys: u64,
    /// How many keys are in use at a time.
    #[arg(long, default_value_t = Shape::default().keys_in_use)]
    keys_in_use: u64,
    /// How many operations are open at a time, at most.
    #[arg(long, default_value_t = Shape::default().processes, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    processes: u64,
    /// The share of operations whose outcome is unknown.
    #[arg(long, default_value_t = Shape::default().unknown, value_parser = share)]
    unknown: f64,
    /// How many different values are written; 0: every value is written once.
    #[arg(long, default_value_t = 0)]
    values: u64,
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write it; stdout if it is not said.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindName {
    /// Reads, writes and compare-and-sets; model cas-register.
    Register,
    /// The same with versions, deletions and eventual reads; model kv-version.
    KvVersion,
    /// Additions to counters; model counter.
    Counter,
    /// Additions to sets; model set.
    Set,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("'{text}' is not a number"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is between 0 and 1".to_owned()) }
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
