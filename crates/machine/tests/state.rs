//! The state machine and the state store, shown on the store in memory. The tests of
//! `quorate-rocks` run the same suites on the store on disk.

#[path = "suite/snapshots.rs"]
mod snapshots;
#[path = "suite/state_machine.rs"]
mod state_machine;
#[path = "support/state.rs"]
mod state_support;
#[path = "suite/stories.rs"]
mod stories;

/// Creates the store that the suites run on.
fn new_store() -> state_support::Store {
    state_support::memory()
}
