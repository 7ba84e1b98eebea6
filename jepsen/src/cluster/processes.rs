//! Starting, killing, pausing and wiping nodes, cutting their power and setting their
//! clocks.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use quorate_client::{AdminErrorKind, admin};
use quorate_testpoints::FailPoint;
use rustix::process::Signal;

use super::clock::{self, ClockState, Skew};
use super::parts::Cluster;

/// The nodes' log level. It includes the votes, which are checked at the end of a run.
const LOG_LEVEL: &str = "info,openraft=error,quorate_raft::log_store=debug";
/// The longest time from a node's start to its first answer. Reading a damaged disk takes seconds.
const LISTEN_MAX: Duration = Duration::from_secs(60);
/// The time-out of one status request.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// The pause between two status requests.
const POLL: Duration = Duration::from_millis(10);
/// The longest time for a killed process to disappear: its threads may hang on a frozen disk.
const GONE_MAX: Duration = Duration::from_secs(60);
/// The longest time from SIGSTOP until the kernel reports the process as stopped.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The processes of a cluster.
#[derive(Clone, Copy)]
pub struct Processes<'a> {
    cluster: &'a Cluster,
}

impl Cluster {
    /// The processes of the cluster.
    pub fn processes(&self) -> Processes<'_> {
        Processes { cluster: self }
    }
}

impl Processes<'_> {
    /// Starts a stopped node on its present disk; returns when it answers. Fails if the process
    /// ends before that; [`Node::died`](super::Node::died) then returns its exit status.
    pub async fn start(self, number: usize) -> anyhow::Result<()> {
        let cluster = self.cluster;
        let node = cluster.node(number);
        ensure!(!node.is_running(), "node {number} is already running");
        let namespace = cluster.namespaces().map(|namespaces| namespaces.of_node(number));
        clock::write(&cluster.clock_file(number), ClockState::RIGHT)?;
        let log = std::fs::File::options().create(true).append(true).open(&node.log)?;
        let mut command = cluster.command(namespace);
        command.args(["node", "start", "--insecure", "--log-format", "text", "--join", &cluster.endpoints().join(",")]);
        command.arg("--data-dir").arg(&node.data_dir);
        command.args(["--client-listen", &node.client, "--peer-listen", &node.peer, "--ops-listen", &node.ops]);
        command.args(["--advertise-peer", &node.advertised_peer]);
        command.env("QUORATE_DIE_WITH_PARENT", std::process::id().to_string());
        command.env("QUORATE_FAIL_POINTS", self.fail_point_file());
        command.env("QUORATE_LOG_LEVEL", LOG_LEVEL);
        command.envs(clock::environment(cluster.options.clocks, &cluster.clock_file(number))?);
        command.envs(cluster.options.environment.iter().cloned());
        command.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
        let child = cluster.on_control(async move { command.spawn() }).await??;
        let control = cluster.control.as_ref().context("the cluster was dismantled")?;
        let pid = node.adopt(child, control.handle())?;
        cluster.network().add_process(pid, number);
        self.wait_until_answering(number).await
    }

    /// Starts several nodes concurrently. A failure does not keep the others from starting; the
    /// first error is returned.
    pub async fn start_all(self, numbers: &[usize]) -> anyhow::Result<()> {
        let started = futures::future::join_all(numbers.iter().map(|number| self.start(*number))).await;
        started.into_iter().collect()
    }

    /// Waits for the first answer. A member of a cluster must have opened its data; a node outside
    /// of a cluster only has to answer.
    async fn wait_until_answering(self, number: usize) -> anyhow::Result<()> {
        let (node, deadline) = (self.cluster.node(number), Instant::now() + LISTEN_MAX);
        loop {
            let (address, member) = (node.client.clone(), node.id().is_some());
            let answers = async move {
                let Ok(admin) = admin(&address, ANSWER_MAX).await else { return false };
                match admin.node(ANSWER_MAX).await {
                    Ok(_) => true,
                    Err(error) if error.kind == AdminErrorKind::Refused => !member,
                    Err(_) => false,
                }
            };
            if self.cluster.on_control(answers).await? {
                return Ok(());
            }
            if let Some(ended) = node.died() {
                bail!("node {number} ended at its start with {ended}\n{}", node.log_tail());
            }
            ensure!(Instant::now() < deadline, "node {number} does not answer\n{}", node.log_tail());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Kills nodes with SIGKILL at one instant, and waits until their processes are gone. Ignores
    /// nodes that are not running.
    pub async fn kill(self, numbers: &[usize]) -> anyhow::Result<()> {
        let running: Vec<_> =
            numbers.iter().map(|number| self.cluster.node(*number)).filter(|node| node.is_running()).collect();
        for node in &running {
            node.signal(Signal::KILL)?;
        }
        try_join_all(running.iter().map(|node| node.wait_until_gone(GONE_MAX))).await?;
        Ok(())
    }

    /// Pauses a node's process (SIGSTOP), and waits until the kernel reports it as stopped.
    pub async fn pause(self, number: usize) -> anyhow::Result<()> {
        let node = self.cluster.node(number);
        node.signal(Signal::STOP)?;
        let deadline = Instant::now() + PAUSE_MAX;
        while node.process_state() != Some('T') {
            ensure!(Instant::now() < deadline, "node {number} does not stop: {:?}", node.process_state());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Resumes a paused process (SIGCONT).
    pub fn resume(self, number: usize) -> anyhow::Result<()> {
        self.cluster.node(number).signal(Signal::CONT)
    }

    /// Empties the disk of a stopped node. The next start there is that of a new node.
    pub fn wipe(self, number: usize) -> anyhow::Result<()> {
        let node = self.cluster.node(number);
        ensure!(!node.is_running(), "node {number} is running: its disk cannot be wiped");
        match std::fs::remove_dir_all(&node.data_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => node.learn_id(None),
        }
        Ok(())
    }

    /// Cuts the power of nodes at one instant: data that was not synced is lost. The disks are
    /// mounted again; the processes are not started.
    ///
    /// Pauses each node first, so that it cannot answer between the end of its disk and its own.
    pub async fn power_cut(self, numbers: &[usize]) -> anyhow::Result<()> {
        let disk = |number: &usize| self.cluster.disk(*number).context("only disk images can lose their power");
        let disks: Vec<_> = numbers.iter().map(disk).collect::<anyhow::Result<_>>()?;
        for number in numbers {
            if self.cluster.node(*number).is_running() {
                self.cluster.node(*number).signal(Signal::STOP)?;
            }
        }
        let cut = try_join_all(disks.iter().map(|disk| disk.shut_down())).await;
        self.kill(numbers).await?;
        // Also after a failed cut: no node can start on a disk that was shut down.
        let up = futures::future::join_all(disks.iter().map(|disk| disk.power_up())).await;
        cut?;
        up.into_iter().collect()
    }

    fn fail_point_file(self) -> PathBuf {
        self.cluster.scratch.dir.join("fail-point")
    }

    /// Arms a fail point: the node aborts when it reaches the named step. Only builds with seeded
    /// bugs have fail points.
    pub fn set_fail_point(self, number: usize, point: FailPoint) -> anyhow::Result<()> {
        let pid = self.cluster.node(number).pid().with_context(|| format!("node {number} is not running"))?;
        Ok(std::fs::write(self.fail_point_file(), format!("{pid} {point}"))?)
    }

    /// Disarms the fail point.
    pub fn clear_fail_point(self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.fail_point_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Sets the clock of a node. Returns its offset in seconds, as seen by another process with the
    /// same clock.
    pub(crate) async fn set_clock(self, number: usize, skew: Skew) -> anyhow::Result<f64> {
        let (node, clocks) = (self.cluster.node(number), self.cluster.options.clocks);
        let pid = node.pid().with_context(|| format!("node {number} is not running"))?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        ensure!(maps.contains("libfaketime"), "node {number} runs without libfaketime");
        let file = self.cluster.clock_file(number);
        clock::write(&file, node.set_clock(clocks, skew))?;
        clock::seconds_off(clocks, &file).await
    }
}
