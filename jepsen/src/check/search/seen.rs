//! The configurations that a search has tried.

use rustc_hash::FxHashMap;

/// What is placed, and what the object holds.
pub(super) struct Config<'a> {
    /// The state's number.
    pub(super) state: u32,
    /// The first definite call that is not placed: all before it are.
    pub(super) low: usize,
    /// The words of definite calls from its own on, without empty ones at the end.
    pub(super) words: &'a [u64],
    /// The unknown calls that were used.
    pub(super) used: &'a [u64],
}

/// The memory of a search.
pub(super) struct Seen {
    /// (low, state, words) → the sets of unknown calls used, one after the other, each as many words as a set has.
    tried: FxHashMap<Box<[u64]>, Vec<u64>>,
    /// About how many bytes it takes.
    pub(super) bytes: usize,
    key: Vec<u64>,
}

/// What an entry of the map costs beside its words: key and value in the table, and two allocations.
const ENTRY_BYTES: usize = 96;

impl Seen {
    pub(super) fn new() -> Self {
        Seen { tried: FxHashMap::default(), bytes: 0, key: Vec::new() }
    }

    /// Whether the configuration is worth trying; it is remembered then.
    ///
    /// With `dominated`, one that used more unknown calls than a known one with the same state and the same definite calls is not:
    /// whatever can follow it can follow the other, which has more left.
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

    /// A configuration is tried once; one that used more is not tried after one that used less, unless it is told to be exact.
    #[test]
    fn what_used_less_stands_for_what_used_more() {
        let config = |used: &'static [u64]| Config { state: 1, low: 1, words: &[5], used };
        let mut seen = Seen::new();
        assert!(seen.is_new(&config(&[0b010]), true));
        assert!(!seen.is_new(&config(&[0b010]), true));
        assert!(!seen.is_new(&config(&[0b011]), true));
        assert!(seen.is_new(&config(&[0b011]), false));
        assert!(seen.is_new(&config(&[0b101]), true));
        assert!(seen.is_new(&Config { words: &[7], ..config(&[0b010]) }, true));
        // All of 65 calls placed, and all of the first 64: neither has a word that says so.
        assert!(seen.is_new(&Config { low: 65, words: &[], ..config(&[0b010]) }, true));
        assert!(seen.is_new(&Config { low: 64, words: &[], ..config(&[0b010]) }, true));
    }
}
