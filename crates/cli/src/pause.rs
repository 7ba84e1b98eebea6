//! `rebalance pause` and `rebalance resume`.

use clap::Args;
use quorate_client::AdminClient;
use quorate_proto::admin::PauseMovesRequest;
use serde::Serialize;

use crate::connect::Ask;
use crate::failure::Failure;
use crate::{leader, output};

#[derive(Args, Debug)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    ask: Ask,
}

/// Whether moves are paused.
#[derive(Serialize)]
struct Moves {
    paused: bool,
}

impl PauseArgs {
    /// Pauses or resumes moves.
    pub(crate) async fn run(self, paused: bool) -> Result<(), Failure> {
        let pause = async |node: AdminClient, within| node.pause_moves(PauseMovesRequest { paused }, within).await;
        let cannot = if paused { "cannot pause moves" } else { "cannot resume moves" };
        leader::change(&self.ask.connect, cannot, pause).await?;
        output::show(self.ask.format(), "Moves", &Moves { paused }, || match paused {
            true => "replica moves are paused.  resume: quorate rebalance resume\n".to_owned(),
            false => "replica moves are resumed\n".to_owned(),
        })
    }
}
