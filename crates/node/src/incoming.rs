//! The connections to a port: each is served once its first byte is there, and ends if there is none for too long.
//!
//! A connection that never says anything costs a file descriptor for as long as it likes, and the log and the state need theirs.
//! What comes after the first byte is watched by HTTP/2's own pings.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use futures::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// How long a client may take for its first byte.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(10);
/// Connections of a port that may be without a first byte. Further ones wait, in the kernel, until one has it or has ended.
const SILENT_MAX: usize = 256;
/// Connections that may wait to be served.
const READY_MAX: usize = 64;

/// The connections to a port that have something to say. The port is given back when this is dropped.
pub(crate) struct Incoming {
    address: io::Result<SocketAddr>,
    ready: mpsc::Receiver<(TcpStream, SocketAddr)>,
}

impl Incoming {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self::with_patience(listener, FIRST_BYTE_MAX, SILENT_MAX)
    }

    fn with_patience(listener: TcpListener, first_byte_max: Duration, silent_max: usize) -> Self {
        let (sender, ready) = mpsc::channel(READY_MAX);
        let address = listener.local_addr();
        tokio::spawn(async move {
            let closed = sender.clone();
            tokio::select! {
                () = accept(listener, sender, first_byte_max, silent_max) => {}
                () = closed.closed() => {}
            }
        });
        Incoming { address, ready }
    }
}

/// Accepts for ever.
async fn accept(
    mut listener: TcpListener,
    ready: mpsc::Sender<(TcpStream, SocketAddr)>,
    first_byte_max: Duration,
    silent_max: usize,
) {
    let silent = Arc::new(Semaphore::new(silent_max));
    loop {
        let room = silent.clone().acquire_owned().await.expect("nobody closes it");
        // Waits a moment where there are no file descriptors, and goes on.
        let (stream, address) = Listener::accept(&mut listener).await;
        let ready = ready.clone();
        tokio::spawn(async move {
            // Looks at the byte itself: readiness alone may be a false alarm.
            let spoke = matches!(timeout(first_byte_max, stream.peek(&mut [0])).await, Ok(Ok(1)));
            if spoke && stream.set_nodelay(true).is_ok() {
                drop(room);
                // Fails only when nobody serves any more.
                let _ = ready.send((stream, address)).await;
            }
        });
    }
}

impl Stream for Incoming {
    type Item = io::Result<TcpStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(context).map(|next| next.map(|(stream, _)| Ok(stream)))
    }
}

impl Listener for Incoming {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        match self.ready.recv().await {
            Some(next) => next,
            // The runtime ends, and this with it.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address.as_ref().copied().map_err(|error| error.kind().into())
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// 300 connections that said nothing took every file descriptor of a node, for as long as they liked.
    #[tokio::test]
    async fn silent_connections_took_every_descriptor() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = Incoming::with_patience(listener, Duration::from_millis(200), 4);
        let mut silent = Vec::new();
        for _ in 0..12 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut speaker = TcpStream::connect(address).await.unwrap();
        speaker.write_all(b"hello").await.unwrap();
        let served = timeout(Duration::from_secs(20), incoming.next()).await.expect("its turn comes");
        let mut said = [0; 5];
        served.unwrap().unwrap().read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello");
        for mut stream in silent {
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "the silent ones have ended");
        }
        drop(incoming);
        let free = async {
            while TcpListener::bind(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), free).await.expect("the port is given back");
    }
}
