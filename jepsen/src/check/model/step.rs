//! The operations on a key, for the models of `record`.

/// The number of a value.
pub(crate) type Id = u32;

/// The number of null, the value of an absent key.
pub(crate) const ABSENT: Id = 0;

/// An operation on a key, with its result. A version is set if the reply contained it and the model
/// uses versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Read this value; none: any value.
    Read { value: Option<Id>, version: Option<u64> },
    /// Write or delete.
    Write { value: Id, version: Option<u64> },
    /// Compare-and-set on this value.
    Cas { expected: Id, new: Id, version: Option<u64> },
    /// Compare-and-set on this version.
    CasVersion { expected: u64, new: Id, version: Option<u64> },
    /// Conditional write that was refused because the condition did not hold.
    Refused { expected: Expected, found: Option<Id>, version: Option<u64> },
    /// Append to the current value.
    Append { value: Id, version: Option<u64> },
}

/// The condition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Expected {
    /// The value must equal this one.
    Value(Id),
    /// The record's version must equal this one.
    Version(u64),
}

impl Step {
    /// The value that the step leaves, if it is always the same.
    pub(crate) fn writes(&self) -> Option<Id> {
        match self {
            Step::Write { value, .. } => Some(*value),
            Step::Cas { new, .. } | Step::CasVersion { new, .. } => Some(*new),
            Step::Read { .. } | Step::Refused { .. } | Step::Append { .. } => None,
        }
    }

    /// The value that the key must have before the step.
    pub(crate) fn sees(&self) -> Option<Id> {
        match self {
            Step::Read { value, .. } => *value,
            Step::Cas { expected, .. } => Some(*expected),
            Step::CasVersion { expected: 0, .. } => Some(ABSENT),
            Step::Refused { found, .. } => *found,
            Step::Write { .. } | Step::CasVersion { .. } | Step::Append { .. } => None,
        }
    }

    /// The version that the step observed on the value.
    pub(crate) fn sees_version(&self) -> Option<u64> {
        match self {
            Step::Read { version, .. } | Step::Refused { version, .. } => *version,
            _ => None,
        }
    }

    /// The version that the step wrote.
    pub(crate) fn wrote_version(&self) -> Option<u64> {
        match self {
            Step::Write { version, .. }
            | Step::Cas { version, .. }
            | Step::CasVersion { version, .. }
            | Step::Append { version, .. } => *version,
            Step::Read { .. } | Step::Refused { .. } => None,
        }
    }

    /// Sets the version that the step wrote.
    pub(crate) fn set_version(&mut self, wrote: Option<u64>) {
        match self {
            Step::Write { version, .. }
            | Step::Cas { version, .. }
            | Step::CasVersion { version, .. }
            | Step::Append { version, .. } => *version = wrote,
            Step::Read { .. } | Step::Refused { .. } => {}
        }
    }
}
