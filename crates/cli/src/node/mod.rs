//! `node`: runs a node; lists, drains, removes and replaces nodes.

mod dead;
mod drain;
mod list;
mod remove;
mod replace;
mod start;

use clap::Subcommand;

use self::drain::OneArgs;
use self::list::{ListArgs, ShowArgs};
use self::remove::RemoveArgs;
use self::replace::ReplaceArgs;
use self::start::StartArgs;
use crate::failure::Failure;
use crate::signals;

/// Run a node; list, drain, remove and replace nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Run a node until SIGTERM or Ctrl-C. A new node waits for `cluster init`, or joins with
    /// --join.
    Start(Box<StartArgs>),
    /// List the nodes, their state, and their replicas.
    List(ListArgs),
    /// Show one node.
    Show(ShowArgs),
    /// Move all replicas away from a node, so that it can be stopped or removed.
    Drain(Box<OneArgs>),
    /// Cancel a drain: the node keeps its replicas and receives new ones again.
    Undrain(Box<OneArgs>),
    /// Remove a node permanently: a drained one, or with --dead a lost one.
    Remove(Box<RemoveArgs>),
    /// Replace a node by another one: its replicas move there, then it is removed. With --dead they
    /// are re-created there.
    Replace(Box<ReplaceArgs>),
}

impl NodeCommand {
    /// Runs the command; `node start` runs until the node is stopped.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            NodeCommand::Start(args) => args.serve().await,
            NodeCommand::List(args) => signals::or_interrupted(list::list(args)).await,
            NodeCommand::Show(args) => signals::or_interrupted(list::show(args)).await,
            NodeCommand::Drain(args) => drain::drain(*args).await,
            NodeCommand::Undrain(args) => drain::undrain(*args).await,
            NodeCommand::Remove(args) => remove::remove(*args).await,
            NodeCommand::Replace(args) => replace::replace(*args).await,
        }
    }
}
