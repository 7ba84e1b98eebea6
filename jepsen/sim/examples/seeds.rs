//! Runs seeds: `seeds A..B [--trace FILE] [--bug NAME] [--jobs N]`. Equivalent to
//! `quorate-jepsen sim`.

use std::path::PathBuf;

use anyhow::{Context, bail};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let range = arguments.next().context("usage: seeds A..B [--trace FILE] [--bug NAME] [--jobs N]")?;
    let (start, end) = range.split_once("..").context("seeds are given as A..B")?;
    let mut options = quorate_sim::Options::default();
    let (mut trace, mut jobs) = (None, 2);
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--trace" => trace = Some(PathBuf::from(value)),
            "--bug" => options.bug = Some(value.parse()?),
            "--jobs" => jobs = value.parse()?,
            _ => bail!("unknown option {name}"),
        }
    }
    let seeds = start.parse()?..end.parse()?;
    let summary = quorate_sim::command(seeds, jobs, &options, trace.as_deref(), &mut std::io::stdout())?;
    std::process::exit(i32::from(!summary.violated.is_empty()));
}
