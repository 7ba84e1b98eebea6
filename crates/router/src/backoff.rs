//! The pause before the next attempt: exponential back-off with full jitter.
//!
//! Full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015): the pause is
//! uniform between zero and a bound that doubles, so that the clients of a shard that just lost its
//! leader do not return in step.

use std::time::Duration;

/// The bound of the first pause.
const FIRST: Duration = Duration::from_millis(10);
/// The bound of every pause: well below the duration of an election, so that a new leader is found
/// soon.
const LONGEST: Duration = Duration::from_millis(200);

/// The pause after `pauses` earlier pauses. `fraction` is random in `0.0..1.0`.
pub(crate) fn pause(pauses: u32, fraction: f64) -> Duration {
    let doublings = pauses.min(16);
    FIRST.saturating_mul(1 << doublings).min(LONGEST).mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_a_pause_doubles_up_to_its_maximum() {
        let bound = |pauses| pause(pauses, 1.0);
        assert_eq!([0, 1, 2, 3].map(bound), [10, 20, 40, 80].map(Duration::from_millis));
        assert_eq!(bound(6), LONGEST);
        assert_eq!(bound(u32::MAX), LONGEST);
        assert_eq!(pause(3, 0.0), Duration::ZERO);
        assert_eq!(pause(3, 0.25), Duration::from_millis(20));
    }
}
