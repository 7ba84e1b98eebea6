//! Admits clients' proposals before Raft sees them, so that an admitted proposal is served and Raft
//! itself never waits.

use quorate_machine::log::{Log, QUEUE_BYTES_MAX};
use quorate_types::{Command, Mutation, Rejection};

/// Proposals are refused while the log's queue holds more bytes than this; the other half of the
/// queue is for appends and votes.
const ADMITTED_QUEUE_BYTES_MAX: usize = QUEUE_BYTES_MAX / 2;
/// When a refused client may retry, in milliseconds: the writer drains the queue in about this
/// time.
const LOG_QUEUE_RETRY_MS: u32 = 50;

/// Whether the log's queue admits a batch of proposals now.
pub(crate) fn check_queue(log: &dyn Log) -> Result<(), Rejection> {
    if log.queued_bytes() > ADMITTED_QUEUE_BYTES_MAX {
        return Err(Rejection::Overloaded { retry_after_ms: LOG_QUEUE_RETRY_MS });
    }
    Ok(())
}

/// Whether a disk below its reserve admits a command: it refuses puts, as they add data. A deletion
/// makes room, and a session takes next to none.
pub(crate) fn is_admitted_by_full_disk(command: &Command) -> bool {
    !matches!(command, Command::Write { write, .. } if matches!(write.mutation, Mutation::Put(_)))
}

#[cfg(test)]
mod tests {
    use quorate_types::{Key, SessionId, SessionStamp, Value, Write};

    use super::*;

    #[test]
    fn a_full_disk_refuses_puts_and_nothing_else() {
        let write = |mutation| {
            let stamp = SessionStamp { session: SessionId(1), sequence: 1, lowest: 1 };
            let write = Write { key: Key::new("k").unwrap(), mutation, condition: None };
            Command::Write { epoch: 1, stamp, write }
        };
        assert!(!is_admitted_by_full_disk(&write(Mutation::Put(Value::default()))));
        assert!(is_admitted_by_full_disk(&write(Mutation::Delete)));
        assert!(is_admitted_by_full_disk(&Command::OpenSession { epoch: 1 }));
    }
}
