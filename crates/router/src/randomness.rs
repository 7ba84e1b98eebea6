//! Random numbers and turns, to spread load.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// The source of jitter, of random orders and of turns.
pub(crate) struct Randomness {
    rng: Mutex<StdRng>,
    turn: AtomicUsize,
}

impl Randomness {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Mutex::new(StdRng::seed_from_u64(seed)), turn: AtomicUsize::new(0) }
    }

    /// A random number in `0.0..1.0`.
    pub(crate) fn fraction(&self) -> f64 {
        self.rng().random()
    }

    /// Puts the items into a random order.
    pub(crate) fn shuffle<T>(&self, items: &mut [T]) {
        items.shuffle(&mut *self.rng());
    }

    /// A number that counts up with every call, to share load in turns.
    pub(crate) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn rng(&self) -> MutexGuard<'_, StdRng> {
        self.rng.lock().expect("only a broken invariant poisons this lock")
    }
}
