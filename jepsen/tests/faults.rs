//! Every reported fault is real: a cut stops packets in one direction, a power cut loses unsynced
//! data.
//!
//! The tests need a binary of the store, and most need root. A test that cannot run prints why and
//! passes.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use quorate_jepsen::cluster::{
    Abilities, ClientRuntime, Clocks, Cluster, DiskKind, NetworkKind, Options, Unsupported, binary, sweep,
};
use quorate_jepsen::nemesis::{Active, Fault, Journal, Nemesis, Outcome, Phase, Schedule};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The longest time for a packet on an open link.
const PACKET_MAX: Duration = Duration::from_millis(500);

/// Writes after which every shard has had some of them.
const LOAD_ROUND: u64 = 50;
/// The longest time for [`LOAD_ROUND`] writes on a healthy cluster.
const LOAD_MAX: Duration = Duration::from_secs(60);

/// A cluster of three nodes and its nemesis.
struct Lab {
    cluster: Arc<Cluster>,
    nemesis: Arc<Nemesis>,
    rng: StdRng,
    dir: TempDir,
}

/// Whether the test cannot run here; prints why.
fn skipped(needs: &[&Result<(), Unsupported>]) -> bool {
    let unsupported = needs.iter().find_map(|able| able.as_ref().err());
    let why = unsupported.map(Unsupported::to_string).or_else(|| binary().err().map(|error| error.to_string()));
    if let Some(why) = &why {
        println!("skipped: {why}");
    }
    why.is_some()
}

impl Lab {
    async fn start(change: impl FnOnce(&mut Options)) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut options = Options::new(dir.path())?;
        (options.nodes, options.shards) = (3, 4);
        change(&mut options);
        let cluster = Arc::new(Cluster::start(options).await?);
        let journal = Arc::new(Journal::create(&dir.path().join("nemesis.jsonl"), Instant::now())?);
        let nemesis = Arc::new(Nemesis::new(cluster.clone(), journal));
        Ok(Lab { cluster, nemesis, rng: StdRng::seed_from_u64(7), dir })
    }

    /// Installs a fault; returns the evidence.
    async fn install(&mut self, fault: Fault) -> anyhow::Result<(Active, Value)> {
        match self.nemesis.install(fault, &mut self.rng).await {
            Outcome::Installed(active) => {
                let lines = self.nemesis.journal().lines();
                Ok((active, lines.last().context("a line was written")?.detail.clone()))
            }
            Outcome::Skipped { why } | Outcome::Unable { why } => anyhow::bail!("{fault} was skipped: {why}"),
            Outcome::Indeterminate { why } => anyhow::bail!("{fault} is indeterminate: {why}"),
        }
    }

    async fn heal(&self, active: Active) -> anyhow::Result<()> {
        self.nemesis.heal(active).await?;
        let lines = self.nemesis.journal().lines();
        ensure!(lines.last().is_some_and(|line| line.phase == Phase::Healed), "{lines:#?}");
        Ok(())
    }

    /// Checks that the cluster is healthy, replicas are equal, and no behaviour is unexplained.
    async fn end(self) -> anyhow::Result<()> {
        self.nemesis.settle().await?;
        let verified = self.cluster.admin().verify().await?;
        ensure!(verified.equal, "replicas differ: {}", verified.detail);
        ensure!(self.nemesis.findings().is_empty(), "{:#?}", self.nemesis.findings());
        let written = std::fs::read_to_string(self.dir.path().join("nemesis.jsonl"))?;
        ensure!(written.lines().count() == self.nemesis.journal().lines().len(), "the file misses lines:\n{written}");
        self.cluster.dismantle().await
    }
}

/// Whether a packet arrives from one node at another.
async fn arrives(cluster: &Cluster, from: usize, to: usize) -> anyhow::Result<bool> {
    let receiver = cluster.at_node(to, || UdpSocket::bind("0.0.0.0:4000")).await??;
    receiver.set_read_timeout(Some(PACKET_MAX))?;
    let address = cluster.node(to).peer_address().rsplit_once(':').context("host and port")?.0.to_owned();
    cluster.at_node(from, move || UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", (address, 4000))).await??;
    match tokio::task::spawn_blocking(move || receiver.recv(&mut [0; 8])).await? {
        Ok(_) => Ok(true),
        Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes until it is dropped.
struct Load {
    acknowledged: Arc<AtomicU64>,
    _runtime: ClientRuntime,
}

impl Load {
    fn start(lab: &Lab) -> anyhow::Result<Self> {
        let (endpoints, runtime) = (lab.cluster.endpoints(), lab.cluster.client_runtime(1)?);
        let builder = quorate_client::Client::builder().endpoints(endpoints).deadline(Duration::from_secs(2));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let count = acknowledged.clone();
        runtime.spawn(async move {
            let client = loop {
                match builder.clone().connect().await {
                    Ok(client) => break client,
                    Err(error) => println!("the load does not connect: {error}"),
                }
            };
            for number in 0_u64.. {
                // Writes fail during some faults.
                if client.put(format!("load-{}", number % 1000), "x".repeat(1000)).await.is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Load { acknowledged, _runtime: runtime })
    }

    /// Waits until every shard has acknowledged a write from now on.
    async fn proceed(&self) -> anyhow::Result<()> {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + LOAD_ROUND;
        let reached = async {
            while self.acknowledged.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LOAD_MAX, reached).await.context("the load does not proceed")
    }
}

/// A one-way cut stops packets in one direction only, and counts them.
#[tokio::test(flavor = "multi_thread")]
async fn cut_blocks_one_direction() -> anyhow::Result<()> {
    if skipped(&[&Abilities::of_this_machine().namespaces]) {
        return Ok(());
    }
    let mut lab = Lab::start(|options| options.disks = DiskKind::Directories).await?;
    let (active, seen) = lab.install(Fault::PartitionOneWay).await?;
    let dropped = lab.cluster.network().dropped().await?;
    ensure!(dropped.len() == 2 && dropped.values().all(|packets| *packets > 0), "{dropped:?}, {seen}");
    for link in dropped.keys() {
        ensure!(!arrives(&lab.cluster, link.from, link.to).await?, "{link:?} is cut");
        ensure!(arrives(&lab.cluster, link.to, link.from).await?, "the reverse of {link:?} is open");
    }
    lab.heal(active).await?;
    for link in dropped.keys() {
        ensure!(arrives(&lab.cluster, link.from, link.to).await?, "{link:?} is open again");
    }
    lab.end().await
}

/// Latency delays packets, loss loses packets, and a bandwidth limit is in force.
#[tokio::test(flavor = "multi_thread")]
async fn links_delay_lose_and_limit() -> anyhow::Result<()> {
    if skipped(&[&Abilities::of_this_machine().namespaces]) {
        return Ok(());
    }
    let mut lab = Lab::start(|options| options.disks = DiskKind::Directories).await?;
    let peer: std::net::SocketAddr = lab.cluster.node(2).peer_address().parse()?;
    let connect = move || {
        let begin = Instant::now();
        std::net::TcpStream::connect(peer).map(|_| begin.elapsed())
    };
    let (active, seen) = lab.install(Fault::Latency).await?;
    ensure!(seen["held_back"].as_u64() > Some(0), "{seen}");
    let slow = lab.cluster.at_node(1, connect).await??;
    lab.heal(active).await?;
    let quick = lab.cluster.at_node(1, connect).await??;
    // Each direction is delayed by at least 20 ms.
    ensure!(slow >= Duration::from_millis(40) && quick < slow / 2, "{slow:?}, then {quick:?}");
    let (active, seen) = lab.install(Fault::Loss).await?;
    ensure!(seen["lost_packets"].as_u64() > Some(0), "{seen}");
    lab.heal(active).await?;
    let (active, _) = lab.install(Fault::Bandwidth).await?;
    lab.heal(active).await?;
    lab.end().await
}

/// Without privilege, proxies on loopback identify both ends of a connection and hold the bytes of
/// cut links.
#[tokio::test(flavor = "multi_thread")]
async fn proxies_cut_on_loopback() -> anyhow::Result<()> {
    if skipped(&[]) {
        return Ok(());
    }
    let mut lab =
        Lab::start(|options| (options.network, options.disks) = (NetworkKind::Loopback, DiskKind::Directories)).await?;
    let (active, seen) = lab.install(Fault::PartitionLeader).await?;
    let alone = active.targets()[0];
    let waits = lab.cluster.network().dropped().await?;
    ensure!(!waits.is_empty() && waits.keys().all(|link| link.from == alone || link.to == alone), "{waits:?}, {seen}");
    // The majority elects new leaders.
    let deadline = Instant::now() + Duration::from_secs(20);
    while lab.cluster.admin().leaders().await.values().any(|leader| *leader == alone) {
        ensure!(Instant::now() < deadline, "node {alone} still leads: {:?}", lab.cluster.admin().leaders().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lab.heal(active).await?;
    let (active, _) = lab.install(Fault::Latency).await?;
    lab.heal(active).await?;
    for fault in [Fault::Loss, Fault::PowerCutAll, Fault::DiskFull] {
        let outcome = lab.nemesis.install(fault, &mut lab.rng).await;
        ensure!(matches!(outcome, Outcome::Unable { .. }), "{fault} is not supported on loopback");
    }
    lab.end().await
}

/// Synced data survives a power cut, unsynced data does not. Killed nodes are gone, paused nodes
/// stopped.
#[tokio::test(flavor = "multi_thread")]
async fn power_cut_loses_unsynced_data() -> anyhow::Result<()> {
    if skipped(&[&Abilities::of_this_machine().images]) {
        return Ok(());
    }
    let mut lab = Lab::start(|_| ()).await?;
    let dir = lab.cluster.disk(1).context("disks are images")?.mount_point();
    let mut synced = File::create(dir.join("synced"))?;
    synced.write_all(b"synced")?;
    synced.sync_all()?;
    File::open(&dir)?.sync_all()?;
    std::fs::write(dir.join("unsynced"), "unsynced")?;
    drop(synced);
    let (active, _) = lab.install(Fault::PowerCutAll).await?;
    ensure!(lab.cluster.nodes().iter().all(|node| !node.is_running()), "a node runs without power");
    ensure!(std::fs::read_to_string(dir.join("synced"))? == "synced");
    ensure!(!dir.join("unsynced").exists(), "the power cut kept unsynced data");
    lab.heal(active).await?;
    let (active, _) = lab.install(Fault::KillMajority).await?;
    ensure!(active.targets().len() == 2 && active.targets().iter().all(|node| !lab.cluster.node(*node).is_running()));
    lab.heal(active).await?;
    lab.nemesis.settle().await?;
    let (active, _) = lab.install(Fault::PauseLeaders).await?;
    let paused = active.targets().to_vec();
    ensure!(paused.iter().all(|node| lab.cluster.node(*node).process_state() == Some('T')));
    tokio::time::sleep(active.duration().context("a pause has a duration")?).await;
    lab.heal(active).await?;
    ensure!(paused.iter().all(|node| lab.cluster.node(*node).process_state() != Some('T')));
    lab.end().await
}

/// Full, hung and slow disks behave as named. A failed sync ends the node, which is restarted or
/// replaced.
#[tokio::test(flavor = "multi_thread")]
async fn disks_are_full_slow_hung_and_fail() -> anyhow::Result<()> {
    if skipped(&[&Abilities::of_this_machine().images]) {
        return Ok(());
    }
    let mut lab = Lab::start(|options| options.nodes = 4).await?;
    let load = Load::start(&lab)?;
    let mount = |lab: &Lab, active: &Active| {
        lab.cluster.disk(active.targets()[0]).map(|disk| disk.mount_point()).context("disks are images")
    };
    let (active, _) = lab.install(Fault::DiskFull).await?;
    let full = std::fs::write(mount(&lab, &active)?.join("more"), vec![0; 1 << 20]);
    ensure!(full.is_err_and(|error| error.kind() == ErrorKind::StorageFull), "the disk is not full");
    std::fs::remove_file(mount(&lab, &active)?.join("more"))?;
    lab.heal(active).await?;

    let (active, _) = lab.install(Fault::HungDisk).await?;
    let file = mount(&lab, &active)?.join("hangs");
    let write = tokio::task::spawn_blocking(move || std::fs::write(file, "late"));
    tokio::time::sleep(PACKET_MAX).await;
    ensure!(!write.is_finished(), "a frozen disk accepted a write");
    lab.heal(active).await?;
    write.await??;

    let (active, _) = lab.install(Fault::SlowDisk).await?;
    lab.heal(active).await?;
    lab.nemesis.settle().await?;

    load.proceed().await?;
    let (active, seen) = lab.install(Fault::SyncFails).await?;
    ensure!(seen["node"] == "ended with exit code 74", "a node must end after a failed sync: {seen}");
    lab.heal(active).await?;
    lab.nemesis.settle().await?;

    let (active, seen) = lab.install(Fault::WipedDisk).await?;
    ensure!(seen["refused"].is_string(), "{seen}");
    lab.heal(active).await?;
    drop(load);
    lab.end().await
}

/// A node's clock jumps and drifts.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_jump() -> anyhow::Result<()> {
    let able = Abilities::of_this_machine();
    if skipped(&[&able.clocks]) {
        return Ok(());
    }
    let mut lab = Lab::start(|options| (options.clocks, options.disks) = (Clocks::Wall, DiskKind::Directories)).await?;
    let (active, seen) = lab.install(Fault::ClockJump).await?;
    for node in active.targets() {
        let off = seen["seconds_off"][node.to_string()].as_f64().context("the offset of the clock")?;
        ensure!(off.abs() > 1.0, "the clock of node {node} is right: {seen}");
    }
    lab.heal(active).await?;
    let (active, _) = lab.install(Fault::ClockDrift).await?;
    lab.heal(active).await?;
    lab.end().await
}

/// The leftovers of a killed harness are swept; a live run is not touched.
#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_swept() -> anyhow::Result<()> {
    const CHILD: &str = "QUORATE_JEPSEN_TEST_LEAVES";
    if std::env::var_os(CHILD).is_some() {
        let lab = Lab::start(|_| ()).await?;
        lab.cluster.processes().pause(1).await?;
        std::process::abort();
    }
    let able = Abilities::of_this_machine();
    if skipped(&[&able.namespaces, &able.images]) {
        return Ok(());
    }
    let lab = Lab::start(|options| options.disks = DiskKind::Directories).await?;
    let mut child = tokio::process::Command::new(std::env::current_exe()?);
    child.args(["--exact", "leftovers_are_swept"]).env(CHILD, "1").kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), child.output()).await??;
    ensure!(!output.status.success(), "the child was expected to die: {}", String::from_utf8_lossy(&output.stdout));
    let swept = sweep().await?;
    ensure!(swept.len() == 1, "{swept:?}: {}", String::from_utf8_lossy(&output.stdout));
    for place in ["/proc/self/mounts", "/proc/mounts"] {
        ensure!(!std::fs::read_to_string(place)?.contains(&swept[0]), "a mount of {} is left", swept[0]);
    }
    let names = std::fs::read_dir("/run/netns")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    ensure!(!names.into_iter().any(|name| name.starts_with(&swept[0])), "a namespace of {} is left", swept[0]);
    ensure!(lab.cluster.nodes()[..3].iter().all(|node| node.is_running()), "a live run was swept");
    lab.end().await
}

/// Overlapping faults of several classes: all are healed, and all replicas are equal.
#[tokio::test(flavor = "multi_thread")]
async fn faults_overlap() -> anyhow::Result<()> {
    let able = Abilities::of_this_machine();
    if skipped(&[&able.namespaces, &able.images]) {
        return Ok(());
    }
    let lab = Lab::start(|options| (options.nodes, options.shards) = (5, 8)).await?;
    let faults = Fault::parse_list("network,process,log,transfer-leaders,slow-disk,hung-disk")?;
    let (gap, hold) = (Duration::from_millis(100)..Duration::from_millis(500), Duration::ZERO..Duration::from_secs(1));
    let schedule = Schedule { faults, gap, hold, seed: 1, overlap: true };
    let stop = CancellationToken::new();
    let running = tokio::spawn(schedule.run(lab.nemesis.clone(), stop.clone()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    stop.cancel();
    let summary = running.await?;
    println!("{summary:#?}");
    ensure!(summary.not_healed.is_empty() && summary.installed.len() >= 8, "{summary:#?}");
    lab.end().await
}

/// Every fault in turn, under load: installed, verified, healed, and the cluster healthy after
/// each. `JEPSEN_FAULTS` selects some faults.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_in_turn() -> anyhow::Result<()> {
    let able = Abilities::of_this_machine();
    if std::env::var_os("QUORATE_FULL").is_none() {
        println!("skipped: takes minutes, set QUORATE_FULL=1");
        return Ok(());
    }
    if skipped(&[&able.namespaces, &able.images, &able.clocks]) {
        return Ok(());
    }
    let change = |options: &mut Options| (options.nodes, options.shards, options.clocks) = (5, 8, Clocks::Wall);
    let mut lab = Lab::start(change).await?;
    let load = Load::start(&lab)?;
    let mut failed = Vec::new();
    let named = std::env::var("JEPSEN_FAULTS").unwrap_or_else(|_| "all".to_owned());
    for fault in Fault::parse_list(&named)? {
        let begin = Instant::now();
        match lab.install(fault).await {
            Ok((active, seen)) => {
                tokio::time::sleep(active.duration().unwrap_or(Duration::from_secs(1))).await;
                println!("{fault}: {seen}; healed: {:?}", lab.heal(active).await);
            }
            Err(error) => failed.push(format!("{error:#}")),
        }
        println!("  healthy: {:?}, {:.1} s", lab.nemesis.settle().await, begin.elapsed().as_secs_f32());
    }
    drop(load);
    println!("{failed:#?}");
    lab.end().await?;
    ensure!(
        failed.len() <= 1,
        "more than one fault failed (one may: a fail point or a snapshot that did not happen): {failed:#?}"
    );
    Ok(())
}
