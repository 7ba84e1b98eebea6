//! How a playground that runs is told what to do: a line of JSON each way, over a Unix socket that is found by the port base.

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

use crate::failure::{Exit, Failure};

/// The longest question or answer, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// How long whoever connects may take to say what it wants.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// How long the playground may take to do it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Requests that may wait for their turn.
const REQUESTS_MAX: usize = 8;

/// What a playground can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Request {
    /// Another node.
    Add,
    /// SIGKILL.
    Kill(u64),
    /// A node that does not run is started again.
    Start(u64),
    /// SIGSTOP.
    Pause(u64),
    /// SIGCONT.
    Resume(u64),
    /// These nodes are cut from the others.
    Partition(Vec<u64>),
    /// There is no cut any more.
    Heal,
}

/// What it answers: what was done, or why not.
pub(super) type Answer = Result<Done, Failure>;

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Done {
    /// In words.
    pub(super) said: String,
    /// Client addresses of all nodes.
    pub(super) endpoints: Vec<String>,
    /// The client address of the node that was added.
    pub(super) added: Option<String>,
}

/// A request, and where its answer goes.
pub(super) type Asked = (Request, oneshot::Sender<Answer>);

/// The socket, which is removed when this is dropped.
pub(super) struct Control {
    socket: PathBuf,
    requests: mpsc::Receiver<Asked>,
    _accept: AbortOnDropHandle<()>,
}

impl Control {
    /// Listens for requests to the playground of this port base. Its ports were free, so a socket that is there is a dead one's.
    pub(super) fn listen(port_base: u16) -> Result<Self, Failure> {
        let socket = socket(port_base)?;
        let failure =
            |error: io::Error| Failure::new(Exit::Other, format!("cannot listen on {}", socket.display())).cause(error);
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failure(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&socket).map_err(failure)?;
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let accept = AbortOnDropHandle::new(tokio::spawn(accept(listener, sender)));
        Ok(Control { socket, requests, _accept: accept })
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> Asked {
        match self.requests.recv().await {
            Some(asked) => asked,
            // The task that accepts ends with this only.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.socket) {
            tell!("cannot remove {}: {error}", self.socket.display());
        }
    }
}

/// One after the other: people type these.
async fn accept(listener: UnixListener, requests: mpsc::Sender<Asked>) {
    loop {
        match listener.accept().await {
            // Whoever is gone needs no answer.
            Ok((stream, _)) => drop(serve(stream, &requests).await),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(mut stream: UnixStream, requests: &mpsc::Sender<Asked>) -> io::Result<()> {
    let mut text = Vec::new();
    let (from, mut to) = stream.split();
    timeout(ASK_DEADLINE, from.take(LINE_BYTES_MAX).read_to_end(&mut text)).await??;
    let answer = match serde_json::from_slice(&text) {
        Ok(request) => {
            let (sender, answer) = oneshot::channel();
            // Both fail only while the playground ends; the caller sees that nobody answers.
            requests.send((request, sender)).await.map_err(io::Error::other)?;
            answer.await.map_err(io::Error::other)?
        }
        Err(error) => Err(Failure::new(Exit::Usage, "the playground does not know this request").cause(error)),
    };
    let text = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    timeout(ASK_DEADLINE, to.write_all(&text)).await?
}

/// Tells the playground of this port base what to do.
pub(super) async fn ask(port_base: u16, request: &Request) -> Answer {
    let socket = socket(port_base)?;
    let not_there = |error: io::Error| {
        Failure::new(Exit::Unreachable, format!("no playground runs on port base {port_base}"))
            .cause(error)
            .hint("start one: quorate playground")
            .hint("it has other ports, or a directory?  --port-base P, or --dir DIR")
    };
    let mut stream = UnixStream::connect(&socket).await.map_err(not_there)?;
    let answered = async {
        stream.write_all(&serde_json::to_vec(request).map_err(io::Error::other)?).await?;
        stream.shutdown().await?;
        let mut text = Vec::new();
        stream.take(LINE_BYTES_MAX).read_to_end(&mut text).await?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    };
    let unknown = |cause: &dyn std::fmt::Display| {
        Failure::new(Exit::Unknown, "the playground did not say whether it was done")
            .cause(cause)
            .hint("see: quorate status")
    };
    match timeout(ANSWER_DEADLINE, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(unknown(&error)),
        Err(_) => Err(unknown(&format!("no answer within {} s", ANSWER_DEADLINE.as_secs()))),
    }
}

/// The port bases of the playgrounds that listen.
pub(super) async fn running() -> Result<Vec<u16>, Failure> {
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

fn socket(port_base: u16) -> Result<PathBuf, Failure> {
    Ok(run_dir()?.join(format!("{port_base}.sock")))
}

/// A directory of this user's alone, whichever playground it is.
fn run_dir() -> Result<PathBuf, Failure> {
    let user = rustix::process::geteuid().as_raw();
    let dir = std::env::temp_dir().join(format!("quorate-playgrounds-{user}"));
    private(&dir, user).map_err(|error| {
        Failure::new(Exit::Other, format!("cannot use {}", dir.display()))
            .cause(error)
            .hint("remove it, or set TMPDIR to a directory of your own")
    })?;
    Ok(dir)
}

/// Makes the directory if it is not there; refuses one that others could have put there or can write to.
fn private(dir: &Path, user: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(dir)?;
    if found.is_dir() && found.uid() == user && found.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::other("it is not a directory of this user's alone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request and its answer, a failure with its exit code, and afterwards nobody: each as whoever types it sees it.
    #[tokio::test]
    async fn a_request_reaches_the_playground_and_its_answer_comes_back() {
        // The sockets of port bases that no playground can have.
        let base = 3;
        let mut control = Control::listen(base).unwrap();
        let playground = tokio::spawn(async move {
            let (request, answer) = control.next().await;
            assert_eq!(request, Request::Partition(vec![1, 3]));
            let done = Done { said: "cut".into(), endpoints: vec!["a:1".into()], added: None };
            answer.send(Ok(done)).unwrap();
            let (_, answer) = control.next().await;
            answer.send(Err(Failure::new(Exit::Conflict, "node 2 does not run").hint("h"))).unwrap();
            control
        });
        assert!(running().await.unwrap().contains(&base));
        let done = ask(base, &Request::Partition(vec![1, 3])).await.unwrap();
        assert_eq!(done.said, "cut");
        let failure = ask(base, &Request::Kill(2)).await.unwrap_err();
        assert_eq!(
            (failure.exit(), failure.to_string().as_str()),
            (Exit::Conflict, "error: node 2 does not run\n  hint:  h\n")
        );
        drop(playground.await.unwrap());
        let failure = ask(base, &Request::Heal).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Unreachable);
        assert!(!running().await.unwrap().contains(&base));
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
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
