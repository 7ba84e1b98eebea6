//! Operations: started, watched, listed, taken back. What was started goes on when nobody watches.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use quorate_proto::admin::{
    CancelOperationRequest, Intent, ListOperationsRequest, Operation as Wire, StartOperationRequest,
};
use quorate_types::operation::{Intent as Meaning, Operation as Known};
use serde::Serialize;
use tokio::time::sleep;
use tonic::{Code, Request, Status};

use crate::args::Connect;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, Items, Output, id};
use crate::survey::Survey;
use crate::{admin, duration, signals};

/// How often a watched operation is looked at.
const POLL: Duration = Duration::from_millis(250);
/// Every so often a line is printed though nothing changed, so that whoever watches knows that it lives.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// Operations: what the cluster was asked for, and how far it is.
#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List operations: those that run, and the last ones that ended.
    List(ListArgs),
    /// Show one operation, and why it stands still where it does.
    Show(OneArgs),
    /// Watch an operation until it ends. Ctrl-C ends the watching, not the operation.
    Watch(WatchArgs),
    /// Take an operation back. What has moved stays where it is.
    Cancel(OneArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct OneArgs {
    /// The operation's id.
    id: u64,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// The operation's id.
    id: u64,
    /// Stop watching after so long; the operation goes on (exit 4).
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

/// How a verb that changes the cluster is carried out.
#[derive(Args, Clone, Debug)]
pub(crate) struct Change {
    /// Only show what would be done.
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

/// An operation as it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    #[serde(serialize_with = "id")]
    id: u64,
    what: String,
    state: String,
    started_ms: u64,
    ended_ms: u64,
    moved: u32,
    moving: u32,
    left: u32,
    waits: Vec<String>,
}

impl Row {
    fn new(wire: Wire) -> Result<Self, Failure> {
        let Wire { moving, left, waits, .. } = wire.clone();
        let known =
            Known::try_from(wire).map_err(|error| Failure::new(Exit::Other, "an unreadable answer").cause(error))?;
        let state = match known.state {
            quorate_types::operation::OperationState::Running => "running",
            quorate_types::operation::OperationState::Done => "done",
            quorate_types::operation::OperationState::Cancelled => "cancelled",
        };
        Ok(Row {
            id: known.id.0,
            what: known.intent.to_string(),
            state: state.to_owned(),
            started_ms: known.started_ms,
            ended_ms: known.ended_ms,
            moved: known.moved,
            moving,
            left,
            waits,
        })
    }

    fn runs(&self) -> bool {
        self.state == "running"
    }

    fn cells(&self) -> [String; 6] {
        let took = if self.runs() { now_ms() } else { self.ended_ms }.saturating_sub(self.started_ms);
        let progress = format!("{}/{}", self.moved, self.moved + self.moving + self.left);
        let waits = self.waits.first().cloned().unwrap_or_default();
        let took = duration::rough(Duration::from_millis(took));
        [self.id.to_string(), self.what.clone(), self.state.clone(), progress, took, waits]
    }

    /// What has changed since the last line, in one.
    fn line(&self) -> String {
        let Row { moved, moving, left, .. } = self;
        let mut line = format!("moved {moved}, moving {moving}, left {left}");
        for wait in self.waits.iter().take(WAITS_SHOWN_MAX) {
            line += &format!("\n  {wait}");
        }
        match self.waits.len().saturating_sub(WAITS_SHOWN_MAX) {
            0 => {}
            more => line += &format!("\n  and {more} more"),
        }
        line
    }
}

/// Reasons that are printed of one operation at a time.
const WAITS_SHOWN_MAX: usize = 5;
const HEADER: [&str; 6] = ["OPERATION", "WHAT", "STATE", "MOVED", "TIME", "WAITS FOR"];

impl OperationCommand {
    /// Asks the cluster and prints.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            OperationCommand::List(args) => signals::or_interrupted(list(args)).await,
            OperationCommand::Show(args) => signals::or_interrupted(show(args)).await,
            OperationCommand::Watch(args) => {
                let what = find(&args.connect, args.id).await?.what;
                watch(&args.connect, args.id, &what, args.timeout, args.output).await
            }
            OperationCommand::Cancel(args) => signals::or_interrupted(cancel(args)).await,
        }
    }
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let rows = all(&args.connect).await?;
    output::print(match args.output.output {
        Format::Json => output::json("OperationList", &Items { items: rows }),
        Format::Table => output::table(HEADER, rows.iter().map(Row::cells)),
    })
}

async fn show(args: OneArgs) -> Result<(), Failure> {
    let row = find(&args.connect, args.id).await?;
    output::print(match args.output.output {
        Format::Json => output::json("Operation", &row),
        Format::Table => format!("operation {}: {} – {}\n{}\n", row.id, row.what, row.state, row.line()),
    })
}

async fn cancel(args: OneArgs) -> Result<(), Failure> {
    let mut node = admin::any(&args.connect).await?;
    let request = CancelOperationRequest { operation: args.id };
    let cancelled = node.cancel_operation(Request::new(request)).await;
    cancelled.map_err(|status| unanswered(format!("cannot cancel operation {}", args.id), &status))?;
    let row = find(&args.connect, args.id).await?;
    output::print(match args.output.output {
        Format::Json => output::json("Operation", &row),
        Format::Table => format!("operation {} is cancelled; what has moved stays where it is\n", args.id),
    })
}

/// Asks before something that cannot be undone by typing the opposite: on a terminal by a question, elsewhere by a flag.
pub(crate) fn confirm(question: &str, change: &Change) -> Result<(), Failure> {
    if change.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, format!("{question} – nobody can be asked here")).hint("add --yes"));
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Exit::Other, "nothing was done"))
}

/// Starts an operation and watches it to its end, unless told otherwise.
pub(crate) async fn carry_out(change: &Change, what: Meaning, planned_on: u64, done: &str) -> Result<(), Failure> {
    let named = what.to_string();
    let mut node = admin::any(&change.connect).await?;
    let request = StartOperationRequest { intent: Some(Intent::from(what)), planned_on };
    let started = signals::or_unknown_value(node.start_operation(Request::new(request))).await?;
    let started = started.map_err(|status| unanswered(format!("cannot {named}"), &status))?.into_inner();
    if started.operation == 0 {
        return output::print(match change.output.output {
            Format::Json => output::json("Operation", &Nothing { id: None, what: named, state: "done" }),
            Format::Table => format!("already so: {done}\n"),
        });
    }
    let verb = if started.already { "runs already" } else { "started" };
    eprintln!("operation {} ({named}) {verb}   (Ctrl-C stops watching, not the operation)", started.operation);
    if change.no_wait {
        return output::print(match change.output.output {
            Format::Json => output::json("Operation", &find(&change.connect, started.operation).await?),
            Format::Table => format!("{}\n", started.operation),
        });
    }
    watch(&change.connect, started.operation, &named, change.timeout, change.output).await?;
    if change.output.output == Format::Table {
        output::print(format!("✓ {done}\n"))?;
    }
    Ok(())
}

/// What there was nothing to do for.
#[derive(Serialize)]
struct Nothing {
    id: Option<String>,
    what: String,
    state: &'static str,
}

/// Prints a line a change on stderr until the operation ends. Nodes may come and go meanwhile.
async fn watch(
    connect: &Connect,
    id: u64,
    what: &str,
    timeout: Option<Duration>,
    output: Output,
) -> Result<(), Failure> {
    let still = |how: &str| format!("{how}; '{what}' goes on");
    let again = format!("quorate op watch {id}");
    let watching = async {
        let (mut last, mut said) = (None, Instant::now());
        loop {
            match find(connect, id).await {
                Ok(row) => {
                    if last.as_ref() != Some(&row) || said.elapsed() > QUIET_MAX {
                        eprintln!("{}", row.line());
                        said = Instant::now();
                    }
                    if !row.runs() {
                        return Ok(row);
                    }
                    last = Some(row);
                }
                // Its leader may just be gone; whoever is next goes on.
                Err(failure)
                    if failure.exit() == Exit::Unreachable && timeout.is_none_or(|max| said.elapsed() < max) => {}
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
    let row = tokio::select! {
        row = limited => row?,
        stopped = signals::interrupted() => {
            stopped?;
            return Err(Failure::new(Exit::Interrupted, still("stopped watching")).hint(again));
        }
    };
    if row.state != "done" {
        return Err(Failure::new(Exit::Conflict, format!("operation {id} was {}", row.state)));
    }
    match output.output {
        Format::Json => output::print(output::json("Operation", &row)),
        Format::Table => Ok(()),
    }
}

async fn find(connect: &Connect, id: u64) -> Result<Row, Failure> {
    let rows = all(connect).await?;
    rows.into_iter()
        .find(|row| row.id == id)
        .ok_or_else(|| Failure::new(Exit::Usage, format!("there is no operation {id}")).hint("see: quorate op list"))
}

/// The operations as the leader of the topology group knows them.
async fn all(connect: &Connect) -> Result<Vec<Row>, Failure> {
    let mut node = topology_leader(connect).await?;
    let listed = node.list_operations(Request::new(ListOperationsRequest {})).await;
    let listed = listed.map_err(|status| lost(&status))?.into_inner();
    listed.operations.into_iter().map(Row::new).collect()
}

/// What running operations wait for, as far as anybody can say now: a line each, with the operation.
pub(crate) async fn waits(connect: &Connect, survey: &Survey) -> Vec<String> {
    let Ok(mut node) = leader_of(connect, survey).await else { return Vec::new() };
    let Ok(listed) = node.list_operations(Request::new(ListOperationsRequest {})).await else { return Vec::new() };
    let rows = listed.into_inner().operations.into_iter().filter_map(|wire| Row::new(wire).ok());
    rows.filter(Row::runs)
        .flat_map(|row| row.waits.iter().map(|wait| format!("{} – {wait}", row.what)).collect::<Vec<_>>())
        .collect()
}

/// A connection to the node that leads the topology group.
pub(crate) async fn topology_leader(connect: &Connect) -> Result<admin::Client, Failure> {
    leader_of(connect, &Survey::take(connect).await?).await
}

async fn leader_of(connect: &Connect, survey: &Survey) -> Result<admin::Client, Failure> {
    let leader = survey.leader(0).and_then(|id| survey.nodes.iter().find(|(node, _)| node.id == id));
    let Some((leader, _)) = leader else {
        return Err(Failure::new(Exit::Unreachable, "nobody leads the topology group just now")
            .hint("most of its nodes may be down: quorate status"));
    };
    admin::connect(&leader.client_address, connect.deadline).await.map_err(|status| lost(&status))
}

fn lost(status: &Status) -> Failure {
    Failure::new(Exit::Unreachable, "the leader of the topology group does not answer").cause(status.message())
}

/// Why a change of the cluster has no answer: it may have been taken all the same.
pub(crate) fn unanswered(message: String, status: &Status) -> Failure {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            Failure::new(Exit::Unknown, format!("{message}: nobody knows whether it was taken"))
                .cause(status.message())
                .hint("see: quorate op list; asking again is harmless")
        }
        _ => refused(message, status),
    }
}

/// A refusal of the cluster's: for safety, as a conflict, or because it cannot be reached.
pub(crate) fn refused(message: String, status: &Status) -> Failure {
    let exit = match status.code() {
        Code::FailedPrecondition if status.message().contains("plan it again") => Exit::Conflict,
        Code::FailedPrecondition => Exit::Refused,
        Code::AlreadyExists | Code::Aborted => Exit::Conflict,
        Code::InvalidArgument | Code::NotFound => Exit::Usage,
        Code::Unavailable | Code::DeadlineExceeded => Exit::Unreachable,
        _ => Exit::Other,
    };
    Failure::new(exit, message).cause(status.message())
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
