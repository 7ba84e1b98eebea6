//! `playground add|kill|…`: tells a playground that runs what to do to its nodes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::time::{Instant, sleep};

use super::PORT_BASE_DEFAULT;
use super::control::{self, Request};
use super::home::Home;
use crate::failure::{Exit, Failure};
use crate::{admin, output};

/// How long a new node may take to be taken into the cluster.
const JOIN_DEADLINE: Duration = Duration::from_secs(60);
/// How long one question to the nodes may take.
const ASK_DEADLINE: Duration = Duration::from_secs(2);
/// The pause between two questions.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// What is done to the nodes of a playground that runs, to watch what the cluster makes of it.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Start another node, which joins the cluster and gets its share.
    Add(Which),
    /// Kill a node (SIGKILL).
    Kill(OneNode),
    /// Start a node again that was killed.
    Start(OneNode),
    /// Stop a node where it is (SIGSTOP): its connections stay open, and it says nothing.
    Pause(OneNode),
    /// Let a paused node go on (SIGCONT).
    Resume(OneNode),
    /// Cut nodes from all others, in both directions. Clients keep reaching both sides.
    Partition(Side),
    /// End a partition.
    Heal(Which),
}

/// Which playground is meant; without either, the one that runs.
#[derive(Args, Debug)]
pub(super) struct Which {
    /// The first port that it was started with.
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    port_base: Option<u16>,
    /// The directory that it was started with.
    #[arg(long, value_name = "DIR", conflicts_with = "port_base")]
    dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct OneNode {
    /// The node's id, as `quorate status` shows it.
    node: u64,
    #[command(flatten)]
    which: Which,
}

#[derive(Args, Debug)]
pub(super) struct Side {
    /// The ids of the nodes on one side; all others are on the other.
    #[arg(required = true, value_name = "NODE,…", value_delimiter = ',')]
    nodes: Vec<u64>,
    #[command(flatten)]
    which: Which,
}

impl Verb {
    /// Finds the playground, tells it, and prints what was done.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let (request, which) = match self {
            Verb::Add(which) => (Request::Add, which),
            Verb::Kill(OneNode { node, which }) => (Request::Kill(node), which),
            Verb::Start(OneNode { node, which }) => (Request::Start(node), which),
            Verb::Pause(OneNode { node, which }) => (Request::Pause(node), which),
            Verb::Resume(OneNode { node, which }) => (Request::Resume(node), which),
            Verb::Partition(Side { nodes, which }) => (Request::Partition(nodes), which),
            Verb::Heal(which) => (Request::Heal, which),
        };
        let done = control::ask(which.port_base().await?, &request).await?;
        match &done.added {
            None => output::print(format!("✓ {}\n", done.said)),
            Some(address) => {
                tell!("{}; waiting until the cluster has taken it in …", done.said);
                let id = joined(address, &done.endpoints).await?;
                output::print(format!(
                    "✓ node {id} ({address}) is in the cluster and gets its share.  watch it: quorate op list\n"
                ))
            }
        }
    }
}

impl Which {
    async fn port_base(self) -> Result<u16, Failure> {
        if let Some(base) = self.port_base {
            return Ok(base);
        }
        if let Some(dir) = self.dir {
            let none = || {
                Failure::new(Exit::Usage, format!("{} is not the directory of a playground", dir.display()))
                    .hint("name the one that it was started with: quorate playground --dir DIR")
            };
            return match dir.is_dir() {
                true => Ok(Home::open(Some(dir.clone()))?.recorded()?.ok_or_else(none)?.port_base),
                false => Err(none()),
            };
        }
        let running = control::running().await?;
        match running[..] {
            [only] => Ok(only),
            // Asking it says that it is not there.
            [] => Ok(PORT_BASE_DEFAULT),
            _ => {
                let bases: Vec<String> = running.iter().map(ToString::to_string).collect();
                Err(Failure::new(Exit::Usage, "several playgrounds run here")
                    .hint(format!("say which one: --port-base {}", bases.join(" or "))))
            }
        }
    }
}

/// Waits until the cluster has the node at this address as an active one; gives its id.
async fn joined(address: &str, endpoints: &[String]) -> Result<u64, Failure> {
    let deadline = Instant::now() + JOIN_DEADLINE;
    loop {
        let known = admin::newest_topology(endpoints, ASK_DEADLINE).await;
        let found = known.as_ref().ok().and_then(|topology| {
            topology.nodes.iter().find(|node| node.client_address == address && node.state == "active")
        });
        if let Some(node) = found {
            return Ok(node.id);
        }
        if Instant::now() >= deadline {
            let failure = Failure::new(Exit::StillRunning, "the node is not in the cluster yet; it goes on trying")
                .hint("quorate status; its log says what it waits for");
            return Err(match known {
                Err(cause) => failure.cause(cause.to_string().trim_end()),
                Ok(_) => failure,
            });
        }
        sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::tests::parse;

    #[test]
    fn verbs_parse_and_do_not_mix_with_a_start() {
        for line in [
            "quorate playground add",
            "quorate playground kill 2 --port-base 9000",
            "quorate playground partition 1,2 --dir /p",
            "quorate playground heal",
            "quorate playground --nodes 5 --direct",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "quorate playground kill",
            "quorate playground kill two",
            "quorate playground partition",
            "quorate playground --nodes 5 kill 2",
            "quorate playground heal --dir /p --port-base 9000",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[tokio::test]
    async fn a_directory_of_something_else_is_no_playground() {
        let dir = tempfile::tempdir().unwrap();
        for dir in [dir.path().to_owned(), dir.path().join("none")] {
            let failure = Which { port_base: None, dir: Some(dir) }.port_base().await.unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage);
            assert!(failure.to_string().contains("is not the directory of a playground"), "{failure}");
        }
    }
}
