//! `bench kv`: closed-loop load, measured.
//!
//! ```text
//!   preload (for gets) ─► warm-up ─► window ─► report
//!                          N clients, each one operation at a time, on uniformly random keys
//! ```
//!
//! In a closed loop a slow store receives fewer requests: latencies are those of N busy clients,
//! not of an open stream of arrivals. The same loop drives Quorate and, for comparison, etcd.

mod compare;
mod during;
mod etcd;
mod load;
mod report;
mod target;
mod workload;

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::compare::CompareArgs;
use self::during::{Impact, Phases, Probes};
use self::etcd::Etcd;
use self::report::Report;
use self::target::{Quorate, Target};
use self::workload::{Op, Workload};
use crate::connect::Connect;
use crate::failure::{Exit, Failure};
use crate::output::{self, Output};
use crate::{duration, signals};

/// Measure throughput and latency.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Reads and writes of single keys. Keys begin with `bench/`; they stay in the store.
    Kv(KvArgs),
    /// Compare two builds under nine loads: ratios of the new build to the old one, beside those of
    /// the old build to itself. Takes about half an hour.
    Compare(CompareArgs),
}

/// The kind of store under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    /// A Quorate cluster.
    Quorate,
    /// etcd's v3 API; --endpoints are its client addresses. An eventual read is a serializable read
    /// of etcd.
    Etcd,
}

#[derive(Args, Debug)]
pub(crate) struct KvArgs {
    #[command(flatten)]
    workload: Workload,
    /// Which store the endpoints belong to.
    #[arg(long, value_enum, default_value = "quorate")]
    target: Store,
    /// Connections to each etcd endpoint.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    etcd_connections: u32,
    /// Run this quorate command, such as "node drain 3 --yes", after a third of the measurement,
    /// and report the load before and during it.
    #[arg(long, value_name = "COMMAND")]
    during: Option<String>,
    #[command(flatten)]
    probes: Probes,
    /// How long the load runs before the measurement begins.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration::parse)]
    warm_up: Duration,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

/// The result as a JSON document.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    impact: Option<&'a Impact>,
    parameters: Parameters<'a>,
}

#[derive(Serialize)]
struct Parameters<'a> {
    target: Store,
    #[serde(flatten)]
    workload: &'a Workload,
    #[serde(flatten)]
    probes: Option<&'a Probes>,
    endpoints: &'a [String],
}

impl BenchCommand {
    /// Runs the benchmark and prints its result. Ctrl-C ends it early and prints the result so far.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            BenchCommand::Kv(args) => args.run().await,
            BenchCommand::Compare(args) => args.run().await,
        }
    }
}

impl KvArgs {
    async fn run(self) -> Result<(), Failure> {
        let args = self;
        let (report, impact) = match args.target {
            Store::Quorate => args.measure(Quorate::new(args.connect.client().await?.0)).await?,
            Store::Etcd => args.measure(Etcd::connect(&args.connect, args.etcd_connections).await?).await?,
        };
        let parameters = Parameters {
            target: args.target,
            workload: &args.workload,
            probes: args.during.is_some().then_some(&args.probes),
            endpoints: &args.connect.endpoints,
        };
        let document = Document { report: &report, impact: impact.as_ref(), parameters };
        output::show(args.output.output, "BenchResult", &document, || {
            report.screen() + &impact.as_ref().map(Impact::screen).unwrap_or_default()
        })?;
        if report.nothing_succeeded() {
            return Err(Failure::new(Exit::Unreachable, "no operation succeeded")
                .cause(report.errors_line())
                .hint("is the cluster up?  quorate status"));
        }
        if report.nothing_ended() {
            return Err(Failure::new(Exit::Interrupted, "interrupted before any operation had ended"));
        }
        Ok(())
    }

    async fn measure(&self, target: impl Target) -> Result<(Report, Option<Impact>), Failure> {
        let mut workload = self.workload.clone();
        if self.during.is_some() {
            workload.rate = self.workload.rate.map(|rate| self.probes.leave(rate)).transpose()?;
        }
        let stop = signals::shutdown()?;
        tokio::pin!(stop);
        if self.workload.op != Op::Put {
            tokio::select! {
                loaded = load::preload(&target, &self.workload) => loaded?,
                () = &mut stop => return Err(Failure::new(Exit::Interrupted, "interrupted while the keys were written")),
            }
        }
        let Some(command) = &self.during else {
            return Ok((load::run(target, &self.workload, self.warm_up, None, stop).await, None));
        };
        let start = Instant::now() + self.warm_up;
        let phases = Phases::new(start);
        let probing = CancellationToken::new();
        let probes = during::probe(&target, &self.probes, &phases, &probing);
        let at = start + Duration::from_secs(self.workload.seconds) / 3;
        let acting = during::run(command, &self.connect.endpoints, at, &phases);
        let loading = load::run(target, &workload, self.warm_up, Some(&phases), stop);
        tokio::pin!(acting, loading);
        let (report, exit) = tokio::select! {
            report = &mut loading => (report, None),
            exit = &mut acting => (loading.await, Some(exit?)),
        };
        probing.cancel();
        probes.join_all().await;
        Ok((report, phases.impact(command, exit)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Probes;
    use crate::args::tests::parse;

    /// --rate limits the clients and the probes together.
    #[test]
    fn probes_take_their_part_of_the_rate() {
        let probes = Probes { probes: 8, every: Duration::from_millis(5) };
        assert_eq!(probes.leave(4_000).unwrap(), 2_400);
        let refusal = probes.leave(1_600).unwrap_err().to_string();
        assert!(refusal.contains("1600 times a second"), "{refusal}");
    }

    #[test]
    fn the_line_of_the_readme_parses_and_nonsense_does_not() {
        let line =
            "quorate bench kv --op mixed --read eventual --clients 256 --value 256 --keys 10000 --seconds 5 -o json";
        parse(line).unwrap();
        parse("quorate bench kv --target etcd --endpoints http://127.0.0.1:2379,127.0.0.1:2381").unwrap();
        parse("quorate bench kv --during status --probes 4 --probe-every 20ms").unwrap();
        for bad in ["--op scan", "--value 1048577", "--keys 0", "--seconds 0", "--clients 5000", "--target redis"] {
            assert!(parse(&format!("quorate bench kv {bad}")).is_err(), "{bad}");
        }
    }
}
