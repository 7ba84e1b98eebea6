//! How nodes live and die: started, stopped, killed, paused, wiped, cut from power, and cut from each other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use quorate_client::{AdminErrorKind, admin};
use rustix::process::Signal;
use tokio::process::Command;

use super::node::Ended;
use super::scratch::MARK;
use super::wires::Wires;
use super::{Cluster, clock};

/// What nodes log: also how they vote, which is checked when the run is over.
const LOG_LEVEL: &str = "info,openraft=error,quorate_raft::log_store=debug";
/// How long a node may take from its start until it answers. Reading a damaged disk takes seconds.
const LISTEN_MAX: Duration = Duration::from_secs(60);
/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(10);
/// How long a node may take to stop when it is asked to.
const STOP_MAX: Duration = Duration::from_secs(60);
/// How long a stopped process may take to be stopped.
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Cluster {
    /// A command of the binary under test, in a namespace or in ours. It inherits none of our settings, carries the mark of
    /// the run, and dies with us.
    pub(crate) fn command(&self, namespace: Option<PathBuf>) -> anyhow::Result<Command> {
        let mut command = match namespace {
            Some(path) => {
                let mut enter = Command::new("nsenter");
                enter.arg(format!("--net={}", path.display())).arg(&self.options.binary);
                enter
            }
            None => Command::new(&self.options.binary),
        };
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("QUORATE_")) {
                command.env_remove(name);
            }
        }
        command.env(MARK, &self.scratch.tag).stdin(Stdio::null()).kill_on_drop(true);
        // A Ctrl-C at the terminal is for the harness, which then heals and cleans up; the nodes must not hear it.
        command.process_group(0);
        Ok(command)
    }

    /// Starts a node that does not run, on the disk that it left; returns when it answers. An error if it ends before that:
    /// [`Node::died`](super::Node::died) tells how.
    pub async fn start_node(&self, number: usize) -> anyhow::Result<()> {
        let node = self.node(number);
        ensure!(!node.is_running(), "node {number} runs already");
        let namespace = self.namespaces().map(|namespaces| namespaces.of_node(number));
        clock::write(&self.clock_file(number), clock::Pace::RIGHT)?;
        let log = std::fs::File::options().create(true).append(true).open(&node.log)?;
        let mut command = self.command(namespace)?;
        command.args(["node", "start", "--insecure", "--log-format", "text", "--join", &self.endpoints().join(",")]);
        command.arg("--data-dir").arg(&node.data_dir);
        command.args(["--client-listen", &node.client, "--peer-listen", &node.peer, "--ops-listen", &node.ops]);
        command.args(["--advertise-peer", &node.advertised_peer]);
        command.env("QUORATE_DIE_WITH_PARENT", std::process::id().to_string());
        command.env("QUORATE_FAIL_POINTS", self.fail_point_file());
        command.env("QUORATE_LOG_LEVEL", LOG_LEVEL);
        command.envs(clock::environment(self.options.clocks, &self.clock_file(number))?);
        command.envs(self.options.environment.iter().cloned());
        command.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
        let child = self.on_control(async move { command.spawn() }).await??;
        let pid = node.adopt(child, self.control.as_ref().context("not dismantled")?.handle())?;
        if let Some(Wires::Loopback(proxies)) = &self.network {
            proxies.is_node(pid, number);
        }
        self.wait_until_answering(number).await
    }

    /// Starts several at once; all that can be are started, and the first error is given.
    pub async fn start_all(&self, numbers: &[usize]) -> anyhow::Result<()> {
        let started = futures::future::join_all(numbers.iter().map(|number| self.start_node(*number))).await;
        started.into_iter().collect()
    }

    /// A node that is in a cluster must have opened its data; one that is in none needs only answer.
    async fn wait_until_answering(&self, number: usize) -> anyhow::Result<()> {
        let (node, deadline) = (self.node(number), Instant::now() + LISTEN_MAX);
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
            if self.on_control(answers).await? {
                return Ok(());
            }
            if let Some(ended) = node.died() {
                bail!("node {number} ended at its start with {ended}\n{}", node.log_tail());
            }
            ensure!(Instant::now() < deadline, "node {number} does not answer\n{}", node.log_tail());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Kills nodes with SIGKILL at one instant, and waits until they are gone. Those that do not run are left alone.
    pub async fn kill(&self, numbers: &[usize]) -> anyhow::Result<()> {
        let running: Vec<_> =
            numbers.iter().map(|number| self.node(*number)).filter(|node| node.is_running()).collect();
        for node in &running {
            node.signal(Signal::KILL)?;
        }
        try_join_all(running.iter().map(|node| node.gone(STOP_MAX))).await?;
        Ok(())
    }

    /// Stops the process of a node where it is (SIGSTOP), and waits until it is stopped.
    pub async fn pause(&self, number: usize) -> anyhow::Result<()> {
        let node = self.node(number);
        node.signal(Signal::STOP)?;
        let deadline = Instant::now() + PAUSE_MAX;
        while node.process_state() != Some('T') {
            ensure!(Instant::now() < deadline, "node {number} does not stop: {:?}", node.process_state());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Lets a paused process go on.
    pub fn resume(&self, number: usize) -> anyhow::Result<()> {
        self.node(number).signal(Signal::CONT)
    }

    /// Asks a node to stop (SIGTERM), and waits until it has.
    pub async fn stop(&self, number: usize) -> anyhow::Result<Ended> {
        self.node(number).signal(Signal::TERM)?;
        self.node(number).gone(STOP_MAX).await
    }

    /// Asks all nodes that run to stop; how each ended.
    pub async fn stop_all(&self) -> anyhow::Result<BTreeMap<usize, Ended>> {
        let running = self.nodes.iter().filter(|node| node.is_running());
        let stopped = running.map(async |node| Ok::<_, anyhow::Error>((node.number, self.stop(node.number).await?)));
        Ok(try_join_all(stopped).await?.into_iter().collect())
    }

    /// Empties the disk of a node that does not run. Whoever starts there is a new node.
    pub fn wipe(&self, number: usize) -> anyhow::Result<()> {
        let node = self.node(number);
        ensure!(!node.is_running(), "node {number} runs: its disk cannot be wiped");
        match std::fs::remove_dir_all(&node.data_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => node.learn_id(None),
        }
        Ok(())
    }

    /// Cuts the power of nodes at one instant: what they had not synced is gone. Their disks are mounted again, their
    /// processes are not started.
    ///
    /// A node is stopped first, so that it cannot answer anybody between the end of its disk and its own.
    pub async fn power_cut(&self, numbers: &[usize]) -> anyhow::Result<()> {
        let disk = |number: &usize| self.disk(*number).context("power can be cut only where disks are images");
        let disks: Vec<_> = numbers.iter().map(disk).collect::<anyhow::Result<_>>()?;
        for number in numbers {
            if self.node(*number).is_running() {
                self.node(*number).signal(Signal::STOP)?;
            }
        }
        let cut = try_join_all(disks.iter().map(|disk| disk.shut_down())).await;
        self.kill(numbers).await?;
        // Also where a cut failed: nobody can start on a disk that was shut down.
        let up = futures::future::join_all(disks.iter().map(|disk| disk.power_up())).await;
        cut?;
        up.into_iter().collect()
    }

    fn fail_point_file(&self) -> PathBuf {
        self.scratch.dir.join("fail-point")
    }

    /// Lets a node die when it comes by a named step. Only builds with seeded bugs have any.
    pub fn set_fail_point(&self, number: usize, name: &str) -> anyhow::Result<()> {
        let pid = self.node(number).pid().with_context(|| format!("node {number} does not run"))?;
        Ok(std::fs::write(self.fail_point_file(), format!("{pid} {name}"))?)
    }

    /// Nobody dies at a named step any more.
    pub fn clear_fail_point(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.fail_point_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Sets the clock of a node, and gives by how many seconds it is off as another process with that clock sees it.
    pub(crate) async fn set_clock(&self, number: usize, skew: clock::Skew) -> anyhow::Result<f64> {
        let (node, clocks) = (self.node(number), self.options.clocks);
        let pid = node.pid().with_context(|| format!("node {number} does not run"))?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        ensure!(maps.contains("libfaketime"), "node {number} runs without libfaketime");
        clock::write(&self.clock_file(number), node.set_clock(clocks, skew))?;
        clock::seconds_off(clocks, &self.clock_file(number)).await
    }
}
