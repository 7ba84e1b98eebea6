//! The runtime that openraft uses: tokio, except for the two sources of chance that a simulation
//! must control.
//!
//! ```text
//!   random numbers   election time-outs, the phase of the ticks, where call numbers start
//!   watch channels   tokio wakes the receivers of a channel in a random order
//! ```
//!
//! On a thread that called [`simulate`] both follow from a seed. On every other thread tokio's
//! behaviour is unchanged, at the cost of one branch.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use openraft::async_runtime::{self as abstracted, AsyncRuntime, Watch};
use openraft::impls::TokioRuntime;
use openraft::{OptionalSend, OptionalSync};
use rand::rngs::{StdRng, ThreadRng};
use rand::{Rng, SeedableRng, TryRng};
use tokio::sync::{Notify, watch};

thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// Makes every random choice of openraft and of this crate follow from the seed, on this thread
/// from now on. A simulation calls it on a thread of its own with a single-threaded runtime: there,
/// the same seed gives the same run.
pub fn simulate(seed: u64) {
    SEEDED.set(Some(StdRng::seed_from_u64(seed)));
}

fn is_simulated() -> bool {
    SEEDED.with_borrow(Option::is_some)
}

/// The source of random numbers of this thread.
pub(crate) fn random() -> Random {
    if is_simulated() { Random::Seeded } else { Random::System(rand::rng()) }
}

/// A source of random numbers.
pub(crate) enum Random {
    System(ThreadRng),
    Seeded,
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.with(Rng::next_u32, Rng::next_u32))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.with(Rng::next_u64, Rng::next_u64))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        match self {
            Random::System(system) => system.fill_bytes(bytes),
            Random::Seeded => seeded(|seeded| seeded.fill_bytes(bytes)),
        }
        Ok(())
    }
}

impl Random {
    fn with<T>(&mut self, system: impl FnOnce(&mut ThreadRng) -> T, simulated: impl FnOnce(&mut StdRng) -> T) -> T {
        match self {
            Random::System(rng) => system(rng),
            Random::Seeded => seeded(simulated),
        }
    }
}

fn seeded<T>(draw: impl FnOnce(&mut StdRng) -> T) -> T {
    SEEDED.with_borrow_mut(|rng| draw(rng.as_mut().expect("a simulated thread stays simulated")))
}

/// tokio, for openraft.
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Random;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = Watched;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Random {
        random()
    }

    fn new(threads: usize) -> Self {
        Runtime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

/// tokio's watch channels. Channels made on a simulated thread wake their receivers in the order in
/// which these began to wait.
pub(crate) struct Watched;

pub(crate) struct Sender<T> {
    inner: watch::Sender<T>,
    // Dropped after `inner`: a receiver that it wakes must find the channel closed.
    in_order: Option<WakeOnDrop>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender { inner: self.inner.clone(), in_order: self.in_order.clone() }
    }
}

#[derive(Clone)]
struct WakeOnDrop(Arc<Notify>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

pub(crate) struct Receiver<T> {
    inner: watch::Receiver<T>,
    in_order: Option<Arc<Notify>>,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver { inner: self.inner.clone(), in_order: self.in_order.clone() }
    }
}

impl Watch for Watched {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = watch::channel(init);
        let in_order = is_simulated().then(|| Arc::new(Notify::new()));
        let sender = Sender { inner: sender, in_order: in_order.clone().map(WakeOnDrop) };
        (sender, Receiver { inner: receiver, in_order })
    }
}

impl<T> Sender<T> {
    fn wake_in_order(&self) {
        if let Some(WakeOnDrop(waiting)) = &self.in_order {
            waiting.notify_waiters();
        }
    }
}

impl<T: OptionalSend + OptionalSync> abstracted::WatchSender<Watched, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), abstracted::watch::SendError<T>> {
        let sent = self.inner.send(value).map_err(|unsent| abstracted::watch::SendError(unsent.0));
        self.wake_in_order();
        sent
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        let modified = self.inner.send_if_modified(modify);
        if modified {
            self.wake_in_order();
        }
        modified
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.inner.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        let in_order = self.in_order.as_ref().map(|WakeOnDrop(waiting)| waiting.clone());
        Receiver { inner: self.inner.subscribe(), in_order }
    }
}

impl<T: OptionalSend + OptionalSync> abstracted::WatchReceiver<Watched, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), abstracted::watch::RecvError> {
        let Some(waiting) = &self.in_order else {
            return self.inner.changed().await.map_err(|_| abstracted::watch::RecvError(()));
        };
        loop {
            let mut woken = std::pin::pin!(waiting.notified());
            woken.as_mut().enable();
            if let Some(changed) = self.inner.changed().now_or_never() {
                return changed.map_err(|_| abstracted::watch::RecvError(()));
            }
            woken.await;
        }
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.inner.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.inner.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use openraft::async_runtime::{WatchReceiver, WatchSender};
    use rand::RngExt;

    use super::*;

    fn on_a_thread_of_its_own<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(run).join().unwrap()
    }

    /// A seed decides the numbers drawn; a thread without a seed draws at random.
    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = |seed: Option<u64>| {
            on_a_thread_of_its_own(move || {
                seed.into_iter().for_each(simulate);
                Runtime::thread_rng().random_range(0..u64::MAX)
            })
        };
        assert_eq!(draw(Some(7)), draw(Some(7)));
        assert_ne!(draw(Some(7)), draw(Some(8)));
        assert_ne!(draw(None), draw(None));
    }

    /// Receivers wake in the order in which they wait, see every change, and see the end of the
    /// channel.
    #[test]
    fn simulated_receivers_wake_in_order() {
        let order = on_a_thread_of_its_own(|| {
            simulate(1);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (sender, receiver) = Watched::channel(0);
                let (heard, mut order) = tokio::sync::mpsc::unbounded_channel();
                for who in 0..20 {
                    let (mut receiver, heard) = (receiver.clone(), heard.clone());
                    tokio::spawn(async move {
                        while receiver.changed().await.is_ok() {
                            heard.send((who, *receiver.borrow_watched())).unwrap();
                        }
                        heard.send((who, -1)).unwrap();
                    });
                }
                drop((receiver, heard));
                tokio::task::yield_now().await;
                sender.send(1).unwrap();
                tokio::task::yield_now().await;
                drop(sender);
                let mut all = Vec::new();
                while let Some(heard) = order.recv().await {
                    all.push(heard);
                }
                all
            })
        });
        let expected = [1, -1].into_iter().flat_map(|value| (0..20).map(move |who| (who, value)));
        assert_eq!(order, expected.collect::<Vec<_>>());
    }
}
