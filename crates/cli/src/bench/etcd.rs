//! etcd under the same load, over its v3 gRPC API.
//!
//! For a fair comparison, the connections are opened before the measurement, each member has
//! several (`--etcd-connections`), and the clients are spread evenly over them.

use bytes::Bytes;
use quorate_types::ReadLevel;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use self::wire::kv_client::KvClient;
use self::wire::{PutRequest, RangeRequest};
use super::target::{ABSENT, ErrorKind, Target};
use crate::connect::Connect;
use crate::failure::{Exit, Failure};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod wire {
    tonic::include_proto!("etcdserverpb");
}

/// An etcd cluster. Invariant: there is at least one connection.
#[derive(Clone)]
pub(super) struct Etcd {
    connections: Vec<KvClient<Channel>>,
}

impl Etcd {
    /// Opens `connections_each` connections to each endpoint.
    pub(super) async fn connect(connect: &Connect, connections_each: u32) -> Result<Self, Failure> {
        let mut connections = Vec::new();
        // One connection to each member in turn, so that clients with adjacent numbers use
        // different members.
        for _ in 0..connections_each {
            for address in &connect.endpoints {
                let failure = || Failure::new(Exit::Unreachable, format!("cannot reach etcd at {address}"));
                let endpoint = Endpoint::from_shared(format!("http://{address}"))
                    .map_err(|error| failure().chain(&error))?
                    .connect_timeout(connect.deadline)
                    .timeout(connect.deadline)
                    .tcp_nodelay(true);
                let channel = endpoint.connect().await.map_err(|error| failure().chain(&error))?;
                connections.push(KvClient::new(channel));
            }
        }
        assert!(!connections.is_empty(), "there is at least one endpoint");
        Ok(Etcd { connections })
    }

    fn connection(&self, client: usize) -> KvClient<Channel> {
        self.connections[client % self.connections.len()].clone()
    }
}

impl Target for Etcd {
    async fn put(&self, client: usize, key: Bytes, value: Bytes) -> Result<(), ErrorKind> {
        let request = PutRequest { key, value, lease: 0 };
        self.connection(client).put(Request::new(request)).await.map(drop).map_err(kind)
    }

    async fn get(&self, client: usize, key: Bytes, level: ReadLevel) -> Result<(), ErrorKind> {
        let request = RangeRequest { key, serializable: level == ReadLevel::Eventual };
        let response = self.connection(client).range(Request::new(request)).await.map_err(kind)?.into_inner();
        response.kvs.first().map(drop).ok_or(ABSENT)
    }
}

fn kind(status: Status) -> ErrorKind {
    match status.code() {
        Code::Unavailable => "unreachable",
        Code::DeadlineExceeded | Code::Cancelled => "unknown",
        Code::ResourceExhausted => "overloaded",
        Code::InvalidArgument => "invalid",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// Bytes as etcd's own client sends them: tag 1 key; tag 7 serializable; tag 2 value.
    #[test]
    fn requests_have_etcds_field_numbers() {
        let range = RangeRequest { key: Bytes::from_static(b"k"), serializable: true };
        assert_eq!(range.encode_to_vec(), [0x0a, 1, b'k', 0x38, 1]);
        let put = PutRequest { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v"), lease: 0 };
        assert_eq!(put.encode_to_vec(), [0x0a, 1, b'k', 0x12, 1, b'v']);
    }
}
