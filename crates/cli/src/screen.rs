//! Shows a watched operation: a bar on a terminal, otherwise a line for each change; for programs a
//! stream of documents, or a single one at the end.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::progress::Progress;

/// A line is printed at least this often, so that the user knows that the command still watches.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// The display of a watched operation.
pub(crate) struct Screen {
    format: Format,
    bars: bool,
    /// The progress that was shown last, and when.
    last: Option<(Progress, Instant)>,
}

impl Screen {
    /// A display that has shown nothing yet.
    pub(crate) fn new(format: Format) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let bars = format.for_people() && std::io::stderr().is_terminal() && !dumb;
        Screen { format, bars, last: None }
    }

    /// Shows the progress, unless nothing has changed since the last time.
    pub(crate) fn show(&mut self, now: &Progress) -> Result<(), Failure> {
        let news = self.last.as_ref().is_none_or(|(last, _)| is_news(last, now));
        let quiet = self.last.as_ref().is_some_and(|(_, shown)| shown.elapsed() > QUIET_MAX);
        let waits = self.last.as_ref().is_none_or(|(last, _)| last.waits != now.waits);
        if self.bars {
            // The bar is redrawn in place; new wait reasons are printed above it.
            tell_part!("\r\x1b[K");
            if waits {
                for reason in now.reasons() {
                    tell!("  {reason}");
                }
            }
            tell_part!("{}", now.bar());
            if !now.runs() {
                tell!();
            }
            // Fails only if the terminal is gone.
            let _ = std::io::stderr().flush();
        } else if news || quiet {
            match self.format {
                Format::Ndjson => output::show(self.format, "Operation", now, String::new)?,
                Format::Table | Format::Wide | Format::Json => tell!("{}", now.line()),
            }
        }
        if news || quiet {
            self.last = Some((now.clone(), Instant::now()));
        }
        Ok(())
    }
}

/// Whether the counts, the state or the wait reasons have changed. Estimates change all the time.
fn is_news(last: &Progress, now: &Progress) -> bool {
    let counts = |at: &Progress| (at.state.clone(), at.moved, at.moving, at.left);
    counts(last) != counts(now) || last.waits != now.waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_alone_is_no_news() {
        let one = Progress { moved: 1, moving: 1, left: 1, ..Progress::default() };
        let later = Progress { time_left_ms: Some(1), rate_bytes_per_second: Some(1), ..one.clone() };
        assert!(!is_news(&one, &later));
        assert!(is_news(&one, &Progress { waits: vec!["why".into()], ..one.clone() }));
        assert!(is_news(&one, &Progress { moved: 2, ..one.clone() }));
    }
}
