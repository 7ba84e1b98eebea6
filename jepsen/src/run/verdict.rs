//! The checks of a run that need only its history: linearizability key by key, the replay of the shards' order, and what each
//! workload knows of itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::check::{self, Limits, ModelName, Verdict, Violation};
use crate::history::operation::pair;
use crate::history::{Event, Operation};
use crate::report::{Check, Outcome};
use crate::workload::Workload;

/// How long the search in one key may take; a key of a run has some 150 operations, and is done in milliseconds.
const SEARCH_MAX: Duration = Duration::from_secs(20);
/// How long the search in all keys of a workload may take.
const SEARCHES_MAX: Duration = Duration::from_secs(240);
/// Findings of one workload that are reported; one is enough to fail.
const FINDINGS_MAX: usize = 20;

/// Reads a history back from its file: what is checked is what was kept. Gives the events up to the first line that is none, and
/// why it reads no further: what happened until then is a history too.
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

/// Every check of every workload.
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
    said(
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
    said(format!("{name}: replay of the shards' order"), held, replay.verdict, operations, events)
}

/// A verdict as a check of the run, its operations named by their events.
fn said(name: String, held: String, verdict: Verdict, operations: &[Operation], events: &[Event]) -> Check {
    match verdict {
        Verdict::Valid => Check::pass(name, held),
        Verdict::Unknown(why) => Check::new(name, Outcome::Unknown, why),
        Verdict::Invalid(violation) => {
            let detail = violation.explain(operations).to_string();
            Check { events: shown(&violation, operations, events), ..Check::new(name, Outcome::Violation, detail) }
        }
    }
}

/// The events of the operation that has no place, or else of the window.
fn shown(violation: &Violation, operations: &[Operation], events: &[Event]) -> Vec<u64> {
    let places = violation.operation.map_or_else(|| violation.window.clone(), |operation| vec![operation]);
    let positions = places
        .iter()
        .filter_map(|place| operations.get(*place))
        .flat_map(|operation| std::iter::once(operation.invoked).chain(operation.returned));
    positions.filter_map(|position| Some(events.get(usize::try_from(position).ok()?)?.index)).collect()
}
