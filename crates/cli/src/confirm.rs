//! Asks the operator for confirmation.

use std::io::{IsTerminal as _, Write as _};

use crate::change::Change;
use crate::failure::{Exit, Failure};

/// Asks for confirmation of a change that no other command undoes. Without a terminal it requires
/// `--yes`.
pub(crate) fn confirm(question: &str, change: &Change) -> Result<(), Failure> {
    // A dry run changes nothing.
    if change.yes || change.dry_run {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "cannot prompt: stdin is not a terminal")
            .cause(format!("confirmation needed: {question}"))
            .hint("to confirm, add --yes"));
    }
    tell_part!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Exit::Other, "not confirmed; nothing was changed"))
}
