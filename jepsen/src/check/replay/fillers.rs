//! Writes that may have happened at a version that nobody told: they may explain what was read.

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::{is_mutation, is_placed};
use crate::history::{Action, Operation, Outcome};

/// The writes without a version, by key. A write of a known value explains one version at most.
pub(super) struct Fillers<'a> {
    operations: &'a [Operation],
    /// By key and by the value that they leave, in the order of their invocations.
    by_value: FxHashMap<(&'a str, &'a Value), Vec<usize>>,
    /// By key, all of them.
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

    /// A write of this value to the key of the observer that had begun when the observer returned; it is used up. Of several it
    /// is the one that began last: whoever returned earlier needs the others, so no choice can be regretted.
    ///
    /// What is appended or added makes a value that only the store knows: that may be any value, and any number of times.
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

    /// Whether something may have been appended or added that nobody told of.
    pub(super) fn has_vague(&self, observer: usize) -> bool {
        self.vague(observer).is_some()
    }

    fn vague(&self, observer: usize) -> Option<usize> {
        self.begun(observer).find(|place| written(&self.operations[*place]).is_none())
    }

    /// Any write to the key of the observer that had begun when the observer returned, whatever it wrote and explains already.
    pub(super) fn any(&self, observer: usize) -> Option<usize> {
        self.begun(observer).next()
    }

    fn begun(&self, observer: usize) -> impl Iterator<Item = usize> + '_ {
        let (key, returned) = self.observer(observer);
        let places = self.by_key.get(key).map(Vec::as_slice).unwrap_or_default();
        places.iter().copied().take_while(move |place| self.operations[*place].invoked < returned)
    }

    /// Whether there is one, also if it explains something else already.
    pub(super) fn has(&self, observer: usize, value: &Value) -> bool {
        let (key, returned) = self.observer(observer);
        let begun = |place: &usize| self.operations[*place].invoked < returned;
        self.by_value.get(&(key, value)).is_some_and(|places| places.iter().any(begun))
    }

    /// The only write of this value that there is; none if there are more, so that it may be another one.
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

/// The value that a write leaves, if that does not hang on what was there.
pub(super) fn written(operation: &Operation) -> Option<&Value> {
    match operation.action {
        Action::Write => Some(&operation.argument),
        Action::Cas | Action::CasVersion => operation.argument.get(1),
        Action::Delete => Some(ABSENT),
        _ => None,
    }
}
