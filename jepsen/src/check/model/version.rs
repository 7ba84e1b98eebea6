//! Knowledge about the version of a record.

use std::rc::Rc;

use super::step::{ABSENT, Id};

/// Knowledge about the newest version. Always `Known(0)` in models without versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// The newest mutation had this version, and so has the record unless the key is absent.
    Known(u64),
    /// The version of the newest mutation is unknown: at least the first number, and none of the
    /// others, which are larger and sorted.
    AtLeast(u64, Rc<[u64]>),
}

impl Version {
    /// The version after a mutation; none if the mutation's version did not grow.
    pub(super) fn then(&self, version: Option<u64>) -> Option<Version> {
        let (Version::Known(last) | Version::AtLeast(last, _)) = self;
        let least = last.checked_add(1)?;
        match version {
            Some(version) => (version >= least).then_some(Version::Known(version)),
            None => Some(Version::from(least)),
        }
    }

    /// Any version from this one on.
    pub(super) fn from(least: u64) -> Version {
        Version::AtLeast(least, Rc::new([]))
    }

    /// The version after a reply that the record has version `seen`; none if it cannot have that
    /// version.
    pub(super) fn seen_as(&self, value: Id, seen: Option<u64>) -> Option<Version> {
        match (seen, self) {
            (None, _) => Some(self.clone()),
            (Some(seen), _) if value == ABSENT => (seen == 0).then(|| self.clone()),
            (Some(seen), Version::Known(known)) => (seen == *known).then_some(Version::Known(seen)),
            (Some(seen), Version::AtLeast(least, never)) => {
                (seen >= *least && !never.contains(&seen)).then_some(Version::Known(seen))
            }
        }
    }

    /// The version after a reply that the record does not have version `refused`; none if it must
    /// have that version.
    pub(super) fn seen_not_as(&self, value: Id, refused: u64) -> Option<Version> {
        match self {
            _ if value == ABSENT => (refused != 0).then(|| self.clone()),
            Version::Known(known) => (refused != *known).then(|| self.clone()),
            Version::AtLeast(least, never) if refused < *least || never.contains(&refused) => {
                Some(Version::AtLeast(*least, Rc::clone(never)))
            }
            Version::AtLeast(least, never) => {
                let (mut least, mut never) = (*least, never.to_vec());
                never.push(refused);
                never.sort_unstable();
                while never.first() == Some(&least) {
                    never.remove(0);
                    least = least.checked_add(1)?;
                }
                Some(Version::AtLeast(least, never.into()))
            }
        }
    }
}
