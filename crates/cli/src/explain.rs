//! `explain`: the meaning of an exit code, and the next step.

use clap::Args;

use crate::failure::{Exit, Failure};
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The exit code; by default all of them.
    code: Option<u8>,
}

/// The meaning of an exit code, and the next step.
struct Meaning {
    code: u8,
    means: &'static str,
    next: &'static str,
}

const fn meaning(exit: Exit, means: &'static str, next: &'static str) -> Meaning {
    Meaning { code: exit as u8, means, next }
}

const MEANINGS: [Meaning; 16] = [
    Meaning { code: 0, means: "success: done, or nothing to do", next: "nothing" },
    meaning(Exit::Other, "failure without an exit code of its own", "read the cause and the hint"),
    meaning(
        Exit::Usage,
        "the command line or its input is wrong, or the command needs confirmation; nothing was done",
        "correct the command (see --help), or add --yes or --confirm if the error asks for it",
    ),
    meaning(
        Exit::Unreachable,
        "no node is reachable, the shard has no quorum, or it is too early to judge whether a node is dead; nothing was \
         applied",
        "retry; quorate status shows the nodes that do not respond",
    ),
    meaning(Exit::StillRunning, "timed out; the operation is still running", "quorate op list; quorate op watch ID"),
    meaning(
        Exit::Refused,
        "refused for safety: the change would endanger data or a quorum, gives up a node that is alive, or conflicts \
         with another operation; nothing was changed",
        "resolve the cause first: start another node, drain this one, or wait for the other operation",
    ),
    meaning(
        Exit::Conflict,
        "a condition did not hold, or the plan is older than the topology; nothing was changed",
        "query again (quorate kv get, quorate op list, quorate rebalance plan) and decide again",
    ),
    meaning(Exit::CheckFailed, "a check failed", "quorate doctor shows how to fix it"),
    meaning(
        Exit::Unknown,
        "outcome unknown: the request was sent, but its answer was lost or late",
        "read the key, or run quorate op list, to find out",
    ),
    meaning(Exit::Absent, "the key is absent", "nothing: this is the result"),
    meaning(
        Exit::DataFormat,
        "node start: the data belongs to another cluster, has a newer format, or is corrupt",
        "use the node's own data directory and release, or an empty directory with --join",
    ),
    meaning(
        Exit::DataDir,
        "node start: the data directory is locked by another process or cannot be written",
        "stop the other process, or check the owner of the directory",
    ),
    meaning(Exit::DiskIo, "node start: the disk failed, so the node stopped", "check the disk"),
    meaning(Exit::Config, "node start: the configuration is wrong", "correct the setting that the cause names"),
    Meaning { code: 101, means: "a bug: the program panicked", next: "report it with its output" },
    meaning(
        Exit::Interrupted,
        "interrupted by Ctrl-C or SIGTERM",
        "an operation that was started is still running: quorate op list",
    ),
];

impl ExplainArgs {
    /// Prints one meaning, or all.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Some(code) = self.code else { return output::print(MEANINGS.iter().map(text).collect::<String>()) };
        match MEANINGS.iter().find(|meaning| meaning.code == code) {
            Some(meaning) => output::print(text(meaning)),
            None => {
                let codes: Vec<String> = MEANINGS.iter().map(|meaning| meaning.code.to_string()).collect();
                Err(Failure::new(Exit::Usage, format!("quorate never exits with {code}"))
                    .hint(format!("its codes are {}", codes.join(", "))))
            }
        }
    }
}

fn text(Meaning { code, means, next }: &Meaning) -> String {
    format!("{code:>3}  {means}\n     next: {next}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_unique() {
        assert!(MEANINGS.is_sorted_by(|one, next| one.code < next.code));
        let failure = ExplainArgs { code: Some(42) }.run().unwrap_err();
        assert!(failure.to_string().contains("its codes are 0, 1, 2, 3"), "{failure}");
    }
}
