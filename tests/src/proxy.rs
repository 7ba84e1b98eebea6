//! A proxy that loses replies: it forwards requests and closes the connection before the reply
//! arrives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// Bytes of one read; a reply is usually smaller.
const CHUNK_BYTES: usize = 16 << 10;

/// A proxy in front of one port of loopback. Dropping it stops it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accept: AbortOnDropHandle<()>,
}

struct Shared {
    target: u16,
    /// How many of a million chunks of replies are lost, together with their connection.
    lost_per_million: AtomicU32,
    lost: AtomicU64,
}

impl Proxy {
    /// Starts a proxy that loses nothing yet.
    pub async fn start(target: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { target, lost_per_million: AtomicU32::new(0), lost: AtomicU64::new(0) });
        let accept = tokio::spawn(accept(listener, shared.clone()));
        Ok(Proxy { address, shared, _accept: AbortOnDropHandle::new(accept) })
    }

    /// The address that clients connect to.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on, loses `per_million` of a million chunks of replies, and closes their
    /// connections.
    pub fn lose(&self, per_million: u32) {
        self.shared.lost_per_million.store(per_million, Ordering::Relaxed);
    }

    /// How many chunks were lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropping the set aborts its tasks, so connections end with the proxy.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(carry(client, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(client: TcpStream, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", shared.target)).await else { return };
    // A connection with Nagle's delay is only slower.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let requests = async move {
        // An error ends the connection like any other end.
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    };
    tokio::select! {
        () = requests => {}
        () = replies(from_server, to_client, &shared) => {}
    }
}

async fn replies(
    mut server: tokio::net::tcp::OwnedReadHalf,
    mut client: tokio::net::tcp::OwnedWriteHalf,
    shared: &Shared,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let Ok(read) = server.read(&mut chunk).await else { return };
        if read == 0 {
            return;
        }
        if rand::random_range(0..1_000_000) < shared.lost_per_million.load(Ordering::Relaxed) {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if client.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}
