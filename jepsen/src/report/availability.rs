//! Availability of each shard: the gaps between successful strong operations, the faults that
//! caused them, and the failover times of shards whose leader was hit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::faults::Window;
use crate::workload::Done;

/// Recovery time after a fault: a gap is attributed to the fault if it begins within this time
/// after the fault ends.
const RECOVERY_NS: u64 = 3_000_000_000;
/// The kind of fault for gaps that no fault caused.
pub const NO_FAULT: &str = "none";

/// A period without a successful strong operation on a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The shard.
    pub shard: u64,
    /// End of the operation before the gap, in nanoseconds since the run began.
    pub from: u64,
    /// End of the operation after the gap, in nanoseconds since the run began.
    pub until: u64,
}

impl Gap {
    /// Length in milliseconds.
    pub fn ms(&self) -> u64 {
        (self.until - self.from) / 1_000_000
    }
}

/// Shard → its successful strong operations, in the order of their ends.
type Answers = BTreeMap<u64, Vec<Answer>>;

#[derive(Clone, Copy, Debug)]
struct Answer {
    began: u64,
    ended: u64,
    node: u64,
}

/// The successful operations of each shard during the load.
#[derive(Debug)]
pub struct Availability {
    answers: Answers,
    load: (u64, u64),
}

impl Availability {
    /// Collects the operations that ended during the load, which lasted between these two times.
    pub fn of(operations: &[Done<'_>], load: (u64, u64)) -> Self {
        let mut answers = Answers::new();
        for done in operations.iter().filter(|done| done.is_acknowledged() && !done.is_read(true)) {
            let Some(end) = done.completion else { continue };
            if let (Some(shard), Some(node)) = (end.shard, end.node) {
                let answer = Answer { began: done.invoke.time, ended: end.time, node };
                answers.entry(shard).or_default().push(answer);
            }
        }
        for answers in answers.values_mut() {
            answers.retain(|answer| (load.0..=load.1).contains(&answer.ended));
            answers.sort_unstable_by_key(|answer| answer.ended);
        }
        Availability { answers, load }
    }

    /// All gaps of at least this many milliseconds, by shard.
    pub fn gaps(&self, at_least_ms: u64) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for (shard, answers) in &self.answers {
            let mut from = self.load.0;
            for until in answers.iter().map(|answer| answer.ended).chain([self.load.1]) {
                let gap = Gap { shard: *shard, from, until: until.max(from) };
                if gap.ms() >= at_least_ms {
                    gaps.push(gap);
                }
                from = until;
            }
        }
        gaps
    }

    /// The shards with at least one successful operation.
    pub fn shards(&self) -> Vec<u64> {
        self.answers.keys().copied().collect()
    }

    /// The longest gap for each kind of fault, and the longest one that no fault caused.
    pub fn longest(&self, faults: &[Window]) -> BTreeMap<String, Gap> {
        let mut longest: BTreeMap<String, Gap> = BTreeMap::new();
        for gap in self.gaps(0) {
            let mut kinds: Vec<&str> =
                faults.iter().filter(|fault| belongs(&gap, fault)).map(|fault| fault.fault.as_str()).collect();
            kinds.sort_unstable();
            kinds.dedup();
            if kinds.is_empty() {
                kinds.push(NO_FAULT);
            }
            for kind in kinds {
                let known = longest.entry(kind.to_owned()).or_insert_with(|| gap.clone());
                if gap.ms() > known.ms() {
                    *known = gap.clone();
                }
            }
        }
        longest
    }

    /// Failover times in milliseconds, one for each shard whose leader a fault hit: from the
    /// fault's installation to the end of the first operation that began after it. The leader is
    /// the node that served the last operation before the fault.
    pub fn failovers(&self, faults: &[Window]) -> Vec<u64> {
        let mut times = Vec::new();
        for fault in faults.iter().filter(|fault| fault.leaders_hit && fault.from < self.load.1) {
            for answers in self.answers.values() {
                let leader = answers.iter().rfind(|answer| answer.ended <= fault.from).map(|answer| answer.node);
                if !leader.is_some_and(|leader| fault.targets.contains(&leader)) {
                    continue;
                }
                let first = answers.iter().find(|answer| answer.began > fault.from);
                times.extend(first.map(|answer| (answer.ended - fault.from) / 1_000_000));
            }
        }
        times.sort_unstable();
        times
    }

    /// Number of times that a shard's serving node changed.
    pub fn leader_changes(&self) -> u64 {
        let changes =
            |answers: &Vec<Answer>| answers.windows(2).filter(|pair| pair[0].node != pair[1].node).count() as u64;
        self.answers.values().map(changes).sum()
    }
}

fn belongs(gap: &Gap, fault: &Window) -> bool {
    let until = fault.until.unwrap_or(u64::MAX).saturating_add(RECOVERY_NS);
    gap.until > fault.from && gap.from < until
}

/// The quantile `part` (0 to 1) of sorted values; none without values.
pub fn quantile(sorted: &[u64], part: f64) -> Option<u64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((part * last as f64).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::Event;
    use crate::workload::operations;

    const S: u64 = 1_000_000_000;

    /// The two events of a write on a shard, served by a node.
    fn write(process: u64, shard: u64, node: u64, began: u64, ended: u64) -> [Event; 2] {
        let event = |time: u64, kind: &str| {
            serde_json::from_value(json!({"index": 0, "time": time, "process": process, "type": kind, "f": "write",
                "key": "k", "value": 1, "shard": shard, "node": node}))
            .unwrap()
        };
        [event(began, "invoke"), event(ended, "ok")]
    }

    fn fault(fault: &str, from: u64, until: u64, targets: &[u64]) -> Window {
        let (fault, detail) = (fault.to_owned(), String::new());
        Window { id: 1, fault, from, until: Some(until), targets: targets.to_vec(), leaders_hit: true, detail }
    }

    /// Shard 1 is led by node 1, which is hit at 2 s; node 2 serves it from 4 s on. Shard 2 is
    /// unaffected.
    fn history() -> Vec<Event> {
        let mut history = Vec::new();
        for tick in 1..20 {
            let time = tick * S / 2;
            if !(2 * S..4 * S).contains(&time) {
                let node = if time < 2 * S { 1 } else { 2 };
                history.extend(write(1, 1, node, time, time + 1_000_000));
            }
            history.extend(write(2, 2, 3, time, time + 2_000_000));
        }
        history
    }

    #[test]
    fn gap_is_attributed_to_overlapping_faults() {
        let history = history();
        let availability = Availability::of(&operations(&history), (0, 10 * S));
        let longest = availability.longest(&[fault("kill", 2 * S, 3 * S, &[1])]);
        assert_eq!((longest["kill"].shard, longest["kill"].ms()), (1, 2_500));
        assert_eq!(longest[NO_FAULT].ms(), 502);
        assert_eq!(availability.gaps(1_000).len(), 1);
        assert_eq!(availability.leader_changes(), 1);
    }

    #[test]
    fn failover_is_measured_only_if_the_leader_was_hit() {
        let history = history();
        let availability = Availability::of(&operations(&history), (0, 10 * S));
        assert_eq!(availability.failovers(&[fault("kill", 2 * S, 3 * S, &[1])]), vec![2_001]);
        assert_eq!(availability.failovers(&[fault("kill", 2 * S, 3 * S, &[5])]), Vec::<u64>::new());
    }

    #[test]
    fn quantile_of_few_values() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[7], 0.99), Some(7));
        assert_eq!(quantile(&[1, 2, 3, 4, 5], 0.5), Some(3));
    }
}
