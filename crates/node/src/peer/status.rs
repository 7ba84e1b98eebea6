//! The status of other nodes.

use futures::future::join_all;
use quorate_control::PeerError;
use quorate_proto::admin::admin_client::AdminClient;
use quorate_proto::admin::{GetNodeRequest, NodeStatus};
use quorate_types::error_chain;

use super::answer::{CALL_TIMEOUT, answer};
use super::connection::connect;

/// Asks the node at a client address for its status.
pub(crate) async fn get_node(client_address: &str) -> Result<NodeStatus, PeerError> {
    let channel = connect(client_address).await.map_err(|e| PeerError::Unanswered(error_chain(&e)))?;
    answer(CALL_TIMEOUT, AdminClient::new(channel).get_node(GetNodeRequest {})).await
}

/// Asks the nodes at these client addresses, all at the same time. Gives each answer with its
/// address.
pub(crate) async fn get_nodes<'a>(
    client_addresses: impl Iterator<Item = &'a String>,
) -> Vec<(&'a String, Result<NodeStatus, PeerError>)> {
    join_all(client_addresses.map(async |address| (address, get_node(address).await))).await
}
