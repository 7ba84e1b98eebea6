//! The rules of the network between the nodes, independent of their implementation: directed links
//! that are cut, lose packets, delay packets, or have a bandwidth limit.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// One direction between two nodes, which are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Link {
    /// The sender.
    pub from: usize,
    /// The receiver.
    pub to: usize,
}

/// The delay of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Delay {
    /// The delay of every packet, in milliseconds.
    pub base_ms: u64,
    /// The largest additional random delay, in milliseconds. It reorders packets.
    pub jitter_ms: u64,
}

/// The faults of the network. If several faults affect one link, the worst value holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// Links that carry nothing.
    pub cut: BTreeSet<Link>,
    /// The percentage of packets that a link loses.
    pub loss_percent: BTreeMap<Link, u8>,
    /// The delay of a link.
    pub delay: BTreeMap<Link, Delay>,
    /// The bandwidth towards a node, in kilobits a second, over all senders.
    pub rate_kbit: BTreeMap<usize, u32>,
}

impl Rules {
    /// Whether the network has no faults.
    pub fn is_empty(&self) -> bool {
        *self == Rules::default()
    }

    /// Adds the rules of another fault.
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
    fn worst_of_two_faults_holds() {
        let (forth, back) = (Link { from: 1, to: 2 }, Link { from: 2, to: 1 });
        let mut all = Rules { cut: BTreeSet::from([forth]), ..Rules::default() };
        all.loss_percent.insert(forth, 10);
        all.rate_kbit.insert(1, 100);
        let mut more = Rules { cut: BTreeSet::from([back]), ..Rules::default() };
        more.loss_percent.insert(forth, 30);
        more.rate_kbit.insert(1, 500);
        all.merge(&more);
        assert_eq!(all.cut, BTreeSet::from([forth, back]));
        assert_eq!((all.loss_percent[&forth], all.rate_kbit[&1]), (30, 100));
        assert!(!all.is_empty() && Rules::default().is_empty());
    }
}
