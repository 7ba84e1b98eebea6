//! Whether the nodes kept their votes. A replica that forgets for whom it voted may vote for another one in the same term, and then
//! two may lead; clients see that only where much more comes together. So what every replica said that it had saved is compared
//! with what it found at its next start. Both are in the nodes' logs, at level debug.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::report::{Check, Outcome};

/// What a node says when a vote is durable, and of the vote that it starts with.
const SAVED: &str = "vote saved ";
const FOUND: &str = "vote found ";
/// Votes that were lost, as far as they are told.
const TOLD_MAX: usize = 10;

/// A term, and the candidate who was voted for. A later one may only be greater.
type Vote = (u64, u64);

/// The check, of the logs that nodes wrote over all their lives.
pub(super) fn check(logs: &[PathBuf]) -> Check {
    let (mut lost, mut saved, mut found) = (Vec::new(), 0, 0);
    for log in logs {
        let text = match std::fs::read(log) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            // No node ever ran in this place.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Check::new(NAME, Outcome::HarnessFailure, format!("{}: {error}", log.display())),
        };
        let name = log.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let votes = read(&text);
        saved += votes.saved;
        found += votes.found;
        lost.extend(votes.lost.into_iter().map(|lost| format!("{name}: {lost}")));
    }
    if !lost.is_empty() {
        lost.truncate(TOLD_MAX);
        return Check::new(NAME, Outcome::Violation, lost.join("; "));
    }
    if saved == 0 {
        return Check::new(NAME, Outcome::HarnessFailure, "no log tells of a vote: nothing was compared");
    }
    Check::pass(NAME, format!("{saved} votes saved, {found} found at starts, none of them older"))
}

const NAME: &str = "votes are kept";

/// What a log tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Votes {
    saved: usize,
    found: usize,
    lost: Vec<String>,
}

fn read(log: &str) -> Votes {
    let mut votes = Votes::default();
    let mut latest: HashMap<u64, Vote> = HashMap::new();
    for line in log.lines() {
        if let Some((replica, vote)) = said(line, SAVED) {
            votes.saved += 1;
            let latest = latest.entry(replica).or_default();
            *latest = vote.max(*latest);
        } else if let Some((replica, vote)) = said(line, FOUND) {
            votes.found += 1;
            let kept = latest.entry(replica).or_default();
            if vote < *kept {
                let ((term, candidate), (then, whom)) = (vote, *kept);
                votes.lost.push(format!(
                    "replica {replica} had voted for {whom} in term {then}, and came back with a vote for {candidate} in term {term}"
                ));
            }
            // It may have been saved by a life that ended before it said so.
            *kept = vote.max(*kept);
        }
    }
    votes
}

/// The replica and the vote of a line that says so.
fn said(line: &str, what: &str) -> Option<(u64, Vote)> {
    let (_, fields) = line.split_once(what)?;
    let field = |name: &str| {
        let fields = fields.split_whitespace().filter_map(|field| field.split_once('='));
        fields.into_iter().find(|(key, _)| *key == name)?.1.parse().ok()
    };
    Some((field("replica")?, (field("term")?, field("candidate")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVES: &str = "\
2026-01-01T00:00:00Z DEBUG quorate_raft::log_store: vote found replica=7 term=0 candidate=0
2026-01-01T00:00:01Z DEBUG quorate_raft::log_store: vote saved replica=7 term=2 candidate=8
2026-01-01T00:00:01Z DEBUG quorate_raft::log_store: vote saved replica=70 term=9 candidate=8
2026-01-01T00:00:02Z  INFO quorate_node: ready
";

    #[test]
    fn a_vote_that_is_found_again_or_a_later_one_is_fine() {
        for again in ["replica=7 term=2 candidate=8", "replica=7 term=2 candidate=9", "replica=7 term=3 candidate=1"] {
            let votes = read(&format!("{LIVES}DEBUG quorate_raft::log_store: vote found {again}\n"));
            assert_eq!(votes, Votes { saved: 2, found: 2, lost: vec![] });
        }
    }

    #[test]
    fn a_vote_that_is_forgotten_is_noticed() {
        let found = format!("{LIVES}DEBUG quorate_raft::log_store: vote found replica=7 term=5 candidate=8\n");
        let votes = read(&format!("{found}DEBUG quorate_raft::log_store: vote found replica=7 term=4 candidate=9\n"));
        assert_eq!(votes.lost.len(), 1, "found once, and lost later");
        for other in ["replica=7 term=0 candidate=0", "replica=7 term=1 candidate=9", "replica=7 term=2 candidate=7"] {
            let votes = read(&format!("{LIVES}DEBUG quorate_raft::log_store: vote found {other}\n"));
            assert_eq!(votes.lost.len(), 1, "{other}");
        }
    }

    #[test]
    fn logs_that_tell_of_no_votes_are_no_proof() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("n1.log");
        std::fs::write(&log, "2026-01-01T00:00:02Z  INFO quorate_node: ready\n").unwrap();
        assert_eq!(check(std::slice::from_ref(&log)).outcome, Outcome::HarnessFailure);
        std::fs::write(&log, LIVES).unwrap();
        assert_eq!(check(&[log, dir.path().join("n2.log")]).outcome, Outcome::Pass, "nobody ran in the second place");
    }
}
