//! The checks of a run's history: linearizability per key, replay of the shards' order, and the
//! rules of each workload.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::check::{self, Limits, ModelName, Verdict, Violation};
use crate::history::operation::pair;
use crate::history::{Event, Operation};
use crate::report::{Check, Outcome};
use crate::workload::Workload;

/// The time-out of the search in one key. A key of a run has about 150 operations and takes
/// milliseconds.
const SEARCH_MAX: Duration = Duration::from_secs(20);
/// The time-out of the searches in all keys of a workload.
const SEARCHES_MAX: Duration = Duration::from_secs(240);
/// The most findings of one workload in the report; one is enough to fail.
const FINDINGS_MAX: usize = 20;

/// Reads the history back from its file, so that the checks see the recorded events. Returns the
/// events before the first invalid line, and the error of that line: the events before it are still
/// a history.
pub(super) fn read(path: &Path) -> (Vec<Event>, Option<anyhow::Error>) {
    let mut events = Vec::new();
    let mut read = || {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..).filter(|(line, _)| !line.is_empty()) {
            let event = serde_json::from_slice(line);
            events.push(event.with_context(|| format!("{} line {number}", path.display()))?);
        }
        anyhow::Ok(())
    };
    let ended = read().err();
    (events, ended)
}

/// All checks of all workloads.
pub(super) fn check(workloads: &[Arc<dyn Workload>], events: &[Event]) -> Vec<Check> {
    workloads.iter().flat_map(|workload| check_one(workload.as_ref(), events)).collect()
}

fn check_one(workload: &dyn Workload, events: &[Event]) -> Vec<Check> {
    let name = workload.name();
    let beginning = format!("{name}/");
    let events: Vec<Event> = events
        .iter()
        .filter(|event| event.key.as_deref().is_some_and(|key| key.starts_with(&beginning)))
        .cloned()
        .collect();
    let mut checks = Vec::new();
    let findings = workload.check(&events);
    checks.push(match findings.first() {
        None => Check::pass(format!("{name}: its own rules"), format!("{} events", events.len())),
        Some(_) => Check {
            events: findings.iter().take(FINDINGS_MAX).flat_map(|finding| finding.events.clone()).collect(),
            ..Check::new(
                format!("{name}: its own rules"),
                Outcome::Violation,
                findings.iter().take(FINDINGS_MAX).map(|finding| finding.what.clone()).collect::<Vec<_>>().join("; "),
            )
        },
    });
    let Some(model) = workload.model() else { return checks };
    let operations = match pair(events.iter().cloned()) {
        Ok(operations) => operations,
        Err(error) => {
            checks.push(Check::new(format!("{name}: history"), Outcome::HarnessFailure, error.to_string()));
            return checks;
        }
    };
    checks.push(linearizable(name, model, &operations, &events));
    if workload.is_replayable() {
        checks.push(replayed(name, &operations, &events));
    }
    checks
}

fn linearizable(name: &str, model: &str, operations: &[Operation], events: &[Event]) -> Check {
    let title = format!("{name}: linearizable per key");
    let model: ModelName = match model.parse() {
        Ok(model) => model,
        Err(error) => return Check::new(title, Outcome::HarnessFailure, error.to_string()),
    };
    let strong = operations.iter().filter(|operation| operation.is_strong()).count();
    let held = format!("{strong} strong operations, {} eventual reads", operations.len() - strong);
    as_check(
        title,
        held,
        check::check(model, operations, &Limits { timeout: SEARCH_MAX, total: SEARCHES_MAX, ..Limits::default() }),
        operations,
        events,
    )
}

fn replayed(name: &str, operations: &[Operation], events: &[Event]) -> Check {
    let replay = check::replay::replay(operations);
    let held = format!("{} operations placed, {} without a place", replay.placed, replay.left_out);
    as_check(format!("{name}: replay of the shards' order"), held, replay.verdict, operations, events)
}

/// Converts a verdict into a check of the run, with the events of the operations.
fn as_check(name: String, held: String, verdict: Verdict, operations: &[Operation], events: &[Event]) -> Check {
    match verdict {
        Verdict::Valid => Check::pass(name, held),
        Verdict::Unknown(why) => Check::new(name, Outcome::Unknown, why),
        Verdict::Invalid(violation) => {
            let detail = violation.explain(operations).to_string();
            Check { events: shown(&violation, operations, events), ..Check::new(name, Outcome::Violation, detail) }
        }
    }
}

/// The events of the operation that fits nowhere, or of the window if there is no such operation.
fn shown(violation: &Violation, operations: &[Operation], events: &[Event]) -> Vec<u64> {
    let places = violation.operation.map_or_else(|| violation.window.clone(), |operation| vec![operation]);
    let positions = places
        .iter()
        .filter_map(|place| operations.get(*place))
        .flat_map(|operation| std::iter::once(operation.invoked).chain(operation.returned));
    positions.filter_map(|position| Some(events.get(usize::try_from(position).ok()?)?.index)).collect()
}
