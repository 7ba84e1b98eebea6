//! Reads Porcupine's two formats, which the content tells apart.
//!
//! ```text
//!   log lines of its etcd runs, one register:
//!     INFO  jepsen.util - 4 \t :invoke \t :cas \t [1 3]
//!   maps of its key-value runs, each with a key:
//!     {:process 9, :type :invoke, :f :append, :key "0", :value "x 9 0 y"}
//! ```

use serde_json::Value;

use super::edn::{self, event_of};
use super::error::{Malformed, ParseError};
use super::event::{Action, Event, EventKind};
use super::operation::{Convention, Operation, Pairing};

/// Reads a history in either format.
///
/// # Errors
///
/// The first line that is in neither format or does not fit the lines before it.
pub fn history(text: &str) -> Result<Vec<Operation>, ParseError> {
    let mut pairing = Pairing::new(Convention::Ours);
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() {
            continue;
        }
        let event = if line.starts_with("INFO") { log_line(line) } else { map_line(line) };
        let event = event.map_err(|error| error.at(number))?;
        pairing.push(number, event)?;
    }
    let mut operations = pairing.finish();
    for operation in operations.iter_mut().filter(|operation| appends_nothing(operation)) {
        // Appending nothing changes nothing, like a read with an unknown result. Left as an append,
        // it would turn an absent key into an empty string.
        (operation.action, operation.argument) = (Action::Read, Value::Null);
    }
    Ok(operations)
}

fn appends_nothing(operation: &Operation) -> bool {
    operation.action == Action::Append && operation.argument.as_str() == Some("")
}

/// Parses a log line. A failed compare-and-set ran and did not match, which is an observation; a
/// failed read observed nothing.
fn log_line(line: &str) -> Result<Event, Malformed> {
    let rest = line.strip_prefix("INFO").map(str::trim_start).and_then(|rest| rest.strip_prefix("jepsen.util - "));
    let rest = rest.ok_or("not a line of jepsen.util")?;
    let mut words = rest.split_whitespace();
    let mut word = |name: &str| words.next().ok_or_else(|| format!("the line ends before its {name}"));
    let process = word("process")?;
    let process = process.parse().map_err(|_| format!("process '{process}' is not a number"))?;
    let kind = edn::kind_of(word("type")?.trim_start_matches(':'))?;
    let action = edn::action_of(word("operation")?.trim_start_matches(':'))?;
    let argument = words.collect::<Vec<_>>().join(" ");
    let blind = kind == EventKind::Fail && action == Action::Cas;
    let value = if argument == ":timed-out" { Value::Null } else { edn::value(&argument)? };
    let mut event = Event::new(process, if blind { EventKind::Ok } else { kind }, action, value);
    event.refused = blind;
    Ok(event)
}

/// Parses a map. An absent key reads as the empty string, so the two are the same value.
fn map_line(line: &str) -> Result<Event, Malformed> {
    let maps = edn::parse(line).map_err(|error| Malformed(error.reason))?;
    let [(_, map)] = maps.as_slice() else { return Err("expected one map in a line".into()) };
    let mut event = event_of(map)?.ok_or("the process is not a number")?;
    if event.key.is_none() {
        return Err("the operation has no :key".into());
    }
    if event.value.as_str() == Some("") && event.f != Action::Append {
        event.value = Value::Null;
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::operation::Outcome;
    use super::*;
    use crate::check::{self, Limits, ModelName, Verdict};

    #[test]
    fn log_lines_are_read() {
        let text = "INFO  jepsen.util - 1\t:invoke\t:cas\t[0 3]\nINFO  jepsen.util - 2\t:invoke\t:read\tnil\n\
                    INFO  jepsen.util - 1\t:fail\t:cas\t[0 3]\nINFO  jepsen.util - 2\t:fail\t:read\t:timed-out\n\
                    INFO  jepsen.util - 3\t:invoke\t:write\t4\nINFO  jepsen.util - 3\t:info\t:write\t:timed-out\n";
        let operations = history(text).unwrap();
        assert_eq!(operations.len(), 2);
        assert_eq!((operations[0].outcome, &operations[0].result), (Outcome::Refused, &None));
        assert_eq!((operations[1].outcome, &operations[1].argument), (Outcome::Unknown, &json!(4)));
    }

    #[test]
    fn maps_are_read() {
        let text = "{:process 9, :type :invoke, :f :get, :key \"0\", :value nil}\n\
                    {:process 9, :type :ok, :f :get, :key \"0\", :value \"\"}\n";
        let operations = history(text).unwrap();
        assert_eq!(operations[0].result, Some(Value::Null));
        assert_eq!(operations[0].key.as_deref(), Some("0"));
    }

    /// An absent key and an empty string are the same value. (An append of nothing once told them
    /// apart.)
    #[test]
    fn absent_key_equals_empty_string() {
        let text = "{:process 1, :type :invoke, :f :append, :key \"0\", :value \"\"}\n\
                    {:process 1, :type :ok, :f :append, :key \"0\", :value \"\"}\n\
                    {:process 1, :type :invoke, :f :get, :key \"0\", :value nil}\n\
                    {:process 1, :type :ok, :f :get, :key \"0\", :value \"\"}\n";
        let check = |text: &str| check::check(ModelName::Kv, &history(text).unwrap(), &Limits::default());
        assert_eq!(check(text), Verdict::Valid);
        let made_up = text.replace(":ok, :f :get, :key \"0\", :value \"\"", ":ok, :f :get, :key \"0\", :value \"x\"");
        assert!(matches!(check(&made_up), Verdict::Invalid(_)));
    }

    #[test]
    fn syntax_error_names_the_line() {
        let refused = |text: &str| history(text).unwrap_err().to_string();
        assert!(refused("INFO  jepsen.util - x\t:invoke\t:read\tnil").contains("line 1: process 'x'"));
        assert!(refused("INFO  jepsen.util - 1\t:invoke\t:jump\tnil").contains("jump"));
        assert!(refused("INFO  other - 1\t:invoke\t:read\tnil").contains("jepsen.util"));
        assert!(refused("{:process 9, :type :ok").contains("line 1"));
        assert!(refused("{:process 9, :type :invoke, :f :get, :value nil}").contains(":key"));
    }
}
