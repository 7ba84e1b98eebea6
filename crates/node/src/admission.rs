//! What a node admits at its edge, so that what is admitted is served and Raft itself never waits.

use std::sync::Arc;

use quorate_machine::log::{Log, QUEUE_BYTES_MAX};
use quorate_types::{Command, Mutation, Rejection};

use crate::disk::Disk;

/// Clients' proposals are refused while so many bytes wait for the log's writer; the other half is for appends and votes.
const ADMITTED_QUEUE_BYTES_MAX: usize = QUEUE_BYTES_MAX / 2;
/// When a refused client may come again, in milliseconds: the writer drains the queue in about this time.
const RETRY_AFTER_MS: u32 = 50;

/// Decides which of the clients' proposals are admitted.
#[derive(Clone)]
pub(crate) struct Admission {
    log: Arc<dyn Log>,
}

impl Admission {
    /// Looks at this log's queue.
    pub(crate) fn new(log: Arc<dyn Log>) -> Self {
        Admission { log }
    }

    /// Asked once for a batch of commands: whether proposals are admitted now.
    pub(crate) fn admit(&self) -> Result<(), Rejection> {
        if self.log.queued_bytes() > ADMITTED_QUEUE_BYTES_MAX {
            return Err(Rejection::Overloaded { retry_after_ms: RETRY_AFTER_MS });
        }
        Ok(())
    }
}

/// Whether a command is admitted by the disk: below the reserve nothing that adds data is, but a deletion is, since it makes
/// room, and a session takes next to none.
pub(crate) fn admitted_by_disk(command: &Command, disk: &Disk) -> bool {
    let adds_data = matches!(command, Command::Write { write, .. } if matches!(write.mutation, Mutation::Put(_)));
    !(adds_data && disk.is_full())
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
        let full = Disk::new(Some(u64::MAX));
        full.look(std::path::Path::new("/"));
        assert!(!admitted_by_disk(&write(Mutation::Put(Value::default())), &full));
        assert!(admitted_by_disk(&write(Mutation::Delete), &full));
        assert!(admitted_by_disk(&Command::OpenSession { epoch: 1 }, &full));
        let roomy = Disk::new(Some(0));
        assert!(admitted_by_disk(&write(Mutation::Put(Value::default())), &roomy));
    }
}
