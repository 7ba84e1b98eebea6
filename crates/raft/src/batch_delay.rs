//! Delays a batch briefly so that concurrent clients share it.
//!
//! When a round of a group ends, the clients that it answered send their next requests a moment
//! later, just after the requests that waited meanwhile have started the next round: two half-full
//! rounds alternate from then on. A delay of a small part of a round lets them travel together. A
//! lone client is never delayed: its rounds carry one request.

use std::time::Duration;

use tokio::sync::mpsc;

/// The delay is this part of the last round's duration.
const ROUND_PART: u32 = 8;
/// The longest delay.
const DELAY_MAX: Duration = Duration::from_millis(2);
/// A shorter delay is not worth a timer, which ticks in milliseconds.
const DELAY_MIN: Duration = Duration::from_micros(500);

/// The delay of the next round, and the number of requests that it waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BatchDelay {
    delay: Duration,
    expected: usize,
}

impl BatchDelay {
    /// The delay after a round that carried `requests` and took so long.
    pub(crate) fn after(requests: usize, took: Duration) -> Self {
        let delay = (took / ROUND_PART).min(DELAY_MAX);
        if requests > 1 && delay >= DELAY_MIN {
            BatchDelay { delay, expected: requests }
        } else {
            BatchDelay::default()
        }
    }

    /// Waits, unless as many requests as the last round answered are queued already.
    pub(crate) async fn wait<T>(self, queue: &mpsc::Receiver<T>) {
        if queue.len() < self.expected {
            tokio::time::sleep(self.delay).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(8);

    #[tokio::test]
    async fn lone_client_is_never_delayed() {
        let (_sender, queue) = mpsc::channel::<()>(8);
        let short = BatchDelay::after(5, Duration::from_micros(100));
        for delay in [BatchDelay::default(), BatchDelay::after(1, ROUND), short] {
            assert_eq!(delay.delay, Duration::ZERO, "{delay:?}");
            delay.wait(&queue).await;
        }
    }

    #[tokio::test]
    async fn delay_is_a_part_of_a_round_up_to_the_bound() {
        assert_eq!(BatchDelay::after(2, ROUND).delay, Duration::from_millis(1));
        assert_eq!(BatchDelay::after(2, Duration::from_secs(5)).delay, DELAY_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn full_queue_is_not_delayed() {
        let (sender, queue) = mpsc::channel(8);
        let began = tokio::time::Instant::now();
        sender.send(()).await.unwrap();
        sender.send(()).await.unwrap();
        BatchDelay::after(2, ROUND).wait(&queue).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        BatchDelay::after(3, ROUND).wait(&queue).await;
        assert_eq!(began.elapsed(), Duration::from_millis(1));
    }
}
