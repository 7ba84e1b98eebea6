//! From nothing to a cluster that has taken a write.

use std::ffi::OsString;
use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use quorate_proto::admin::NodeStatus;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::children::Children;
use super::layout::{Layout, NodePlan};
use super::links::Links;
use super::running::Running;
use crate::admin;
use crate::args::Connect;
use crate::cluster::Bootstrap;
use crate::failure::{Exit, Failure};
use crate::survey::Survey;

/// How long each step may take. A node with much data to replay is the slowest of them.
const STEP_DEADLINE: Duration = Duration::from_secs(60);
/// How long one question to a process may take.
pub(super) const ASK_DEADLINE: Duration = Duration::from_secs(2);
/// The pause between two questions.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Written and deleted again to see that the cluster takes writes.
const TEST_KEY: &str = "playground/ready";

/// What is known once everything serves.
#[derive(Debug)]
pub(super) struct Started {
    /// The ids that the cluster gave to the nodes, in the order of the layout.
    pub(super) node_ids: Vec<u64>,
    /// Whether the cluster was there before.
    pub(super) restarted: bool,
    pub(super) took: Duration,
}

/// Starts everything and waits until it serves. A process that ends meanwhile ends the start, with the tail of its log.
pub(super) async fn start(running: &mut Running) -> Result<Started, Failure> {
    let began = Instant::now();
    let Running { layout, children, links, .. } = running;
    for node in &layout.nodes {
        if let Some(links) = links.as_mut() {
            links.add(node).await?;
        }
    }
    for place in 0..layout.nodes.len() {
        start_node(place, layout, children, links.as_ref())?;
    }
    tell!("starting {} nodes …", layout.nodes.len());
    let statuses = alive(children, "the nodes did not answer", || nodes(layout)).await?;

    let restarted = statuses.iter().all(|status| !status.cluster_id.is_empty());
    if !restarted {
        tell!("making the cluster: {} shards × {} replicas …", layout.shards, layout.replicas);
        let bootstrap = Bootstrap::new(layout.endpoints(), layout.replicas, layout.shards)?;
        alive(children, "the cluster was not made", || bootstrap.clone().make(STEP_DEADLINE)).await?;
    }
    tell!("waiting for a leader of every shard and for a test write …");
    let connect = Connect { endpoints: layout.endpoints(), deadline: ASK_DEADLINE };
    alive(children, "not every shard found a leader", || led(&connect)).await?;
    alive(children, "the test write did not succeed", || write(&connect)).await?;
    let statuses = alive(children, "the nodes did not answer", || nodes(layout)).await?;

    if let Some(address) = &layout.shortener {
        children.start(SHORTENER, &shortener_args(layout, address), &layout.logs)?;
        tell!("starting the shortener …");
        alive(children, "the shortener is not ready", || ready(address)).await?;
    }
    let node_ids = statuses.iter().map(|status| status.id).collect();
    Ok(Started { node_ids, restarted, took: began.elapsed() })
}

/// The shortener's name among the children.
pub(super) const SHORTENER: &str = "shortener";

/// A node's name among the children, by its place in the layout.
pub(super) fn node_name(number: usize) -> String {
    format!("node-{}", number + 1)
}

/// Starts the process of a node.
pub(super) fn start_node(
    place: usize,
    layout: &Layout,
    children: &mut Children,
    links: Option<&Links>,
) -> Result<(), Failure> {
    let args = node_args(layout, &layout.nodes[place]);
    let process = children.start(&node_name(place), &args, &layout.logs)?;
    if let Some(links) = links {
        links.runs_as(place, Some(process));
    }
    Ok(())
}

fn node_args(layout: &Layout, node: &NodePlan) -> Vec<OsString> {
    let others: Vec<&str> =
        layout.nodes.iter().filter(|other| *other != node).map(|other| other.client.as_str()).collect();
    let mut args: Vec<OsString> = ["node", "start", "--data-dir"].map(OsString::from).to_vec();
    args.push(node.data_dir.clone().into());
    for (flag, address) in
        [("--client-listen", &node.client), ("--peer-listen", &node.peer_listen), ("--ops-listen", &node.ops)]
    {
        args.extend([flag.into(), address.into()]);
    }
    if node.peer_listen != node.peer {
        args.extend(["--advertise-peer".into(), node.peer.clone().into()]);
    }
    if !others.is_empty() {
        args.extend(["--join".into(), others.join(",").into()]);
    }
    args.extend(["--log-format".into(), "text".into()]);
    args
}

fn shortener_args(layout: &Layout, address: &str) -> Vec<OsString> {
    let endpoints = layout.endpoints().join(",");
    ["shortener", "--listen", address, "--endpoints", &endpoints, "--log-format", "text"].map(OsString::from).to_vec()
}

/// Asks again until the answer is good, all children being alive, for at most [`STEP_DEADLINE`]. What no retry helps against
/// ends it at once.
async fn alive<T, F>(children: &mut Children, what: &str, mut ask: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let deadline = Instant::now() + STEP_DEADLINE;
    loop {
        let last = tokio::select! {
            answer = ask() => match answer {
                Ok(answer) => return Ok(answer),
                Err(failure) if matches!(failure.exit(), Exit::Usage | Exit::Conflict) => return Err(failure),
                Err(failure) => failure,
            },
            death = children.next_death() => return Err(death.failure()),
        };
        if Instant::now() >= deadline {
            let what = format!("{what} within {} s", STEP_DEADLINE.as_secs());
            return Err(Failure::new(Exit::Unreachable, what).cause(last.to_string().trim_end()));
        }
        sleep(ASK_EVERY).await;
    }
}

async fn nodes(layout: &Layout) -> Result<Vec<NodeStatus>, Failure> {
    let answers = join_all(layout.nodes.iter().map(|node| admin::node(&node.client, ASK_DEADLINE))).await;
    let answers: Result<Vec<NodeStatus>, tonic::Status> = answers.into_iter().collect();
    answers.map_err(|status| Failure::new(Exit::Unreachable, "a node does not answer").cause(status.message()))
}

async fn led(connect: &Connect) -> Result<(), Failure> {
    let survey = Survey::take(connect).await?;
    let groups = survey.topology.shards.iter().map(|shard| shard.id).chain([0]);
    let waiting = groups.filter(|group| !survey.margin(*group).led).count();
    match waiting {
        0 => Ok(()),
        waiting => Err(Failure::new(Exit::Unreachable, format!("{waiting} groups have no leader yet"))),
    }
}

async fn write(connect: &Connect) -> Result<(), Failure> {
    let failure = |error| Failure::from_client("the test write failed", error);
    let (client, _) = connect.client().await?;
    client.put(TEST_KEY, "yes").await.map_err(failure)?;
    client.delete(TEST_KEY).await.map_err(failure)?;
    Ok(())
}

/// Whether the shortener says that it is ready.
async fn ready(address: &str) -> Result<(), Failure> {
    let asked = timeout(ASK_DEADLINE, get(address, "/readyz")).await;
    let answer = asked.map_err(|_| Failure::new(Exit::Unreachable, format!("{address} does not answer")))?;
    let answer = answer.map_err(|error| Failure::new(Exit::Unreachable, address).cause(error))?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(Failure::new(Exit::Unreachable, "it is not ready").cause(answer)),
    }
}

/// The smallest HTTP client that can ask for a status.
async fn get(address: &str, path: &str) -> std::io::Result<String> {
    const ANSWER_BYTES_MAX: u64 = 16 << 10;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::layout::Shape;
    use super::*;
    use crate::args::tests::parse;

    fn layout() -> Layout {
        let shape = Shape { nodes: 3, shards: 16, port_base: 7100, added: 0 };
        Layout::new(Path::new("/p"), shape, Some(8080), true).unwrap()
    }

    fn typed(args: &[OsString]) -> String {
        let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
        format!("quorate {}", words.join(" "))
    }

    /// What the playground starts is what anybody could type.
    #[test]
    fn the_children_have_commands_that_parse() {
        let layout = layout();
        let line = typed(&node_args(&layout, &layout.nodes[1]));
        assert_eq!(
            line,
            "quorate node start --data-dir /p/node-2 --client-listen 127.0.0.1:7110 --peer-listen 127.0.0.1:7113 \
             --ops-listen 127.0.0.1:7112 --advertise-peer 127.0.0.1:7111 --join 127.0.0.1:7100,127.0.0.1:7120 \
             --log-format text"
        );
        parse(&line).unwrap();
        parse(&typed(&shortener_args(&layout, "127.0.0.1:8080"))).unwrap();
    }

    /// A question that is never answered well ends with its last answer. Time is moved, not waited for.
    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded_and_says_for_what() {
        let refuse = || async { Err::<(), _>(Failure::new(Exit::Other, "3 groups have no leader yet")) };
        let failure = alive(&mut Children::default(), "not every shard found a leader", refuse).await.unwrap_err();
        let text = failure.to_string();
        assert!(text.starts_with("error: not every shard found a leader within 60 s\n"), "{text}");
        assert!(text.contains("3 groups have no leader yet"), "{text}");
    }
}
