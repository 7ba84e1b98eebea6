//! Results on stdout: tables for people, JSON for programs.
//!
//! `wide` is a table with more columns. `ndjson` prints one document per line, so that programs can
//! read a stream of them. Both JSON formats have the same documents, which begin with `apiVersion`
//! and `kind`. Ids are strings, because many readers lose digits of 64-bit numbers.

use std::io::{self, Write as _};

use clap::{Args, ValueEnum};
use comfy_table::Table;
use serde::{Serialize, Serializer};

use crate::failure::{Exit, Failure};

/// The format of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For people with a wide terminal: more columns.
    Wide,
    /// For programs: one document.
    Json,
    /// For programs that read a stream: one document per line.
    Ndjson,
}

impl Format {
    /// Whether the format is for people.
    pub(crate) fn for_people(self) -> bool {
        matches!(self, Format::Table | Format::Wide)
    }
}

/// The flag for the format of a result.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Format of the result.
    #[arg(short, long, env = "QUORATE_OUTPUT", value_enum, default_value = "table")]
    pub(crate) output: Format,
}

/// The version of all JSON documents.
pub(crate) const API_VERSION: &str = "quorate/v1";

/// A JSON document of one kind.
#[derive(Serialize)]
struct Document<'a, T> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

/// The body of a list document.
#[derive(Serialize)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
}

/// The kinds of a list document and of its items.
#[derive(Clone, Copy)]
pub(crate) struct Kinds {
    pub(crate) list: &'static str,
    pub(crate) item: &'static str,
}

/// Writes one item: a document for programs, the result of `text` for people.
pub(crate) fn show<T: Serialize>(
    format: Format,
    kind: &str,
    body: &T,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    print(match format {
        Format::Table | Format::Wide => text(),
        Format::Json => json(kind, body),
        Format::Ndjson => line(kind, body),
    })
}

/// Writes a list: one document or one per item for programs, the result of `text` for people.
pub(crate) fn show_all<T: Serialize>(
    format: Format,
    kinds: Kinds,
    items: Vec<T>,
    text: impl FnOnce(&[T]) -> String,
) -> Result<(), Failure> {
    print(match format {
        Format::Table | Format::Wide => text(&items),
        Format::Json => json(kinds.list, &Items { items }),
        Format::Ndjson => items.iter().map(|item| line(kinds.item, item)).collect(),
    })
}

/// The text of a document, indented, with a line end.
pub(crate) fn json<T: Serialize>(kind: &str, body: &T) -> String {
    let document = Document { api_version: API_VERSION, kind, body };
    serde_json::to_string_pretty(&document).expect("our documents hold nothing that JSON cannot") + "\n"
}

/// The text of a document in one line.
fn line<T: Serialize>(kind: &str, body: &T) -> String {
    let document = Document { api_version: API_VERSION, kind, body };
    serde_json::to_string(&document).expect("our documents hold nothing that JSON cannot") + "\n"
}

/// A byte count with one decimal and its largest unit.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// A count with its noun: `1 replica`, `2 replicas`.
pub(crate) fn count(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Serializes an id as a string.
pub(crate) fn id<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// Serializes an id that may be missing as a string or null.
pub(crate) fn id_or_null<S: Serializer>(id: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(id),
        None => serializer.serialize_none(),
    }
}

/// A table without borders, whose columns `awk` can split.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header).add_rows(rows);
    let lines: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    lines
}

/// Writes a result to stdout. A closed pipe (`| head`) is no failure.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Other, "cannot write the result").cause(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Thing {
        #[serde(serialize_with = "id")]
        id: u64,
        #[serde(serialize_with = "id_or_null")]
        leader: Option<u64>,
    }

    #[test]
    fn a_document_names_its_kind_and_its_ids_are_strings() {
        let items = Items { items: vec![Thing { id: u64::MAX, leader: None }, Thing { id: 2, leader: Some(1) }] };
        let parsed: serde_json::Value = serde_json::from_str(&json("ThingList", &items)).unwrap();
        let expected = serde_json::json!({
            "apiVersion": "quorate/v1",
            "kind": "ThingList",
            "items": [{"id": "18446744073709551615", "leader": null}, {"id": "2", "leader": "1"}],
        });
        assert_eq!(parsed, expected);
    }

    #[test]
    fn a_stream_has_one_document_a_line() {
        let thing = Thing { id: 2, leader: Some(1) };
        assert_eq!(
            line("Thing", &thing),
            "{\"apiVersion\":\"quorate/v1\",\"kind\":\"Thing\",\"id\":\"2\",\"leader\":\"1\"}\n"
        );
    }

    #[test]
    fn bytes_have_one_decimal_and_the_largest_unit() {
        for (count, text) in [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes((3 << 30) + (1 << 29)), "3.5 GiB");
    }

    #[test]
    fn a_table_is_aligned_and_has_no_borders() {
        let rows = [["1".to_owned(), "leader".to_owned()], ["12".to_owned(), "-".to_owned()]];
        assert_eq!(table(["ID", "ROLE"], rows), " ID  ROLE\n 1   leader\n 12  -\n");
    }
}
