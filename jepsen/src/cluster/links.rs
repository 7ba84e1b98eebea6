//! What the network between the nodes is to do, without saying how: directed links that are cut, lose, delay, or are narrow.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// One direction between two nodes, which are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Link {
    /// Who sends.
    pub from: usize,
    /// Who receives.
    pub to: usize,
}

/// How long packets of a link are held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Delay {
    /// Every packet, in milliseconds.
    pub base_ms: u64,
    /// And up to so many milliseconds more, by chance: packets overtake each other.
    pub jitter_ms: u64,
}

/// What is wrong with the network. Where several faults say something of one link, the worst holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// Links that carry nothing.
    pub cut: BTreeSet<Link>,
    /// Of a hundred packets, how many a link loses.
    pub loss_percent: BTreeMap<Link, u8>,
    /// How long a link holds packets back.
    pub delay: BTreeMap<Link, Delay>,
    /// How many kilobits a second may reach a node, whoever sends them.
    pub rate_kbit: BTreeMap<usize, u32>,
}

impl Rules {
    /// Links that are cut and nothing else.
    pub fn cutting(cut: impl IntoIterator<Item = Link>) -> Self {
        Rules { cut: cut.into_iter().collect(), ..Rules::default() }
    }

    /// Whether the network is whole.
    pub fn is_empty(&self) -> bool {
        *self == Rules::default()
    }

    /// Adds what another fault asks for.
    pub(crate) fn merge(&mut self, other: &Rules) {
        self.cut.extend(&other.cut);
        for (link, percent) in &other.loss_percent {
            let worst = self.loss_percent.entry(*link).or_default();
            *worst = (*worst).max(*percent);
        }
        for (link, delay) in &other.delay {
            let worst = self.delay.entry(*link).or_default();
            *worst = (*worst).max(*delay);
        }
        for (node, rate) in &other.rate_kbit {
            let worst = self.rate_kbit.entry(*node).or_insert(*rate);
            *worst = (*worst).min(*rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_two_faults_holds() {
        let (forth, back) = (Link { from: 1, to: 2 }, Link { from: 2, to: 1 });
        let mut all = Rules::cutting([forth]);
        all.loss_percent.insert(forth, 10);
        all.rate_kbit.insert(1, 100);
        let mut more = Rules::cutting([back]);
        more.loss_percent.insert(forth, 30);
        more.rate_kbit.insert(1, 500);
        all.merge(&more);
        assert_eq!(all.cut, BTreeSet::from([forth, back]));
        assert_eq!((all.loss_percent[&forth], all.rate_kbit[&1]), (30, 100));
        assert!(!all.is_empty() && Rules::default().is_empty());
    }
}
