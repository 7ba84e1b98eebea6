//! The network without privilege: a proxy in front of every node's peer port. Nodes announce the
//! proxy's address, so every connection between two nodes passes the proxy of the accepting node.
//!
//! A proxy identifies the connecting node by asking the kernel which process owns the other end of
//! the connection. So links are directed, and any combination of them can be cut or delayed, within
//! the limits of TCP: bytes are delayed instead of dropped (they arrive when the cut heals, as if
//! TCP had retransmitted all the time), connections are accepted although the node does not answer,
//! and there is no random loss and no bandwidth limit.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::links::{Link, Rules};

/// The size of one read.
const CHUNK_BYTES: usize = 16 << 10;
/// The most chunks of a connection that are delayed at a time; beyond that the sender waits.
const CHUNKS_MAX: usize = 1024;
/// The most connections of one proxy. Connections that are not yet accepted wait in the kernel.
const CONNECTIONS_MAX: usize = 10_000;

/// The proxies of a run.
pub(crate) struct Proxies {
    shared: Arc<Shared>,
    _accepting: Vec<AbortOnDropHandle<()>>,
    addresses: Vec<SocketAddr>,
}

struct Shared {
    rules: watch::Sender<Rules>,
    /// The node that a process belongs to.
    processes: Mutex<BTreeMap<u32, usize>>,
    /// How often bytes of a link had to wait.
    waited: Mutex<BTreeMap<Link, u64>>,
    held: AtomicU64,
}

impl Proxies {
    /// Starts a proxy for each of these peer ports, on the current runtime.
    pub(crate) async fn start(targets: Vec<String>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            rules: watch::Sender::new(Rules::default()),
            processes: Mutex::default(),
            waited: Mutex::default(),
            held: AtomicU64::new(0),
        });
        let (mut accepting, mut addresses) = (Vec::new(), Vec::new());
        for (number, target) in (1..).zip(targets) {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            addresses.push(listener.local_addr()?);
            let task = tokio::spawn(accept(listener, number, target, shared.clone()));
            accepting.push(AbortOnDropHandle::new(task));
        }
        Ok(Proxies { shared, _accepting: accepting, addresses })
    }

    /// The peer address that a node announces.
    pub(crate) fn address(&self, number: usize) -> String {
        self.addresses[number - 1].to_string()
    }

    /// Registers the new process of a node.
    pub(crate) fn add_process(&self, pid: u32, number: usize) {
        lock(&self.shared.processes).insert(pid, number);
    }

    /// Follows these rules from now on.
    pub(crate) fn change(&self, rules: &Rules) {
        lock(&self.shared.waited).retain(|link, _| rules.cut.contains(link));
        self.shared.rules.send_replace(rules.clone());
    }

    /// How often bytes had to wait on each cut link.
    pub(crate) fn waited(&self) -> BTreeMap<Link, u64> {
        lock(&self.shared.waited).clone()
    }

    /// The number of delayed chunks.
    pub(crate) fn held(&self) -> u64 {
        self.shared.held.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, to: usize, target: String, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((caller, address)) = listener.accept().await {
        if connections.len() < CONNECTIONS_MAX {
            connections.spawn(carry(caller, address, to, target.clone(), shared.clone()));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(caller: TcpStream, address: SocketAddr, to: usize, target: String, shared: Arc<Shared>) {
    let processes = lock(&shared.processes).clone();
    let from = tokio::task::spawn_blocking(move || owner(address, &processes)).await.ok().flatten();
    // Connections from other processes, such as the harness, are never cut.
    let forth = from.map(|from| Link { from, to });
    let back = from.map(|from| Link { from: to, to: from });
    // A connection makes no progress until packets pass in both directions.
    open(forth, &shared).await;
    open(back, &shared).await;
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Without TCP_NODELAY the connection is only slower.
    let _ = (caller.set_nodelay(true), server.set_nodelay(true));
    let (from_caller, to_caller) = caller.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(pump(from_caller, to_server, forth, &shared), pump(from_server, to_caller, back, &shared));
}

/// Waits until a link is open.
async fn open(link: Option<Link>, shared: &Shared) {
    let Some(link) = link else { return };
    let mut rules = shared.rules.subscribe();
    if rules.borrow().cut.contains(&link) {
        *lock(&shared.waited).entry(link).or_default() += 1;
        // The sender cannot be dropped: `shared` owns it.
        let _ = rules.wait_for(|rules| !rules.cut.contains(&link)).await;
    }
}

/// Copies bytes in one direction. Each chunk leaves when its delay is over and the link is open. An
/// empty chunk stands for the end of the stream.
async fn pump(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, link: Option<Link>, shared: &Shared) {
    let (hold, mut held) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let read = async move {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let bytes = from.read(&mut chunk).await.unwrap_or(0);
            chunk.truncate(bytes);
            let delay = link.and_then(|link| shared.rules.borrow().delay.get(&link).copied()).unwrap_or_default();
            let ms = delay.base_ms + rand::random_range(0..=delay.jitter_ms);
            if ms > 0 {
                shared.held.fetch_add(1, Ordering::Relaxed);
            }
            let due = Instant::now() + Duration::from_millis(ms);
            if hold.send((due, chunk)).await.is_err() || bytes == 0 {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = held.recv().await {
            tokio::time::sleep_until(due).await;
            open(link, shared).await;
            if chunk.is_empty() || to.write_all(&chunk).await.is_err() {
                break;
            }
        }
        // Dropping the socket would end the stream too.
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

/// The node whose process owns the loopback socket with this address.
fn owner(address: SocketAddr, processes: &BTreeMap<u32, usize>) -> Option<usize> {
    // 127.0.0.1 in the machine's byte order, as the kernel prints it.
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes([127, 0, 0, 1]), address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&local))?;
    let socket = format!("socket:[{}]", line.split_whitespace().nth(9)?);
    let has = |pid: &u32| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).any(|file| file.as_os_str() == &*socket)
    };
    processes.iter().find(|(pid, _)| has(pid)).map(|(_, number)| *number)
}
