//! Writes whose version is unknown (*fillers*): each may explain a version that a read observed.

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::position::{is_mutation, is_placed};
use crate::history::{Action, Operation, Outcome};

/// The writes without a version, by key. A filler with a known value explains at most one version.
pub(super) struct Fillers<'a> {
    operations: &'a [Operation],
    /// (key, value that the write leaves) → the fillers, in invocation order.
    by_value: FxHashMap<(&'a str, &'a Value), Vec<usize>>,
    /// Key → all its fillers.
    by_key: FxHashMap<&'a str, Vec<usize>>,
    used: Vec<bool>,
}

const ABSENT: &Value = &Value::Null;

impl<'a> Fillers<'a> {
    pub(super) fn new(operations: &'a [Operation]) -> Self {
        let mut fillers = Fillers {
            operations,
            by_value: FxHashMap::default(),
            by_key: FxHashMap::default(),
            used: vec![false; operations.len()],
        };
        for (place, operation) in operations.iter().enumerate() {
            let may_fill = is_mutation(operation.action) && operation.outcome != Outcome::Refused;
            if !may_fill || is_placed(operation) {
                continue;
            }
            let key = operation.key.as_deref().unwrap_or_default();
            fillers.by_key.entry(key).or_default().push(place);
            if let Some(value) = written(operation) {
                fillers.by_value.entry((key, value)).or_default().push(place);
            }
        }
        fillers
    }

    /// Claims a filler that wrote this value to the observer's key and began before the observer
    /// returned. Among several, claims the one that began last: observers that returned earlier
    /// need the others, so the choice is never wrong.
    ///
    /// The result of an append or add depends on the store's state, so such a filler may explain
    /// any value, any number of times.
    pub(super) fn take(&mut self, observer: usize, value: &Value) -> Option<usize> {
        let (key, returned) = self.observer(observer);
        let exact = self.by_value.get(&(key, value)).and_then(|places| {
            let begun = places.partition_point(|place| self.operations[*place].invoked < returned);
            places[..begun].iter().rfind(|place| !self.used[**place])
        });
        if let Some(place) = exact.copied() {
            self.used[place] = true;
            return Some(place);
        }
        self.vague(observer)
    }

    /// Whether an append or add with an unknown version may precede the observer's return.
    pub(super) fn has_vague(&self, observer: usize) -> bool {
        self.vague(observer).is_some()
    }

    fn vague(&self, observer: usize) -> Option<usize> {
        self.begun(observer).find(|place| written(&self.operations[*place]).is_none())
    }

    /// Any filler of the observer's key that began before the observer returned, regardless of its
    /// value and of earlier claims.
    pub(super) fn any(&self, observer: usize) -> Option<usize> {
        self.begun(observer).next()
    }

    fn begun(&self, observer: usize) -> impl Iterator<Item = usize> + '_ {
        let (key, returned) = self.observer(observer);
        let places = self.by_key.get(key).map(Vec::as_slice).unwrap_or_default();
        places.iter().copied().take_while(move |place| self.operations[*place].invoked < returned)
    }

    /// Whether such a filler exists, claimed or not.
    pub(super) fn has(&self, observer: usize, value: &Value) -> bool {
        let (key, returned) = self.observer(observer);
        let begun = |place: &usize| self.operations[*place].invoked < returned;
        self.by_value.get(&(key, value)).is_some_and(|places| places.iter().any(begun))
    }

    /// Whether this is the only filler that leaves its value, so that no other one can explain it.
    pub(super) fn is_only(&self, place: usize) -> bool {
        let operation = &self.operations[place];
        let key = operation.key.as_deref().unwrap_or_default();
        let of_value = written(operation).and_then(|value| self.by_value.get(&(key, value)));
        of_value.is_some_and(|places| places.len() == 1)
    }

    fn observer(&self, place: usize) -> (&'a str, u64) {
        let operation = &self.operations[place];
        (operation.key.as_deref().unwrap_or_default(), operation.returned.unwrap_or(u64::MAX))
    }
}

/// The value that a write leaves, if it does not depend on the previous value.
pub(super) fn written(operation: &Operation) -> Option<&Value> {
    match operation.action {
        Action::Write => Some(&operation.argument),
        Action::Cas | Action::CasVersion => operation.argument.get(1),
        Action::Delete => Some(ABSENT),
        _ => None,
    }
}
