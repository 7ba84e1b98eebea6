//! A timeline of the operations around a violation: one lane per process, one bar per operation on
//! the key.

use std::collections::HashSet;

use super::svg::{Plot, Scale};
use crate::history::{Action, EventKind};
use crate::workload::Done;

/// Maximum number of operations drawn; more would be unreadable.
const OPERATIONS_MAX: usize = 60;
/// Blank margin on the left and right, as a fraction of the width.
const MARGIN: f64 = 0.05;

/// Draws the operations on the key of these events that are closest to them. The operations of the
/// events themselves are red.
pub(super) fn draw(operations: &[Done<'_>], events: &[u64]) -> String {
    let events: HashSet<u64> = events.iter().copied().collect();
    let shows = |done: &Done<'_>| done.events().iter().any(|event| events.contains(event));
    let Some(shown) = operations.iter().rfind(|done| shows(done)) else { return String::new() };
    let centre = shown.invoke.time;
    let mut near: Vec<&Done<'_>> = operations
        .iter()
        .filter(|done| done.invoke.key == shown.invoke.key || shows(done))
        .filter(|done| done.kind() != EventKind::Fail)
        .collect();
    near.sort_by_key(|done| (!shows(done), done.invoke.time.abs_diff(centre)));
    near.truncate(OPERATIONS_MAX);
    near.sort_by_key(|done| done.invoke.time);
    let from = near.iter().map(|done| done.invoke.time).min().unwrap_or(0);
    let until =
        near.iter().filter_map(|done| done.completion).map(|completion| completion.time).max().unwrap_or(from + 1);
    let margin = ((until - from) as f64 * MARGIN) as u64;
    let at = |time: u64| time.saturating_sub(from) + margin;
    let mut lanes: Vec<u64> = near.iter().map(|done| done.invoke.process).collect();
    lanes.sort_unstable();
    lanes.dedup();
    let key = shown.invoke.key.as_deref().unwrap_or("the object");
    let title = format!("operations on {key}, starting at {:.3} s; hover over a bar for details", from as f64 / 1e9);
    let mut plot = Plot::new(&title, until - from + 2 * margin, 16.0 * lanes.len() as f64, Scale::Lanes(lanes.len()));
    for (lane, process) in lanes.iter().enumerate() {
        plot = plot.label(lane, &format!("process {process}"));
    }
    for done in near {
        let Some(lane) = lanes.iter().position(|process| *process == done.invoke.process) else { continue };
        let colour = match (shows(done), done.kind(), done.invoke.f) {
            (true, ..) => "#d62728",
            (_, EventKind::Info | EventKind::Invoke, _) => "#ffbb78",
            (_, _, Action::Read) => "#98c1e0",
            _ => "#98df8a",
        };
        let end = done.completion.filter(|completion| completion.kind != EventKind::Info).map_or(until, |end| end.time);
        plot = plot.bar(lane, at(done.invoke.time), at(end), colour, &describe(done));
    }
    plot.finish()
}

/// Describes an operation in one line.
fn describe(done: &Done<'_>) -> String {
    let mut text = format!("event {}: {:?} {}", done.invoke.index, done.invoke.f, done.invoke.value);
    match done.completion {
        None => text.push_str(", never answered"),
        Some(end) => {
            text += &format!(" → {:?} {}", end.kind, end.value);
            if end.refused {
                text += &format!(", refused, found {}", end.found.clone().unwrap_or_default());
            }
            for (name, value) in
                [("version", end.version), ("node", end.node), ("shard", end.shard), ("log index", end.log_index)]
            {
                text += &value.map(|value| format!(", {name} {value}")).unwrap_or_default();
            }
            text += &end.error.as_ref().map(|error| format!(", {error}")).unwrap_or_default();
        }
    }
    text
}
