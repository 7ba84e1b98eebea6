//! The value of a key during a replay.

use std::collections::HashSet;

use serde_json::Value;

use super::fillers::written;
use crate::history::Operation;

/// The value of a key: the last complete write, plus the appends and adds since.
pub(super) struct Holding<'a> {
    /// The version of the newest write; 0 before the first one and if it is unknown.
    pub(super) version: u64,
    /// The newest write.
    pub(super) writer: Option<usize>,
    /// None: unknown until the next read.
    base: Option<&'a Value>,
    since: Vec<&'a Value>,
}

const ABSENT: &Value = &Value::Null;

impl<'a> Holding<'a> {
    pub(super) fn absent() -> Self {
        Holding { version: 0, writer: None, base: Some(ABSENT), since: Vec::new() }
    }

    /// Applies a write.
    pub(super) fn write(&mut self, version: u64, writer: usize, operation: &'a Operation) {
        self.version = version;
        self.writer = Some(writer);
        match written(operation) {
            Some(value) => {
                self.base = Some(value);
                self.since.clear();
            }
            None => self.since.push(&operation.argument),
        }
    }

    /// Applies a filler, whose value may be unknown.
    pub(super) fn write_unknown(&mut self, version: u64, writer: usize, value: Option<&'a Value>) {
        *self = Holding { version, writer: Some(writer), base: value, since: Vec::new() };
    }

    /// Whether the key certainly has a value.
    pub(super) fn is_present(&self) -> bool {
        !self.since.is_empty() || self.base.is_some_and(|base| !base.is_null())
    }

    /// Whether the key is certainly absent.
    pub(super) fn is_absent(&self) -> bool {
        self.since.is_empty() && self.base == Some(ABSENT)
    }

    /// Whether the key can have this value; if so, it is known from then on.
    pub(super) fn shows(&mut self, value: &'a Value) -> bool {
        let fits = match (self.base, self.since.as_slice()) {
            (None, _) => true,
            (Some(base), []) => base == value,
            (Some(base), since) => follows(base, since, value),
        };
        if fits {
            self.base = Some(value);
            self.since.clear();
        }
        fits
    }

    /// Like [`Self::shows`], for a key with additions since its last known value: `may` says
    /// whether further additions with unknown versions are possible.
    pub(super) fn shows_beside(&mut self, value: &'a Value, may: bool) -> bool {
        let fits = may && !self.since.is_empty();
        if fits {
            self.base = Some(value);
            self.since.clear();
        }
        fits
    }

    /// The value in words.
    pub(super) fn describe(&self) -> String {
        match (self.base, self.since.len()) {
            (None, _) => "a value that is not known".to_owned(),
            (Some(base), 0) => base.to_string(),
            (Some(base), more) => format!("{base} and {more} additions to it"),
        }
    }
}

/// Whether the additions turn the base into the value, which is a string, a sum or a set.
fn follows(base: &Value, since: &[&Value], value: &Value) -> bool {
    match value {
        Value::String(text) => {
            let base = match base {
                Value::String(base) => base.as_str(),
                Value::Null => "",
                _ => return false,
            };
            let rest = since.iter().try_fold(text.strip_prefix(base), |rest, added| {
                rest.zip(added.as_str()).map(|(rest, added)| rest.strip_prefix(added))
            });
            rest == Some(Some(""))
        }
        Value::Number(sum) => {
            let whole = |value: &Value| if value.is_null() { Some(0) } else { value.as_i64().map(i128::from) };
            let added: Option<i128> = since.iter().map(|added| whole(added)).sum();
            let made = whole(base).zip(added).map(|(base, added)| base + added);
            made == sum.as_i64().map(i128::from)
        }
        Value::Array(elements) => {
            let before = base.as_array().map(Vec::as_slice).unwrap_or_default();
            let made: HashSet<&Value> = before.iter().chain(since.iter().copied()).collect();
            made == elements.iter().collect()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn additions_make_texts_sums_and_sets() {
        let (a, b, one, two) = (json!("a"), json!("b"), json!(1), json!(2));
        assert!(follows(&Value::Null, &[&a, &b], &json!("ab")));
        assert!(!follows(&json!("b"), &[&a, &b], &json!("ab")));
        assert!(!follows(&Value::Null, &[&a], &json!("ab")));
        assert!(follows(&json!(4), &[&one, &two], &json!(7)));
        assert!(!follows(&json!(4), &[&one, &one], &json!(7)));
        assert!(follows(&json!([3]), &[&one, &two], &json!([1, 2, 3])));
        assert!(!follows(&json!([3]), &[&one], &json!([1, 2, 3])));
    }
}
