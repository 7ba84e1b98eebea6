//! Stories of a shard: scripts of commands with the expected output beneath. Run on
//! `crate::new_store`. Each file in `stories/` is a case; `QUORATE_UPDATE_STORIES=1` rewrites the
//! expected output (read the diff).
//!
//! ```text
//!   > 1:3 put k v if version 2 lowest 2 @1      write 3 of session 1, with condition, lowest
//!                                               outstanding sequence (default 1) and epoch (1)
//!   > open | del | bootstrap EPOCH | tick       commands; ` ; ` puts several into one entry
//!   > time MS                                   sets the leader's clock
//!   > read KEY | head | sessions N              reads; opens N sessions
//!   > flush | crash | restart | snapshot ID     a crash reverts to the last flush, then replays
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use quorate_types::{Command, Condition, Mutation, Outcome, ReplicaId, SessionId, SessionStamp, Write};

use crate::new_store;
use crate::state_support::{Shard, bootstrap, key, read, value};

/// The output of every story is the expected one.
#[test]
fn stories_have_the_expected_output() {
    // Read at run time, because another clone that shares the target directory may have compiled
    // this.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let dir = Path::new(&package).join("../machine/tests/suite/stories");
    let mut stories: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    stories.sort();
    assert!(stories.len() >= 6, "the stories are there");
    for path in stories {
        let written = fs::read_to_string(&path).unwrap();
        let output = run(&written, &mut Shard::new(new_store()));
        if std::env::var_os("QUORATE_UPDATE_STORIES").is_some() {
            fs::write(&path, &output).unwrap();
        } else {
            assert_eq!(output, written, "{}", path.display());
        }
    }
}

/// Runs a story: copies comments and commands, and adds the output of each command.
fn run(story: &str, shard: &mut Shard) -> String {
    let mut output = String::new();
    for line in story.lines() {
        match line.strip_prefix("> ") {
            Some(command) => {
                writeln!(output, "{line}").unwrap();
                output += &play(command, shard);
            }
            None if line.is_empty() || line.starts_with('#') => writeln!(output, "{line}").unwrap(),
            None => {}
        }
    }
    output
}

fn play(line: &str, shard: &mut Shard) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["time", ms] => shard.time_ms = ms.parse().unwrap(),
        ["flush"] => shard.store.state.flush().unwrap(),
        ["restart"] => shard.restart(),
        ["snapshot", id] => shard.move_to(ReplicaId(id.parse().unwrap())),
        ["crash"] => return format!("replayed {} entries with the same outcomes\n", shard.crash()),
        ["read", name] => {
            return match &read(&*shard.store.state, shard.replica, &[key(name)])[0] {
                Some(record) => format!("v{} {}\n", record.version, record.value.as_bytes().escape_ascii()),
                None => "absent\n".into(),
            };
        }
        ["head"] => {
            let head = shard.replica().head();
            return format!(
                "applied {} revision {} clock {} epoch {} arc {} sessions {}\n",
                head.applied.map_or("none".into(), |applied| applied.index.to_string()),
                head.revision,
                head.clock_ms,
                head.epoch,
                head.arc.map_or("none".into(), |arc| arc.to_string()),
                head.sessions_opened
            );
        }
        ["sessions", count] => {
            let outcomes = shard.say(vec![Command::OpenSession { epoch: 1 }; count.parse().unwrap()]);
            return format!("first: {}\nlast: {}\n", show(&outcomes[0]), show(&outcomes[outcomes.len() - 1]));
        }
        _ => {
            let outcomes = shard.say(line.split(" ; ").map(command).collect());
            return outcomes.iter().map(|outcome| show(outcome) + "\n").collect();
        }
    }
    String::new()
}

fn command(text: &str) -> Command {
    let (text, epoch) = match text.split_once(" @") {
        Some((text, epoch)) => (text, epoch.parse().unwrap()),
        None => (text, 1),
    };
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["open"] => Command::OpenSession { epoch },
        ["tick"] => Command::Tick,
        ["bootstrap", epoch] => bootstrap(epoch.parse().unwrap()),
        [stamp, "put", name, text, ref rest @ ..] => write(epoch, stamp, name, Mutation::Put(value(text)), rest),
        [stamp, "del", name, ref rest @ ..] => write(epoch, stamp, name, Mutation::Delete, rest),
        _ => panic!("no such command: {text}"),
    }
}

fn write(epoch: u64, stamp: &str, name: &str, mutation: Mutation, rest: &[&str]) -> Command {
    let (session, sequence) = stamp.split_once(':').unwrap();
    let (condition, rest) = match *rest {
        ["if", "absent", ref rest @ ..] => (Some(Condition::Absent), rest),
        ["if", "exists", ref rest @ ..] => (Some(Condition::Exists), rest),
        ["if", "version", version, ref rest @ ..] => (Some(Condition::Version(version.parse().unwrap())), rest),
        ["if", "value", text, ref rest @ ..] => (Some(Condition::Value(value(text))), rest),
        ref rest => (None, rest),
    };
    let lowest = match *rest {
        ["lowest", lowest] => lowest.parse().unwrap(),
        [] => 1,
        _ => panic!("no such condition: {rest:?}"),
    };
    let stamp =
        SessionStamp { session: SessionId(session.parse().unwrap()), sequence: sequence.parse().unwrap(), lowest };
    Command::Write { epoch, stamp, write: Write { key: key(name), mutation, condition } }
}

fn show(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Written { version, replaced } => format!("written v{version} replaced v{replaced}"),
        Outcome::Refused { version, current: None } => format!("refused v{version}"),
        Outcome::Refused { version, current: Some(record) } => {
            let value = record.value.as_bytes().escape_ascii();
            format!("refused v{version} current v{} {value}", record.version)
        }
        Outcome::SessionOpened { session } => format!("session {session}"),
        Outcome::SessionUnknown => "session unknown".into(),
        Outcome::SequenceForgotten => "sequence forgotten".into(),
        Outcome::SequenceTooFar => "sequence too far".into(),
        Outcome::WrongEpoch { epoch } => format!("wrong epoch: the shard's is {epoch}"),
        Outcome::Done => "done".into(),
    }
}
