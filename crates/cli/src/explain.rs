//! `explain`: what an exit code means, and what to do next.

use clap::Args;

use crate::failure::{Exit, Failure};
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The exit code; without one, all of them.
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
    Meaning { code: 0, means: "it was done, or was so already", next: "nothing" },
    meaning(Exit::Other, "it failed, for a reason without a code of its own", "read the cause and the hint"),
    meaning(
        Exit::Usage,
        "the command line or its input is wrong, or nobody could be asked to confirm; nothing was done",
        "change the command: --help; add --yes or --confirm where it says so",
    ),
    meaning(
        Exit::Unreachable,
        "no node could be reached, or the shard has no quorum; nothing was applied",
        "try again; quorate status says what is down",
    ),
    meaning(
        Exit::StillRunning,
        "nobody watches any more; the operation goes on",
        "quorate op list; quorate op watch ID",
    ),
    meaning(
        Exit::Refused,
        "the cluster refused it because data or its quorum would be in danger, or another operation is in the way; nothing was changed",
        "do first what the cause names, such as starting another node, draining this one, or waiting for the other operation",
    ),
    meaning(
        Exit::Conflict,
        "a condition did not hold, or the plan was made on an older map; nothing was changed",
        "look again (quorate kv get, quorate op list, quorate rebalance plan), and decide anew",
    ),
    meaning(Exit::CheckFailed, "a check found something wrong", "quorate doctor says what to do about it"),
    meaning(
        Exit::Unknown,
        "nobody knows whether it was applied: the answer was lost or did not come in time",
        "read the key, or quorate op list, to find out",
    ),
    meaning(Exit::Absent, "the key holds nothing", "nothing: that is the answer"),
    meaning(
        Exit::DataFormat,
        "node start: the data is of another cluster, of a newer format, or broken",
        "start it with its own data directory and release, or with an empty directory and --join",
    ),
    meaning(
        Exit::DataDir,
        "node start: the data directory is locked by another process or cannot be written",
        "stop the other process; check the directory's owner",
    ),
    meaning(Exit::DiskIo, "node start: the disk failed, and the node stopped rather than guess", "check the disk"),
    meaning(Exit::Config, "node start: the configuration is wrong", "change what the cause names"),
    Meaning { code: 101, means: "the program has a bug and stopped itself", next: "report it, with what it printed" },
    meaning(Exit::Interrupted, "Ctrl-C", "an operation that was started goes on: quorate op list"),
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
    fn codes_are_in_order_and_none_is_there_twice() {
        assert!(MEANINGS.is_sorted_by(|one, next| one.code < next.code));
        let failure = ExplainArgs { code: Some(42) }.run().unwrap_err();
        assert!(failure.to_string().contains("its codes are 0, 1, 2, 3"), "{failure}");
    }
}
