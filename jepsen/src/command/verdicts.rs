//! Prints the verdicts on files and sums them up in an exit code.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use quorate_jepsen::check::timeline::{self, Section};
use quorate_jepsen::check::{Verdict, Violation};
use quorate_jepsen::history::Operation;

/// Exit code if any history is invalid.
const INVALID: u8 = 1;
/// Exit code if any history is undecided or unreadable.
const UNKNOWN: u8 = 2;

/// An invalid history.
struct Bad {
    title: String,
    operations: Vec<Operation>,
    violation: Box<Violation>,
}

/// Checks each file and prints its verdict: one line on stdout, reasons on stderr. Renders the
/// violations to `page`, if given.
pub(super) fn print(
    files: &[PathBuf],
    page: Option<&Path>,
    check: impl Fn(&Path) -> (Verdict, Vec<Operation>),
) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let (mut bad, mut unknown) = (Vec::new(), false);
    for file in files {
        let begun = Instant::now();
        let (verdict, operations) = check(file);
        let word = match &verdict {
            Verdict::Valid => "valid",
            Verdict::Invalid(_) => "invalid",
            Verdict::Unknown(_) => "unknown",
        };
        let (count, millis) = (operations.len(), begun.elapsed().as_millis());
        // A closed stdout means that the reader has gone.
        if writeln!(stdout, "{word} {} ({count} ops, {millis} ms)", file.display()).is_err() {
            return ExitCode::from(UNKNOWN);
        }
        match verdict {
            Verdict::Valid => {}
            Verdict::Invalid(violation) => {
                eprintln!("{}: {}", file.display(), violation.explain(&operations));
                bad.push(Bad { title: file.display().to_string(), operations, violation });
            }
            Verdict::Unknown(reason) => {
                eprintln!("{}: {reason}", file.display());
                unknown = true;
            }
        }
    }
    let drawn = page.is_none_or(|page| draw(page, &bad));
    match (bad.is_empty(), unknown || !drawn) {
        (false, _) => ExitCode::from(INVALID),
        (true, true) => ExitCode::from(UNKNOWN),
        (true, false) => ExitCode::SUCCESS,
    }
}

/// Writes the page if there are violations. Returns false if it could not be written.
fn draw(page: &Path, bad: &[Bad]) -> bool {
    if bad.is_empty() {
        return true;
    }
    let sections: Vec<_> = bad
        .iter()
        .map(|bad| Section { title: &bad.title, operations: &bad.operations, violation: &bad.violation })
        .collect();
    match std::fs::write(page, timeline::page(&sections)) {
        Ok(()) => {
            eprintln!("timeline: {}", page.display());
            true
        }
        Err(error) => {
            eprintln!("error: cannot write the timeline {}: {error}", page.display());
            false
        }
    }
}
