//! The summary on the terminal; the verdict comes first.

use std::fmt::Write as _;

use super::results::{Outcome, Results};

/// Details of a check are truncated to this length here; `results.json` has the full text.
const DETAIL_CHARS_MAX: usize = 600;

/// Renders the summary.
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    _ = write(&mut text, results);
    text
}

fn write(text: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(text, "{}", results.outcome.headline())?;
    for check in &results.checks {
        let mark = match check.outcome {
            Outcome::Pass => "✓",
            Outcome::Unknown => "?",
            Outcome::Violation | Outcome::HarnessFailure => "✗",
        };
        let detail: String = check.detail.chars().take(DETAIL_CHARS_MAX).collect();
        writeln!(text, "  {mark} {}: {detail}", check.name)?;
    }
    let total = results.total;
    writeln!(
        text,
        "\noperations  {} ok ({} refused), {} fail, {} info{}   {:.0} ok/s{}",
        total.ok,
        total.refused,
        total.fail,
        total.info,
        if results.shed > 0 { format!(", {} not begun", results.shed) } else { String::new() },
        results.ok_per_second,
        results.latency_ms.map(|[p50, p99]| format!(", p50 {p50:.1} ms, p99 {p99:.1} ms")).unwrap_or_default(),
    )?;
    for (name, ended) in &results.operations {
        writeln!(text, "  {name:<24} {} ok, {} fail, {} info", ended.ok, ended.fail, ended.info)?;
    }
    let installed: u64 = results.faults.values().map(|counts| counts.installed).sum();
    writeln!(text, "faults      {installed} installed   network: {}", results.network)?;
    for (fault, counts) in &results.faults {
        write!(text, "  {fault:<24} {} installed, {} healed", counts.installed, counts.healed)?;
        if counts.leaders_hit > 0 {
            write!(text, ", {} hit a leader", counts.leaders_hit)?;
        }
        if counts.indeterminate > 0 {
            write!(text, ", {} indeterminate", counts.indeterminate)?;
        }
        if counts.skipped > 0 {
            write!(text, ", {} skipped ({})", counts.skipped, counts.why_skipped.as_deref().unwrap_or("no reason"))?;
        }
        if let Some(gap) = results.unavailable.get(fault) {
            write!(text, "; longest unavailability {} ms (shard {})", gap.longest_ms, gap.shard)?;
        }
        writeln!(text)?;
    }
    if let Some(gap) = results.unavailable.get(super::availability::NO_FAULT) {
        writeln!(text, "  {:<24} longest unavailability {} ms (shard {})", "(no fault)", gap.longest_ms, gap.shard)?;
    }
    let failover = results.failover;
    match failover.count {
        0 => writeln!(text, "failover    none measured")?,
        count => writeln!(
            text,
            "failover    p50 {} ms, p99 {} ms, longest {} ms, of {count}",
            failover.p50_ms, failover.p99_ms, failover.max_ms
        )?,
    }
    writeln!(
        text,
        "observed    {} elections, {} leader changes, {} snapshots installed",
        results.counts.elections, results.leader_changes, results.counts.snapshots
    )?;
    writeln!(text, "repeat      {}", results.command)
}
