//! Incoming connections of a port: limits their number, and ends those whose client is silent.
//!
//! A connection costs a descriptor and memory also while it is idle, and the kernel never ends it.
//! HTTP/2 keep-alive detects dead clients, but only after the client has started to speak HTTP/2.
//!
//! ```text
//!   TcpListener ── accept, when a slot is free ──► Connection ──► axum::serve, tonic's server
//!                                                  │ silent: reading fails, the server closes it
//! ```

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

/// The limits of a port.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time. Further ones wait in the kernel until one ends.
    pub at_a_time: usize,
    /// The time that a client has to send its first byte.
    pub beginning: Duration,
    /// The longest silence of a client after that: longer than any request, and than the interval
    /// of its keep-alives.
    pub silence: Duration,
}

/// Accepts connections, and ends each whose client is silent for too long: before its first byte,
/// between requests, or within one.
#[derive(Debug)]
pub struct Connections {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    limits: Limits,
}

impl Connections {
    /// Accepts connections of a port.
    pub fn new(listener: TcpListener, limits: Limits) -> Self {
        Connections { listener, slots: Arc::new(Semaphore::new(limits.at_a_time)), limits }
    }

    /// An endless stream of the connections, as tonic's server takes them.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> {
        futures::stream::unfold(self, |mut connections| async {
            let (connection, _) = connections.accept().await;
            Some((Ok(connection), connections))
        })
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    /// The next connection. If descriptors run out, retries after a second.
    async fn accept(&mut self) -> (Connection, SocketAddr) {
        if self.slots.available_permits() == 0 {
            warn!(limits = ?self.limits, "connection limit reached; new connections wait until one ends");
        }
        let slot = self.slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (stream, address) = Listener::accept(&mut self.listener).await;
        if let Err(error) = stream.set_nodelay(true) {
            warn!(%address, %error, "cannot set TCP_NODELAY; small replies on this connection may be late");
        }
        let timer = Box::pin(sleep(self.limits.beginning));
        let (received, silence_max) = (Received::Nothing, self.limits.silence);
        (Connection { stream, received, timer, silence_max, _slot: slot }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[derive(Clone, Copy, Debug)]
enum Received {
    Nothing,
    At(Instant),
}

/// The stream of one client. Reading fails with [`io::ErrorKind::TimedOut`] after too long a
/// silence.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    received: Received,
    /// Checks for received bytes when it expires. Resetting it at every read would cost a timer
    /// each.
    timer: Pin<Box<Sleep>>,
    silence_max: Duration,
    _slot: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(context, into) {
            self.received = Received::At(Instant::now());
            return Poll::Ready(result);
        }
        self.poll_silence(context).map(Err)
    }
}

impl Connection {
    /// Ready when the client was silent for too long. Writes ask too: a server that waits for a
    /// write may not read.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            match self.received {
                Received::At(last) if last.elapsed() < self.silence_max => {
                    let until = last + self.silence_max;
                    self.timer.as_mut().reset(until);
                }
                _ => return Poll::Ready(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// The result of a write, or a time-out if the client takes no bytes.
    fn unless_silent(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(written) => Poll::Ready(written),
            Poll::Pending => self.poll_silence(context).map(Err),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_silent(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.unless_silent(written, context)
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

    async fn serve(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections::new(listener, limits);
        let routes = Router::new().route("/", post(|body: String| async { body }));
        tokio::spawn(axum::serve(connections, routes).into_future());
        address
    }

    /// Connections without a byte, with half a header or with half a body end, and free their
    /// slots.
    #[tokio::test]
    async fn silent_clients_are_disconnected() {
        const HALVES: [&str; 3] = ["", "POST / HT", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf"];
        let address = serve(Limits {
            at_a_time: HALVES.len(),
            beginning: Duration::from_millis(200),
            silence: Duration::from_millis(300),
        })
        .await;
        let mut silent = Vec::new();
        for half in HALVES {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(half.as_bytes()).await.unwrap();
            silent.push(stream);
        }
        // This one has no slot until they have ended.
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

    /// A client that keeps sending stays connected, however long it takes in all.
    #[tokio::test]
    async fn active_client_stays_connected() {
        let pause = Duration::from_millis(50);
        let limits = Limits { at_a_time: 1, beginning: 20 * pause, silence: 20 * pause };
        let mut stream = TcpStream::connect(serve(limits).await).await.unwrap();
        let begun = Instant::now();
        while begun.elapsed() < limits.silence * 2 {
            stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\ngood").await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"good") {
                assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "it was ended");
            }
            tokio::time::sleep(pause).await;
        }
    }
}
