//! The fixed input of a search: the list of invocations and returns, and the order between calls
//! that is known beforehand.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::super::limits::Passes;
use super::object::{Call, Model};

/// The part of a search that does not change while it runs.
pub(super) struct Plan {
    /// Invocations and returns in order of position; node 0 is the list head.
    pub(super) nodes: Vec<Node>,
    /// Per call: its number among the definite calls, or among the unknown calls.
    pub(super) number: Vec<usize>,
    /// Per call: the nodes of its invocation and of its return (0: none).
    pub(super) ends: Vec<(u32, u32)>,
    /// Per definite number: how many definite calls were invoked before it returned.
    pub(super) horizon: Vec<usize>,
    /// Per call: the calls that must be placed before it.
    pub(super) after: Vec<Vec<usize>>,
    /// Per call: whether it has a return, so that every order must place it.
    pub(super) is_definite: Vec<bool>,
    /// Number of definite calls.
    pub(super) definite: usize,
    /// Number of unknown calls.
    pub(super) unknown: usize,
}

/// An invocation or a return.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) call: u32,
    pub(super) is_return: bool,
}

/// The node at which the circular list begins and ends.
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
            is_definite: calls.iter().map(|call| call.returned.is_some()).collect(),
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

    /// Orders each ranked call after the one with the next smaller rank.
    fn order_ranks<M: Model>(&mut self, model: &M, calls: &[Call<M::Step>]) {
        let ranked = |index: usize| calls[index].returned.and_then(|_| model.rank(&calls[index].step));
        let mut ranks: Vec<(u64, usize)> = (0..calls.len()).filter_map(|index| Some((ranked(index)?, index))).collect();
        ranks.sort_unstable();
        for pair in ranks.windows(2) {
            // If the ranks contradict real time, the model refuses the second call, so no edge is
            // needed.
            if let [(_, first), (_, second)] = pair
                && calls[*second].returned > Some(calls[*first].invoked)
            {
                self.after[*second].push(*first);
            }
        }
    }

    /// Orders equal calls: the one that both began and returned first is placed first. In any order
    /// that has them reversed, they can be swapped.
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
                // Calls without a return form one chain, so the newest one represents all of them.
                open.retain(|earlier| calls[*earlier].returned.is_some());
            }
            open.push(index);
        }
    }
}
