//! Panics of tasks. tokio catches them, and a task that nobody waits for would go silently; here each one is a violation.

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::Once;

thread_local! {
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Where openraft panics when whoever waited for the end of a core was dropped meanwhile, as in a node that crashed: the others
/// who wait find it neither running nor done. That a core of a living node ends is noticed by its supervision.
const ON_ITS_WAY_OUT: &str = "raft/raft_inner.rs";

/// From now on the panics of this thread are kept.
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

/// True on a simulated thread, which has kept it.
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
