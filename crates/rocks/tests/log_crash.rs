//! Kills a process that writes a log, repeatedly, and verifies the log after each kill.
//!
//! ```text
//!   parent                                  child (this test binary, run again)
//!     │ ◄── "do R n …"  before each call ──── threads: append, vote, truncate, purge, …
//!     │ ◄── "ok R n"    from each Done ────── writer
//!     │ ─── SIGKILL at a random moment ─────► ✗
//!     └ opens the log: every replica R must equal the model after some n ≥ its last "ok"
//! ```
//!
//! A killed process does not lose data in the kernel's cache, so this does not show that the log
//! waits for its syncs. That takes a power cut, which needs a disk of its own.

#![allow(clippy::unwrap_used, reason = "a test, helpers included, fails by panicking")]

mod log_support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use log_support::*;
use quorate_machine::log::{Done, Log, LogError, MemoryLog};
use quorate_types::{Entry, GroupId, LogId, ReplicaId, Vote};

/// Number of kills; [`ROUNDS_VARIABLE`] overrides it.
const ROUNDS: u64 = 20;
const ROUNDS_VARIABLE: &str = "QUORATE_CRASH_ROUNDS";
/// Environment variable for the child: the directory of the log and the round.
const CHILD_VARIABLE: &str = "QUORATE_LOG_CRASH_CHILD";

const THREADS: u64 = 3;
const REPLICAS_PER_THREAD: u64 = 2;
/// Maximum number of calls in flight per thread.
const IN_FLIGHT_MAX: usize = 16;
/// Approximate number of entries that a replica retains.
const RETAINED: u64 = 200;

/// A small random number generator, seeded with the round, so that a failure can be reproduced.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A change that the child makes to a replica.
#[derive(Clone, Copy, Debug)]
enum Action {
    Create,
    Destroy,
    Append { term: u64, first: u64, count: u64 },
    Vote { term: u64 },
    Truncate(LogId),
    Purge(LogId),
    Committed(LogId),
    Won,
}

impl Action {
    /// Whether the action has no callback and reaches the disk with the replica's next action.
    fn goes_along(self) -> bool {
        matches!(self, Action::Committed(_) | Action::Won)
    }

    fn write(self) -> String {
        match self {
            Action::Create => "create".into(),
            Action::Destroy => "destroy".into(),
            Action::Append { term, first, count } => format!("append {term} {first} {count}"),
            Action::Vote { term } => format!("vote {term}"),
            Action::Truncate(last) => format!("truncate {} {}", last.term, last.index),
            Action::Purge(upto) => format!("purge {} {}", upto.term, upto.index),
            Action::Committed(committed) => format!("committed {} {}", committed.term, committed.index),
            Action::Won => "won".into(),
        }
    }

    fn read(name: &str, numbers: &[u64]) -> Self {
        match (name, numbers) {
            ("create", []) => Action::Create,
            ("destroy", []) => Action::Destroy,
            ("append", &[term, first, count]) => Action::Append { term, first, count },
            ("vote", &[term]) => Action::Vote { term },
            ("truncate", &[term, index]) => Action::Truncate(id(term, index)),
            ("purge", &[term, index]) => Action::Purge(id(term, index)),
            ("committed", &[term, index]) => Action::Committed(id(term, index)),
            ("won", []) => Action::Won,
            other => panic!("the child said {other:?}"),
        }
    }

    fn does(self, log: &dyn Log, replica: ReplicaId, done: Done) {
        match self {
            Action::Create => done(log.create(replica, GroupId(1))),
            Action::Destroy => done(log.destroy(replica)),
            Action::Append { term, first, count } => {
                let entries = (first..first + count).map(|index| sized_entry(id(term, index))).collect();
                log.append(replica, entries, done);
            }
            Action::Vote { term } => log.save_vote(replica, Vote { term, candidate: replica, committed: false }, done),
            Action::Truncate(last) => log.truncate_after(replica, Some(last), done),
            Action::Purge(upto) => log.purge(replica, upto),
            Action::Committed(committed) => log.save_committed(replica, Some(committed)),
            Action::Won => log.vote_won(replica),
        }
    }
}

/// An entry whose size also depends on its log id; some span several blocks of the write-ahead log.
fn sized_entry(id: LogId) -> Entry {
    let spread = (id.term.wrapping_mul(31) ^ id.index).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    entry(id, if spread.is_multiple_of(60) { 100_000 } else { (spread % 2_000) as usize })
}

// The child.

/// Not a test: the process that the test below starts and kills.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Ok(told) = std::env::var(CHILD_VARIABLE) else { return };
    let (round, directory) = told.split_once(' ').expect("a round and a directory");
    let round: u64 = round.parse().unwrap();
    let log = open(Path::new(directory));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &log;
            scope.spawn(move || write_until_killed(log, thread, round));
        }
    });
}

/// A replica, as the child tracks it.
struct Writing<'a> {
    log: &'a dyn Log,
    replica: ReplicaId,
    number: u64,
    term: u64,
}

impl Writing<'_> {
    /// Announces an action, executes it, and reports when it is durable.
    fn does(&mut self, action: Action, told: &mpsc::SyncSender<()>) {
        self.number += 1;
        let (replica, number, told) = (self.replica, self.number, told.clone());
        say(&format!("do {replica} {number} {}", action.write()));
        let done = move |result: Result<(), LogError>| {
            result.expect("nothing fails here");
            say(&format!("ok {replica} {number}"));
            // Full or disconnected: no receiver waits for this one.
            let _ = told.try_send(());
        };
        action.does(self.log, self.replica, Box::new(done));
    }

    fn next_action(&self, random: &mut Random) -> Action {
        let state = self.log.state(self.replica).unwrap();
        let first = state.purged.map_or(0, |purged| purged.index + 1);
        let next = state.last.map_or(first, |last| last.index + 1);
        let committed = state.committed.map_or(first, |committed| committed.index).max(first);
        let at = |index| self.log.entries(self.replica, index..index + 1, 1).unwrap().first().map(|entry| entry.id);
        let append = Action::Append { term: self.term, first: next, count: 1 + random.below(4) };
        match random.below(20) {
            0 => Action::Vote { term: self.term },
            1 if state.vote.is_some_and(|vote| !vote.committed) => Action::Won,
            1 => Action::Vote { term: self.term },
            2..4 => at(committed + random.below((next - committed).max(1))).map_or(append, Action::Truncate),
            4..6 => state.last.filter(|last| last.index >= committed).map_or(append, Action::Committed),
            6 if next - first > RETAINED => at(first + random.below(RETAINED)).map_or(append, Action::Purge),
            7 if random.below(40) == 0 => Action::Purge(id(self.term, next + random.below(50))),
            _ => append,
        }
    }
}

fn write_until_killed(log: &dyn Log, thread: u64, round: u64) {
    let mut random = Random(round * 1_000 + thread);
    let (told, heard) = mpsc::sync_channel(IN_FLIGHT_MAX * 2);
    let mut waiting = 0;
    let mut replicas: Vec<_> = (0..REPLICAS_PER_THREAD)
        .map(|place| {
            let replica = ReplicaId(1 + thread * REPLICAS_PER_THREAD + place);
            let mut writing = Writing { log, replica, number: 0, term: 1 };
            writing.does(Action::Create, &told);
            let state = log.state(replica).unwrap();
            let terms = [state.vote.map(|vote| vote.term), state.last.map(|last| last.term)];
            writing.term = terms.into_iter().flatten().max().unwrap_or(0) + 1;
            waiting += 1;
            writing
        })
        .collect();
    for passing in 0.. {
        for writing in &mut replicas {
            let action = writing.next_action(&mut random);
            if matches!(action, Action::Truncate(_) | Action::Vote { .. }) {
                writing.term += 1;
            }
            writing.does(action, &told);
            waiting += usize::from(!(action.goes_along() || matches!(action, Action::Purge(_))));
        }
        if thread == 0 && random.below(10) == 0 {
            // A short-lived replica, which may be destroyed again.
            let replica = ReplicaId((1_000 + round) * 1_000_000 + passing);
            let mut short_lived = Writing { log, replica, number: 0, term: 1 };
            short_lived.does(Action::Create, &told);
            short_lived.does(Action::Append { term: 1, first: 0, count: 3 }, &told);
            waiting += 2;
            if random.below(3) > 0 {
                short_lived.does(Action::Destroy, &told);
                waiting += 1;
            }
        }
        while waiting > IN_FLIGHT_MAX {
            heard.recv().unwrap();
            waiting -= 1;
        }
    }
}

/// Prints one line unbuffered. A broken pipe means that the parent is gone.
fn say(line: &str) {
    if writeln!(std::io::stdout().lock(), "{line}").is_err() {
        std::process::exit(1);
    }
}

// The parent.

/// The child's reports about one replica.
#[derive(Default)]
struct Said {
    actions: Vec<Action>,
    /// The last action reported durable, counted from 1.
    acknowledged: usize,
}

/// After a SIGKILL, every acknowledged change is present, every replica's log reflects a prefix of
/// its actions, and no log has a hole.
#[test]
fn acknowledged_changes_survive_sigkill() {
    let rounds = std::env::var(ROUNDS_VARIABLE).map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let directory = tempfile::tempdir().unwrap();
    let model = MemoryLog::new(true);
    let (mut acknowledged, mut unanswered_but_there) = (0, 0);
    for round in 0..rounds {
        let said = run_and_kill(directory.path(), round);
        let log = open(directory.path());
        for (replica, said) in said {
            acknowledged += said.acknowledged;
            unanswered_but_there += check(&log, &model, replica, &said, round);
        }
        assert_eq!(log.replicas(), model.replicas(), "round {round}");
        for (replica, _) in model.replicas() {
            assert_eq!(log.state(replica).unwrap(), model.state(replica).unwrap(), "round {round}, replica {replica}");
        }
    }
    println!("{rounds} kills, {acknowledged} acknowledged and there, {unanswered_but_there} more there");
    assert!(acknowledged as u64 > rounds * 10, "the children were killed before they did anything: {acknowledged}");
}

/// Starts the child, kills it at a random moment, and returns its reports.
fn run_and_kill(directory: &Path, round: u64) -> BTreeMap<ReplicaId, Said> {
    let mut random = Random(round);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env(CHILD_VARIABLE, format!("{round} {}", directory.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (started, has_started) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut said = BTreeMap::<ReplicaId, Said>::new();
        let mut line = String::new();
        // A line cut off by the kill has no line end and is ignored.
        while output.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
            if hear(line.trim_end(), &mut said) {
                // Only the first report has a receiver.
                let _ = started.send(());
            }
            line.clear();
        }
        said
    });
    if round % 4 != 3 {
        // Kill it in full operation; otherwise the kill may come during its recovery.
        has_started.recv().unwrap_or_else(|_| panic!("round {round}: the child ended by itself: {:?}", child.wait()));
    }
    std::thread::sleep(Duration::from_millis(random.below(300)));
    let ended = child.try_wait().unwrap();
    assert!(ended.is_none(), "round {round}: the child ended by itself: {ended:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

/// Parses a line of the child and returns whether it acknowledged an action.
fn hear(line: &str, said: &mut BTreeMap<ReplicaId, Said>) -> bool {
    let words: Vec<_> = line.split(' ').collect();
    let number = |word: &str| word.parse::<u64>().unwrap();
    match words[..] {
        ["do", replica, at, name, ref numbers @ ..] => {
            let said = said.entry(ReplicaId(number(replica))).or_default();
            let numbers: Vec<_> = numbers.iter().map(|word| number(word)).collect();
            said.actions.push(Action::read(name, &numbers));
            assert_eq!(said.actions.len() as u64, number(at));
            false
        }
        ["ok", replica, at] => {
            let said = said.entry(ReplicaId(number(replica))).or_default();
            said.acknowledged = said.acknowledged.max(number(at) as usize);
            true
        }
        // Output of the test harness itself.
        _ => false,
    }
}

/// Advances the model of one replica until it equals the log: at least to the last acknowledged
/// action, at most to the last one. Returns the number of actions beyond the acknowledged ones.
fn check(log: &dyn Log, model: &MemoryLog, replica: ReplicaId, said: &Said, round: u64) -> usize {
    let mut marks = Vec::new();
    let found = log.state(replica).ok();
    for at in 0..=said.actions.len() {
        if at > 0 {
            let action = said.actions[at - 1];
            marks.push(action);
            if !action.goes_along() {
                marks.drain(..).for_each(|action| action.does(model, replica, Box::new(|result| result.unwrap())));
            }
        }
        let same = || found.is_none() || all(log, replica) == all(model, replica);
        if at >= said.acknowledged && model.state(replica).ok() == found && same() {
            return at - said.acknowledged;
        }
    }
    panic!(
        "round {round}, replica {replica}: found {found:?}, but of {} actions {} were acknowledged, and the last of all leads \
         to {:?}; the last ones are {:?}",
        said.actions.len(),
        said.acknowledged,
        model.state(replica),
        &said.actions[said.acknowledged.saturating_sub(5)..]
    );
}
