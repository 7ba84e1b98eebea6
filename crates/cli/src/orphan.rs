//! A child that must not outlive the process that started it.
//!
//! The playground sets [`DIE_WITH_PARENT`] for the processes that it starts. They ask the kernel for SIGKILL at its death
//! themselves, before they do anything else. (The store loses nothing by a SIGKILL; that is what it is for.)

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::failure::{Exit, Failure};

/// The environment variable that holds the parent's process id.
pub(crate) const DIE_WITH_PARENT: &str = "QUORATE_DIE_WITH_PARENT";

/// Ties this process to its parent if the parent asked for it. To be called on the main thread, before any other is started.
pub(crate) fn guard() -> Result<(), Failure> {
    let Some(parent) = std::env::var_os(DIE_WITH_PARENT) else { return Ok(()) };
    let failure = |cause: String| Failure::new(Exit::Other, format!("cannot execute {DIE_WITH_PARENT}")).cause(cause);
    let parent = parent.to_str().and_then(parse).ok_or_else(|| failure("it must be a process id".to_owned()))?;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failure(error.to_string()))?;
    // It may have died before we asked.
    if getppid() != Some(parent) {
        return Err(failure(format!("process {} is not the parent (any more)", parent.as_raw_nonzero())));
    }
    Ok(())
}

fn parse(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok().filter(|pid| *pid > 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_id_is_a_positive_number() {
        assert_eq!(parse("17").map(Pid::as_raw_nonzero).map(i32::from), Some(17));
        for bad in ["", "0", "-1", "x", "99999999999"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
