//! `playground`: a whole cluster of child processes on this machine, and the shortener on top of it.
//!
//! ```text
//!   layout    which process listens where and keeps its data where (pure)
//!   home      the directory: a temporary one that is removed at the end, or one that is kept and started again
//!   children  processes that die with this one; their logs; stopping them
//!   links     proxies between the nodes, which can be cut; owner: who calls through them
//!   start     nodes ─► cluster init ─► a test write ─► shortener
//!   ready     what is printed, and the ready file
//!   running   what is done to the nodes on request: add, kill, start, pause, resume, partition, heal
//!   control   how a request gets from another process to this one
//!   verbs     the other process
//! ```
//!
//! The processes are started with the same commands that anybody would type, and may be killed and started again by hand: that
//! is what a playground is for.

mod children;
mod control;
mod home;
mod layout;
mod links;
mod owner;
mod ready;
mod running;
mod start;
mod verbs;

use std::path::PathBuf;

use clap::Args;

use self::control::Control;
use self::home::Home;
use self::layout::{Layout, NODES_MAX};
use self::running::Running;
use self::verbs::Verb;
use crate::cluster::SHARDS_DEFAULT;
use crate::failure::{Exit, Failure};
use crate::signals::{self, Stops};

/// Nodes when nothing else is said.
const NODES_DEFAULT: u32 = 3;
/// The first port when nothing else is said.
const PORT_BASE_DEFAULT: u16 = 7100;

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct PlaygroundArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Args, Debug)]
struct RunArgs {
    /// Nodes to start; three by default. Shards have three replicas from three nodes on, one below.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    nodes: Option<u32>,
    /// Shards of the cluster; 16 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    shards: Option<u32>,
    /// Keep the data here, and start the cluster that is here already. Without it, a temporary directory that is removed.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The first port; node i listens on P+10(i-1) for clients, and on the next three for peers and operators. 7100 by default.
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    port_base: Option<u16>,
    /// Let the nodes talk to each other without proxies between them: somewhat faster, and `partition` is refused.
    #[arg(long)]
    direct: bool,
    /// Do not start the shortener.
    #[arg(long)]
    no_shortener: bool,
    /// The shortener's port.
    #[arg(long, value_name = "P", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    shortener_port: u16,
    /// Write who listens where to this file, as JSON, once everything serves.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

impl PlaygroundArgs {
    /// Runs a playground until Ctrl-C or SIGTERM, or tells one that runs what to do.
    ///
    /// Must be called on the thread that lives as long as the process: children die with the *thread* that started them.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.verb {
            Some(verb) => signals::or_interrupted(verb.run()).await,
            None => self.run.run().await,
        }
    }
}

impl RunArgs {
    /// Runs until Ctrl-C or SIGTERM. A second one kills what has not stopped yet.
    async fn run(self) -> Result<(), Failure> {
        let mut stops = Stops::listen()?;
        let home = Home::open(self.dir.clone())?;
        let wish = layout::Wish { nodes: self.nodes, shards: self.shards, port_base: self.port_base };
        let shape = wish.over(home.recorded()?)?;
        let shortener_port = (!self.no_shortener).then_some(self.shortener_port);
        let layout = Layout::new(home.path(), shape, shortener_port, !self.direct)?;
        layout.check_ports()?;
        home.record(shape)?;
        if let Some(file) = &self.ready_file {
            // From a run before.
            ready::remove(file)?;
        }
        let mut control = Control::listen(shape.port_base)?;

        let mut running = Running::new(home, shape, layout);
        let started = tokio::select! {
            started = start::start(&mut running) => started,
            () = stops.next() => Err(Failure::new(Exit::Interrupted, "interrupted while the cluster was starting")),
        };
        let result = match started {
            Ok(started) => self.serve(&mut running, &started, &mut control, &mut stops).await,
            Err(failure) => Err(failure),
        };
        let removed = self.ready_file.as_deref().map_or(Ok(()), ready::remove);
        running.children.stop(&mut stops).await;
        result.and(removed)
    }

    async fn serve(
        &self,
        running: &mut Running,
        started: &start::Started,
        control: &mut Control,
        stops: &mut Stops,
    ) -> Result<(), Failure> {
        running.started(started);
        tell_part!("{}", ready::screen(&running.layout, started, running.home.is_temporary()));
        if let Some(file) = &self.ready_file {
            ready::write(file, &ready::Ready::of(&running.layout, started, &running.children))?;
        }
        loop {
            tokio::select! {
                death = running.children.next_death() => tell_part!("{death}"),
                (request, answer) = control.next() => {
                    // Whoever asked may be gone; it is done all the same.
                    let _ = answer.send(running.execute(request).await);
                }
                () = stops.next() => {
                    tell!("\nstopping (Ctrl-C again kills)");
                    return Ok(());
                }
            }
        }
    }
}
