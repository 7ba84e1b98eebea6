//! The plan of a comparison: the nine loads, and the time and size of their measurements.

use std::fmt;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use quorate_types::VALUE_BYTES_MAX;
use serde::Serialize;

use crate::duration;

/// The parameters of the measurements.
#[derive(Args, Clone, Debug, Serialize)]
pub(super) struct Plan {
    /// Number of rounds; each measures every load once on every cluster.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) rounds: u32,
    /// Duration of one measurement, in seconds.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(super) seconds: u64,
    /// Warm-up before each measurement.
    #[serde(skip)]
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    pub(super) warm_up: Duration,
    /// Bytes of a value; they are random.
    #[arg(long = "value", value_name = "BYTES", default_value_t = 256,
        value_parser = RangedU64ValueParser::<usize>::new().range(0..=VALUE_BYTES_MAX as u64))]
    pub(super) value_bytes: usize,
    /// Number of distinct keys.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(super) keys: u64,
}

/// The kinds of operation that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    GetStrong,
    GetEventual,
}

/// One of the loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) kind: Kind,
    pub(super) clients: u32,
}

impl Load {
    /// A load that shows whether a cluster serves.
    pub(super) const FIRST: Load = Load { kind: Kind::Put, clients: 1 };

    /// All loads, in the order in which they are measured and shown.
    pub(super) fn all() -> impl Iterator<Item = Load> {
        let kinds = [Kind::Put, Kind::GetStrong, Kind::GetEventual];
        kinds.into_iter().flat_map(|kind| [1, 64, 256].into_iter().map(move |clients| Load { kind, clients }))
    }

    /// The value of `bench kv --op`.
    pub(super) fn op(self) -> &'static str {
        match self.kind {
            Kind::Put => "put",
            Kind::GetStrong | Kind::GetEventual => "get",
        }
    }

    /// The value of `bench kv --read`.
    pub(super) fn read(self) -> &'static str {
        match self.kind {
            Kind::Put | Kind::GetStrong => "strong",
            Kind::GetEventual => "eventual",
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Put => "put",
            Kind::GetStrong => "strong get",
            Kind::GetEventual => "eventual get",
        };
        let clients = if self.clients == 1 { "client" } else { "clients" };
        write!(to, "{kind}, {} {clients}", self.clients)
    }
}

/// One measurement of one load on one cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measurement {
    pub(super) throughput: f64,
    pub(super) p99_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_loads_have_nine_names() {
        let names: std::collections::BTreeSet<String> = Load::all().map(|load| load.to_string()).collect();
        assert_eq!(names.len(), 9);
        assert!(names.contains("put, 1 client") && names.contains("eventual get, 256 clients"), "{names:?}");
    }
}
