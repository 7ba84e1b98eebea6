//! The options of a run.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::clients::Loop;

/// The duration of a run, in seconds: at most a week.
const TIME_LIMIT: RangeInclusive<u64> = 1..=604_800;
/// Operations per second. With a lower rate, the next operation may be further away than clocks
/// reach.
const RATE: RangeInclusive<f64> = 0.001..=1_000_000.0;
/// Seconds from one fault to the next: at most a day.
const INTERVAL: RangeInclusive<f64> = 0.001..=86_400.0;
/// The deadline of an operation, in milliseconds: at most an hour.
const DEADLINE_MS: RangeInclusive<u64> = 1..=3_600_000;
/// The default number of clients of a closed loop.
const CONCURRENCY_DEFAULT: usize = 20;

/// The options of a run: the arguments of `quorate-jepsen run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The load of the clients
    #[command(flatten)]
    pub load: LoadOptions,
    /// The faults
    #[command(flatten)]
    pub faults: FaultOptions,
    /// The cluster under test
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Seed of operations and faults; by default a random one, which the results name
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Directory for history, results, report and logs; it must be empty or not exist
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Record no history and give no verdict, to measure the cost of recording
    #[arg(long)]
    pub no_history: bool,
    /// The required coverage
    #[command(flatten)]
    pub required: Required,
}

/// The load of the clients.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadOptions {
    /// Workloads, which run concurrently: register, append, counter, set, shortener
    #[arg(long, value_name = "W[,W]", value_delimiter = ',', default_value = "register")]
    pub workload: Vec<String>,
    /// Duration of the load and the faults, in seconds; starting, healing and checking take extra
    /// time
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(TIME_LIMIT))]
    pub time_limit: u64,
    /// Operations per second, independent of the answers (an open loop)
    #[arg(long, value_name = "N", value_parser = |text: &str| number(text, &RATE))]
    pub rate: Option<f64>,
    /// Clients with one operation at a time each (a closed loop); 20 unless --rate is given
    #[arg(long, value_name = "N", conflicts_with = "rate")]
    pub concurrency: Option<usize>,
    /// Pin each client to one node, regardless of the map: it keeps asking deposed leaders and
    /// lagging replicas. Operations that its node does not serve fail
    #[arg(long)]
    pub pin: bool,
    /// Deadline of an operation, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(DEADLINE_MS))]
    pub deadline_ms: u64,
    /// Keys that a workload uses at a time
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub keys: u64,
    /// File of URLs for the shortener, one per line
    #[arg(long, value_name = "FILE")]
    pub urls: Option<PathBuf>,
}

/// The faults of a run.
#[derive(Clone, Debug, clap::Args)]
pub struct FaultOptions {
    /// Faults, one after the other in random order: names of faults or classes, or common prefixes
    /// (kill, partition, pause-leaders, power-cut, clock, disk, membership, …)
    #[arg(long, value_name = "N[,N]", value_delimiter = ',')]
    pub nemesis: Vec<String>,
    /// Approximate seconds from one fault to the next
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = |text: &str| number(text, &INTERVAL))]
    pub interval: f64,
    /// Overlap faults of different classes
    #[arg(long)]
    pub overlap: bool,
    /// Enable a seeded bug in every node (test builds only)
    #[arg(long, value_name = "NAME")]
    pub bug: Option<String>,
}

/// The cluster under test.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterOptions {
    /// Nodes of the cluster
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub nodes: usize,
    /// Shards of the cluster, with three replicas each
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub shards: u32,
    /// Test this running cluster without faults, instead of starting one
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', conflicts_with_all = ["nemesis", "bug", "nodes", "shards"])]
    pub endpoints: Vec<String>,
    /// Log bytes that a shard retains: fewer bytes mean more snapshots for lagging replicas
    #[arg(long, value_name = "BYTES", conflicts_with = "endpoints")]
    pub log_retained_bytes: Option<u64>,
    /// Kind of network and disks; 'auto' selects the best that this machine supports
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub network: NetworkChoice,
}

/// The kind of network and disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NetworkChoice {
    /// Namespaces and disk images if this machine supports them, otherwise loopback and
    /// directories.
    Auto,
    /// A network namespace and a disk image for each node.
    Namespaces,
    /// Loopback and directories.
    Loopback,
}

/// The required coverage: a run that misses it tested less than it claims, and fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Required {
    /// Minimum number of elections
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub require_elections: u64,
    /// Minimum number of installed snapshots
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub require_snapshots: u64,
    /// Minimum number of installed faults for each name in --nemesis
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub require_faults: u64,
    /// Minimum number of faults that affect the leader of a shard
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub require_leaders_hit: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            load: LoadOptions::default(),
            faults: FaultOptions::default(),
            cluster: ClusterOptions::default(),
            seed: None,
            out: None,
            no_history: false,
            required: Required { require_faults: 1, ..Required::default() },
        }
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            workload: vec!["register".to_owned()],
            time_limit: 60,
            rate: None,
            concurrency: None,
            pin: false,
            deadline_ms: 2_000,
            keys: 40,
            urls: None,
        }
    }
}

impl Default for FaultOptions {
    fn default() -> Self {
        FaultOptions { nemesis: vec![], interval: 5.0, overlap: false, bug: None }
    }
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions {
            nodes: 5,
            shards: 8,
            endpoints: vec![],
            log_retained_bytes: None,
            network: NetworkChoice::Auto,
        }
    }
}

impl LoadOptions {
    /// The loop that generates operations.
    pub fn pace(&self) -> Loop {
        match self.rate {
            Some(rate) => Loop::Open { rate },
            None => Loop::Closed { concurrency: self.concurrency.unwrap_or(CONCURRENCY_DEFAULT) },
        }
    }

    /// The deadline of an operation.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

impl Options {
    /// Checks the options.
    ///
    /// # Errors
    ///
    /// An option is missing or out of range; the message names it and its range.
    pub fn check(&self) -> anyhow::Result<()> {
        let Options { load, faults, cluster, .. } = self;
        ensure!(!load.workload.is_empty(), "--workload must name at least one workload");
        ensure!(TIME_LIMIT.contains(&load.time_limit), "--time-limit must be in {TIME_LIMIT:?} seconds");
        ensure!(load.rate.is_none_or(|rate| RATE.contains(&rate)), "--rate must be in {RATE:?}");
        ensure!(DEADLINE_MS.contains(&load.deadline_ms), "--deadline-ms must be in {DEADLINE_MS:?}");
        ensure!(load.concurrency != Some(0), "--concurrency must be at least 1");
        ensure!(load.keys > 0, "--keys must be at least 1");
        ensure!(cluster.nodes > 0 && cluster.shards > 0, "--nodes and --shards must be at least 1");
        ensure!(INTERVAL.contains(&faults.interval), "--interval must be in {INTERVAL:?} seconds");
        Ok(())
    }

    /// The command that repeats the run.
    pub fn command(&self, seed: u64) -> String {
        let Options { load, faults, cluster, .. } = self;
        let mut words = vec!["quorate-jepsen run".to_owned(), format!("--workload {}", load.workload.join(","))];
        let mut add = |word: String| words.push(word);
        if cluster.endpoints.is_empty() {
            if !faults.nemesis.is_empty() {
                add(format!("--nemesis {} --interval {}", faults.nemesis.join(","), faults.interval));
                if faults.overlap {
                    add("--overlap".to_owned());
                }
            }
            add(format!("--nodes {} --shards {}", cluster.nodes, cluster.shards));
        } else {
            add(format!("--endpoints {}", cluster.endpoints.join(",")));
        }
        match load.pace() {
            Loop::Open { rate } => add(format!("--rate {rate}")),
            Loop::Closed { concurrency } => add(format!("--concurrency {concurrency}")),
        }
        add(format!("--time-limit {} --keys {} --deadline-ms {}", load.time_limit, load.keys, load.deadline_ms));
        if load.pin {
            add("--pin".to_owned());
        }
        match cluster.network {
            NetworkChoice::Auto => {}
            NetworkChoice::Namespaces => add("--network namespaces".to_owned()),
            NetworkChoice::Loopback => add("--network loopback".to_owned()),
        }
        if let Some(urls) = &load.urls {
            add(format!("--urls {}", urls.display()));
        }
        if let Some(bytes) = cluster.log_retained_bytes {
            add(format!("--log-retained-bytes {bytes}"));
        }
        if let Some(bug) = &faults.bug {
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

/// Parses a number within a range.
fn number(text: &str, range: &RangeInclusive<f64>) -> anyhow::Result<f64> {
    let within = text.parse().ok().filter(|number| range.contains(number));
    within.with_context(|| format!("not a number in {range:?}"))
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

    /// The printed command has the options of the run.
    #[test]
    fn printed_command_repeats_the_run() {
        let line = "run --workload register,set --nemesis kill,pause --nodes 3 --shards 4 --time-limit 9 --rate 500 --bug x \
                    --network loopback --require-elections 2 --keys 7 --interval 2.5 --overlap --pin";
        let options = parse(line);
        let again = parse(&options.command(42));
        assert_eq!(again.seed, Some(42));
        assert_eq!(format!("{:?}", Options { seed: None, ..again }), format!("{options:?}"));
    }

    /// The printed command once lacked options that ask for less than the default.
    #[test]
    fn printed_command_keeps_options_below_the_default() {
        let command = parse("run --nemesis kill --require-faults 0 --no-history").command(1);
        assert!(command.contains("--require-faults 0") && command.contains("--no-history"), "{command}");
        assert!(!parse("run").command(1).contains("--require"), "{command}");
    }

    #[test]
    fn defaults_match_the_command_line() {
        assert_eq!(format!("{:?}", parse("run")), format!("{:?}", Options::default()));
        assert_eq!(Options::default().load.pace(), Loop::Closed { concurrency: CONCURRENCY_DEFAULT });
    }

    #[test]
    fn invalid_options_are_refused() {
        for wrong in ["run --rate 0", "run --rate nan", "run --concurrency 0", "run --time-limit 0", "run --keys 0"] {
            assert!(try_parse(wrong).is_err() || parse(wrong).check().is_err(), "{wrong}");
        }
        assert!(try_parse("run --endpoints a:1 --nemesis kill").is_err());
        let with = |load| Options { load, ..Options::default() };
        assert!(with(LoadOptions { rate: Some(f64::NAN), ..LoadOptions::default() }).check().is_err());
        assert!(with(LoadOptions { time_limit: 0, ..LoadOptions::default() }).check().is_err());
    }

    /// Times beyond the range of clocks once caused a panic.
    #[test]
    fn times_beyond_the_range_of_clocks_are_refused() {
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
