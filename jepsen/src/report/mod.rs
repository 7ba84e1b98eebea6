//! The results of a run: `results.json` for programs, `report.html` for people, and a summary on
//! the terminal.
//!
//! ```text
//!   history.jsonl ─ operations ─┬─ availability ─ gaps, failovers ──┐
//!                               ├─ series ─ latency, rate           ├─ Results ─ json, summary
//!   nemesis.jsonl ─ faults ─────┴───────────────────────────────────┴─ html ─ svg, timeline
//! ```

pub mod availability;
pub mod faults;
mod html;
pub mod results;
pub mod series;
pub mod summary;
mod svg;
mod timeline;

use std::path::Path;

use anyhow::Context as _;

pub use results::{Check, Counts, Outcome, Results};

use crate::workload::Done;
use faults::Window;

/// Name of the results file.
pub const RESULTS: &str = "results.json";
/// Name of the page.
pub const PAGE: &str = "report.html";

/// Writes both files into a run's directory. The plots end at time `end`.
///
/// # Errors
///
/// A file cannot be written.
pub fn write(
    dir: &Path,
    results: &Results,
    operations: &[Done<'_>],
    faults: &[Window],
    end: u64,
) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(results)? + "\n";
    let keep = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    keep(RESULTS, json)?;
    keep(PAGE, html::page(results, operations, faults, end))
}

#[cfg(test)]
mod tests;
