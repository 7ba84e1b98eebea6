//! Delayed links. Packets for a delayed link leave the sender's network stack through a kernel
//! queue (NFQUEUE). A thread in the sender's namespace releases each packet when its delay is over.
//! The delay also affects existing connections, and jitter reorders packets.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nfq::{Message, Queue, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::links::Delay;
use super::unsupported::Unsupported;
use super::{threads, tool};

/// The number of the queue. Every namespace has its own queues.
const QUEUE: u16 = 7;
/// The most packets that one node delays at a time. Further packets pass without delay.
const PACKETS_MAX: u32 = 20_000;
/// The bytes of a packet that are copied to the thread: enough for the addresses.
const HEADER_BYTES: u16 = 20;
/// The precision of a delay.
const TICK: Duration = Duration::from_millis(1);

/// The delays of the packets that one node sends.
pub(crate) struct Delays {
    namespace: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    delays: Mutex<BTreeMap<Ipv4Addr, Delay>>,
    held: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn delay_of(&self, packet: &[u8]) -> Delay {
        let Some(&[a, b, c, d]) = packet.get(16..20) else { return Delay::default() };
        let delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
        delays.get(&Ipv4Addr::new(a, b, c, d)).copied().unwrap_or_default()
    }
}

/// Checks that packets can be delayed.
pub(crate) fn supported() -> Result<(), Unsupported> {
    tool::find("iptables-restore")
}

impl Delays {
    /// No delays yet.
    pub(crate) fn new(namespace: PathBuf) -> Self {
        Delays { namespace, shared: Arc::default(), thread: None }
    }

    /// Delays packets to these addresses from now on.
    pub(crate) async fn set(&mut self, delays: BTreeMap<Ipv4Addr, Delay>) -> anyhow::Result<()> {
        if delays.is_empty() && self.thread.is_none() {
            return Ok(());
        }
        let mut rules = "*filter\n:OUTPUT ACCEPT [0:0]\n".to_owned();
        for address in delays.keys() {
            // `--queue-bypass`: packets pass if no thread listens to the queue any longer.
            rules += &format!("-A OUTPUT -d {address} -j NFQUEUE --queue-num {QUEUE} --queue-bypass\n");
        }
        rules += "COMMIT\n";
        let whole = delays.is_empty();
        *self.shared.delays.lock().unwrap_or_else(PoisonError::into_inner) = delays;
        if self.thread.is_none() {
            self.shared.stop.store(false, Ordering::Relaxed);
            let (namespace, shared) = (self.namespace.clone(), self.shared.clone());
            let (tell, ready) = tokio::sync::oneshot::channel();
            let work = move || match threads::enter(&namespace).and_then(|()| Ok(open()?)) {
                Ok(queue) => {
                    let _ = tell.send(Ok(()));
                    carry(queue, &shared);
                }
                Err(error) => drop(tell.send(Err(error))),
            };
            self.thread = Some(std::thread::Builder::new().name("delays".to_owned()).spawn(work)?);
            ready.await??;
        }
        let net = format!("--net={}", self.namespace.display());
        tool::feed("nsenter", &[&net, "iptables-restore"], &rules).await?;
        if whole {
            self.end();
        }
        Ok(())
    }

    /// Packets delayed so far.
    pub(crate) fn held(&self) -> u64 {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// Releases all packets and waits for the thread, which takes one tick.
    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("quorate-jepsen: the thread that delays packets panicked");
        }
    }
}

impl Drop for Delays {
    fn drop(&mut self) {
        self.end();
    }
}

fn open() -> std::io::Result<Queue> {
    let mut queue = Queue::open()?;
    queue.bind(QUEUE)?;
    queue.set_copy_range(QUEUE, HEADER_BYTES)?;
    queue.set_queue_max_len(QUEUE, PACKETS_MAX)?;
    queue.set_fail_open(QUEUE, true)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

/// A packet and its release time. The order is by release time.
struct Held {
    due: Instant,
    number: u64,
    packet: Message,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Held {}
impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

fn carry(mut queue: Queue, shared: &Shared) {
    let mut rng = StdRng::seed_from_u64(0);
    let mut held: BinaryHeap<Reverse<Held>> = BinaryHeap::new();
    loop {
        let stop = shared.stop.load(Ordering::Relaxed);
        // An error means an empty queue, or one that overflowed: its packets passed without delay.
        while let Ok(packet) = queue.recv() {
            let delay = shared.delay_of(packet.get_payload());
            let ms = delay.base_ms + rng.random_range(0..=delay.jitter_ms);
            let number = shared.held.fetch_add(1, Ordering::Relaxed);
            held.push(Reverse(Held { due: Instant::now() + Duration::from_millis(ms), number, packet }));
        }
        while held.peek().is_some_and(|Reverse(next)| stop || next.due <= Instant::now()) {
            let Some(Reverse(Held { mut packet, .. })) = held.pop() else { break };
            packet.set_verdict(Verdict::Accept);
            // A packet that cannot be released is lost; TCP sends it again.
            let _ = queue.verdict(packet);
        }
        if stop {
            return;
        }
        std::thread::sleep(TICK);
    }
}
