//! A kernel queue of packets (NFQUEUE): the thread that holds each packet until its delay is over.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nfq::{Message, Queue, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::links::Delay;

/// The number of the queue. Every namespace has its own queues.
pub(super) const QUEUE: u16 = 7;
/// The most packets that one node delays at a time. Further packets pass without delay.
const PACKETS_MAX: u32 = 20_000;
/// The bytes of a packet that are copied to the thread: enough for the addresses.
const HEADER_BYTES: u16 = 20;
/// The precision of a delay.
const TICK: Duration = Duration::from_millis(1);

/// The state that the thread shares with its owner.
#[derive(Default)]
pub(super) struct Shared {
    /// The delay of packets to each address.
    pub(super) delays: Mutex<BTreeMap<Ipv4Addr, Delay>>,
    /// Packets delayed so far.
    pub(super) held: AtomicU64,
    /// Whether to release all packets and end.
    pub(super) stop: AtomicBool,
}

impl Shared {
    fn delay_of(&self, packet: &[u8]) -> Delay {
        let Some(&[a, b, c, d]) = packet.get(16..20) else { return Delay::default() };
        let delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
        delays.get(&Ipv4Addr::new(a, b, c, d)).copied().unwrap_or_default()
    }
}

/// Opens the queue of the namespace of this thread.
pub(super) fn open() -> std::io::Result<Queue> {
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

/// Delays packets until it is stopped.
pub(super) fn carry(mut queue: Queue, shared: &Shared) {
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
