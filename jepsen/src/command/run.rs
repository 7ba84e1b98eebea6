//! `quorate-jepsen run`.

use tokio_util::sync::CancellationToken;

use quorate_jepsen::report::{Outcome, PAGE, summary};
use quorate_jepsen::run::{self, Options};

/// Makes one run and prints what it found; the exit code says it too.
///
/// # Errors
///
/// The run could not be made.
pub(super) async fn run(options: &Options) -> anyhow::Result<u8> {
    let interrupt = on_interrupt();
    let (results, dir) = run::run(options, false, &interrupt).await?;
    print!("{}", summary::text(&results));
    println!("report      {}", dir.join(PAGE).display());
    Ok(results.outcome.exit_code())
}

/// Cancelled by the first Ctrl-C or SIGTERM, which lets the run heal and clean up; the second ends it at once.
pub(super) fn on_interrupt() -> CancellationToken {
    let interrupt = CancellationToken::new();
    let told = interrupt.clone();
    tokio::spawn(async move {
        let mut asked = 0;
        while interrupted().await.is_ok() {
            asked += 1;
            if asked > 1 {
                eprintln!("ended at once: the next run takes away what is left");
                std::process::exit(i32::from(Outcome::HarnessFailure.exit_code()));
            }
            eprintln!("interrupted: healing and cleaning up; once more ends at once");
            told.cancel();
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
