//! `completions` and `man`: generated from the command definitions.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::failure::{Exit, Failure};
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell, as in `quorate completions bash > /etc/bash_completion.d/quorate`.
    shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Write one page per command into this directory; without it, print the page of `quorate`.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints a shell's completions.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "quorate", &mut text);
    output::print(text)
}

/// Prints or writes man pages.
pub(crate) fn man(args: &ManArgs, command: Command) -> Result<(), Failure> {
    let Some(dir) = &args.dir else {
        let mut text = Vec::new();
        let rendered = clap_mangen::Man::new(command).render(&mut text);
        rendered.map_err(|error| Failure::new(Exit::Other, "cannot render the page").cause(error))?;
        return output::print(text);
    };
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Other, format!("cannot write man pages to {}", dir.display())).cause(error)
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(command, dir).map_err(failed)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() {
        let dir = tempfile::tempdir().unwrap();
        man(&ManArgs { dir: Some(dir.path().to_owned()) }, Cli::command()).unwrap();
        let page = std::fs::read_to_string(dir.path().join("quorate-node-drain.1")).unwrap();
        assert!(page.contains("Move all replicas away from a node"), "{page}");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "quorate", &mut text);
            assert!(String::from_utf8(text).unwrap().contains("rebalance"), "{shell}");
        }
    }
}
