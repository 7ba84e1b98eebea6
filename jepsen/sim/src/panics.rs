//! Panics of tasks. tokio catches them, so that the panic of a detached task would stay unnoticed;
//! in the simulation each one is a violation.

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::Once;

thread_local! {
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// The source file of a panic in openraft that is not counted. If the task that awaits the end of a
/// core is dropped, as in a crash, other waiters find the core neither running nor done, and panic.
/// In a running node, the supervision of the core notices its end.
const ON_ITS_WAY_OUT: &str = "raft/raft_inner.rs";

/// Records the panics of this thread from now on.
pub(crate) fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !keep(info) {
                before(info);
            }
        }));
    });
    SEEN.set(Some(Vec::new()));
}

/// The panics of this thread so far.
pub(crate) fn seen() -> Vec<String> {
    SEEN.with_borrow_mut(|seen| seen.as_mut().map(std::mem::take).unwrap_or_default())
}

/// Records a panic of a simulated thread. False on any other thread.
fn keep(info: &PanicHookInfo<'_>) -> bool {
    let what = info.payload_as_str().unwrap_or("it said nothing");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    SEEN.with_borrow_mut(|seen| {
        let Some(seen) = seen else { return false };
        if !place.contains(ON_ITS_WAY_OUT) {
            seen.push(format!("{what} ({place})"));
        }
        true
    })
}
