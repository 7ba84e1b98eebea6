//! The memory of a search: the configurations that it has tried.

use rustc_hash::FxHashMap;

/// A configuration: the placed calls and the object's state.
pub(super) struct Config<'a> {
    /// The number of the state.
    pub(super) state: u32,
    /// The first definite call that is not placed; all before it are.
    pub(super) low: usize,
    /// Bits of the definite calls from the word of `low` on, without trailing zero words.
    pub(super) words: &'a [u64],
    /// Bits of the unknown calls that are placed.
    pub(super) used: &'a [u64],
}

/// The configurations tried so far.
pub(super) struct Seen {
    /// (low, state, words) → the sets of unknown calls used, concatenated; each set has the same
    /// number of words.
    tried: FxHashMap<Box<[u64]>, Vec<u64>>,
    /// Approximate memory use in bytes.
    pub(super) bytes: usize,
    key: Vec<u64>,
}

/// Cost of a map entry beyond its words: key and value in the table, and two allocations.
const ENTRY_BYTES: usize = 96;

impl Seen {
    pub(super) fn new() -> Self {
        Seen { tried: FxHashMap::default(), bytes: 0, key: Vec::new() }
    }

    /// Records the configuration and returns whether it is worth trying.
    ///
    /// With `dominated`, a configuration is skipped if a known one has the same state and definite
    /// calls but used a subset of its unknown calls: any continuation of the former also continues
    /// the latter, which has more calls left.
    pub(super) fn is_new(&mut self, config: &Config<'_>, dominated: bool) -> bool {
        self.key.clear();
        self.key.push((config.low as u64) << 32 | u64::from(config.state));
        self.key.extend_from_slice(config.words);
        let width = config.used.len();
        let Some(sets) = self.tried.get_mut(self.key.as_slice()) else {
            self.bytes += ENTRY_BYTES + (self.key.len() + width) * 8;
            self.tried.insert(self.key.as_slice().into(), config.used.to_vec());
            return true;
        };
        if width == 0 {
            return false;
        }
        let covers = |known: &[u64]| {
            let mut pairs = known.iter().zip(config.used);
            if dominated {
                pairs.all(|(known, used)| known & !used == 0)
            } else {
                pairs.all(|(known, used)| known == used)
            }
        };
        if sets.chunks_exact(width).any(covers) {
            return false;
        }
        self.bytes += width * 8;
        sets.extend_from_slice(config.used);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration is tried once. A superset of a tried set of unknown calls is skipped, unless
    /// the search is exact.
    #[test]
    fn smaller_set_dominates_larger_set() {
        let config = |used: &'static [u64]| Config { state: 1, low: 1, words: &[5], used };
        let mut seen = Seen::new();
        assert!(seen.is_new(&config(&[0b010]), true));
        assert!(!seen.is_new(&config(&[0b010]), true));
        assert!(!seen.is_new(&config(&[0b011]), true));
        assert!(seen.is_new(&config(&[0b011]), false));
        assert!(seen.is_new(&config(&[0b101]), true));
        assert!(seen.is_new(&Config { words: &[7], ..config(&[0b010]) }, true));
        // Placing all of 65 calls and the first 64 of 65 both leave no words: `low` tells them
        // apart.
        assert!(seen.is_new(&Config { low: 65, words: &[], ..config(&[0b010]) }, true));
        assert!(seen.is_new(&Config { low: 64, words: &[], ..config(&[0b010]) }, true));
    }
}
