//! What a search knows before it begins: the list of invocations and returns, and which calls wait for which.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::super::Passes;
use super::{Call, Model};

/// What does not change during a search.
pub(super) struct Plan {
    /// Nodes of the list in order, each an invocation or a return; node 0 is the list's head.
    pub(super) nodes: Vec<Node>,
    /// Of each call: its number among the definite, or among the unknown ones.
    pub(super) number: Vec<usize>,
    /// Of each call: the node of its invocation, and of its return (0: none).
    pub(super) ends: Vec<(u32, u32)>,
    /// Of each definite number: how many definite calls were invoked before it returned.
    pub(super) horizon: Vec<usize>,
    /// Of each call: the calls that are placed before it.
    pub(super) after: Vec<Vec<usize>>,
    pub(super) definite: usize,
    pub(super) unknown: usize,
}

/// An invocation or a return.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) call: u32,
    pub(super) is_return: bool,
}

/// The node that holds the list together.
pub(super) const HEAD: u32 = 0;

impl Plan {
    pub(super) fn new<M: Model>(model: &M, calls: &[Call<M::Step>], passes: Passes) -> Plan {
        let mut order: Vec<(u64, bool, u32)> = Vec::with_capacity(calls.len() * 2);
        for (call, index) in calls.iter().zip(0..) {
            order.push((call.invoked, false, index));
            order.extend(call.returned.map(|returned| (returned, true, index)));
        }
        order.sort_unstable();
        let mut plan = Plan {
            nodes: vec![Node { call: u32::MAX, is_return: true }],
            number: vec![0; calls.len()],
            ends: vec![(0, 0); calls.len()],
            horizon: Vec::new(),
            after: vec![Vec::new(); calls.len()],
            definite: 0,
            unknown: 0,
        };
        for ((_, is_return, call), node) in order.into_iter().zip(1..) {
            let index = call as usize;
            plan.nodes.push(Node { call, is_return });
            if is_return {
                plan.ends[index].1 = node;
                plan.horizon[plan.number[index]] = plan.definite;
                continue;
            }
            plan.ends[index].0 = node;
            let count = if calls[index].returned.is_some() { &mut plan.definite } else { &mut plan.unknown };
            plan.number[index] = *count;
            *count += 1;
            plan.horizon.resize(plan.definite, 0);
        }
        plan.order_ranks(model, calls);
        if passes.symmetric {
            plan.order_equals(calls);
        }
        plan
    }

    /// A call is placed after the one with the next smaller rank.
    fn order_ranks<M: Model>(&mut self, model: &M, calls: &[Call<M::Step>]) {
        let ranked = |index: usize| calls[index].returned.and_then(|_| model.rank(&calls[index].step));
        let mut ranks: Vec<(u64, usize)> = (0..calls.len()).filter_map(|index| Some((ranked(index)?, index))).collect();
        ranks.sort_unstable();
        for pair in ranks.windows(2) {
            // Where the order contradicts real time the model says so, when the second of them is tried.
            if let [(_, first), (_, second)] = pair
                && calls[*second].returned > Some(calls[*first].invoked)
            {
                self.after[*second].push(*first);
            }
        }
    }

    /// Of two calls that do the same, the one is placed first that both began and returned first: in any order that has them the
    /// other way round they can change places.
    fn order_equals<S: Eq + Hash>(&mut self, calls: &[Call<S>]) {
        let end = |index: usize| calls[index].returned.unwrap_or(u64::MAX);
        let mut equals: FxHashMap<&S, Vec<usize>> = FxHashMap::default();
        let mut by_begin: Vec<usize> = (0..calls.len()).collect();
        by_begin.sort_unstable_by_key(|index| calls[*index].invoked);
        for index in by_begin {
            let open = equals.entry(&calls[index].step).or_default();
            open.retain(|earlier| end(*earlier) > calls[index].invoked);
            self.after[index].extend(open.iter().filter(|earlier| end(**earlier) <= end(index)));
            if calls[index].returned.is_none() {
                // Those without an end form one chain: the newest stands for all.
                open.retain(|earlier| calls[*earlier].returned.is_some());
            }
            open.push(index);
        }
    }
}
