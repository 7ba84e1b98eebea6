//! The connections of clients: so many at a time, and none that says nothing for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tracing::warn;

/// Connections at a time. Further ones wait, in the kernel, until one ends.
const CONNECTIONS_MAX: usize = 4096;
/// How long a client may say nothing: longer than any request takes.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Accepts connections that end when their client is silent for too long: between requests, or in the middle of one.
pub(crate) struct Connections {
    listener: TcpListener,
    room: Arc<Semaphore>,
    silence_max: Duration,
}

impl Connections {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Connections { listener, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)), silence_max: SILENCE_MAX }
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        if self.room.available_permits() == 0 {
            warn!(CONNECTIONS_MAX, "as many connections as there may be: others wait until one ends");
        }
        let room = self.room.clone().acquire_owned().await.expect("nobody closes it");
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let patience = Box::pin(sleep(self.silence_max));
        (Connection { stream, patience, silence_max: self.silence_max, _room: room }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The stream of one client.
pub(crate) struct Connection {
    stream: TcpStream,
    patience: Pin<Box<Sleep>>,
    silence_max: Duration,
    _room: OwnedSemaphorePermit,
}

impl Connection {
    fn heard(&mut self) {
        let until = Instant::now() + self.silence_max;
        self.patience.as_mut().reset(until);
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(context, into) {
            self.heard();
            return Poll::Ready(result);
        }
        ready!(self.patience.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.heard();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces));
        self.heard();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::IntoFuture;

    use axum::Router;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn serve(silence_max: Duration, most: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections { listener, room: Arc::new(Semaphore::new(most)), silence_max };
        let routes = Router::new().route("/", post(|body: String| async { body }));
        tokio::spawn(axum::serve(connections, routes).into_future());
        address
    }

    /// Connections on which nothing came, or half a header, or half a body, stayed for ever, and took every place.
    #[tokio::test]
    async fn silent_clients_stayed_for_ever() {
        const HALVES: [&str; 3] = ["", "POST / HT", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf"];
        let address = serve(Duration::from_millis(200), HALVES.len()).await;
        let mut silent = Vec::new();
        for half in HALVES {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(half.as_bytes()).await.unwrap();
            silent.push(stream);
        }
        // There is no place for this one until they are gone.
        let mut patient = TcpStream::connect(address).await.unwrap();
        let request = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\r\ngood";
        patient.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let answered = tokio::time::timeout(Duration::from_secs(20), patient.read_to_string(&mut answer)).await;
        answered.expect("it gets its turn").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("good"), "{answer}");
        for mut stream in silent {
            let mut said = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut said)).await;
            assert!(ended.is_ok(), "a silent connection ends");
        }
    }
}
