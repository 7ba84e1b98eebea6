//! The stream to one node: the hellos, then the replies.

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::kv::kv_client::KvClient;
use quorate_proto::kv::{ClientHello, ServerFrame};
use quorate_proto::{MESSAGE_BYTES_MAX, WIRE_VERSION};
use quorate_router::Target;
use quorate_types::{HostPortError, error_chain};
use tonic::{Status, Streaming};

use super::link::Link;
use super::outbound::Outbound;
use super::transport::transport;

/// The reason why a link could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no connection within {} ms", .0.as_millis())]
    Late(Duration),
    #[error(transparent)]
    Address(#[from] HostPortError),
    #[error("{}", error_chain(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("{}", message(.0))]
    Status(Status),
    #[error("the node sent no hello")]
    NoHello,
    #[error("it belongs to another cluster, {0}")]
    OtherCluster(String),
    #[error("it uses wire version {0}, this side uses {WIRE_VERSION}")]
    OtherVersion(u32),
    #[error("it is node {0}, not node {1}")]
    OtherNode(u64, u64),
}

/// Connects and exchanges hellos. The node must be the target.
pub(super) async fn connect(
    link: &Arc<Link>,
    target: &Target,
    connect_timeout: Duration,
) -> Result<Streaming<ServerFrame>, ConnectError> {
    let channel = transport(&target.address, connect_timeout)?.connect().await?;
    let mut client = KvClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let hello = ClientHello {
        cluster_id: target.cluster.to_string(),
        wire_version_min: WIRE_VERSION,
        wire_version_max: WIRE_VERSION,
    };
    let outbound = Outbound::new(hello, Arc::clone(link));
    let mut inbound = client.exchange(outbound).await.map_err(ConnectError::Status)?.into_inner();
    let first = inbound.message().await.map_err(ConnectError::Status)?;
    let hello = first.and_then(|frame| frame.hello).ok_or(ConnectError::NoHello)?;
    if hello.cluster_id != target.cluster.to_string() {
        return Err(ConnectError::OtherCluster(hello.cluster_id));
    }
    if hello.wire_version != WIRE_VERSION {
        return Err(ConnectError::OtherVersion(hello.wire_version));
    }
    if hello.node != target.node.0 {
        return Err(ConnectError::OtherNode(hello.node, target.node.0));
    }
    Ok(inbound)
}

/// Delivers replies until the stream ends. Returns the reason of its end.
pub(super) async fn read(link: &Link, mut inbound: Streaming<ServerFrame>) -> String {
    loop {
        match inbound.message().await {
            Ok(Some(frame)) => link.deliver(frame),
            Ok(None) => return "the node ended the connection".to_owned(),
            Err(status) => return message(&status),
        }
    }
}

fn message(status: &Status) -> String {
    match status.message() {
        "" => error_chain(status),
        message => message.to_owned(),
    }
}
