//! `rebalance`: plans moves that balance the cluster, and executes a plan.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorate_client::AdminClient;
use quorate_proto::admin::PlanMovesRequest;
use quorate_types::operation::Intent;

use crate::change::{Change, Wanted, carry_out, nothing_to_do};
use crate::confirm::confirm;
use crate::connect::{Ask, Connect};
use crate::failure::Failure;
use crate::output::{self, count};
use crate::pause::PauseArgs;
use crate::plan::Plan;
use crate::survey::Survey;
use crate::{leader, signals};

/// Rebalance replicas across nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum RebalanceCommand {
    /// Show the moves that would balance the cluster.
    Plan(Ask),
    /// Execute the moves of a plan (`rebalance plan -o json > FILE`), or of a new plan. Refused if
    /// the cluster has changed since.
    Apply(ApplyArgs),
    /// Pause replica moves: moves in progress complete, no new ones start.
    Pause(PauseArgs),
    /// Resume replica moves.
    Resume(PauseArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ApplyArgs {
    /// The plan's file; by default a new plan.
    file: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

impl RebalanceCommand {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            RebalanceCommand::Plan(args) => signals::or_interrupted(plan(args)).await,
            RebalanceCommand::Apply(args) => apply(args).await,
            RebalanceCommand::Pause(args) => signals::or_interrupted(args.run(true)).await,
            RebalanceCommand::Resume(args) => signals::or_interrupted(args.run(false)).await,
        }
    }
}

async fn plan(ask: Ask) -> Result<(), Failure> {
    let plan = planned(&ask.connect).await?;
    output::show(ask.format(), Plan::KIND, &plan, || plan.screen())
}

async fn planned(connect: &Connect) -> Result<Plan, Failure> {
    let plan = async |node: AdminClient, within| node.plan_moves(PlanMovesRequest {}, within).await;
    let (planned, survey) = leader::ask(connect, "cannot plan moves", plan).await?;
    Ok(Plan::new(planned.revision, planned.moves.into_iter().map(Into::into).collect(), &survey))
}

async fn apply(ApplyArgs { file, change }: ApplyArgs) -> Result<(), Failure> {
    let plan = match &file {
        Some(file) => {
            let plan = Plan::read(file)?;
            plan.check_cluster(&Survey::take(&change.connect).await?)?;
            plan
        }
        None => planned(&change.connect).await?,
    };
    if plan.moves.is_empty() {
        let why = if file.is_some() { "the plan has no moves" } else { "the cluster is balanced" };
        return nothing_to_do(change.output.output, "rebalance", why);
    }
    tell_part!("{}", plan.screen());
    confirm("Execute these moves?", &change)?;
    let done = format!("{} moved", count(plan.moves.len(), "replica"));
    let revision = plan.revision;
    let wanted = Wanted { planned_on: revision, ..Wanted::now(Intent::Rebalance { moves: plan.into_moves() }) };
    carry_out(&change, wanted, &done).await
}
