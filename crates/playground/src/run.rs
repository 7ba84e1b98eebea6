//! Runs a playground from its start until the user stops it.

use crate::control::Control;
use crate::error::{Error, Kind};
use crate::home::Home;
use crate::layout::{Layout, Shape};
use crate::options::Options;
use crate::ready;
use crate::running::Running;
use crate::start::{self, Started};
use crate::terminal::Terminal;

/// Runs a playground until the user asks to stop. A second request kills the remaining processes.
///
/// Must be called on the main thread: children die with the *thread*
/// that started them.
///
/// # Errors
///
/// All processes have stopped when it returns. [`Kind::Usage`] for options that contradict the
/// directory, [`Kind::Interrupted`] for a stop during the start, [`Kind::Unreachable`] if the
/// cluster does not serve in time, [`Kind::Failed`] for ports in use, exited processes and failed
/// system calls.
pub async fn run(options: Options, mut terminal: Terminal) -> Result<(), Error> {
    let home = Home::open(options.dir.clone(), terminal.show)?;
    let shape = Shape::choose(&options, home.recorded()?)?;
    let layout = Layout::new(home.path(), shape, options.shortener_port, !options.direct)?;
    layout.check_ports()?;
    home.record(shape)?;
    if let Some(file) = &options.ready_file {
        // Left over from an earlier run that was killed.
        ready::remove(file)?;
    }
    let mut control = Control::listen(shape.port_base, terminal.show)?;

    let mut running = Running::new(home, shape, layout);
    let show = terminal.show;
    let started = tokio::select! {
        started = start::start(&mut running, show) => started,
        () = terminal.stopped() => Err(Error::new(Kind::Interrupted, "interrupted while the cluster was starting")),
    };
    let result = match started {
        Ok(started) => serve(&options, &mut running, &started, &mut control, &mut terminal).await,
        Err(error) => Err(error),
    };
    let removed = options.ready_file.as_deref().map_or(Ok(()), ready::remove);
    running.children.stop(&mut terminal).await;
    result.and(removed)
}

async fn serve(
    options: &Options,
    running: &mut Running,
    started: &Started,
    control: &mut Control,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    running.set_ids(&started.node_ids);
    (terminal.show)(&ready::screen(&running.layout, started, running.home.is_temporary()));
    if let Some(file) = &options.ready_file {
        ready::write(file, &ready::Ready::of(&running.layout, started, &running.children))?;
    }
    loop {
        tokio::select! {
            death = running.children.next_death() => (terminal.show)(&death.to_string()),
            (request, answer) = control.next() => {
                // The request is executed even if the requester is gone by then.
                let _ = answer.send(running.execute(request).await);
            }
            () = terminal.stopped() => {
                terminal.line("\nstopping (Ctrl-C again kills)");
                return Ok(());
            }
        }
    }
}
