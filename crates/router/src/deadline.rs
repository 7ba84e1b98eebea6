//! The deadline of one operation.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// The longest time that an operation may take.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The end of an operation, with the time it was given for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    within: Duration,
}

impl Deadline {
    /// A deadline from now on, at most [`LONGEST`] away.
    pub(crate) fn after(within: Duration) -> Self {
        let within = within.min(LONGEST);
        Self { at: Instant::now() + within, within }
    }

    /// The time left.
    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.within.as_millis())
    }
}
