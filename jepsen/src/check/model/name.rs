//! The models by name.

use std::fmt;
use std::str::FromStr;

/// The name of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelName {
    /// Registers with read, write, compare-and-set and delete; one per key.
    CasRegister,
    /// Keys with read, write, append, compare-and-set and delete.
    Kv,
    /// Like `Kv`, plus compare-and-set by version. Replies contain versions: a key's version grows
    /// with every mutation, and reads and refusals report the record's version.
    KvVersion,
    /// Counters that start at 0, with read and add; one per key, or one in total.
    Counter,
    /// Grow-only sets with read and add; one per key, or one in total.
    Set,
    /// Locks with acquire and release; one per key, or one in total.
    Mutex,
    /// Registers that are read and written together in transactions.
    MultiRegister,
}

impl ModelName {
    /// All models, in documentation order.
    pub const ALL: [ModelName; 7] = [
        ModelName::CasRegister,
        ModelName::Kv,
        ModelName::KvVersion,
        ModelName::Counter,
        ModelName::Set,
        ModelName::Mutex,
        ModelName::MultiRegister,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ModelName::CasRegister => "cas-register",
            ModelName::Kv => "kv",
            ModelName::KvVersion => "kv-version",
            ModelName::Counter => "counter",
            ModelName::Set => "set",
            ModelName::Mutex => "mutex",
            ModelName::MultiRegister => "multi-register",
        }
    }
}

/// The name is not that of a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown model '{name}'; the models are {known}")]
pub struct UnknownModel {
    name: String,
    known: String,
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ModelName {
    type Err = UnknownModel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|model| model.name() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|model| model.name()).collect();
            UnknownModel { name: text.to_owned(), known: known.join(", ") }
        })
    }
}
