//! `rebalance`: what would make the load even, and doing exactly that.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorate_proto::admin::{PauseMovesRequest, PlanMovesRequest};
use quorate_types::operation::{Intent, PlannedMove};
use serde::{Deserialize, Serialize};
use tonic::Request;

use crate::args::{Ask, Connect};
use crate::failure::{Exit, Failure};
use crate::nodes::silence;
use crate::operation::{Change, carry_out, confirm, nothing_to_do, unanswered};
use crate::output::{self, count};
use crate::survey::Survey;
use crate::{admin, leader, signals};

/// Make the load even.
#[derive(Debug, Subcommand)]
pub(crate) enum RebalanceCommand {
    /// Show every move that would make the load even.
    Plan(Ask),
    /// Make exactly the moves of a plan (`rebalance plan -o json > FILE`), or of one made now; refused if the cluster changed.
    Apply(ApplyArgs),
    /// Let no replica start to move; what is in motion comes to its end.
    Pause(PauseArgs),
    /// Let replicas move again.
    Resume(PauseArgs),
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
    ask: Ask,
}

/// Whether replicas start to move.
#[derive(Serialize)]
struct Moves {
    paused: bool,
}

/// A plan as it is printed and read.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    /// The cluster that it was made for.
    #[serde(default)]
    cluster_id: String,
    /// The revision of the topology that it was made on.
    revision: u64,
    moves: Vec<SizedMove>,
    /// About how many bytes move in all.
    #[serde(default)]
    size_bytes: u64,
    /// What is worth knowing before.
    #[serde(default)]
    warnings: Vec<String>,
}

/// A plan in its file.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    #[serde(flatten)]
    plan: Plan,
}

/// What its file calls it.
const KIND: &str = "RebalancePlan";

/// A move, and about how many bytes it is.
#[derive(Debug, Serialize, Deserialize)]
struct SizedMove {
    #[serde(flatten)]
    planned: PlannedMove,
    #[serde(default)]
    size_bytes: u64,
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

async fn plan(ask: Ask) -> Result<(), Failure> {
    let plan = planned(&ask.connect).await?;
    output::show(ask.format(), KIND, &plan, || plan.screen())
}

async fn planned(connect: &Connect) -> Result<Plan, Failure> {
    let plan = async |mut node: admin::Client| node.plan_moves(Request::new(PlanMovesRequest {})).await;
    let (planned, survey) = leader::ask(connect, "cannot plan", plan).await?;
    Ok(Plan::new(planned.revision, planned.moves.into_iter().map(Into::into).collect(), &survey))
}

async fn apply(ApplyArgs { file, change }: ApplyArgs) -> Result<(), Failure> {
    let plan = match &file {
        Some(file) => {
            let plan = read(file)?;
            plan.check_cluster(&Survey::take(&change.connect).await?)?;
            plan
        }
        None => planned(&change.connect).await?,
    };
    if plan.moves.is_empty() {
        let why = if file.is_some() { "the plan has no moves" } else { "the load is even" };
        return nothing_to_do(change.output.output, "rebalance", format!("{why}: nothing to move\n"));
    }
    tell_part!("{}", plan.screen());
    confirm("Move them?", &change)?;
    let done = format!("{} moved", count(plan.moves.len(), "replica"));
    let moves = plan.moves.into_iter().map(|sized| sized.planned).collect();
    carry_out(&change, Intent::Rebalance { moves }, plan.revision, &done).await
}

fn read(file: &PathBuf) -> Result<Plan, Failure> {
    let bad = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Usage, format!("cannot read the plan {}", file.display()))
            .cause(error)
            .hint("make one: quorate rebalance plan -o json > FILE")
    };
    let text = std::fs::read_to_string(file).map_err(|error| bad(&error))?;
    let document: Document = serde_json::from_str(&text).map_err(|error| bad(&error))?;
    if document.kind != KIND || document.api_version != output::API_VERSION {
        let Document { api_version, kind, .. } = document;
        return Err(bad(&format!(
            "it is a {} of {}, not a {KIND} of {}",
            kind.escape_debug(),
            api_version.escape_debug(),
            output::API_VERSION
        )));
    }
    // A plan of no revision would be taken whatever the cluster has become.
    match document.plan.revision {
        0 => Err(bad(&"it was made on revision 0, which there never is")),
        _ => Ok(document.plan),
    }
}

async fn pause(args: PauseArgs, paused: bool) -> Result<(), Failure> {
    let pause = async |mut node: admin::Client| node.pause_moves(Request::new(PauseMovesRequest { paused })).await;
    let done = leader::change(&args.ask.connect, pause).await?;
    done.map_err(|status| unanswered("cannot pause or resume".to_owned(), &status))?;
    output::show(args.ask.format(), "Moves", &Moves { paused }, || match paused {
        true => "no replica starts to move; go on with: quorate rebalance resume\n".to_owned(),
        false => "replicas move again\n".to_owned(),
    })
}

impl Plan {
    fn new(revision: u64, moves: Vec<PlannedMove>, survey: &Survey) -> Plan {
        let sized = |planned: PlannedMove| SizedMove { planned, size_bytes: survey.size_bytes(planned.shard.0) };
        let moves: Vec<SizedMove> = moves.into_iter().map(sized).collect();
        let size_bytes = moves.iter().map(|sized| sized.size_bytes).sum();
        let silent = survey.silent(moves.iter().map(|sized| sized.planned.to.0));
        let warnings = survey.scarce_zones(None).into_iter().chain(silent.into_iter().map(silence)).collect();
        Plan { cluster_id: survey.topology.cluster_id.clone(), revision, moves, size_bytes, warnings }
    }

    /// Other clusters have the same numbers for their nodes, shards and revisions.
    fn check_cluster(&self, survey: &Survey) -> Result<(), Failure> {
        let own = &survey.topology.cluster_id;
        if self.cluster_id == *own {
            return Ok(());
        }
        let made_for = if self.cluster_id.is_empty() { "no cluster" } else { &self.cluster_id };
        Err(Failure::new(Exit::Refused, "this plan is not for this cluster")
            .cause(format!("it was made for {}, this is {own}", made_for.escape_debug()))
            .hint("make one: quorate rebalance plan -o json > FILE"))
    }

    fn screen(&self) -> String {
        let row = |SizedMove { planned: PlannedMove { shard, from, to }, size_bytes }: &SizedMove| {
            [shard.to_string(), from.to_string(), to.to_string(), output::bytes(*size_bytes)]
        };
        let warnings: String = self.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
        format!(
            "{}{} would move, {} in all (planned on revision {})\n{warnings}",
            output::table(["SHARD", "FROM", "TO", "SIZE"], self.moves.iter().map(row)),
            count(self.moves.len(), "replica"),
            output::bytes(self.size_bytes),
            self.revision,
        )
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{NodeId, ShardId};

    use super::*;
    use crate::survey::tests::survey;

    /// A plan of revision 0 was taken however the cluster had changed, and so was what only looked like a plan.
    #[test]
    fn a_file_that_is_no_plan_was_applied() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plan");
        let moves = r#""moves": [{"shard": 1, "from": 1, "to": 4}]"#;
        for (head, exit) in [
            (r#""apiVersion": "quorate/v1", "kind": "RebalancePlan", "revision": 7"#, None),
            (r#""apiVersion": "quorate/v1", "kind": "RebalancePlan", "revision": 0"#, Some(Exit::Usage)),
            (r#""apiVersion": "quorate/v2", "kind": "RebalancePlan", "revision": 7"#, Some(Exit::Usage)),
            (r#""apiVersion": "quorate/v1", "kind": "Shard", "revision": 7"#, Some(Exit::Usage)),
            (r#""revision": 7"#, Some(Exit::Usage)),
        ] {
            std::fs::write(&file, format!("{{{head}, {moves}}}")).unwrap();
            assert_eq!(read(&file).err().map(|failure| failure.exit()), exit, "{head}");
        }
    }

    /// The file of a plan is read back as it was written, and one of before there were sizes too.
    #[test]
    fn a_plan_has_the_bytes_of_every_move_and_of_all() {
        let moves = [(1, 1, 4), (2, 3, 4)].map(|(shard, from, to)| PlannedMove {
            shard: ShardId(shard),
            from: NodeId(from),
            to: NodeId(to),
        });
        let plan = Plan::new(7, moves.to_vec(), &survey(&[]));
        assert_eq!(plan.size_bytes, 9 << 20);
        let screen = plan.screen();
        assert!(screen.contains(" 1      1     4   3.0 MiB\n"), "{screen}");
        assert!(screen.ends_with("2 replicas would move, 9.0 MiB in all (planned on revision 7)\n"), "{screen}");

        let read: Plan = serde_json::from_str(&output::json(KIND, &plan)).unwrap();
        assert_eq!(read.moves[1].planned, moves[1]);
        read.check_cluster(&survey(&[])).unwrap();
        let old = r#"{"revision": 7, "moves": [{"shard": 1, "from": 1, "to": 4}]}"#;
        let read: Plan = serde_json::from_str(old).unwrap();
        assert_eq!((read.moves[0].planned, read.size_bytes), (moves[0], 0));
        assert_eq!(read.check_cluster(&survey(&[])).unwrap_err().exit(), Exit::Refused, "it may be another cluster's");
    }
}
