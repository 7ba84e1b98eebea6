//! The load of `bench kv`, as the command line gives it and the report repeats it.

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use quorate_types::{ReadLevel, VALUE_BYTES_MAX};
use serde::Serialize;

/// The operation of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Op {
    /// Write.
    Put,
    /// Read; every key is written beforehand.
    Get,
    /// Write or read, with equal probability.
    Mixed,
}

/// The parameters of the load. The report repeats them, so that the load can be reproduced.
#[derive(Args, Clone, Debug, Serialize)]
pub(super) struct Workload {
    /// The operation of the clients.
    #[arg(long, value_enum, default_value = "put")]
    pub(super) op: Op,
    /// The level of reads: strong or eventual.
    #[arg(long, value_name = "LEVEL", default_value_t)]
    pub(super) read: ReadLevel,
    /// Number of clients, each with one operation at a time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(super) clients: u32,
    /// Bytes of a value; they are random.
    #[arg(long = "value", value_name = "BYTES", default_value_t = 256,
        value_parser = RangedU64ValueParser::<usize>::new().range(0..=VALUE_BYTES_MAX as u64))]
    pub(super) value_bytes: usize,
    /// Number of distinct keys, all equally likely.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(super) keys: u64,
    /// Limit of operations a second for all clients together; unlimited by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) rate: Option<u32>,
    /// Seconds to measure.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) seconds: u64,
}
