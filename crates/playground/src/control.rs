//! The control socket: other processes send requests to a running playground.
//!
//! One JSON document each way over a Unix socket, whose name is the playground's port base.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Error, Kind};

/// The longest request or answer, in bytes.
const DOCUMENT_BYTES_MAX: u64 = 64 << 10;
/// How long a requester may take to send its request, or to read the answer.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// How long the playground may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Requests that may queue.
const REQUESTS_MAX: usize = 8;

/// A request to a running playground.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Start another node, which joins the cluster.
    Add,
    /// Kill the node with this id (SIGKILL).
    Kill(u64),
    /// Restart the node with this id, which does not run.
    Start(u64),
    /// Suspend the node with this id (SIGSTOP).
    Pause(u64),
    /// Continue the suspended node with this id (SIGCONT).
    Resume(u64),
    /// Partition the nodes with these ids from the others, in both directions.
    Partition(Vec<u64>),
    /// End the partition.
    Heal,
}

/// The answer to a request.
pub(crate) type Answer = Result<Done, Error>;

/// A request that was executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// The result, as a sentence for people.
    pub(crate) text: String,
    /// Client addresses of all nodes.
    pub(crate) endpoints: Vec<String>,
    /// The client address of the added node.
    pub(crate) added: Option<String>,
}

/// A request, and the channel for its answer.
pub(crate) type Incoming = (Request, oneshot::Sender<Answer>);

/// The playground's end of the socket, which is removed when this is dropped.
pub(crate) struct Control {
    socket: PathBuf,
    /// Reports a socket that cannot be removed.
    show: fn(&str),
    requests: mpsc::Receiver<Incoming>,
    _accept: AbortOnDropHandle<()>,
}

impl Control {
    /// Listens for requests to the playground with this port base. An existing socket is removed:
    /// the ports were free, so its playground is dead.
    pub(crate) fn listen(port_base: u16, show: fn(&str)) -> Result<Self, Error> {
        let socket = socket(port_base)?;
        let failed =
            |error: io::Error| Error::new(Kind::Failed, format!("cannot listen on {}", socket.display())).why(error);
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let accept = AbortOnDropHandle::new(tokio::spawn(accept(listener, sender)));
        Ok(Control { socket, show, requests, _accept: accept })
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Incoming {
        match self.requests.recv().await {
            Some(incoming) => incoming,
            // The accepting task holds the sender until `self` is dropped.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.socket) {
            (self.show)(&format!("cannot remove {}: {error}\n", self.socket.display()));
        }
    }
}

/// Serves one requester after the other, which is fast enough for requests that people type.
async fn accept(listener: UnixListener, requests: mpsc::Sender<Incoming>) {
    loop {
        match listener.accept().await {
            // An error means that the requester is gone.
            Ok((stream, _)) => drop(serve(stream, &requests).await),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(mut stream: UnixStream, requests: &mpsc::Sender<Incoming>) -> io::Result<()> {
    let mut text = Vec::new();
    let (from, mut to) = stream.split();
    timeout(ASK_DEADLINE, from.take(DOCUMENT_BYTES_MAX).read_to_end(&mut text)).await??;
    let answer = match serde_json::from_slice(&text) {
        Ok(request) => {
            let (sender, answer) = oneshot::channel();
            // Both fail only while the playground stops; the requester then gets no answer.
            requests.send((request, sender)).await.map_err(io::Error::other)?;
            answer.await.map_err(io::Error::other)?
        }
        Err(error) => Err(Error::new(Kind::Usage, "the playground does not know this request").why(error)),
    };
    let text = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    timeout(ASK_DEADLINE, to.write_all(&text)).await?
}

/// Sends a request to the playground with this port base.
pub(crate) async fn ask(port_base: u16, request: &Request) -> Answer {
    let socket = socket(port_base)?;
    let not_running = |error: io::Error| {
        Error::new(Kind::Unreachable, format!("no playground runs on port base {port_base}"))
            .why(error)
            .next("start one: quorate playground")
            .next("if it has other ports or a directory: --port-base P, or --dir DIR")
    };
    let mut stream = UnixStream::connect(&socket).await.map_err(not_running)?;
    let answered = async {
        stream.write_all(&serde_json::to_vec(request).map_err(io::Error::other)?).await?;
        stream.shutdown().await?;
        let mut text = Vec::new();
        stream.take(DOCUMENT_BYTES_MAX).read_to_end(&mut text).await?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    };
    let unknown = |cause: &dyn std::fmt::Display| {
        Error::new(Kind::Unknown, "the outcome is unknown: the playground did not answer")
            .why(cause)
            .next("check the result: quorate status")
    };
    match timeout(ANSWER_DEADLINE, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(unknown(&error)),
        Err(_) => Err(unknown(&format!("no answer within {} s", ANSWER_DEADLINE.as_secs()))),
    }
}

/// The port bases of all running playgrounds.
pub(crate) async fn running() -> Result<Vec<u16>, Error> {
    let mut bases = Vec::new();
    let entries = fs::read_dir(run_dir()?).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    for path in entries.into_iter().map(|entry| entry.path()) {
        let base = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let Some(base) = base
            && UnixStream::connect(&path).await.is_ok()
        {
            bases.push(base);
        }
    }
    bases.sort_unstable();
    Ok(bases)
}

fn socket(port_base: u16) -> Result<PathBuf, Error> {
    Ok(run_dir()?.join(format!("{port_base}.sock")))
}

/// The directory of the sockets: private to this user, shared by all playgrounds.
fn run_dir() -> Result<PathBuf, Error> {
    let user = rustix::process::geteuid().as_raw();
    let dir = std::env::temp_dir().join(format!("quorate-playgrounds-{user}"));
    private(&dir, user).map_err(|error| {
        Error::new(Kind::Failed, format!("cannot use {}", dir.display()))
            .why(error)
            .next("remove it, or set TMPDIR to a directory of your own")
    })?;
    Ok(dir)
}

/// Creates the directory if it does not exist. Refuses one that belongs to another user or that
/// others can access.
fn private(dir: &Path, user: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(dir)?;
    if found.is_dir() && found.uid() == user && found.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::other("it is not a directory private to this user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request is answered, an error keeps its kind and next step, and a stopped playground is
    /// unreachable.
    #[tokio::test]
    async fn a_request_reaches_the_playground_and_its_answer_comes_back() {
        // A privileged port, which no playground of a test uses.
        let base = 3;
        let mut control = Control::listen(base, |_| {}).unwrap();
        let playground = tokio::spawn(async move {
            let (request, answer) = control.next().await;
            assert_eq!(request, Request::Partition(vec![1, 3]));
            let done = Done { text: "cut".into(), endpoints: vec!["a:1".into()], added: None };
            answer.send(Ok(done)).unwrap();
            let (_, answer) = control.next().await;
            answer.send(Err(Error::new(Kind::Conflict, "node 2 does not run").next("h"))).unwrap();
            control
        });
        assert!(running().await.unwrap().contains(&base));
        let done = ask(base, &Request::Partition(vec![1, 3])).await.unwrap();
        assert_eq!(done.text, "cut");
        let error = ask(base, &Request::Kill(2)).await.unwrap_err();
        assert_eq!((error.kind, error.what.as_str()), (Kind::Conflict, "node 2 does not run"));
        assert_eq!(error.next, ["h"]);
        drop(playground.await.unwrap());
        let error = ask(base, &Request::Heal).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable);
        assert!(!running().await.unwrap().contains(&base));
    }

    #[test]
    fn a_socket_directory_that_others_can_access_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        let user = rustix::process::geteuid().as_raw();
        private(&own, user).unwrap();
        private(&own, user).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(private(&own, user).is_err());
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        assert!(private(&dir.path().join("link"), user).is_err());
    }
}
