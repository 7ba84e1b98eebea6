//! The set of placed calls.

use super::plan::Plan;

/// The placed calls, as one bit per call.
///
/// # Invariants
///
/// * All definite calls below `low` are placed, and the call `low` is not.
/// * `remaining` is the number of definite calls that are not placed.
pub(super) struct Placed {
    definite: Vec<u64>,
    /// Bits of the unknown calls.
    pub(super) unknown: Vec<u64>,
    /// The first definite call that is not placed.
    pub(super) low: usize,
    /// The number of definite calls that are not placed.
    pub(super) remaining: usize,
}

impl Placed {
    /// No calls are placed.
    pub(super) fn new(plan: &Plan) -> Self {
        Placed {
            definite: vec![0; plan.definite.div_ceil(64) + 1],
            unknown: vec![0; plan.unknown.div_ceil(64)],
            low: 0,
            remaining: plan.definite,
        }
    }

    /// Whether the call is placed.
    pub(super) fn holds(&self, plan: &Plan, call: usize) -> bool {
        let bits = if plan.is_definite[call] { &self.definite } else { &self.unknown };
        holds(bits, plan.number[call])
    }

    /// Marks the call as placed.
    pub(super) fn insert(&mut self, plan: &Plan, call: usize) {
        let number = plan.number[call];
        if !plan.is_definite[call] {
            self.unknown[number / 64] |= 1 << (number % 64);
            return;
        }
        self.definite[number / 64] |= 1 << (number % 64);
        self.remaining -= 1;
        while self.low < plan.definite && holds(&self.definite, self.low) {
            self.low += 1;
        }
    }

    /// Marks the call as not placed.
    pub(super) fn remove(&mut self, plan: &Plan, call: usize) {
        let number = plan.number[call];
        if !plan.is_definite[call] {
            self.unknown[number / 64] &= !(1 << (number % 64));
            return;
        }
        self.definite[number / 64] &= !(1 << (number % 64));
        self.remaining += 1;
        self.low = self.low.min(number);
    }

    /// The words of definite calls that tell configurations with the same `low` apart. A call
    /// invoked after the return of call `low` cannot be placed yet, so all words after that are 0.
    pub(super) fn words(&self, plan: &Plan) -> &[u64] {
        let first = self.low / 64;
        let end = plan.horizon.get(self.low).map_or(first, |horizon| horizon.div_ceil(64));
        let mut words = &self.definite[first..end.max(first)];
        while let [shorter @ .., 0] = words {
            words = shorter;
        }
        words
    }
}

fn holds(bits: &[u64], number: usize) -> bool {
    bits[number / 64] >> (number % 64) & 1 == 1
}
