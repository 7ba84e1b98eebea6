//! The state machine and the state store, shown on the store on disk by the suites of
//! `quorate-machine`.

#[path = "../../machine/tests/suite/snapshots.rs"]
mod snapshots;
#[path = "../../machine/tests/suite/state_machine.rs"]
mod state_machine;
mod state_support;
#[path = "../../machine/tests/suite/stories.rs"]
mod stories;

/// Creates the store that the suites run on.
fn new_store() -> state_support::Store {
    state_support::on_disk()
}
