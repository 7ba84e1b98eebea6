//! Watches an operation until it ends, and shows its progress.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::connect::Connect;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::progress::Progress;
use crate::screen::Screen;
use crate::{operations, signals};

/// How often a watched operation is polled.
const POLL: Duration = Duration::from_millis(250);

/// Limits a single query to the time-out of the whole command.
pub(crate) fn limited(connect: &Connect, timeout: Option<Duration>) -> Connect {
    Connect { deadline: timeout.map_or(connect.deadline, |max| connect.deadline.min(max)), ..connect.clone() }
}

/// Shows the progress of an operation until it ends. Nodes may come and go meanwhile.
pub(crate) async fn watch(
    connect: &Connect,
    id: u64,
    intent: &str,
    timeout: Option<Duration>,
    format: Format,
) -> Result<(), Failure> {
    let still_running = |exit: Exit, why: &str| {
        Failure::new(exit, format!("{why}; '{intent}' is still running")).hint(format!("quorate op watch {id}"))
    };
    let watching = until_ended(connect, id, timeout, format);
    let limited = async {
        match timeout {
            Some(max) => tokio::time::timeout(max, watching)
                .await
                .unwrap_or_else(|_| Err(still_running(Exit::StillRunning, "timed out"))),
            None => watching.await,
        }
    };
    let found = tokio::select! {
        found = limited => found?,
        stopped = signals::interrupted() => {
            stopped?;
            return Err(still_running(Exit::Interrupted, "interrupted"));
        }
    };
    if found.state != "done" {
        return Err(Failure::new(Exit::Conflict, format!("operation {id} was {}", found.state)));
    }
    match format {
        Format::Json => output::print(output::json("Operation", &found)),
        // A stream of documents already has it.
        Format::Ndjson | Format::Table | Format::Wide => Ok(()),
    }
}

/// Polls the operation until it ends. An unreachable leader ends it only after `timeout`: the next
/// leader continues the operation.
async fn until_ended(
    connect: &Connect,
    id: u64,
    timeout: Option<Duration>,
    format: Format,
) -> Result<Progress, Failure> {
    let connect = limited(connect, timeout);
    let mut screen = Screen::new(format);
    let mut found_at = Instant::now();
    loop {
        match operations::find(&connect, id).await {
            Ok(found) => {
                found_at = Instant::now();
                screen.show(&found)?;
                if !found.runs() {
                    return Ok(found);
                }
            }
            Err(failure)
                if failure.exit() == Exit::Unreachable && timeout.is_none_or(|max| found_at.elapsed() < max) => {}
            Err(failure) => return Err(failure),
        }
        sleep(POLL).await;
    }
}

/// The progress of an operation that was changed but cannot be queried. The change itself
/// succeeded, so this is a note and no failure.
pub(crate) fn no_progress(id: u64, intent: String, state: &str, failure: &Failure) -> Progress {
    tell!("note: operation {id} is {state}, but its progress is not available: {}", failure.message());
    Progress { id, what: intent, state: state.to_owned(), ..Progress::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change that was made was once reported as 'nothing was applied' when the query after it
    /// failed.
    #[test]
    fn a_change_without_known_progress_is_no_failure() {
        let failure = Failure::new(Exit::Unreachable, "the leader of the topology group is unreachable");
        let seen = no_progress(7, "operation 7".to_owned(), "cancelled", &failure);
        assert_eq!((seen.id, seen.state.as_str(), seen.runs()), (7, "cancelled", false));
    }
}
