//! `rebalance`: what would make the load even, and doing exactly that.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorate_proto::admin::{PauseMovesRequest, PlanMovesRequest};
use quorate_types::operation::{Intent, PlannedMove};
use serde::{Deserialize, Serialize};
use tonic::Request;

use crate::args::Connect;
use crate::failure::{Exit, Failure};
use crate::operation::{Change, carry_out, confirm, refused, topology_leader, unanswered};
use crate::output::{self, Format, Output};
use crate::{admin, signals};

/// Make the load even.
#[derive(Debug, Subcommand)]
pub(crate) enum RebalanceCommand {
    /// Show every move that would make the load even.
    Plan(PlanArgs),
    /// Make exactly the moves of a plan (`rebalance plan -o json > FILE`), or of one made now; refused if the cluster changed.
    Apply(ApplyArgs),
    /// Let no replica start to move; what is in motion comes to its end.
    Pause(PauseArgs),
    /// Let replicas move again.
    Resume(PauseArgs),
}

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct ApplyArgs {
    /// The plan's file; without one the plan of this moment.
    file: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

#[derive(Args, Debug)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    connect: Connect,
}

/// A plan as it is printed and read.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    /// The revision of the topology that it was made on.
    revision: u64,
    moves: Vec<PlannedMove>,
}

impl RebalanceCommand {
    /// Asks the cluster, or changes it.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            RebalanceCommand::Plan(args) => signals::or_interrupted(plan(args)).await,
            RebalanceCommand::Apply(args) => apply(args).await,
            RebalanceCommand::Pause(args) => signals::or_interrupted(pause(args, true)).await,
            RebalanceCommand::Resume(args) => signals::or_interrupted(pause(args, false)).await,
        }
    }
}

async fn plan(args: PlanArgs) -> Result<(), Failure> {
    let plan = planned(&args.connect).await?;
    output::print(match args.output.output {
        Format::Json => output::json("RebalancePlan", &plan),
        Format::Table => format!("{}{}", table(&plan), summary(&plan)),
    })
}

async fn planned(connect: &Connect) -> Result<Plan, Failure> {
    let mut leader = topology_leader(connect).await?;
    let planned = leader.plan_moves(Request::new(PlanMovesRequest {})).await;
    let planned = planned.map_err(|status| refused("cannot plan".to_owned(), &status))?.into_inner();
    Ok(Plan { revision: planned.revision, moves: planned.moves.into_iter().map(Into::into).collect() })
}

async fn apply(ApplyArgs { file, change }: ApplyArgs) -> Result<(), Failure> {
    let plan = match &file {
        Some(file) => read(file)?,
        None => planned(&change.connect).await?,
    };
    if plan.moves.is_empty() {
        return output::print("the load is even: nothing to move\n");
    }
    eprint!("{}{}", table(&plan), summary(&plan));
    if change.dry_run {
        return Ok(());
    }
    confirm("Move them?", &change)?;
    let count = plan.moves.len();
    carry_out(&change, Intent::Rebalance { moves: plan.moves }, plan.revision, &format!("{count} replicas moved")).await
}

fn read(file: &PathBuf) -> Result<Plan, Failure> {
    let bad = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Usage, format!("cannot read the plan {}", file.display()))
            .cause(error)
            .hint("make one: quorate rebalance plan -o json > FILE")
    };
    let text = std::fs::read_to_string(file).map_err(|error| bad(&error))?;
    serde_json::from_str(&text).map_err(|error| bad(&error))
}

async fn pause(args: PauseArgs, paused: bool) -> Result<(), Failure> {
    let mut node = admin::any(&args.connect).await?;
    let done = node.pause_moves(Request::new(PauseMovesRequest { paused })).await;
    done.map_err(|status| unanswered("cannot pause or resume".to_owned(), &status))?;
    output::print(if paused {
        "no replica starts to move; go on with: quorate rebalance resume\n"
    } else {
        "replicas move again\n"
    })
}

fn table(plan: &Plan) -> String {
    let row = |planned: &PlannedMove| [planned.shard.to_string(), planned.from.to_string(), planned.to.to_string()];
    output::table(["SHARD", "FROM", "TO"], plan.moves.iter().map(row))
}

fn summary(plan: &Plan) -> String {
    format!("{} replicas would move (planned on revision {})\n", plan.moves.len(), plan.revision)
}
