//! The faults of a run as periods of time, read from `nemesis.jsonl`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::nemesis::{Line, Phase};

/// The period of one installed fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Number of the fault in the run.
    pub id: u64,
    /// Kind of fault.
    pub fault: String,
    /// Start of the installation, in nanoseconds since the run began.
    pub from: u64,
    /// Time of healing; none if it was never healed.
    pub until: Option<u64>,
    /// Ids of the affected nodes.
    pub targets: Vec<u64>,
    /// Whether the leader of any shard was affected.
    pub leaders_hit: bool,
    /// Details from the nemesis.
    pub detail: String,
}

/// Number of faults of one kind, by result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCounts {
    /// Installed, and confirmed by observation.
    pub installed: u64,
    /// Healed.
    pub healed: u64,
    /// Not installed, for a reason that the nemesis reports.
    pub skipped: u64,
    /// Skipped because this machine or the binary under test does not support the fault (part of
    /// `skipped`).
    #[serde(default)]
    pub unable: u64,
    /// Failed half-way through the installation.
    #[serde(default)]
    pub indeterminate: u64,
    /// Installed where the leader of some shard was affected.
    pub leaders_hit: u64,
    /// Reason of the last skip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_skipped: Option<String>,
}

/// The faults of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// In order of installation.
    pub windows: Vec<Window>,
    /// Kind of fault → its counts.
    pub counts: BTreeMap<String, FaultCounts>,
    /// Fault number → the start of an installation that is not confirmed yet.
    began: BTreeMap<u64, u64>,
}

impl Faults {
    /// Reads `nemesis.jsonl`; a missing file means no faults.
    ///
    /// # Errors
    ///
    /// A line that is not the nemesis's.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            return Ok(Faults::default());
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut faults = Faults::default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let line: Line = serde_json::from_str(line).with_context(|| format!("line {}", number + 1))?;
            faults.add(line);
        }
        Ok(faults)
    }

    fn add(&mut self, line: Line) {
        let detail = match line.detail {
            Value::Null => String::new(),
            Value::String(text) => text,
            Value::Object(mut fields) if fields.len() == 1 && fields.contains_key("why") => {
                fields.remove("why").and_then(|why| why.as_str().map(str::to_owned)).unwrap_or_default()
            }
            other => other.to_string(),
        };
        if line.phase == Phase::Finding {
            return;
        }
        let counts = self.counts.entry(line.fault.clone()).or_default();
        match line.phase {
            Phase::Installed => {
                counts.installed += 1;
                counts.leaders_hit += u64::from(line.leaders_hit);
                let places = line.targets.iter().map(|target| *target as u64).collect();
                let targets = if line.nodes.is_empty() { places } else { line.nodes };
                let Line { id, fault, time, leaders_hit, .. } = line;
                self.windows.push(Window {
                    id,
                    fault,
                    from: self.began.remove(&id).unwrap_or(time),
                    until: None,
                    targets,
                    leaders_hit,
                    detail,
                });
            }
            Phase::Healed => {
                // A half-installed fault is healed too, but has no window.
                if let Some(window) = self.windows.iter_mut().find(|window| window.id == line.id) {
                    counts.healed += 1;
                    window.until = Some(line.time);
                }
            }
            Phase::Skipped | Phase::Unable => {
                counts.skipped += 1;
                counts.unable += u64::from(line.phase == Phase::Unable);
                counts.why_skipped = Some(detail);
            }
            Phase::Indeterminate => counts.indeterminate += 1,
            Phase::Install => {
                self.began.insert(line.id, line.time);
            }
            Phase::Heal | Phase::Finding => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_windows_and_counts() {
        let text = r#"{"time":5,"id":1,"fault":"kill-one","phase":"install","targets":[1],"leaders_hit":true,"detail":null}
{"time":7,"id":1,"fault":"kill-one","phase":"installed","targets":[1],"leaders_hit":true,"detail":"pid 4"}
{"time":8,"id":2,"fault":"clock-jump","phase":"unable","targets":[],"leaders_hit":false,"detail":{"why":"no faketime"}}
{"time":9,"id":3,"fault":"kill-one","phase":"installed","targets":[2],"leaders_hit":false,"detail":null}
{"time":12,"id":3,"fault":"kill-one","phase":"healed","targets":[2],"leaders_hit":false,"detail":null}
{"time":13,"id":4,"fault":"loss","phase":"indeterminate","targets":[2],"leaders_hit":false,"detail":{"why":"nft"}}
{"time":14,"id":4,"fault":"loss","phase":"healed","targets":[2],"leaders_hit":false,"detail":null}
"#;
        let faults = Faults::parse(text).unwrap();
        let windows: Vec<_> = faults
            .windows
            .iter()
            .map(|window| (window.fault.as_str(), window.from, window.until, window.targets.clone()))
            .collect();
        assert_eq!(windows, [("kill-one", 5, None, vec![1]), ("kill-one", 9, Some(12), vec![2])]);
        let kill = &faults.counts["kill-one"];
        assert_eq!((kill.installed, kill.healed, kill.leaders_hit), (2, 1, 1));
        let loss = &faults.counts["loss"];
        assert_eq!((loss.installed, loss.healed, loss.indeterminate), (0, 0, 1));
        let jump = &faults.counts["clock-jump"];
        assert_eq!((jump.skipped, jump.unable), (1, 1));
        assert_eq!(jump.why_skipped.as_deref(), Some("no faketime"));
        assert!(format!("{:#}", Faults::parse("{}").unwrap_err()).contains("line 1"));
    }
}
