//! The verdicts on files, as they are printed, and the exit code that sums them up.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use quorate_jepsen::check::timeline::{self, Section};
use quorate_jepsen::check::{Verdict, Violation};
use quorate_jepsen::history::Operation;

/// Some history is not one that a correct store can show.
const INVALID: u8 = 1;
/// Some history could not be decided or read.
const UNKNOWN: u8 = 2;

/// One history that is not valid.
struct Bad {
    title: String,
    operations: Vec<Operation>,
    violation: Box<Violation>,
}

/// Checks each file and prints its verdict: a line on stdout, and why on stderr. Draws what is not valid, if a page is wanted.
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
        // Where nobody reads on, there is nobody left to tell.
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

/// Writes the page, if there is something to show. False: it could not be written.
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
