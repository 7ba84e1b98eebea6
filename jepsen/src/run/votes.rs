//! Checks that nodes keep their votes. A replica that forgets its vote may vote for another
//! candidate in the same term, and then two leaders are possible; clients notice that only under
//! further conditions. This check compares the votes that replicas logged as saved with the votes
//! that they logged at the next start. Both log lines have the level debug.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::report::{Check, Outcome};

/// The beginnings of the log lines for a durable vote, and for the vote found at a start.
const SAVED: &str = "vote saved ";
const FOUND: &str = "vote found ";
/// The most lost votes in the report.
const TOLD_MAX: usize = 10;

/// The term and the candidate of a vote. A replica's votes only increase.
type Vote = (u64, u64);

/// Checks the logs of all nodes.
pub(super) fn check(logs: &[PathBuf]) -> Check {
    let (mut lost, mut saved, mut found) = (Vec::new(), 0, 0);
    for log in logs {
        let text = match std::fs::read(log) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            // No node ever ran at this place.
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
        return Check::new(NAME, Outcome::HarnessFailure, "no log contains a vote: nothing was compared");
    }
    Check::pass(NAME, format!("{saved} votes saved, {found} votes found at starts, none older"))
}

const NAME: &str = "votes are kept";

/// The votes in a log.
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
        if let Some((replica, vote)) = logged(line, SAVED) {
            votes.saved += 1;
            let latest = latest.entry(replica).or_default();
            *latest = vote.max(*latest);
        } else if let Some((replica, vote)) = logged(line, FOUND) {
            votes.found += 1;
            let kept = latest.entry(replica).or_default();
            if vote < *kept {
                let ((term, candidate), (then, old)) = (vote, *kept);
                votes.lost.push(format!(
                    "replica {replica} voted for {old} in term {then}, and restarted with a vote for {candidate} in term {term}"
                ));
            }
            // The node may have ended between saving and logging a vote.
            *kept = vote.max(*kept);
        }
    }
    votes
}

/// The replica and the vote of a log line with the given beginning.
fn logged(line: &str, beginning: &str) -> Option<(u64, Vote)> {
    let (_, fields) = line.split_once(beginning)?;
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
    fn same_or_later_vote_passes() {
        for again in ["replica=7 term=2 candidate=8", "replica=7 term=2 candidate=9", "replica=7 term=3 candidate=1"] {
            let votes = read(&format!("{LIVES}DEBUG quorate_raft::log_store: vote found {again}\n"));
            assert_eq!(votes, Votes { saved: 2, found: 2, lost: vec![] });
        }
    }

    #[test]
    fn forgotten_vote_is_a_violation() {
        let found = format!("{LIVES}DEBUG quorate_raft::log_store: vote found replica=7 term=5 candidate=8\n");
        let votes = read(&format!("{found}DEBUG quorate_raft::log_store: vote found replica=7 term=4 candidate=9\n"));
        assert_eq!(votes.lost.len(), 1, "found at one start, lost at the next");
        for other in ["replica=7 term=0 candidate=0", "replica=7 term=1 candidate=9", "replica=7 term=2 candidate=7"] {
            let votes = read(&format!("{LIVES}DEBUG quorate_raft::log_store: vote found {other}\n"));
            assert_eq!(votes.lost.len(), 1, "{other}");
        }
    }

    #[test]
    fn logs_without_votes_prove_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("n1.log");
        std::fs::write(&log, "2026-01-01T00:00:02Z  INFO quorate_node: ready\n").unwrap();
        assert_eq!(check(std::slice::from_ref(&log)).outcome, Outcome::HarnessFailure);
        std::fs::write(&log, LIVES).unwrap();
        assert_eq!(check(&[log, dir.path().join("n2.log")]).outcome, Outcome::Pass, "no node ran at the second place");
    }
}
