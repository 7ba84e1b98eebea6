//! A short wait for company, where there is reason to expect it.
//!
//! When a round of a group ends, the clients that it answered send their next requests a moment later, just after the requests
//! that waited meanwhile have begun the next round: two half-full rounds take turns for ever. Waiting a small part of what a
//! round takes lets them travel together. A lone client is never made to wait: its rounds carry one request.

use std::time::Duration;

use tokio::sync::mpsc;

/// The part of the last round's time that the next one may wait.
const ROUND_PART: u32 = 8;
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_millis(2);
/// Waits shorter than this are not worth a timer, which ticks in milliseconds.
const WAIT_MIN: Duration = Duration::from_micros(500);

/// How long the next round waits, and for how many requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Linger {
    wait: Duration,
    company: usize,
}

impl Linger {
    /// What a round that carried so many requests and took so long says of the next one.
    pub(crate) fn after(requests: usize, took: Duration) -> Self {
        let wait = (took / ROUND_PART).min(WAIT_MAX);
        if requests > 1 && wait >= WAIT_MIN { Linger { wait, company: requests } } else { Linger::default() }
    }

    /// Waits, unless as many as were just answered are here already.
    pub(crate) async fn wait<T>(self, queue: &mpsc::Receiver<T>) {
        if queue.len() < self.company {
            tokio::time::sleep(self.wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(8);

    #[tokio::test]
    async fn a_lone_client_never_waits() {
        let (_sender, queue) = mpsc::channel::<()>(8);
        for linger in [Linger::default(), Linger::after(1, ROUND), Linger::after(5, Duration::from_micros(100))] {
            assert_eq!(linger.wait, Duration::ZERO, "{linger:?}");
            linger.wait(&queue).await;
        }
    }

    #[tokio::test]
    async fn company_waits_a_part_of_a_round_and_no_longer_than_the_bound() {
        assert_eq!(Linger::after(2, ROUND).wait, Duration::from_millis(1));
        assert_eq!(Linger::after(2, Duration::from_secs(5)).wait, WAIT_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_is_here_already() {
        let (sender, queue) = mpsc::channel(8);
        let began = tokio::time::Instant::now();
        sender.send(()).await.unwrap();
        sender.send(()).await.unwrap();
        Linger::after(2, ROUND).wait(&queue).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        Linger::after(3, ROUND).wait(&queue).await;
        assert_eq!(began.elapsed(), Duration::from_millis(1));
    }
}
