//! Keys that are replaced over time, so that the history of each key stays short.

use super::contract::Setting;

/// Keys that are replaced over time: `slots` keys are in use, and each slot changes to a new key
/// after about `each` operations per slot, no two slots at the same time.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    /// The prefix of all keys.
    name: String,
    pub(super) slots: u64,
    each: u64,
}

impl Rotation {
    pub(super) fn new(workload: &str, setting: &Setting<'_>, each: u64) -> Self {
        Rotation { name: format!("{workload}/{}", setting.prefix), slots: setting.keys, each }
    }

    /// The key of a slot at the `n`-th operation.
    pub(super) fn key(&self, slot: u64, n: u64) -> String {
        self.named(slot, self.generation(slot, n))
    }

    fn generation(&self, slot: u64, n: u64) -> u64 {
        (n + slot * self.each) / (self.slots * self.each)
    }

    fn named(&self, slot: u64, generation: u64) -> String {
        format!("{}{slot}.{generation}", self.name)
    }

    /// All keys that the first `planned` operations may have used.
    pub(super) fn all(&self, planned: u64) -> impl Iterator<Item = String> + '_ {
        let last = planned.saturating_sub(1);
        let generations = move |slot| 0..=self.generation(slot, last);
        (0..self.slots).flat_map(move |slot| generations(slot).map(move |generation| self.named(slot, generation)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of the slots change at different times.
    #[test]
    fn slots_change_one_at_a_time() {
        let rotation = Rotation { name: "r/".into(), slots: 4, each: 10 };
        let at = |n| (0..4).map(|slot| rotation.key(slot, n)).collect::<Vec<_>>();
        for n in 1..200 {
            let changed = at(n).iter().zip(at(n - 1)).filter(|(now, before)| **now != *before).count();
            assert!(changed <= 1, "{n}");
        }
        assert_ne!(at(0), at(41));
    }
}
