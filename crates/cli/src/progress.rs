//! The progress of an operation: replicas, bytes, rate, remaining time, and the reasons why it
//! waits.
//!
//! Counts come from the leader of the topology group. Bytes are estimates from the sizes that the
//! shards' replicas report now.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_proto::admin::Operation as Wire;
use quorate_types::operation::{Intent, Operation, OperationState, PlannedMove};
use serde::Serialize;

use crate::duration;
use crate::failure::{Exit, Failure};
use crate::output::{self, id};
use crate::survey::Survey;

/// Wait reasons of one operation that are printed at most.
const WAITS_SHOWN_MAX: usize = 5;
/// The length of a bar on a terminal.
const BAR_CELLS: u32 = 20;

/// The progress of an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    #[serde(serialize_with = "id")]
    pub(crate) id: u64,
    pub(crate) what: String,
    pub(crate) state: String,
    pub(crate) started_ms: u64,
    pub(crate) ended_ms: u64,
    pub(crate) moved: u32,
    pub(crate) moving: u32,
    pub(crate) left: u32,
    /// The approximate bytes that are still to move, including those in motion.
    pub(crate) left_bytes: u64,
    /// The mean rate since the start; null: not known yet.
    pub(crate) rate_bytes_per_second: Option<u64>,
    /// The remaining time at this rate; null: unknown, as nothing has moved yet or something is
    /// stalled.
    pub(crate) time_left_ms: Option<u64>,
    pub(crate) waits: Vec<String>,
}

impl Progress {
    /// Computes the progress of a listed operation from the current survey.
    pub(crate) fn new(wire: Wire, survey: &Survey, now_ms: u64) -> Result<Self, Failure> {
        let Wire { moving, left, waits, .. } = wire.clone();
        let Operation { id, intent, state, started_ms, ended_ms, moved, .. } = Operation::try_from(wire)
            .map_err(|error| Failure::new(Exit::Other, "the answer is unreadable").cause(error))?;
        let runs = state == OperationState::Running;
        let took_ms = if runs { now_ms } else { ended_ms }.saturating_sub(started_ms).max(1);
        let remaining = moving + left;
        let left_bytes = if runs && remaining > 0 { left_bytes(&intent, remaining, survey) } else { 0 };
        let moved_bytes = u64::from(moved) * mean_bytes(survey);
        let per =
            |part: u64, whole: u64| u64::try_from(u128::from(took_ms) * u128::from(part) / u128::from(whole)).ok();
        Ok(Progress {
            id: id.0,
            what: intent.to_string(),
            state: match state {
                OperationState::Running => "running",
                OperationState::Done => "done",
                OperationState::Cancelled => "cancelled",
            }
            .to_owned(),
            started_ms,
            ended_ms,
            moved,
            moving,
            left,
            left_bytes,
            rate_bytes_per_second: (moved_bytes > 0).then_some(moved_bytes.saturating_mul(1_000) / took_ms),
            time_left_ms: if runs && moved > 0 && remaining > 0 && waits.is_empty() {
                per(remaining.into(), moved.into())
            } else {
                None
            },
            waits,
        })
    }

    /// The cluster's own upkeep, if some of it is stalled.
    pub(crate) fn upkeep(waits: Vec<String>) -> Self {
        Progress { what: "upkeep".to_owned(), state: "running".to_owned(), waits, ..Progress::default() }
    }

    /// Whether it is running.
    pub(crate) fn runs(&self) -> bool {
        self.state == "running"
    }

    /// The counts in one line, followed by a line for each wait reason.
    pub(crate) fn line(&self) -> String {
        let Progress { moved, moving, left, .. } = self;
        let line = match (moved + moving + left, self.state.as_str()) {
            (0, "running") => "no replica is moving yet".to_owned(),
            (0, "done") => "nothing to move".to_owned(),
            (0, _) => "no replica was moved".to_owned(),
            _ => format!("moved {moved}, moving {moving}, left {left}{}", self.pace()),
        };
        self.reasons().fold(line, |line, reason| line + "\n  " + &reason)
    }

    /// Bytes, rate and remaining time, if known.
    fn pace(&self) -> String {
        let left = (self.left_bytes > 0).then(|| format!("{} left", output::bytes(self.left_bytes)));
        let rate = self.rate_bytes_per_second.filter(|_| self.runs()).map(|rate| format!("{}/s", output::bytes(rate)));
        let time = self.time_left_ms.map(|ms| format!("~{}", duration::rough(Duration::from_millis(ms))));
        let known: Vec<String> = [left, rate, time].into_iter().flatten().collect();
        if known.is_empty() { String::new() } else { format!("   {}", known.join("   ")) }
    }

    /// The first wait reasons, and the number of the others.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = String> {
        let more = match self.waits.len().saturating_sub(WAITS_SHOWN_MAX) {
            0 => None,
            more => Some(format!("and {more} more")),
        };
        self.waits.iter().take(WAITS_SHOWN_MAX).cloned().chain(more)
    }

    /// A bar such as `replicas ███████░░░░░ 6/10   1.7 GiB left   58.0 MiB/s   ~30s`.
    pub(crate) fn bar(&self) -> String {
        let all = self.moved + self.moving + self.left;
        let filled = (BAR_CELLS * self.moved).checked_div(all).unwrap_or(BAR_CELLS);
        let bar = "█".repeat(filled as usize) + &"░".repeat((BAR_CELLS - filled) as usize);
        format!("replicas {bar} {}/{all}{}", self.moved, self.pace())
    }

    fn cells(&self) -> [String; 6] {
        let took = if self.runs() { now_ms() } else { self.ended_ms }.saturating_sub(self.started_ms);
        let moved = format!("{}/{}", self.moved, self.moved + self.moving + self.left);
        let waits = self.waits.first().cloned().unwrap_or_default();
        let took = duration::rough(Duration::from_millis(took));
        [self.id.to_string(), self.what.clone(), self.state.clone(), moved, took, waits]
    }

    fn wide_cells(&self) -> [String; 9] {
        let [id, what, state, moved, took, waits] = self.cells();
        let or_dash = |known: Option<String>| known.unwrap_or_else(|| "-".to_owned());
        let left = or_dash(self.runs().then(|| output::bytes(self.left_bytes)));
        let rate = or_dash(self.rate_bytes_per_second.map(|rate| format!("{}/s", output::bytes(rate))));
        let time = or_dash(self.time_left_ms.map(|ms| format!("~{}", duration::rough(Duration::from_millis(ms)))));
        [id, what, state, moved, took, left, rate, time, waits]
    }
}

/// A table of operations.
pub(crate) fn table(all: &[Progress], wide: bool) -> String {
    const HEADER: [&str; 6] = ["OPERATION", "WHAT", "STATE", "MOVED", "TIME", "WAITS FOR"];
    const WIDE: [&str; 9] = ["OPERATION", "WHAT", "STATE", "MOVED", "TIME", "LEFT", "RATE", "TIME LEFT", "WAITS FOR"];
    match wide {
        false => output::table(HEADER, all.iter().map(Progress::cells)),
        true => output::table(WIDE, all.iter().map(Progress::wide_cells)),
    }
}

/// The wait reasons of all operations, each with its operation.
pub(crate) fn reasons(all: &[Progress]) -> Vec<String> {
    let of_one = |one: &Progress| one.waits.iter().map(|wait| format!("{} – {wait}", one.what)).collect::<Vec<_>>();
    all.iter().flat_map(of_one).collect()
}

/// The bytes that an operation still has to move: of exactly its shards if they are known,
/// otherwise estimated from the mean size.
fn left_bytes(intent: &Intent, remaining: u32, survey: &Survey) -> u64 {
    match intent {
        Intent::Drain { node } | Intent::Remove { node, .. } | Intent::Replace { old: node, .. } => {
            survey.held_bytes(node.0)
        }
        Intent::Move { planned } => pending_bytes(std::slice::from_ref(planned), survey),
        Intent::Rebalance { moves } => pending_bytes(moves, survey),
        Intent::Add { .. } | Intent::Undrain { .. } => u64::from(remaining) * mean_bytes(survey),
    }
}

fn pending_bytes(moves: &[PlannedMove], survey: &Survey) -> u64 {
    let pending = moves.iter().filter(|planned| {
        let shard = survey.topology.shards.iter().find(|shard| shard.id == planned.shard.0);
        shard.is_some_and(|shard| shard.replicas.iter().any(|at| at.node == planned.from.0))
    });
    pending.map(|planned| survey.size_bytes(planned.shard.0)).sum()
}

/// The mean size of a replica, in bytes.
fn mean_bytes(survey: &Survey) -> u64 {
    let (count, sum) = survey.shard_ids().fold((0, 0), |(count, sum), id| (count + 1, sum + survey.size_bytes(id)));
    u64::checked_div(sum, count).unwrap_or(0)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use quorate_types::NodeId;
    use quorate_types::operation::OperationId;

    use super::*;
    use crate::survey::tests::survey;

    /// An operation that has run for ten seconds. Shard 1 has 3 MiB and shard 2 has 6 MiB, both on
    /// nodes 1 to 3.
    fn progress(intent: Intent, moved: u32, remaining: (u32, u32), waits: &[&str]) -> Progress {
        let state = OperationState::Running;
        let operation =
            Operation { id: OperationId(4), intent, state, started_ms: 5_000, ended_ms: 0, moved, node_was: None };
        let (moving, left) = remaining;
        let waits = waits.iter().map(|&wait| wait.to_owned()).collect();
        Progress::new(Wire { moving, left, waits, ..operation.into() }, &survey(&[]), 15_000).unwrap()
    }

    #[test]
    fn bytes_rate_and_time_are_shown_if_they_are_known() {
        let drain = || Intent::Drain { node: NodeId(2) };
        let fresh = progress(drain(), 0, (1, 1), &[]);
        assert_eq!((fresh.left_bytes, fresh.rate_bytes_per_second, fresh.time_left_ms), (9 << 20, None, None));
        assert_eq!(fresh.line(), "moved 0, moving 1, left 1   9.0 MiB left");
        let under_way = progress(drain(), 4, (1, 1), &[]);
        assert_eq!(under_way.time_left_ms, Some(5_000));
        assert_eq!(under_way.line(), "moved 4, moving 1, left 1   9.0 MiB left   1.7 MiB/s   ~5s");
        assert_eq!(under_way.bar(), "replicas █████████████░░░░░░░ 4/6   9.0 MiB left   1.7 MiB/s   ~5s");
        let stuck = progress(drain(), 4, (1, 1), &["shard 1: node 4 is unreachable"]);
        assert_eq!(stuck.time_left_ms, None, "a stalled operation has no estimate");
        assert!(stuck.line().ends_with("\n  shard 1: node 4 is unreachable"));
        let done = progress(drain(), 6, (0, 0), &[]);
        assert_eq!((done.left_bytes, done.time_left_ms), (0, None));
    }

    #[test]
    fn a_plan_has_the_bytes_of_its_own_shards() {
        let planned =
            |shard, from| PlannedMove { shard: quorate_types::ShardId(shard), from: NodeId(from), to: NodeId(9) };
        let moves = vec![planned(1, 2), planned(2, 7)];
        assert_eq!(progress(Intent::Rebalance { moves }, 1, (1, 0), &[]).left_bytes, 3 << 20, "shard 2 has moved");
        assert_eq!(progress(Intent::Add { node: NodeId(9) }, 0, (1, 1), &[]).left_bytes, 9 << 20, "two of the mean");
    }

    #[test]
    fn only_the_first_reasons_are_printed() {
        let many: Vec<String> = (0..7).map(|number| format!("reason {number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let line = progress(Intent::Drain { node: NodeId(2) }, 1, (1, 1), &many).line();
        assert!(line.ends_with("\n  reason 4\n  and 2 more"), "{line}");
    }
}
