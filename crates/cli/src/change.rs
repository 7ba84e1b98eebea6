//! Starts an operation, and watches it.

use std::time::Duration;

use clap::Args;
use quorate_client::AdminClient;
use quorate_proto::admin::{Intent, StartOperationRequest};
use quorate_types::operation::Intent as Meaning;
use serde::Serialize;

use crate::connect::Connect;
use crate::failure::Failure;
use crate::output::{self, Format, Output};
use crate::watch::{no_progress, watch};
use crate::{duration, leader, operations, signals};

/// The kind of the JSON document of an operation.
const KIND: &str = "Operation";

/// The flags of every command that starts an operation.
#[derive(Args, Clone, Debug)]
pub(crate) struct Change {
    /// Show the plan, or why it would be refused, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print the operation's id and do not wait.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Stop watching after this time; the operation continues (exit 4).
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) connect: Connect,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The operation that an operator asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Its goal.
    pub(crate) intent: Meaning,
    /// The revision of the topology that it was planned on; 0: any.
    pub(crate) planned_on: u64,
    /// The typed address of a dead node; empty if none was typed.
    pub(crate) confirm: String,
}

impl Wanted {
    /// An operation that was not planned on a revision, and needs no confirmation by an address.
    pub(crate) fn now(intent: Meaning) -> Self {
        Wanted { intent, planned_on: 0, confirm: String::new() }
    }

    fn request(self, dry_run: bool) -> StartOperationRequest {
        let Wanted { intent, planned_on, confirm } = self;
        StartOperationRequest { intent: Some(Intent::from(intent)), planned_on, dry_run, confirm }
    }
}

/// Starts an operation and watches it until it ends, unless the flags ask for less. `done`
/// describes the state that the operation leads to.
pub(crate) async fn carry_out(change: &Change, wanted: Wanted, done: &str) -> Result<(), Failure> {
    if change.dry_run {
        return signals::or_interrupted(try_out(change, wanted, done)).await;
    }
    let named = wanted.intent.to_string();
    let request = wanted.request(false);
    let start = async |node: AdminClient, within| node.start_operation(request.clone(), within).await;
    let cannot = format!("cannot {named}");
    let started = leader::change(&change.connect, &cannot, start);
    let started = signals::or_unknown_value("check: quorate op list", started).await??;
    let format = change.output.output;
    if started.operation == 0 {
        return nothing_to_do(format, &named, done);
    }
    let verb = if started.already { "is already running" } else { "started" };
    tell!("operation {} ({named}) {verb}   (Ctrl-C stops watching, not the operation)", started.operation);
    if change.no_wait && format.for_people() {
        return output::print(format!("{}\n", started.operation));
    }
    if change.no_wait {
        let found = operations::find(&change.connect, started.operation).await;
        let found = found.unwrap_or_else(|failure| no_progress(started.operation, named, "started", &failure));
        return output::show(format, KIND, &found, String::new);
    }
    watch(&change.connect, started.operation, &named, change.timeout, format).await?;
    if format.for_people() {
        output::print(format!("✓ {done}\n"))?;
    }
    Ok(())
}

/// Reports a change that is already in effect. `why` describes the present state.
pub(crate) fn nothing_to_do(format: Format, intent: &str, why: &str) -> Result<(), Failure> {
    let nothing = Unstarted { id: None, what: intent.to_owned(), state: "done" };
    output::show(format, KIND, &nothing, || format!("nothing to do: {why}\n"))
}

/// Asks the leader for its answer to a request, without changing anything.
async fn try_out(change: &Change, wanted: Wanted, done: &str) -> Result<(), Failure> {
    let named = wanted.intent.to_string();
    let request = wanted.request(true);
    let try_out = async |node: AdminClient, within| node.start_operation(request.clone(), within).await;
    let (tried, _) = leader::ask(&change.connect, &format!("cannot {named}"), try_out).await?;
    let (id, state, text) = match (tried.operation, tried.already) {
        (0, _) => (None, "done", format!("nothing to do: {done}")),
        (id, true) => (Some(id.to_string()), "running", format!("operation {id} ({named}) is already running")),
        (_, false) => (None, "possible", "dry run: would be accepted".to_owned()),
    };
    tell!("{text}");
    if change.output.output.for_people() {
        return Ok(());
    }
    output::show(change.output.output, KIND, &Unstarted { id, what: named, state }, String::new)
}

/// An operation that was not started: nothing to do, or a dry run.
#[derive(Serialize)]
struct Unstarted {
    /// The id of the operation that is already running for it.
    id: Option<String>,
    what: String,
    /// `done`: already in effect; `running`: already running; `possible`: would be accepted.
    state: &'static str,
}
