//! Our own `history.jsonl`: an [`Event`] a line, as `history` describes it.

use std::io::{BufRead, Write};

use super::Event;
use super::operation::{NullRead, Operation, Pairing};
use super::parse::{ParseError, ReadError};

/// Reads a history, line by line.
///
/// # Errors
///
/// A line that cannot be read, is no event, has an index that does not grow, or does not fit the events before it.
pub fn read(mut reader: impl BufRead) -> Result<Vec<Operation>, ReadError> {
    let mut pairing = Pairing::new(NullRead::Absent);
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
        if last.is_some_and(|last| last >= event.index) {
            Err(refuse(format!("index {} does not follow the one before it: events are out of order", event.index)))?;
        }
        last = Some(event.index);
        pairing.push(line, event)?;
    }
    Ok(pairing.finish())
}

/// Writes events, one a line.
///
/// # Errors
///
/// Whatever the writer says.
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

/// serde_json counts lines within the one line that it was given: only its column says something.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what}, at column {}", error.column()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_named() {
        let good = r#"{"index":0,"time":1,"process":0,"type":"invoke","f":"read","key":"k"}"#;
        let refused = |second: &str| read(format!("{good}\n{second}\n").as_bytes()).unwrap_err().to_string();
        assert!(refused("{").starts_with("line 2: EOF"), "{}", refused("{"));
        assert!(refused(good).contains("out of order"));
        let unknown = refused(r#"{"index":1,"time":1,"process":0,"type":"ok","f":"fly"}"#);
        assert!(unknown.contains("line 2") && unknown.contains("fly"), "{unknown}");
        assert_eq!(read(good.as_bytes()).unwrap().len(), 1);
    }
}
