//! What a run is asked to do.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;

use super::clients::Pace;

/// How long a run may last, in seconds: a week.
const TIME_LIMIT: RangeInclusive<u64> = 1..=604_800;
/// Operations a second. With fewer, the next one may be further away than clocks reach.
const RATE: RangeInclusive<f64> = 0.001..=1_000_000.0;
/// Seconds from one fault to the next: a day at most.
const INTERVAL: RangeInclusive<f64> = 0.001..=86_400.0;
/// How long one operation may take, in milliseconds: an hour at most.
const DEADLINE_MS: RangeInclusive<u64> = 1..=3_600_000;
/// Clients of a closed loop, where nothing is said.
const CONCURRENCY_DEFAULT: usize = 20;

/// What a run is asked to do: the arguments of `quorate-jepsen run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What the clients do: register, append, counter, set, shortener; several are done at the same time
    #[arg(long, value_name = "W[,W]", value_delimiter = ',', default_value = "register")]
    pub workload: Vec<String>,
    /// What breaks, one fault after the other in random order: names of faults, of their classes, or how names begin (kill,
    /// partition, pause-leaders, power-cut, clock, disk, membership, …)
    #[arg(long, value_name = "N[,N]", value_delimiter = ',')]
    pub nemesis: Vec<String>,
    /// Nodes of the cluster that is started
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub nodes: usize,
    /// Its shards; each has three replicas
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub shards: u32,
    /// How long the load and the faults last, in seconds; starting, healing and checking come on top
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(TIME_LIMIT))]
    pub time_limit: u64,
    /// Operations a second, whatever the answers (an open loop)
    #[arg(long, value_name = "N", value_parser = |text: &str| number(text, &RATE))]
    pub rate: Option<f64>,
    /// Clients, each with one operation at a time (a closed loop); 20 where no rate is given either
    #[arg(long, value_name = "N", conflicts_with = "rate")]
    pub concurrency: Option<usize>,
    /// Plans operations and faults; by default another one each time, which the results name
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Where history, results, report and logs go: a directory that does not exist or is empty
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Test this running cluster, without faults of our own, instead of starting one
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', conflicts_with_all = ["nemesis", "bug", "nodes", "shards"])]
    pub endpoints: Vec<String>,
    /// Each client talks to one node only, whatever the map says: it goes on asking a leader that was cut off, and a replica that
    /// is behind. What its node does not serve fails
    #[arg(long)]
    pub pin: bool,
    /// How long one operation may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(DEADLINE_MS))]
    pub deadline_ms: u64,
    /// Keys that a workload uses at a time
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub keys: u64,
    /// Seconds from one fault to the next, about
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = |text: &str| number(text, &INTERVAL))]
    pub interval: f64,
    /// Faults of different classes at the same time
    #[arg(long)]
    pub overlap: bool,
    /// Switch on a seeded bug in every node (only builds for tests have them)
    #[arg(long, value_name = "NAME")]
    pub bug: Option<String>,
    /// How much log a shard keeps, in bytes: the less, the more often a replica that was away gets a snapshot
    #[arg(long, value_name = "BYTES", conflicts_with = "endpoints")]
    pub log_retained_bytes: Option<u64>,
    /// How nodes are connected and where they store: 'auto' takes what this machine allows
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub network: NetworkChoice,
    /// URLs for the shortener, one a line
    #[arg(long, value_name = "FILE")]
    pub urls: Option<PathBuf>,
    /// Keep no history and give no verdict: only to measure what recording costs
    #[arg(long)]
    pub no_history: bool,
    /// What the run must have reached to count
    #[command(flatten)]
    pub required: Required,
}

/// How nodes are connected and where they store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NetworkChoice {
    /// Namespaces and disk images where this machine allows them, else loopback and directories.
    Auto,
    /// A network namespace and a disk image for each node.
    Namespaces,
    /// Loopback and directories.
    Loopback,
}

/// What a run must have reached: one that missed it tested less than it claims, and fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Required {
    /// At least so many elections
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub require_elections: u64,
    /// At least so many snapshots installed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub require_snapshots: u64,
    /// For each name that --nemesis lists, at least so many faults installed
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub require_faults: u64,
    /// At least so many faults that hit the leader of some shard
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub require_leaders_hit: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            workload: vec!["register".to_owned()],
            nemesis: vec![],
            nodes: 5,
            shards: 8,
            time_limit: 60,
            rate: None,
            concurrency: None,
            seed: None,
            out: None,
            endpoints: vec![],
            pin: false,
            deadline_ms: 2_000,
            keys: 40,
            interval: 5.0,
            overlap: false,
            bug: None,
            log_retained_bytes: None,
            network: NetworkChoice::Auto,
            urls: None,
            no_history: false,
            required: Required { require_faults: 1, ..Required::default() },
        }
    }
}

impl Options {
    /// How fast operations come.
    pub fn pace(&self) -> Pace {
        match self.rate {
            Some(rate) => Pace::Open { rate },
            None => Pace::Closed { concurrency: self.concurrency.unwrap_or(CONCURRENCY_DEFAULT) },
        }
    }

    /// How long one operation may take.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }

    /// Refuses what cannot be meant.
    ///
    /// # Errors
    ///
    /// Which argument is wrong, and why.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.workload.is_empty(), "there is no workload");
        ensure!(TIME_LIMIT.contains(&self.time_limit), "--time-limit must be in {TIME_LIMIT:?} seconds");
        ensure!(self.rate.is_none_or(|rate| RATE.contains(&rate)), "--rate must be in {RATE:?}");
        ensure!(DEADLINE_MS.contains(&self.deadline_ms), "--deadline-ms must be in {DEADLINE_MS:?}");
        ensure!(self.concurrency != Some(0), "--concurrency must be at least 1");
        ensure!(self.keys > 0, "--keys must be at least 1");
        ensure!(self.nodes > 0 && self.shards > 0, "a cluster has at least one node and one shard");
        ensure!(INTERVAL.contains(&self.interval), "--interval must be in {INTERVAL:?} seconds");
        Ok(())
    }

    /// The command that does it again.
    pub fn command(&self, seed: u64) -> String {
        let mut words = vec!["quorate-jepsen run".to_owned(), format!("--workload {}", self.workload.join(","))];
        let mut add = |word: String| words.push(word);
        if self.endpoints.is_empty() {
            if !self.nemesis.is_empty() {
                add(format!("--nemesis {} --interval {}", self.nemesis.join(","), self.interval));
                if self.overlap {
                    add("--overlap".to_owned());
                }
            }
            add(format!("--nodes {} --shards {}", self.nodes, self.shards));
        } else {
            add(format!("--endpoints {}", self.endpoints.join(",")));
        }
        match self.pace() {
            Pace::Open { rate } => add(format!("--rate {rate}")),
            Pace::Closed { concurrency } => add(format!("--concurrency {concurrency}")),
        }
        add(format!("--time-limit {} --keys {} --deadline-ms {}", self.time_limit, self.keys, self.deadline_ms));
        if self.pin {
            add("--pin".to_owned());
        }
        match self.network {
            NetworkChoice::Auto => {}
            NetworkChoice::Namespaces => add("--network namespaces".to_owned()),
            NetworkChoice::Loopback => add("--network loopback".to_owned()),
        }
        if let Some(urls) = &self.urls {
            add(format!("--urls {}", urls.display()));
        }
        if let Some(bytes) = self.log_retained_bytes {
            add(format!("--log-retained-bytes {bytes}"));
        }
        if let Some(bug) = &self.bug {
            add(format!("--bug {bug}"));
        }
        if self.no_history {
            add("--no-history".to_owned());
        }
        let usual = Options::default().required.named();
        for ((name, value), _) in self.required.named().into_iter().zip(usual).filter(|(asked, usual)| asked != usual) {
            add(format!("--{name} {value}"));
        }
        add(format!("--seed {seed}"));
        words.join(" ")
    }
}

/// A number within its range.
fn number(text: &str, range: &RangeInclusive<f64>) -> Result<f64, String> {
    let within = text.parse().ok().filter(|number| range.contains(number));
    within.ok_or_else(|| format!("not a number in {range:?}"))
}

impl Required {
    fn named(&self) -> [(&'static str, u64); 4] {
        [
            ("require-elections", self.require_elections),
            ("require-snapshots", self.require_snapshots),
            ("require-faults", self.require_faults),
            ("require-leaders-hit", self.require_leaders_hit),
        ]
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn try_parse(line: &str) -> Result<Options, clap::Error> {
        Line::try_parse_from(line.trim_start_matches("quorate-jepsen ").split(' ')).map(|line| line.options)
    }

    fn parse(line: &str) -> Options {
        try_parse(line).unwrap()
    }

    /// The command that a run prints is the run.
    #[test]
    fn the_command_repeats_the_run() {
        let line = "run --workload register,set --nemesis kill,pause --nodes 3 --shards 4 --time-limit 9 --rate 500 --bug x \
                    --network loopback --require-elections 2 --keys 7 --interval 2.5 --overlap --pin";
        let options = parse(line);
        let again = parse(&options.command(42));
        assert_eq!(again.seed, Some(42));
        assert_eq!(format!("{:?}", Options { seed: None, ..again }), format!("{options:?}"));
    }

    /// A fault need not have been installed, and no history was kept; the command that was printed asked for both.
    #[test]
    fn the_command_dropped_what_was_asked_to_be_less_than_usual() {
        let command = parse("run --nemesis kill --require-faults 0 --no-history").command(1);
        assert!(command.contains("--require-faults 0") && command.contains("--no-history"), "{command}");
        assert!(!parse("run").command(1).contains("--require"), "{command}");
    }

    #[test]
    fn defaults_are_those_of_the_command_line() {
        assert_eq!(format!("{:?}", parse("run")), format!("{:?}", Options::default()));
        assert_eq!(Options::default().pace(), Pace::Closed { concurrency: CONCURRENCY_DEFAULT });
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in ["run --rate 0", "run --rate nan", "run --concurrency 0", "run --time-limit 0", "run --keys 0"] {
            assert!(try_parse(wrong).is_err() || parse(wrong).check().is_err(), "{wrong}");
        }
        assert!(try_parse("run --endpoints a:1 --nemesis kill").is_err());
        assert!(Options { rate: Some(f64::NAN), ..Options::default() }.check().is_err());
        assert!(Options { time_limit: 0, ..Options::default() }.check().is_err());
    }

    /// Times that no clock reaches ended the run in a panic.
    #[test]
    fn a_time_beyond_all_clocks_was_a_panic() {
        for (wrong, allowed) in [
            ("run --interval 1e20", "0.001..=86400"),
            ("run --rate 1e-300", "0.001..=1000000"),
            ("run --time-limit 18446744073709551615", "1..=604800"),
            ("run --deadline-ms 18446744073709551615", "1..=3600000"),
        ] {
            let refused = try_parse(wrong).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{wrong}");
            assert!(refused.to_string().contains(allowed), "{refused}");
        }
    }
}
