//! Tests with the page and the numbers of a small run.

use serde_json::json;

use super::faults::FaultCounts;
use super::results::{Ended, Failover};
use super::*;
use crate::history::Event;
use crate::workload::operations;

const S: u64 = 1_000_000_000;

fn history() -> Vec<Event> {
    (0..40_u64)
        .flat_map(|n| {
            let event = |time: u64, kind: &str| {
                let event = json!({"index": 0, "time": time, "process": n, "type": kind, "f": "write", "key": "register/<1>",
                    "value": n, "shard": n % 2, "node": 1, "version": n});
                serde_json::from_value::<Event>(event).unwrap()
            };
            [event(n * S / 4, "invoke"), event(n * S / 4 + S / 10, "ok")]
        })
        .zip(0..)
        .map(|(event, index)| Event { index, ..event })
        .collect()
}

fn results() -> Results {
    let violation = Check { events: vec![10, 11], ..Check::new("linearizable", Outcome::Violation, "a read of <1>") };
    Results {
        outcome: Outcome::Violation,
        checks: vec![violation, Check::pass("hashes", "8 shards")],
        operations: [("register write".to_owned(), Ended { ok: 40, ..Ended::default() })].into(),
        total: Ended { ok: 40, ..Ended::default() },
        under_load: [("register".to_owned(), Ended { ok: 40, ..Ended::default() })].into(),
        shed: 0,
        ok_per_second: 4.0,
        latency_ms: Some([100.0, 100.0]),
        faults: [(
            "kill".to_owned(),
            FaultCounts { installed: 1, healed: 1, leaders_hit: 1, ..FaultCounts::default() },
        )]
        .into(),
        unavailable: [].into(),
        failover: Failover { count: 1, p50_ms: 900, p99_ms: 900, max_ms: 900 },
        leader_changes: 1,
        counts: Counts { elections: 1, snapshots: 0, answers: 10 },
        load: (0, 10 * S),
        command: "quorate-jepsen run --seed 7".to_owned(),
        seed: 7,
        network: "loopback".to_owned(),
    }
}

/// The page is well-formed and self-contained. It has plots with data, the shaded fault and the
/// timeline.
#[test]
fn page_is_complete_and_self_contained() {
    let dir = tempfile::tempdir().unwrap();
    let history = history();
    let (fault, detail) = ("kill".to_owned(), "pid <9>".to_owned());
    let fault = Window { id: 1, fault, from: 2 * S, until: Some(3 * S), targets: vec![1], leaders_hit: true, detail };
    write(dir.path(), &results(), &operations(&history), &[fault], 10 * S).unwrap();
    let page = std::fs::read_to_string(dir.path().join(PAGE)).unwrap();
    assert_eq!(page.matches("<svg").count(), 4, "three plots and a timeline");
    assert!(page.matches("fill-opacity").count() >= 3, "the fault is shaded in every plot");
    assert!(page.contains("pid &lt;9&gt;") && page.contains("#d62728'><title>event 10"));
    assert!(page.matches(" L").count() > 50 || page.matches('L').count() > 50, "lines have points");
    assert!(!page.contains("src=") && !page.contains("href="), "the page is self-contained");
    well_formed(&page);
    let text = std::fs::read_to_string(dir.path().join(RESULTS)).unwrap();
    let read: Results = serde_json::from_str(&text).unwrap();
    assert_eq!((read.outcome, read.total.ok), (Outcome::Violation, 40));
}

/// Asserts that every element is closed, in order.
fn well_formed(page: &str) {
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap();
        let name: String = tag.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name.as_str()));
        } else if !tag.ends_with('/') && !tag.starts_with('!') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

/// The verdict comes first, the command that repeats the run last.
#[test]
fn summary_begins_with_the_verdict() {
    let text = summary::text(&results());
    assert!(text.starts_with("VIOLATION\n  ✗ linearizable: a read of <1>\n  ✓ hashes"), "{text}");
    assert!(text.contains("40 ok") && text.contains("failover    p50 900 ms"), "{text}");
    assert!(text.trim_end().ends_with("--seed 7"), "{text}");
}
