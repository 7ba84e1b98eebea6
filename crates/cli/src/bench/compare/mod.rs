//! `bench compare OLD NEW`: compares two builds. The spread of the old build against itself is the
//! baseline.
//!
//! ```text
//!   three clusters of three nodes on this machine:   old    old again    new
//!   (one is under load, the others are idle)
//!   each round, each of nine loads, in random order: t1     t2           t3
//!                                                     │      │            │
//!                        old ÷ old of this round  =  t2 ÷ t1              │
//!                        new ÷ old of this round  =  t3 ÷ t1 ─────────────┘
//! ```
//!
//! Absolute figures of a shared machine vary by a factor of two within an hour. Ratios of adjacent
//! measurements vary less, and the ratio of a build to itself shows by how much. Each build is
//! measured with its own binary, so that the comparison includes the client library. Read `plan`
//! next, then `rounds` and `ratios`.

mod contender;
mod plan;
mod ratios;
mod rounds;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use self::contender::{Contender, Program};
use self::plan::Plan;
use self::ratios::Comparison;
use self::rounds::Rounds;
use crate::failure::{Exit, Failure};
use crate::output::{self, Output};
use crate::signals;

/// Ports reserved for one cluster: ten for each of its three nodes, and a margin.
const PORTS_EACH: u16 = 100;

#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// The build to compare with: a quorate binary, or the word etcd for etcd from PATH.
    #[arg(value_name = "OLD_BINARY")]
    old: Program,
    /// The build to judge: a quorate binary.
    #[arg(value_name = "NEW_BINARY")]
    new: Program,
    #[command(flatten)]
    plan: Plan,
    /// The first of 300 ports for the three clusters.
    #[arg(long, value_name = "P", default_value_t = 17_100, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port_base: u16,
    #[command(flatten)]
    output: Output,
}

/// The comparison as a JSON document.
#[derive(Serialize)]
struct Document<'a> {
    old: String,
    new: String,
    rounds_measured: u32,
    loads: &'a [Comparison],
    parameters: &'a Plan,
}

impl CompareArgs {
    /// Starts the three clusters, measures, stops them and prints the ratios. Ctrl-C ends it early
    /// and prints the ratios of the complete rounds.
    pub(super) async fn run(self) -> Result<(), Failure> {
        if matches!(self.new, Program::Etcd) {
            return Err(Failure::new(Exit::Usage, "NEW_BINARY must be a quorate binary")
                .hint("to compare with etcd, name it first:  quorate bench compare etcd NEW_BINARY"));
        }
        let stop = signals::shutdown()?;
        tokio::pin!(stop);
        let scratch = Scratch::new()?;
        let programs = [("old", &self.old), ("old again", &self.old), ("new", &self.new)];
        let mut contenders = Vec::new();
        for ((name, program), number) in programs.into_iter().zip(0u16..) {
            tell!("starting three nodes of {name}: {program}");
            let dir = scratch.0.join(number.to_string());
            let port_base = self.port_base + number * PORTS_EACH;
            let started = Contender::start(program, dir, port_base);
            contenders.push(tokio::select! {
                started = started => started?,
                () = &mut stop => return Err(Failure::new(Exit::Interrupted, "interrupted before any measurement")),
            });
        }
        let mut rounds = Rounds::new(&self.plan);
        let measured = rounds.measure(&contenders, &mut stop).await;
        for contender in contenders {
            contender.stop().await;
        }
        measured?;
        if rounds.complete() == 0 {
            return Err(Failure::new(Exit::Interrupted, "interrupted before the first round had ended"));
        }
        let loads = rounds.compare();
        let document = Document {
            old: self.old.to_string(),
            new: self.new.to_string(),
            rounds_measured: rounds.complete(),
            loads: &loads,
            parameters: &self.plan,
        };
        output::show(self.output.output, "BenchComparison", &document, || ratios::table(&loads, rounds.complete()))
    }
}

/// A directory for the clusters' data, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("quorate-compare-{}", std::process::id()));
        std::fs::create_dir_all(&dir)
            .map_err(|error| Failure::new(Exit::Other, format!("cannot make {}", dir.display())).cause(error))?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: the directory is inside the system's temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use crate::args::tests::parse;

    #[test]
    fn comparison_takes_two_programs_and_refuses_nonsense() {
        parse("quorate bench compare old/quorate new/quorate --rounds 7 --seconds 5").unwrap();
        parse("quorate bench compare etcd new/quorate -o json").unwrap();
        for bad in ["a", "a b --rounds 0", "a b --seconds 0", "a b --value 1048577", "a b --port-base 0", "a b c"] {
            assert!(parse(&format!("quorate bench compare {bad}")).is_err(), "{bad}");
        }
    }
}
