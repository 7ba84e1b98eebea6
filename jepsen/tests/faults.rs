//! Every fault that the harness reports is real: a cut stops packets in one direction, a power cut loses what was not synced.
//!
//! The tests need a binary of the store, and most need root; what cannot be tested says so and counts as skipped.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use quorate_jepsen::cluster::{Abilities, ClientRuntime, Clocks, Cluster, Disks, Network, Options, binary, sweep};
use quorate_jepsen::nemesis::{Active, Fault, Journal, Nemesis, Outcome, Phase, Schedule};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// How long a packet may take that is not cut off.
const PACKET_MAX: Duration = Duration::from_millis(500);

/// A cluster of three and who breaks it.
struct Lab {
    cluster: Arc<Cluster>,
    nemesis: Arc<Nemesis>,
    rng: StdRng,
    dir: TempDir,
}

/// Whether something is missing; it is said then.
fn skipped(needs: &[&Result<(), String>]) -> bool {
    let binary = binary().map(|_| ()).map_err(|error| error.to_string());
    let missing = needs.iter().copied().chain([&binary]).find_map(|able| able.as_ref().err());
    if let Some(why) = missing {
        println!("skipped: {why}");
    }
    missing.is_some()
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

    /// Makes a fault, and gives what was seen of it.
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

    /// Everything is well, equal, and nothing unexplained happened.
    async fn end(self) -> anyhow::Result<()> {
        self.nemesis.settle().await?;
        let verified = self.cluster.verify().await?;
        ensure!(verified.equal, "replicas differ: {}", verified.detail);
        ensure!(self.nemesis.findings().is_empty(), "{:#?}", self.nemesis.findings());
        let written = std::fs::read_to_string(self.dir.path().join("nemesis.jsonl"))?;
        ensure!(written.lines().count() == self.nemesis.journal().lines().len(), "the file misses lines:\n{written}");
        self.cluster.dismantle().await
    }
}

/// Whether a packet gets from one node to another.
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

/// Writes without a pause until the runtime is dropped.
fn load(lab: &Lab) -> anyhow::Result<ClientRuntime> {
    let (endpoints, runtime) = (lab.cluster.endpoints(), lab.cluster.client_runtime(1)?);
    let connect = quorate_client::Client::builder().endpoints(endpoints).deadline(Duration::from_secs(2)).connect();
    runtime.spawn(async move {
        let Ok(client) = connect.await else { return };
        for number in 0_u64.. {
            // Some fail while things are broken.
            let _ = client.put(format!("load-{}", number % 1000), "x".repeat(1000)).await;
        }
    });
    Ok(runtime)
}

/// A one-way cut stops what it says and nothing else, and its counters say that it did.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_blocks_one_direction() -> anyhow::Result<()> {
    if skipped(&[&Abilities::of_this_machine().namespaces]) {
        return Ok(());
    }
    let mut lab = Lab::start(|options| options.disks = Disks::Directories).await?;
    let (active, seen) = lab.install(Fault::PartitionOneWay).await?;
    let dropped = lab.cluster.dropped().await?;
    ensure!(dropped.len() == 2 && dropped.values().all(|packets| *packets > 0), "{dropped:?}, {seen}");
    for link in dropped.keys() {
        ensure!(!arrives(&lab.cluster, link.from, link.to).await?, "{link:?} is cut");
        ensure!(arrives(&lab.cluster, link.to, link.from).await?, "the way back of {link:?} is open");
    }
    lab.heal(active).await?;
    for link in dropped.keys() {
        ensure!(arrives(&lab.cluster, link.from, link.to).await?, "{link:?} is open again");
    }
    lab.end().await
}

/// A delayed link delays, a lossy one loses, a narrow one is narrow.
#[tokio::test(flavor = "multi_thread")]
async fn links_are_slow_lossy_and_narrow() -> anyhow::Result<()> {
    if skipped(&[&Abilities::of_this_machine().namespaces]) {
        return Ok(());
    }
    let mut lab = Lab::start(|options| options.disks = Disks::Directories).await?;
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
    // Both ways are delayed by 20 ms at least.
    ensure!(slow >= Duration::from_millis(40) && quick < slow / 2, "{slow:?}, then {quick:?}");
    let (active, seen) = lab.install(Fault::Loss).await?;
    ensure!(seen["lost_packets"].as_u64() > Some(0), "{seen}");
    lab.heal(active).await?;
    let (active, _) = lab.install(Fault::Bandwidth).await?;
    lab.heal(active).await?;
    lab.end().await
}

/// Without privilege, proxies on loopback know who talks to whom, and hold back what is cut.
#[tokio::test(flavor = "multi_thread")]
async fn proxies_cut_on_loopback() -> anyhow::Result<()> {
    if skipped(&[]) {
        return Ok(());
    }
    let mut lab =
        Lab::start(|options| (options.network, options.disks) = (Network::Loopback, Disks::Directories)).await?;
    let (active, seen) = lab.install(Fault::PartitionLeader).await?;
    let alone = active.targets()[0];
    let waits = lab.cluster.dropped().await?;
    ensure!(!waits.is_empty() && waits.keys().all(|link| link.from == alone || link.to == alone), "{waits:?}, {seen}");
    // The others elect leaders of their own.
    let deadline = Instant::now() + Duration::from_secs(20);
    while lab.cluster.leaders().await.values().any(|leader| *leader == alone) {
        ensure!(Instant::now() < deadline, "node {alone} still leads: {:?}", lab.cluster.leaders().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lab.heal(active).await?;
    let (active, _) = lab.install(Fault::Latency).await?;
    lab.heal(active).await?;
    for fault in [Fault::Loss, Fault::PowerCutAll, Fault::DiskFull] {
        let outcome = lab.nemesis.install(fault, &mut lab.rng).await;
        ensure!(matches!(outcome, Outcome::Unable { .. }), "{fault} cannot be done here");
    }
    lab.end().await
}

/// What was synced survives a power cut, what was only written does not; killed nodes are gone, paused ones are stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_loses_what_was_not_synced() -> anyhow::Result<()> {
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
    ensure!(!dir.join("unsynced").exists(), "the power cut kept what was not synced");
    lab.heal(active).await?;
    let (active, _) = lab.install(Fault::KillMajority).await?;
    ensure!(active.targets().len() == 2 && active.targets().iter().all(|node| !lab.cluster.node(*node).is_running()));
    lab.heal(active).await?;
    lab.nemesis.settle().await?;
    let (active, _) = lab.install(Fault::PauseLeaders).await?;
    let paused = active.targets().to_vec();
    ensure!(paused.iter().all(|node| lab.cluster.node(*node).process_state() == Some('T')));
    tokio::time::sleep(active.lasts().context("a pause has its time")?).await;
    lab.heal(active).await?;
    ensure!(paused.iter().all(|node| lab.cluster.node(*node).process_state() != Some('T')));
    lab.end().await
}

/// A full disk is full, a hung one hangs, a slow one is slow, and one whose syncs fail ends its node, which is made anew if it
/// has to be.
#[tokio::test(flavor = "multi_thread")]
async fn disks_are_full_slow_hung_and_fail() -> anyhow::Result<()> {
    if skipped(&[&Abilities::of_this_machine().images]) {
        return Ok(());
    }
    let mut lab = Lab::start(|options| options.nodes = 4).await?;
    let load = load(&lab)?;
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
    ensure!(!write.is_finished(), "a frozen disk took a write");
    lab.heal(active).await?;
    write.await??;

    let (active, _) = lab.install(Fault::SlowDisk).await?;
    lab.heal(active).await?;
    lab.nemesis.settle().await?;

    let (active, seen) = lab.install(Fault::SyncFails).await?;
    ensure!(seen["node"] == "ended with exit code 74", "a node must not go on after a failed sync: {seen}");
    lab.heal(active).await?;
    lab.nemesis.settle().await?;

    let (active, seen) = lab.install(Fault::WipedDisk).await?;
    ensure!(seen["refused"].is_string(), "{seen}");
    lab.heal(active).await?;
    drop(load);
    lab.end().await
}

/// A node whose clock jumps writes another time into its log.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_jump() -> anyhow::Result<()> {
    let able = Abilities::of_this_machine();
    if skipped(&[&able.clocks]) {
        return Ok(());
    }
    let mut lab = Lab::start(|options| (options.clocks, options.disks) = (Clocks::Wall, Disks::Directories)).await?;
    let (active, seen) = lab.install(Fault::ClockJump).await?;
    for node in active.targets() {
        let off = seen["seconds_off"][node.to_string()].as_f64().context("how far it is off")?;
        ensure!(off.abs() > 1.0, "the clock of node {node} is right: {seen}");
    }
    lab.heal(active).await?;
    let (active, _) = lab.install(Fault::ClockDrift).await?;
    lab.heal(active).await?;
    lab.end().await
}

/// A run whose harness was killed is found and swept; one that lives is not touched.
#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_swept() -> anyhow::Result<()> {
    const CHILD: &str = "QUORATE_JEPSEN_TEST_LEAVES";
    if std::env::var_os(CHILD).is_some() {
        let lab = Lab::start(|_| ()).await?;
        lab.cluster.pause(1).await?;
        std::process::abort();
    }
    let able = Abilities::of_this_machine();
    if skipped(&[&able.namespaces, &able.images]) {
        return Ok(());
    }
    let lab = Lab::start(|options| options.disks = Disks::Directories).await?;
    let mut child = tokio::process::Command::new(std::env::current_exe()?);
    child.args(["--exact", "leftovers_are_swept"]).env(CHILD, "1").kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), child.output()).await??;
    ensure!(!output.status.success(), "the child was to die: {}", String::from_utf8_lossy(&output.stdout));
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

/// Faults of all classes at the same time: everything is healed, all replicas are equal.
#[tokio::test(flavor = "multi_thread")]
async fn faults_overlap() -> anyhow::Result<()> {
    let able = Abilities::of_this_machine();
    if skipped(&[&able.namespaces, &able.images]) {
        return Ok(());
    }
    let lab = Lab::start(|options| (options.nodes, options.shards) = (5, 8)).await?;
    let faults =
        Fault::parse_list("network,process,log,transfer-leaders,slow-disk,hung-disk").map_err(anyhow::Error::msg)?;
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

/// Every fault, one after the other, under load: made, seen, healed, and everything well after each. `JEPSEN_FAULTS` names some.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_in_turn() -> anyhow::Result<()> {
    let able = Abilities::of_this_machine();
    let full = std::env::var_os("QUORATE_FULL").map(|_| ()).ok_or("it takes minutes, set QUORATE_FULL=1".to_owned());
    if skipped(&[&full, &able.namespaces, &able.images, &able.clocks]) {
        return Ok(());
    }
    let change = |options: &mut Options| (options.nodes, options.shards, options.clocks) = (5, 8, Clocks::Wall);
    let mut lab = Lab::start(change).await?;
    let load = load(&lab)?;
    let mut failed = Vec::new();
    let named = std::env::var("JEPSEN_FAULTS").unwrap_or_else(|_| "all".to_owned());
    for fault in Fault::parse_list(&named).map_err(anyhow::Error::msg)? {
        let begin = Instant::now();
        match lab.install(fault).await {
            Ok((active, seen)) => {
                tokio::time::sleep(active.lasts().unwrap_or(Duration::from_secs(1))).await;
                println!("{fault}: {seen}; healed: {:?}", lab.heal(active).await);
            }
            Err(error) => failed.push(format!("{error:#}")),
        }
        println!("  well: {:?}, {:.1} s", lab.nemesis.settle().await, begin.elapsed().as_secs_f32());
    }
    drop(load);
    println!("{failed:#?}");
    lab.end().await?;
    ensure!(failed.len() <= 1, "more than a fail point or a snapshot was missed: {failed:#?}");
    Ok(())
}
