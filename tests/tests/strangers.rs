//! Nodes and clients of another cluster, or of an incompatible protocol version, are refused with
//! an error that names the mismatch.

use std::future::Future;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::stream;
use quorate_client::admin;
use quorate_proto::WIRE_VERSION;
use quorate_proto::kv::kv_client::KvClient;
use quorate_proto::kv::{ClientFrame, ClientHello};
use quorate_proto::peer::peer_client::PeerClient;
use quorate_proto::peer::{
    ExecuteRequest, Frame, Hello, ProposeTopologyRequest, ReportRequest, SnapshotChunk, WatchTopologyRequest,
};
use quorate_tests::{Cluster, ClusterOptions, eventually, quorate, run_cli};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::Child;
use tonic::{Code, Response, Status};

const PATIENCE: Duration = Duration::from_secs(60);
const ASK: Duration = Duration::from_secs(5);
const DATA_FORMAT: i32 = 65;
const OTHER_CLUSTER: &str = "0000000000000000000000000000beef";

fn small() -> ClusterOptions {
    ClusterOptions { shards: 2, ..ClusterOptions::default() }
}

async fn refused<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
    call_name: &str,
    words: &[&str],
) -> anyhow::Result<()> {
    let answer = tokio::time::timeout(PATIENCE, call).await.with_context(|| format!("{call_name}: no response"))?;
    let Err(status) = answer else { anyhow::bail!("{call_name} was not refused") };
    ensure!(status.code() == Code::FailedPrecondition, "{call_name}: {status:?}");
    for word in words {
        ensure!(status.message().contains(word), "{call_name}: '{word}' is missing: {}", status.message());
    }
    Ok(())
}

/// Checks that every call of the peer port verifies the caller first.
async fn every_call_is_refused(peer: &str, hello: Hello, words: &[&str]) -> anyhow::Result<()> {
    let mut client = PeerClient::connect(format!("http://{peer}")).await?;
    let hello = || Some(hello.clone());
    let frame = Frame { hello: hello(), ..Frame::default() };
    refused(client.frames(stream::iter([frame])), "Frames", words).await?;
    let chunk = SnapshotChunk { hello: hello(), ..SnapshotChunk::default() };
    refused(client.snapshot(stream::iter([chunk])), "Snapshot", words).await?;
    let watch = WatchTopologyRequest { hello: hello(), revision: 0 };
    refused(client.watch_topology(watch), "WatchTopology", words).await?;
    let propose = ProposeTopologyRequest { hello: hello(), ..ProposeTopologyRequest::default() };
    refused(client.propose_topology(propose), "ProposeTopology", words).await?;
    refused(client.report(ReportRequest { hello: hello() }), "Report", words).await?;
    let execute = ExecuteRequest { hello: hello(), ..ExecuteRequest::default() };
    refused(client.execute(execute), "Execute", words).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_refuses_another_cluster_or_version() -> anyhow::Result<()> {
    let cluster = Cluster::start(small()).await?;
    let status = admin(&cluster.endpoint(1), ASK).await?.node(ASK).await?;
    let own = Hello {
        cluster_id: status.cluster_id.clone(),
        wire_version_min: WIRE_VERSION,
        wire_version_max: WIRE_VERSION,
        from_node: 9,
        to_node: status.id,
    };
    let other = Hello { cluster_id: OTHER_CLUSTER.to_owned(), ..own.clone() };
    every_call_is_refused(&status.peer_address, other, &[&status.cluster_id, OTHER_CLUSTER]).await?;
    let newer = Hello { wire_version_min: WIRE_VERSION + 1, wire_version_max: WIRE_VERSION + 2, ..own.clone() };
    let words = [format!("wire versions {} to {}", WIRE_VERSION + 1, WIRE_VERSION + 2), "same release".to_owned()];
    every_call_is_refused(&status.peer_address, newer, &words.each_ref().map(String::as_str)).await?;
    ensure!(cluster.log(1).contains("peer refused"), "the refusal is not logged: {}", cluster.log_tail(1));
    let elsewhere = Hello { to_node: status.id + 1, ..own };
    every_call_is_refused(&status.peer_address, elsewhere, &[&format!("this is node {}", status.id)]).await?;

    let mut client = KvClient::connect(format!("http://{}", cluster.endpoint(1))).await?;
    let own = ClientHello {
        cluster_id: status.cluster_id.clone(),
        wire_version_min: WIRE_VERSION,
        wire_version_max: WIRE_VERSION,
    };
    let other = ClientHello { cluster_id: OTHER_CLUSTER.to_owned(), ..own.clone() };
    let newer = ClientHello { wire_version_min: WIRE_VERSION + 1, wire_version_max: WIRE_VERSION + 2, ..own };
    for (hello, word) in [(other, OTHER_CLUSTER), (newer, "same release")] {
        let frame = ClientFrame { hello: Some(hello), ..ClientFrame::default() };
        let exchanged = async {
            let mut frames = client.exchange(stream::iter([frame])).await?.into_inner();
            frames.message().await.map(Response::new)
        };
        refused(exchanged, "Exchange", &[word]).await?;
    }
    Ok(())
}

/// Starts a node process that joins through `endpoints`; its output goes to `log`.
fn join(dir: &Path, endpoints: &str, log: &Path, bug: Option<&str>) -> anyhow::Result<Child> {
    let file = std::fs::File::options().create(true).append(true).open(log)?;
    let mut command = quorate()?;
    command.args(["node", "start", "--log-format", "text", "--join", endpoints]).arg("--data-dir").arg(dir);
    for port in ["client", "peer", "ops"] {
        command.args([&format!("--{port}-listen"), "127.0.0.1:0"]);
    }
    if let Some(bug) = bug {
        command.env("QUORATE_BUG", bug);
    }
    Ok(command.stdout(Stdio::from(file.try_clone()?)).stderr(Stdio::from(file)).spawn()?)
}

async fn logs(log: &Path, words: &str) -> anyhow::Result<()> {
    let said = || std::fs::read_to_string(log).unwrap_or_default();
    eventually(words, PATIENCE, || async { said().contains(words) }).await.with_context(said)
}

async fn nodes_of(cluster: &Cluster) -> anyhow::Result<usize> {
    Ok(admin(&cluster.endpoint(1), ASK).await?.topology(ASK).await?.nodes.len())
}

/// A node with a later protocol version logs why it cannot join, and the cluster does not add it.
/// The right release joins with the same data directory.
#[tokio::test(flavor = "multi_thread")]
async fn node_of_an_incompatible_release_cannot_join() -> anyhow::Result<()> {
    let cluster = Cluster::start(small()).await?;
    let dir = cluster.data_dir(1).with_extension("new");
    let log = cluster.data_dir(1).with_extension("new-log");
    let mut newer = join(&dir, &cluster.endpoints(), &log, Some("next-wire-version"))?;
    logs(&log, "the caller speaks wire versions 2 to 2, this node speaks 1: run the same release").await?;
    ensure!(newer.try_wait()?.is_none(), "the node ended instead of waiting for an operator");
    ensure!(nodes_of(&cluster).await? == 3, "the cluster added a node of an incompatible release");
    newer.kill().await?;

    let _right = join(&dir, &cluster.endpoints(), &log, None)?;
    eventually("the right release joins", PATIENCE, || async { nodes_of(&cluster).await.is_ok_and(|nodes| nodes == 4) })
        .await
        .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())
}

/// A node of one cluster does not start as a node of another, and a new node does not choose
/// between two clusters.
#[tokio::test(flavor = "multi_thread")]
async fn node_belongs_to_one_cluster() -> anyhow::Result<()> {
    let cluster = Cluster::start(small()).await?;
    let mut other = Cluster::start(ClusterOptions { nodes: 1, ..small() }).await?;

    let log = cluster.data_dir(1).with_extension("both-log");
    let both = format!("{},{}", cluster.endpoint(1), other.endpoint(1));
    let mut new = join(&cluster.data_dir(1).with_extension("both"), &both, &log, None)?;
    logs(&log, "name nodes of one cluster").await?;
    new.kill().await?;

    ensure!(other.stop(1).await? == Some(0));
    let log = cluster.data_dir(1).with_extension("other-log");
    let mut stranger = join(other.data_dir(1), &cluster.endpoints(), &log, None)?;
    let status = tokio::time::timeout(PATIENCE, stranger.wait()).await.context("the node did not stop")??;
    let said = std::fs::read_to_string(&log)?;
    ensure!(status.code() == Some(DATA_FORMAT), "the node ended with {status}: {said}");
    let id = admin(&cluster.endpoint(1), ASK).await?.node(ASK).await?.cluster_id;
    ensure!(said.contains("belongs to") && said.contains(&id), "{said}");
    ensure!(nodes_of(&cluster).await? == 3);
    // The refusal left its data unchanged.
    other.restart(1).await?;
    eventually("the other cluster serves", PATIENCE, || async {
        run_cli(&other.endpoints(), &["status", "--check"]).await.is_ok_and(|output| output.status.success())
    })
    .await?;
    other.wait_until_serving().await
}

/// Connections without a first byte time out. They once stayed open, and some hundred of them used
/// up a node's descriptors.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_are_closed() -> anyhow::Result<()> {
    let cluster = Cluster::start(ClusterOptions { nodes: 1, ..small() }).await?;
    let status = admin(&cluster.endpoint(1), ASK).await?.node(ASK).await?;
    let mut silent = Vec::new();
    for port in [cluster.endpoint(1), status.peer_address, cluster.ops(1)] {
        for _ in 0..20 {
            silent.push((port.clone(), TcpStream::connect(&port).await?));
        }
    }
    let client = cluster.client(PATIENCE).await?;
    client.put("while", "they say nothing").await?;
    for (port, mut stream) in silent {
        // The server may send its preface at any time.
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        ensure!(ended.is_ok(), "a silent connection to {port} stays open");
    }
    client.put("after", "them").await?;
    Ok(())
}
