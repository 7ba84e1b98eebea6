//! Delayed links. Packets for a delayed link leave the sender's network stack through a kernel
//! queue (NFQUEUE). A thread in the sender's namespace releases each packet when its delay is over.
//! The delay also affects existing connections, and jitter reorders packets.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use super::links::Delay;
use super::packet_queue::{self, QUEUE, Shared};
use super::unsupported::Unsupported;
use super::{threads, tool};

/// The delays of the packets that one node sends.
pub(crate) struct Delays {
    namespace: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
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
            let work = move || match threads::enter(&namespace).and_then(|()| Ok(packet_queue::open()?)) {
                Ok(queue) => {
                    let _ = tell.send(Ok(()));
                    packet_queue::carry(queue, &shared);
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
