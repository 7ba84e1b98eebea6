//! `shard transfer-leader`.

use clap::Args;
use quorate_client::{AdminError, admin};
use quorate_proto::admin::TransferLeaderRequest;
use serde::Serialize;

use crate::admin_failure::unknown_or_refused;
use crate::connect::Ask;
use crate::failure::{Exit, Failure};
use crate::output::{self, id};
use crate::shard_row::Shard;
use crate::signals;
use crate::survey::Survey;

#[derive(Args, Debug)]
pub(crate) struct TransferArgs {
    /// The shard's id.
    id: u32,
    /// The node that becomes the leader.
    #[arg(long, value_name = "NODE")]
    to: u64,
    #[command(flatten)]
    ask: Ask,
}

/// A shard and its leader.
#[derive(Serialize)]
struct Led {
    #[serde(serialize_with = "id")]
    id: u64,
    #[serde(serialize_with = "id")]
    leader: u64,
}

/// Asks the leader of the shard to transfer its leadership.
pub(crate) async fn transfer_leader(TransferArgs { id, to, ask }: TransferArgs) -> Result<(), Failure> {
    let connect = &ask.connect;
    let led = |text: String| output::show(ask.format(), "Leadership", &Led { id: u64::from(id), leader: to }, || text);
    let survey = Survey::take(connect).await?;
    let shard = Shard::find(&survey, id)?;
    if shard.leader == Some(to) {
        return led(format!("nothing to do: node {to} already leads shard {id}\n"));
    }
    let leader = survey.claims_to_lead(id).and_then(|leader| survey.nodes.iter().find(|(node, _)| node.id == leader));
    let Some((leader, _)) = leader else {
        return Err(Failure::new(Exit::Unreachable, format!("shard {id} has no leader")).hint("quorate status"));
    };
    let unreachable =
        |error: AdminError| Failure::new(Exit::Unreachable, format!("node {} is unreachable", leader.id)).cause(error);
    let node = admin(&leader.client_address, connect.deadline).await.map_err(unreachable)?;
    let request = TransferLeaderRequest { shard: id, to_node: to };
    let asked = node.transfer_leader(request, connect.deadline);
    let hint = format!("check its leader: quorate shard show {id}");
    let done = signals::or_unknown_value(&hint, asked).await?;
    let cannot = format!("cannot transfer the leadership of shard {id} to node {to}");
    done.map_err(|error| unknown_or_refused(&cannot, &error, &hint))?;
    led(format!("✓ node {to} leads shard {id}\n"))
}
