//! `playground`: a whole cluster of child processes on this machine, and the shortener on top of it.
//!
//! ```text
//!   layout    which process listens where and keeps its data where (pure)
//!   home      the directory: a temporary one that is removed at the end, or one that is kept and started again
//!   children  processes that die with this one; their logs; stopping them
//!   start     nodes ─► cluster init ─► a test write ─► shortener
//!   ready     what is printed, and the ready file
//! ```
//!
//! The processes are started with the same commands that anybody would type, and may be killed and started again by hand: that
//! is what a playground is for.

mod children;
mod home;
mod layout;
mod ready;
mod start;

use std::path::PathBuf;

use clap::Args;

use self::children::Children;
use self::home::Home;
use self::layout::Layout;
use crate::cluster::SHARDS_DEFAULT;
use crate::failure::{Exit, Failure};
use crate::signals::Stops;

/// Nodes when nothing else is said.
const NODES_DEFAULT: u32 = 3;
/// The first port when nothing else is said.
const PORT_BASE_DEFAULT: u16 = 7100;

#[derive(Args, Debug)]
pub(crate) struct PlaygroundArgs {
    /// Nodes to start; three by default. Shards have three replicas from three nodes on, one below.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9))]
    nodes: Option<u32>,
    /// Shards of the cluster; 16 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    shards: Option<u32>,
    /// Keep the data here, and start the cluster that is here already. Without it, a temporary directory that is removed.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The first port; node i listens on P+10(i-1) for clients, and on the next two for peers and operators. 7100 by default.
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    port_base: Option<u16>,
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
    /// Runs until Ctrl-C or SIGTERM. A second one kills what has not stopped yet.
    ///
    /// Must be called on the thread that lives as long as the process: children die with the *thread* that started them.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut stops = Stops::listen()?;
        let home = Home::open(self.dir.clone())?;
        let wish = layout::Wish { nodes: self.nodes, shards: self.shards, port_base: self.port_base };
        let shape = wish.over(home.recorded()?)?;
        let shortener_port = (!self.no_shortener).then_some(self.shortener_port);
        let layout = Layout::new(home.path(), shape, shortener_port)?;
        layout.check_ports()?;
        home.record(shape)?;
        if let Some(file) = &self.ready_file {
            // From a run before.
            ready::remove(file)?;
        }

        let mut children = Children::default();
        let started = tokio::select! {
            started = start::start(&layout, &mut children) => started,
            () = stops.next() => Err(Failure::new(Exit::Interrupted, "interrupted while the cluster was starting")),
        };
        let result = match started {
            Ok(started) => self.serve(&home, &layout, &started, &mut children, &mut stops).await,
            Err(failure) => Err(failure),
        };
        let removed = self.ready_file.as_deref().map_or(Ok(()), ready::remove);
        children.stop(&mut stops).await;
        result.and(removed)
    }

    async fn serve(
        &self,
        home: &Home,
        layout: &Layout,
        started: &start::Started,
        children: &mut Children,
        stops: &mut Stops,
    ) -> Result<(), Failure> {
        eprint!("{}", ready::screen(layout, started, home.is_temporary()));
        if let Some(file) = &self.ready_file {
            ready::write(file, &ready::Ready::of(layout, started, children))?;
        }
        loop {
            tokio::select! {
                death = children.next_death() => eprint!("{death}"),
                () = stops.next() => {
                    eprintln!("\nstopping (Ctrl-C again kills)");
                    return Ok(());
                }
            }
        }
    }
}
