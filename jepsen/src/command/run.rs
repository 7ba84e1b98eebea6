//! `quorate-jepsen run`: one run.

use tokio_util::sync::CancellationToken;

use quorate_jepsen::report::{Outcome, PAGE, summary};
use quorate_jepsen::run::{self, Options};

/// Executes one run, prints the summary and returns the exit code.
///
/// # Errors
///
/// The run could not be executed.
pub(super) async fn run(options: &Options) -> anyhow::Result<u8> {
    let interrupt = on_interrupt();
    let (results, dir) = run::run(options, false, &interrupt).await?;
    print!("{}", summary::text(&results));
    println!("report      {}", dir.join(PAGE).display());
    Ok(results.outcome.exit_code())
}

/// Returns a token that the first Ctrl-C or SIGTERM cancels, so that the run heals and cleans up.
/// The second signal exits immediately.
pub(super) fn on_interrupt() -> CancellationToken {
    let interrupt = CancellationToken::new();
    let cancelled = interrupt.clone();
    tokio::spawn(async move {
        let mut signals = 0;
        while interrupted().await.is_ok() {
            signals += 1;
            if signals > 1 {
                eprintln!("exiting without clean-up: the next run removes the leftovers");
                std::process::exit(i32::from(Outcome::HarnessFailure.exit_code()));
            }
            eprintln!("interrupted: healing and cleaning up; interrupt again to exit immediately");
            cancelled.cancel();
        }
    });
    interrupt
}

async fn interrupted() -> std::io::Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminated.recv() => Ok(()),
    }
}
