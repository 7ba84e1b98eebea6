//! The connections that come in at a port: so many at a time, and none that says nothing for ever.
//!
//! A connection costs a descriptor and memory whether anybody speaks on it or not, and the kernel ends none of them by itself.
//! HTTP/2 asks silent clients for a sign of life, but only once a client has begun to speak HTTP/2.
//!
//! ```text
//!   TcpListener ── accept, when there is room ──► Connection ──► axum::serve, tonic's server
//!                                                  │ silent for too long: reading fails, the server lets go of it
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

/// What a port bears.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time. Further ones wait, in the kernel, until one ends.
    pub at_a_time: usize,
    /// How long a client may take to begin.
    pub beginning: Duration,
    /// How long it may say nothing later on: longer than any request takes, or than it may owe a sign of life.
    pub silence: Duration,
}

/// Accepts connections that end when their client is silent for too long: before it began, between requests, or in the middle of
/// one.
#[derive(Debug)]
pub struct Connections {
    listener: TcpListener,
    room: Arc<Semaphore>,
    limits: Limits,
}

impl Connections {
    /// The connections of a port.
    pub fn new(listener: TcpListener, limits: Limits) -> Self {
        Connections { listener, room: Arc::new(Semaphore::new(limits.at_a_time)), limits }
    }

    /// The connections one after the other, for ever, as tonic's server takes them.
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

    /// The next connection. What cannot be accepted now, for want of descriptors, is tried again in a second.
    async fn accept(&mut self) -> (Connection, SocketAddr) {
        if self.room.available_permits() == 0 {
            warn!(limits = ?self.limits, "as many connections as there may be: others wait until one ends");
        }
        let room = self.room.clone().acquire_owned().await.expect("nobody closes it");
        let (stream, address) = Listener::accept(&mut self.listener).await;
        if let Err(error) = stream.set_nodelay(true) {
            warn!(%address, %error, "small replies on this connection may be late");
        }
        let patience = Box::pin(sleep(self.limits.beginning));
        let (heard, silence_max) = (Heard::Nothing, self.limits.silence);
        (Connection { stream, heard, patience, silence_max, _room: room }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[derive(Clone, Copy, Debug)]
enum Heard {
    Nothing,
    At(Instant),
}

/// The stream of one client. Reading gives [`io::ErrorKind::TimedOut`] when it was silent for too long.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    heard: Heard,
    /// Looks, when it is over, whether anything was heard meanwhile: setting it at every word would cost a timer each time.
    patience: Pin<Box<Sleep>>,
    silence_max: Duration,
    _room: OwnedSemaphorePermit,
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
            self.heard = Heard::At(Instant::now());
            return Poll::Ready(result);
        }
        self.poll_silence(context).map(Err)
    }
}

impl Connection {
    /// Ready when the client was silent for too long. Also asked while it takes nothing: a server that waits for that may not read.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.patience.as_mut().poll(context));
            match self.heard {
                Heard::At(last) if last.elapsed() < self.silence_max => {
                    let until = last + self.silence_max;
                    self.patience.as_mut().reset(until);
                }
                _ => return Poll::Ready(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// What came of a write, or the end of the patience with a client that takes nothing.
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

    /// Connections on which nothing came, or half a header, or half a body, stayed for ever, and took every place.
    #[tokio::test]
    async fn silent_clients_stayed_for_ever() {
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

    /// Whoever goes on speaking stays, however long it takes in all.
    #[tokio::test]
    async fn who_speaks_now_and_then_stays() {
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
