//! Ties a child process to its parent: the child dies with the playground that started it.
//!
//! The playground sets [`DIE_WITH_PARENT`] in its children. They ask the kernel for SIGKILL at the
//! parent's death before they do anything else. SIGKILL costs no data: nodes recover from it.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::error::{Error, Kind};

/// The environment variable that holds the parent's process id.
pub(crate) const DIE_WITH_PARENT: &str = "QUORATE_DIE_WITH_PARENT";

/// Ties this process to its parent if `QUORATE_DIE_WITH_PARENT` asks for it; otherwise does
/// nothing. Call it on the main thread, before starting another one.
///
/// # Errors
///
/// [`Kind::Failed`] if the variable is not the parent's process id: the process must exit.
pub fn die_with_parent() -> Result<(), Error> {
    let Some(parent) = std::env::var_os(DIE_WITH_PARENT) else { return Ok(()) };
    let failed = |cause: String| Error::new(Kind::Failed, format!("cannot honour {DIE_WITH_PARENT}")).why(cause);
    let parent = parent.to_str().and_then(parse).ok_or_else(|| failed("its value is not a process id".to_owned()))?;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failed(error.to_string()))?;
    // The parent may have died before the kernel knew of the request.
    if getppid() != Some(parent) {
        return Err(failed(format!("process {} is not the parent", parent.as_raw_nonzero())));
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
