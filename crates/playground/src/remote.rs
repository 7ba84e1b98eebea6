//! Sends requests to a running playground from another process.

use std::path::PathBuf;
use std::time::Duration;

use quorate_types::topology::NodeState;
use tokio::time::{Instant, sleep};

use crate::control::{self, Request};
use crate::error::{Error, Kind};
use crate::home::Home;
use crate::layout::PORT_BASE_DEFAULT;
use crate::probe;

/// How long an added node may take to join the cluster.
const JOIN_DEADLINE: Duration = Duration::from_secs(60);
/// How long one question to the nodes may take.
const ASK_DEADLINE: Duration = Duration::from_secs(2);
/// The pause between two questions.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Selects a playground.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The only one that runs on this machine.
    Running,
    /// The one that was started with this port base.
    PortBase(u16),
    /// The one that was started with this directory.
    Dir(PathBuf),
}

/// Sends a request and returns the result as a line for people. After [`Request::Add`] it waits
/// until the node has joined; `show` reports that it waits.
///
/// # Errors
///
/// [`Kind::Unreachable`] if the playground does not run, [`Kind::Unknown`] if its answer is lost,
/// [`Kind::StillRunning`] if an added node does not join in time, and the errors of the request.
pub async fn send(which: Which, request: &Request, show: fn(&str)) -> Result<String, Error> {
    let done = control::ask(which.port_base().await?, request).await?;
    let Some(address) = &done.added else { return Ok(done.text) };
    show(&format!("{}; waiting for it to join the cluster …\n", done.text));
    let id = joined(address, &done.endpoints).await?;
    Ok(format!("node {id} ({address}) is in the cluster; replicas are moving to it.  watch it: quorate op list"))
}

impl Which {
    async fn port_base(self) -> Result<u16, Error> {
        match self {
            Which::PortBase(base) => Ok(base),
            Which::Dir(dir) => {
                let none = || {
                    Error::new(Kind::Usage, format!("{} is not the directory of a playground", dir.display()))
                        .next("use the directory that it was started with: quorate playground --dir DIR")
                };
                match dir.is_dir() {
                    // A named directory is never removed, so it reports nothing.
                    true => Ok(Home::open(Some(dir.clone()), |_| {})?.recorded()?.ok_or_else(none)?.port_base),
                    false => Err(none()),
                }
            }
            Which::Running => match control::running().await?[..] {
                [only] => Ok(only),
                // The request to it then fails with the right error.
                [] => Ok(PORT_BASE_DEFAULT),
                ref several => {
                    let bases: Vec<String> = several.iter().map(ToString::to_string).collect();
                    Err(Error::new(Kind::Usage, "several playgrounds are running")
                        .next(format!("choose one: --port-base {}", bases.join(" or "))))
                }
            },
        }
    }
}

/// Waits until the node at this address is active, and returns its id.
async fn joined(address: &str, endpoints: &[String]) -> Result<u64, Error> {
    let deadline = Instant::now() + JOIN_DEADLINE;
    loop {
        let known = probe::topology(endpoints, ASK_DEADLINE).await;
        let found = known.as_ref().ok().and_then(|topology| {
            let mut nodes = topology.nodes.iter();
            nodes.find(|node| node.addresses.client == address && node.state == NodeState::Active)
        });
        if let Some(node) = found {
            return Ok(node.id.0);
        }
        if Instant::now() >= deadline {
            let error = Error::new(Kind::StillRunning, "timed out; the node is still trying to join the cluster")
                .next("check it: quorate status, and the node's log");
            return Err(match known {
                Err(cause) => error.why(cause.in_one_line()),
                Ok(_) => error,
            });
        }
        sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_without_a_playground_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for dir in [dir.path().to_owned(), dir.path().join("none")] {
            let error = Which::Dir(dir).port_base().await.unwrap_err();
            assert_eq!(error.kind, Kind::Usage);
            assert!(error.what.contains("is not the directory of a playground"), "{error}");
        }
    }
}
