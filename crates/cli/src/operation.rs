//! `op`: lists, shows, watches and cancels operations. An operation runs in the cluster and
//! continues without a watcher.

use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_client::AdminClient;
use quorate_proto::admin::CancelOperationRequest;

use crate::connect::Ask;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, Kinds};
use crate::progress;
use crate::watch::{limited, no_progress, watch};
use crate::{duration, leader, operations, signals};

/// List, watch and cancel operations.
#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List the running operations and the last ones that ended.
    List(Ask),
    /// Show one operation and its wait reasons.
    Show(OneArgs),
    /// Watch an operation until it ends. Ctrl-C stops watching, not the operation.
    Watch(WatchArgs),
    /// Cancel an operation. Replicas that have moved stay where they are.
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
    /// Stop watching after this time; the operation continues (exit 4).
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    #[command(flatten)]
    ask: Ask,
}

const KINDS: Kinds = Kinds { list: "OperationList", item: "Operation" };

impl OperationCommand {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            OperationCommand::List(args) => signals::or_interrupted(list(args)).await,
            OperationCommand::Show(args) => signals::or_interrupted(show(args)).await,
            OperationCommand::Watch(args) => {
                let connect = limited(&args.ask.connect, args.timeout);
                let intent = operations::find(&connect, args.id).await?.what;
                watch(&args.ask.connect, args.id, &intent, args.timeout, args.ask.format()).await
            }
            OperationCommand::Cancel(args) => signals::or_interrupted(cancel(args)).await,
        }
    }
}

async fn list(ask: Ask) -> Result<(), Failure> {
    let all = operations::all(&ask.connect).await?;
    output::show_all(ask.format(), KINDS, all, |all| progress::table(all, ask.format() == Format::Wide))
}

async fn show(args: OneArgs) -> Result<(), Failure> {
    let found = operations::find(&args.ask.connect, args.id).await?;
    output::show(args.ask.format(), KINDS.item, &found, || {
        format!("operation {}: {} – {}\n{}\n", found.id, found.what, found.state, found.line())
    })
}

async fn cancel(args: OneArgs) -> Result<(), Failure> {
    // Refuses an id that does not exist. If the list is unavailable, the cancellation may still
    // work.
    if let Err(failure) = operations::find(&args.ask.connect, args.id).await
        && failure.exit() == Exit::Usage
    {
        return Err(failure);
    }
    let request = CancelOperationRequest { operation: args.id };
    let cancel = async |node: AdminClient, within| node.cancel_operation(request, within).await;
    leader::change(&args.ask.connect, &format!("cannot cancel operation {}", args.id), cancel).await?;
    let found = operations::find(&args.ask.connect, args.id).await;
    let found =
        found.unwrap_or_else(|failure| no_progress(args.id, format!("operation {}", args.id), "cancelled", &failure));
    output::show(args.ask.format(), KINDS.item, &found, || {
        format!("operation {} is cancelled; replicas that have moved stay where they are\n", args.id)
    })
}
