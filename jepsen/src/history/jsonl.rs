//! Reads and writes our own `history.jsonl`: one [`Event`] per line, as described in `history`.

use std::io::{BufRead, Write};

use serde_json::Value;

use super::error::{ParseError, ReadError};
use super::event::Event;
use super::operation::{Convention, Operation, Pairing};

/// 2^63. Whole numbers outside ±2^63 may not fit into 64 bits.
const WHOLE_MAX: f64 = 9_223_372_036_854_775_808.0;

/// Reads a history line by line.
///
/// # Errors
///
/// A line that is not an event, has an index that does not grow, or does not fit the events before
/// it.
pub fn read(mut reader: impl BufRead) -> Result<Vec<Operation>, ReadError> {
    let mut pairing = Pairing::new(Convention::Ours);
    let mut last: Option<u64> = None;
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        if reader.read_line(&mut text)? == 0 {
            break;
        }
        if text.trim().is_empty() {
            continue;
        }
        let refuse = |reason: String| ParseError { line, reason };
        let event: Event = serde_json::from_str(&text).map_err(|error| refuse(reason(&error)))?;
        if let Some(number) = std::iter::once(&event.value).chain(&event.found).find_map(rounded) {
            Err(refuse(format!("number {number} is out of range: whole numbers must fit into 64 bits")))?;
        }
        if last.is_some_and(|last| last >= event.index) {
            Err(refuse(format!("index {} is not above the one before it: events are out of order", event.index)))?;
        }
        last = Some(event.index);
        pairing.push(line, event)?;
    }
    Ok(pairing.finish())
}

/// Writes one event per line.
///
/// # Errors
///
/// The writer's errors.
pub fn write<E: std::borrow::Borrow<Event>>(
    mut writer: impl Write,
    events: impl IntoIterator<Item = E>,
) -> std::io::Result<()> {
    for event in events {
        serde_json::to_writer(&mut writer, event.borrow())?;
        writer.write_all(b"\n")?;
    }
    writer.flush()
}

/// Finds a number that was rounded: serde_json reads whole numbers beyond 64 bits as the nearest
/// `f64`.
fn rounded(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) if number.is_f64() => number.as_f64().filter(|number| number.abs() >= WHOLE_MAX),
        Value::Array(elements) => elements.iter().find_map(rounded),
        Value::Object(fields) => fields.values().find_map(rounded),
        _ => None,
    }
}

/// Drops the line number of a serde_json error: each line is parsed alone, so only the column is
/// right.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((cause, _)) => format!("{cause}, at column {}", error.column()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_error_names_the_line() {
        let good = r#"{"index":0,"time":1,"process":0,"type":"invoke","f":"read","key":"k"}"#;
        let refused = |second: &str| read(format!("{good}\n{second}\n").as_bytes()).unwrap_err().to_string();
        assert!(refused("{").starts_with("line 2: EOF"), "{}", refused("{"));
        assert!(refused(good).contains("out of order"));
        let unknown = refused(r#"{"index":1,"time":1,"process":0,"type":"ok","f":"fly"}"#);
        assert!(unknown.contains("line 2") && unknown.contains("fly"), "{unknown}");
        assert_eq!(read(good.as_bytes()).unwrap().len(), 1);
    }

    fn refused(line: &str) -> String {
        read(line.as_bytes()).unwrap_err().to_string()
    }

    /// Integers beyond 64 bits are refused. (2^64 and 2^64 + 1 once parsed as the same `f64`.)
    #[test]
    fn integers_beyond_64_bits_are_refused() {
        let write =
            |value: &str| format!(r#"{{"index":0,"time":0,"process":1,"type":"invoke","f":"write","value":{value}}}"#);
        for beyond in ["18446744073709551616", "[0,18446744073709551617]", "-9223372036854775809"] {
            assert!(
                refused(&write(beyond)).starts_with("line 1: number ")
                    && refused(&write(beyond)).contains("out of range"),
                "{beyond}"
            );
        }
        for within in ["18446744073709551615", "-9223372036854775808", "1.5"] {
            assert!(read(write(within).as_bytes()).is_ok(), "{within}");
        }
    }

    /// A misspelt field is refused. (A misspelt `refused` once made a refused write count as done.)
    #[test]
    fn unknown_field_is_refused() {
        let said = refused(r#"{"index":0,"time":0,"process":1,"type":"invoke","f":"read","reffused":true}"#);
        assert!(said.starts_with("line 1: unknown field `reffused`"), "{said}");
    }
}
