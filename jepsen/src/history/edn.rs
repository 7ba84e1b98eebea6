//! Reads the part of EDN that the histories of Jepsen and Knossos use.
//!
//! Keywords and symbols become strings without the colon. Sets and lists become arrays; the
//! elements of a set are sorted, so that equal sets are equal values.

use serde_json::{Map, Value};

use super::error::{Malformed, ParseError};
use super::event::{Action, Event, EventKind};
use super::operation::{Convention, Operation, Pairing};

/// Deepest nesting of values. Histories need 4 levels; the bound protects the stack from a hostile
/// file.
const DEPTH_MAX: u32 = 64;

/// Reads a history: one vector or list of maps, or bare maps. Operations of processes without a
/// number (the nemesis) are skipped.
///
/// # Errors
///
/// The first line that is not EDN or not an event.
pub fn history(text: &str) -> Result<Vec<Operation>, ParseError> {
    let mut pairing = Pairing::new(Convention::Knossos);
    for (line, map) in parse(text)? {
        let event = event_of(&map).map_err(|error| error.at(line))?;
        if let Some(event) = event {
            pairing.push(line, event)?;
        }
    }
    Ok(pairing.finish())
}

/// Returns each map with the line where it begins. An outer vector or list is unwrapped.
pub(super) fn parse(text: &str) -> Result<Vec<(u64, Value)>, ParseError> {
    let mut reader = Reader { rest: text.as_bytes(), line: 1 };
    let mut values = Vec::new();
    loop {
        reader.skip();
        let close = match reader.rest.first() {
            None => return Ok(values),
            Some(b'[') => b']',
            Some(b'(') => b')',
            Some(_) => {
                values.push((reader.line, reader.value(0)?));
                continue;
            }
        };
        // Reads the elements of an outer collection here, so that each has its own line number.
        reader.rest = &reader.rest[1..];
        loop {
            reader.skip();
            match reader.rest.first() {
                None => return reader.refuse("the file ends inside its outer vector or list"),
                Some(byte) if *byte == close => break,
                Some(_) => values.push((reader.line, reader.value(0)?)),
            }
        }
        reader.rest = &reader.rest[1..];
    }
}

/// Parses a text that holds exactly one value.
pub(super) fn value(text: &str) -> Result<Value, Malformed> {
    let mut reader = Reader { rest: text.as_bytes(), line: 1 };
    let value = reader.value(0).map_err(|error| Malformed(error.reason))?;
    reader.skip();
    if reader.rest.is_empty() { Ok(value) } else { Err(format!("'{text}' is more than one value").into()) }
}

/// Converts a map to an event; none if its process is not a number.
pub(super) fn event_of(map: &Value) -> Result<Option<Event>, Malformed> {
    let Value::Object(map) = map else { return Err(format!("expected a map, not {map}").into()) };
    let get = |key: &str| map.get(key).ok_or_else(|| format!("the map has no :{key}"));
    let text = |key: &str| {
        let value = get(key)?;
        value.as_str().ok_or_else(|| format!(":{key} is {value}, not a keyword"))
    };
    let process = get("process")?;
    if !process.is_number() {
        return Ok(None);
    }
    let process = process.as_u64().ok_or_else(|| format!("process {process} is not a whole number"))?;
    let value = map.get("value").cloned().unwrap_or_default();
    let mut event = Event::new(process, kind_of(text("type")?)?, action_of(text("f")?)?, value);
    event.key = map.get("key").map(|key| key.as_str().map_or_else(|| key.to_string(), str::to_owned));
    Ok(Some(event))
}

pub(super) fn kind_of(word: &str) -> Result<EventKind, Malformed> {
    match word {
        "invoke" => Ok(EventKind::Invoke),
        "ok" => Ok(EventKind::Ok),
        "fail" => Ok(EventKind::Fail),
        "info" => Ok(EventKind::Info),
        _ => Err(format!("unknown type '{word}'; expected invoke, ok, fail or info").into()),
    }
}

pub(super) fn action_of(word: &str) -> Result<Action, Malformed> {
    match word {
        "read" | "get" => Ok(Action::Read),
        "write" | "put" => Ok(Action::Write),
        "cas" => Ok(Action::Cas),
        "delete" => Ok(Action::Delete),
        "append" => Ok(Action::Append),
        "add" => Ok(Action::Add),
        "acquire" => Ok(Action::Acquire),
        "release" => Ok(Action::Release),
        "txn" => Ok(Action::Txn),
        _ => Err(format!("unknown operation '{word}'").into()),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    line: u64,
}

impl<'a> Reader<'a> {
    fn refuse<T>(&self, reason: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError { line: self.line, reason: reason.into() })
    }

    /// Skips white space, commas and comments.
    fn skip(&mut self) {
        while let Some(byte) = self.rest.first() {
            match byte {
                b'\n' => self.line += 1,
                b';' => {
                    let end = self.rest.iter().position(|byte| *byte == b'\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                    continue;
                }
                b',' => {}
                byte if byte.is_ascii_whitespace() => {}
                _ => return,
            }
            self.rest = &self.rest[1..];
        }
    }

    fn value(&mut self, depth: u32) -> Result<Value, ParseError> {
        if depth > DEPTH_MAX {
            return self.refuse(format!("values are nested deeper than {DEPTH_MAX}"));
        }
        self.skip();
        match self.rest {
            [] => self.refuse("unexpected end of text: expected a value"),
            [b'[', ..] => Ok(Value::Array(self.elements(1, b']', depth)?)),
            [b'(', ..] => Ok(Value::Array(self.elements(1, b')', depth)?)),
            [b'#', b'{', ..] => {
                let mut elements = self.elements(2, b'}', depth)?;
                elements.sort_by_cached_key(Value::to_string);
                Ok(Value::Array(elements))
            }
            [b'{', ..] => self.map(depth),
            [b'"', ..] => self.text(),
            // `#_` discards the next value; any other tag is dropped and its value kept.
            [b'#', b'_', ..] => {
                self.rest = &self.rest[2..];
                self.value(depth + 1)?;
                self.value(depth + 1)
            }
            [b'#', ..] => {
                self.rest = &self.rest[1..];
                self.word();
                self.value(depth + 1)
            }
            _ => self.atom(),
        }
    }

    fn elements(&mut self, opening: usize, close: u8, depth: u32) -> Result<Vec<Value>, ParseError> {
        let opened = self.line;
        self.rest = &self.rest[opening..];
        let mut elements = Vec::new();
        loop {
            self.skip();
            match self.rest.first() {
                None => return self.refuse(format!("the collection opened in line {opened} is never closed")),
                Some(byte) if *byte == close => {
                    self.rest = &self.rest[1..];
                    return Ok(elements);
                }
                Some(_) => elements.push(self.value(depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: u32) -> Result<Value, ParseError> {
        let elements = self.elements(1, b'}', depth)?;
        if elements.len() % 2 == 1 {
            return self.refuse("a map has a key without a value");
        }
        let mut map = Map::new();
        let mut elements = elements.into_iter();
        while let (Some(key), Some(value)) = (elements.next(), elements.next()) {
            let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    fn text(&mut self) -> Result<Value, ParseError> {
        let mut bytes = Vec::new();
        let mut at = 1;
        loop {
            match self.rest.get(at) {
                None => return self.refuse("a string is never closed"),
                Some(b'"') => break,
                Some(b'\\') => {
                    at += 1;
                    bytes.push(match self.rest.get(at) {
                        Some(b'n') => b'\n',
                        Some(b't') => b'\t',
                        Some(b'r') => b'\r',
                        Some(other @ (b'"' | b'\\')) => *other,
                        _ => return self.refuse("a string has an unknown escape"),
                    });
                }
                Some(byte) => bytes.push(*byte),
            }
            at += 1;
        }
        let consumed = &self.rest[..=at];
        self.line += consumed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.rest = &self.rest[at + 1..];
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Value::String(text)),
            Err(_) => self.refuse("a string is not UTF-8"),
        }
    }

    fn word(&mut self) -> &'a str {
        let delimiter = |byte: &u8| byte.is_ascii_whitespace() || b",;\"()[]{}".contains(byte);
        let end = self.rest.iter().position(delimiter).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        // Delimiters are ASCII, so splitting at one keeps valid UTF-8.
        std::str::from_utf8(word).unwrap_or_default()
    }

    fn atom(&mut self) -> Result<Value, ParseError> {
        let word = self.word();
        if word.is_empty() {
            let found = char::from(self.rest[0]);
            return self.refuse(format!("unexpected '{found}'"));
        }
        let whole = word.trim_start_matches('+').trim_end_matches('N');
        if let Ok(number) = whole.parse::<i64>() {
            return Ok(Value::from(number));
        }
        let digits = whole.trim_start_matches('-');
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return self.refuse(format!("{word} does not fit into 64 bits"));
        }
        match word {
            "nil" => Ok(Value::Null),
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ if digits.starts_with(|first: char| first.is_ascii_digit()) => match word.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Value::from(number)),
                _ => self.refuse(format!("'{word}' is not a number")),
            },
            _ => Ok(Value::String(word.trim_start_matches(':').to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::operation::Outcome;
    use super::*;

    /// Covers lists and vectors, comments, missing commas, multi-line maps, sets, tags, the
    /// nemesis, and keys in any order.
    #[test]
    fn knossos_syntax_is_read() {
        let text = "; a comment\n({:process 22  :type :invoke, :f :read, :value nil}\n\
                    {:process :nemesis, :type :info, :f :start, :value \"Cut off {:n1 #{:n2}}\"}\n\
                    {:type :ok,\n :process 22 :f :read\n :value [[:read :x 0]], :error [:a nil] :time 7686455705}\n\
                    #jepsen.history.Op{:process 1 :type :invoke :f :add :value #{1 -2}})";
        let operations = history(text).unwrap();
        assert_eq!(operations.len(), 2);
        assert_eq!(operations[0].result, Some(json!([["read", "x", 0]])));
        assert_eq!((&operations[1].argument, operations[1].outcome), (&json!([-2, 1]), Outcome::Unknown));
    }

    /// In Knossos, a read of nil means that the value is unknown.
    #[test]
    fn nil_read_has_unknown_value() {
        let read = "{:process 1 :type :invoke :f :read :value nil}{:process 1 :type :ok :f :read :value nil}";
        assert_eq!(history(read).unwrap()[0].result, None);
    }

    /// The written value is the completion's, unless that is nil. (The parser once ignored the
    /// completion's value.)
    #[test]
    fn value_of_the_completion_counts() {
        let write = |invoked: &str, ended: &str| {
            let text = format!(
                "{{:process 1 :type :invoke :f :write :value {invoked}}}{{:process 1 :type :ok :f :write :value {ended}}}"
            );
            history(&text).unwrap()[0].argument.clone()
        };
        assert_eq!(write("4", "5"), json!(5));
        assert_eq!(write("nil", "5"), json!(5));
        assert_eq!(write("4", "nil"), json!(4));
    }

    #[test]
    fn equal_sets_are_equal_values() {
        assert_eq!(value("#{1 2 :a}"), value("#{:a 2 1}"));
        assert_ne!(value("[1 2]"), value("[2 1]"));
    }

    #[test]
    fn integers_beyond_64_bits_are_refused() {
        for beyond in ["9223372036854775808", "-9223372036854775809", "18446744073709551617N"] {
            assert!(value(beyond).unwrap_err().0.contains("64 bits"), "{beyond}");
        }
        assert_eq!(value("-9223372036854775808"), Ok(json!(i64::MIN)));
        assert_eq!((value("1.5"), value("-1.5")), (Ok(json!(1.5)), Ok(json!(-1.5))));
        assert!(value("1e999").is_err());
    }

    #[test]
    fn syntax_error_names_the_line() {
        let refused = |text: &str| history(text).unwrap_err().to_string();
        assert_eq!(refused("[\n{:process 1 :type :invoke}]"), "line 2: the map has no :f");
        assert_eq!(refused("[\n\n{:process 1"), "line 3: the collection opened in line 3 is never closed");
        assert_eq!(refused("[{:process 1 :type}]"), "line 1: a map has a key without a value");
        assert_eq!(refused("[\n 7]"), "line 2: expected a map, not 7");
        assert!(refused(&"[".repeat(100_000)).contains("nested deeper"));
        assert!(refused("[}").contains("unexpected '}'"));
        assert!(refused("[{:a \"b}]").contains("never closed"));
    }
}
