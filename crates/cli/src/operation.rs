//! Operations: started, watched, listed, taken back. What was started goes on when nobody watches.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use quorate_proto::admin::{
    CancelOperationRequest, Intent, ListOperationsRequest, ListOperationsResponse, Operation, StartOperationRequest,
};
use quorate_types::operation::Intent as Meaning;
use serde::Serialize;
use tokio::time::sleep;
use tonic::{Code, Request, Response, Status};

use crate::args::{Ask, Connect};
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, Kinds, Output};
use crate::progress::{self, Progress, Screen};
use crate::survey::Survey;
use crate::{admin, duration, leader, signals};

/// How often a watched operation is looked at.
const POLL: Duration = Duration::from_millis(250);

/// Operations: what the cluster was asked for, and how far it is.
#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List operations: those that run, and the last ones that ended.
    List(Ask),
    /// Show one operation, and why it stands still where it does.
    Show(OneArgs),
    /// Watch an operation until it ends. Ctrl-C ends the watching, not the operation.
    Watch(WatchArgs),
    /// Take an operation back. What has moved stays where it is.
    Cancel(OneArgs),
}

#[derive(Args, Debug)]
pub(crate) struct OneArgs {
    /// The operation's id.
    id: u64,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// The operation's id.
    id: u64,
    /// Stop watching after so long; the operation goes on (exit 4).
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    #[command(flatten)]
    ask: Ask,
}

/// How a verb that changes the cluster is carried out.
#[derive(Args, Clone, Debug)]
pub(crate) struct Change {
    /// Only show what would be done, or why it would be refused.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print the operation's id and do not wait for its end.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Stop watching after so long; the operation goes on (exit 4).
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) connect: Connect,
    #[command(flatten)]
    pub(crate) output: Output,
}

const KINDS: Kinds = Kinds { list: "OperationList", item: "Operation" };

impl OperationCommand {
    /// Asks the cluster and prints.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            OperationCommand::List(args) => signals::or_interrupted(list(args)).await,
            OperationCommand::Show(args) => signals::or_interrupted(show(args)).await,
            OperationCommand::Watch(args) => {
                let connect = patient(&args.ask.connect, args.timeout);
                let what = find(&connect, args.id).await?.what;
                watch(&args.ask.connect, args.id, &what, args.timeout, args.ask.format()).await
            }
            OperationCommand::Cancel(args) => signals::or_interrupted(cancel(args)).await,
        }
    }
}

async fn list(ask: Ask) -> Result<(), Failure> {
    let all = all(&ask.connect).await?;
    output::show_all(ask.format(), KINDS, all, |all| progress::table(all, ask.format() == Format::Wide))
}

async fn show(args: OneArgs) -> Result<(), Failure> {
    let found = find(&args.ask.connect, args.id).await?;
    output::show(args.ask.format(), KINDS.item, &found, || {
        format!("operation {}: {} – {}\n{}\n", found.id, found.what, found.state, found.line())
    })
}

async fn cancel(args: OneArgs) -> Result<(), Failure> {
    // Whoever cannot be asked for the list may still be asked for this.
    if let Err(failure) = find(&args.ask.connect, args.id).await
        && failure.exit() == Exit::Usage
    {
        return Err(failure);
    }
    let request = CancelOperationRequest { operation: args.id };
    let cancel = async |mut node: admin::Client| node.cancel_operation(Request::new(request)).await;
    leader::change(&args.ask.connect, cancel)
        .await?
        .map_err(|status| unanswered(format!("cannot cancel operation {}", args.id), &status))?;
    let found = find(&args.ask.connect, args.id).await;
    let found =
        found.unwrap_or_else(|failure| unseen(args.id, format!("operation {}", args.id), "cancelled", &failure));
    output::show(args.ask.format(), KINDS.item, &found, || {
        format!("operation {} is cancelled; what has moved stays where it is\n", args.id)
    })
}

/// Asks before something that cannot be undone by typing the opposite: on a terminal by a question, elsewhere by a flag.
pub(crate) fn confirm(question: &str, change: &Change) -> Result<(), Failure> {
    // Of a dry run nothing needs to be undone.
    if change.yes || change.dry_run {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, format!("{question} – nobody can be asked here")).hint("add --yes"));
    }
    tell_part!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Exit::Other, "nothing was done"))
}

/// Asks the cluster what it would answer. Only its leader can say, and changes nothing.
async fn try_out(change: &Change, what: Meaning, planned_on: u64, done: &str) -> Result<(), Failure> {
    let named = what.to_string();
    let request = StartOperationRequest { intent: Some(Intent::from(what)), planned_on, dry_run: true };
    let try_out = async |mut node: admin::Client| node.start_operation(Request::new(request.clone())).await;
    let (tried, _) = leader::ask(&change.connect, &format!("cannot {named}"), try_out).await?;
    let (id, state, text) = match (tried.operation, tried.already) {
        (0, _) => (None, "done", format!("already so: {done}")),
        (id, true) => (Some(id.to_string()), "running", format!("operation {id} ({named}) runs already")),
        (_, false) => (None, "possible", "the cluster would take it; nothing was changed".to_owned()),
    };
    tell!("{text}");
    if change.output.output.for_people() {
        return Ok(());
    }
    output::show(change.output.output, KINDS.item, &Unstarted { id, what: named, state }, String::new)
}

/// Starts an operation and watches it to its end, unless told otherwise; of a dry run says only what would come of it.
pub(crate) async fn carry_out(change: &Change, what: Meaning, planned_on: u64, done: &str) -> Result<(), Failure> {
    if change.dry_run {
        return signals::or_interrupted(try_out(change, what, planned_on, done)).await;
    }
    let named = what.to_string();
    let request = StartOperationRequest { intent: Some(Intent::from(what)), planned_on, dry_run: false };
    let start = async |mut node: admin::Client| node.start_operation(Request::new(request.clone())).await;
    let started = signals::or_unknown_value("see: quorate op list", leader::change(&change.connect, start)).await??;
    let started = started.map_err(|status| unanswered(format!("cannot {named}"), &status))?;
    let format = change.output.output;
    if started.operation == 0 {
        return nothing_to_do(format, &named, format!("already so: {done}\n"));
    }
    let verb = if started.already { "runs already" } else { "started" };
    tell!("operation {} ({named}) {verb}   (Ctrl-C stops watching, not the operation)", started.operation);
    if change.no_wait && format.for_people() {
        return output::print(format!("{}\n", started.operation));
    }
    if change.no_wait {
        let found = find(&change.connect, started.operation).await;
        let found = found.unwrap_or_else(|failure| unseen(started.operation, named, "started", &failure));
        return output::show(format, KINDS.item, &found, String::new);
    }
    watch(&change.connect, started.operation, &named, change.timeout, format).await?;
    if format.for_people() {
        output::print(format!("✓ {done}\n"))?;
    }
    Ok(())
}

/// What was asked for and is so already.
pub(crate) fn nothing_to_do(format: Format, what: &str, text: String) -> Result<(), Failure> {
    let nothing = Unstarted { id: None, what: what.to_owned(), state: "done" };
    output::show(format, KINDS.item, &nothing, || text)
}

/// What was not started: there was nothing to do, or it was only tried out.
#[derive(Serialize)]
struct Unstarted {
    /// The operation that runs for it already.
    id: Option<String>,
    what: String,
    /// `done`: it is so already; `running`; `possible`: the cluster would take it.
    state: &'static str,
}

/// One question takes no longer than the whole may take.
fn patient(connect: &Connect, timeout: Option<Duration>) -> Connect {
    Connect { deadline: timeout.map_or(connect.deadline, |max| connect.deadline.min(max)), ..connect.clone() }
}

/// Shows how far the operation is until it ends. Nodes may come and go meanwhile.
async fn watch(
    connect: &Connect,
    id: u64,
    what: &str,
    timeout: Option<Duration>,
    format: Format,
) -> Result<(), Failure> {
    let still = |how: &str| format!("{how}; '{what}' goes on");
    let again = format!("quorate op watch {id}");
    let connect = &patient(connect, timeout);
    let watching = async {
        let mut screen = Screen::new(format);
        let mut found_at = Instant::now();
        loop {
            match find(connect, id).await {
                Ok(found) => {
                    found_at = Instant::now();
                    screen.show(&found)?;
                    if !found.runs() {
                        return Ok(found);
                    }
                }
                // Its leader may just be gone; whoever is next goes on.
                Err(failure)
                    if failure.exit() == Exit::Unreachable && timeout.is_none_or(|max| found_at.elapsed() < max) => {}
                Err(failure) => return Err(failure),
            }
            sleep(POLL).await;
        }
    };
    let limited = async {
        match timeout {
            Some(max) => tokio::time::timeout(max, watching).await.unwrap_or_else(|_| {
                Err(Failure::new(Exit::StillRunning, still("stopped watching")).hint(again.clone()))
            }),
            None => watching.await,
        }
    };
    let found = tokio::select! {
        found = limited => found?,
        stopped = signals::interrupted() => {
            stopped?;
            return Err(Failure::new(Exit::Interrupted, still("stopped watching")).hint(again));
        }
    };
    if found.state != "done" {
        return Err(Failure::new(Exit::Conflict, format!("operation {id} was {}", found.state)));
    }
    match format {
        Format::Json => output::print(output::json(KINDS.item, &found)),
        // A stream had it already.
        Format::Ndjson | Format::Table | Format::Wide => Ok(()),
    }
}

/// An operation of which only the change is known that was just made to it. That it cannot be looked at does not undo the change:
/// it is told beside the result and is no failure.
fn unseen(id: u64, what: String, state: &str, failure: &Failure) -> Progress {
    tell!("note: operation {id} is {state}; how far it is cannot be seen just now: {}", failure.message());
    Progress { id, what, state: state.to_owned(), ..Progress::default() }
}

async fn find(connect: &Connect, id: u64) -> Result<Progress, Failure> {
    let all = all(connect).await?;
    all.into_iter()
        .find(|found| found.id == id)
        .ok_or_else(|| Failure::new(Exit::Usage, format!("there is no operation {id}")).hint("see: quorate op list"))
}

/// The operations as the leader of the topology group knows them.
async fn all(connect: &Connect) -> Result<Vec<Progress>, Failure> {
    let (listed, survey) = leader::ask(connect, "cannot list the operations", list_operations).await?;
    progresses(listed.operations, &survey)
}

async fn list_operations(mut node: admin::Client) -> Result<Response<ListOperationsResponse>, Status> {
    node.list_operations(Request::new(ListOperationsRequest {})).await
}

fn progresses(operations: Vec<Operation>, survey: &Survey) -> Result<Vec<Progress>, Failure> {
    operations.into_iter().map(|wire| Progress::new(wire, survey, progress::now_ms())).collect()
}

/// The operations that run, as far as anybody can say now, and the cluster's own upkeep where something of it stands still.
pub(crate) async fn running(connect: &Connect, survey: &Survey) -> Vec<Progress> {
    let listed = async {
        let node = leader::connect(connect, survey).await.ok()?;
        let listed = admin::timely(leader::LEADER, connect.deadline, list_operations(node)).await.ok()?;
        Some(listed.into_inner())
    };
    still_running(listed.await.unwrap_or_default(), survey)
}

fn still_running(listed: ListOperationsResponse, survey: &Survey) -> Vec<Progress> {
    let ListOperationsResponse { operations, upkeep_waits } = listed;
    let mut running = progresses(operations, survey).unwrap_or_default();
    running.retain(Progress::runs);
    if !upkeep_waits.is_empty() {
        running.push(Progress::upkeep(upkeep_waits));
    }
    running
}

/// Why a change of the cluster has no answer: it may have been taken all the same.
pub(crate) fn unanswered(message: String, status: &Status) -> Failure {
    unknown_or_refused(message, status, "see: quorate op list; asking again is harmless")
}

/// Why a change did not come true: refused, or without an answer, and then nobody knows. The hint says how to find out.
pub(crate) fn unknown_or_refused(message: String, status: &Status, hint: &str) -> Failure {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => {
            Failure::new(Exit::Unknown, format!("{message}: nobody knows whether it was taken"))
                .cause(status.message())
                .hint(hint)
        }
        _ => refused(message, status),
    }
}

/// A refusal of the cluster's: for safety, as a conflict, or because it cannot be reached.
pub(crate) fn refused(message: String, status: &Status) -> Failure {
    let exit = match status.code() {
        Code::FailedPrecondition if status.message().contains("plan it again") => Exit::Conflict,
        Code::FailedPrecondition => Exit::Refused,
        Code::AlreadyExists => Exit::Conflict,
        Code::InvalidArgument | Code::NotFound => Exit::Usage,
        // Aborted: the node does not lead just now.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted | Code::Unknown => {
            Exit::Unreachable
        }
        _ => Exit::Other,
    };
    let failure = Failure::new(exit, message).cause(status.message());
    if exit == Exit::Unreachable { failure.hint("nothing was changed; try again") } else { failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::survey;

    /// A change at a node that does not lead just now was not begun; one whose answer is lost may have been.
    #[test]
    fn only_what_was_surely_not_begun_is_nothing_applied() {
        let exit = |code| unanswered("m".to_owned(), &Status::new(code, "why")).exit();
        assert_eq!(exit(Code::Aborted), Exit::Unreachable);
        assert_eq!(exit(Code::FailedPrecondition), Exit::Refused);
        for lost in [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown, Code::Internal] {
            assert_eq!(exit(lost), Exit::Unknown, "{lost:?}");
        }
        assert_eq!(refused("m".to_owned(), &Status::aborted("it does not lead")).exit(), Exit::Unreachable);
    }

    /// A change that was made was reported as 'nothing was applied' when what came of it could not be looked at.
    #[test]
    fn a_change_that_cannot_be_looked_at_is_no_failure() {
        let failure = Failure::new(Exit::Unreachable, "the leader of the topology group does not answer");
        let seen = unseen(7, "operation 7".to_owned(), "cancelled", &failure);
        assert_eq!((seen.id, seen.state.as_str(), seen.runs()), (7, "cancelled", false));
    }

    /// What belongs to no running operation was shown nowhere: a move that was taken back and cannot turn around, say.
    #[test]
    fn what_upkeep_waits_for_was_shown_nowhere() {
        let waits = vec!["shard 1: it has no leader; nodes down: 2, 3".to_owned()];
        let listed = ListOperationsResponse { operations: Vec::new(), upkeep_waits: waits };
        let running = still_running(listed, &survey(&[]));
        assert_eq!(progress::reasons(&running), ["upkeep – shard 1: it has no leader; nodes down: 2, 3"]);
        assert!(still_running(ListOperationsResponse::default(), &survey(&[])).is_empty());
    }
}
