//! Results on stdout: tables for people, JSON for programs.
//!
//! JSON documents begin with `apiVersion` and `kind`; ids are strings, since 64-bit numbers lose digits in many readers.

use std::io::{self, Write as _};

use clap::{Args, ValueEnum};
use comfy_table::Table;
use serde::{Serialize, Serializer};

use crate::failure::{Exit, Failure};

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// How a command writes its result.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Output {
    /// How to write the result.
    #[arg(short, long, env = "QUORATE_OUTPUT", value_enum, default_value = "table")]
    pub(crate) output: Format,
}

/// The version of every JSON document so far.
const API_VERSION: &str = "quorate/v1";

/// A JSON document of one kind.
#[derive(Serialize)]
struct Document<'a, T> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

/// The body of a document that lists things.
#[derive(Serialize)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
}

/// A document's text, with a line end.
pub(crate) fn json<T: Serialize>(kind: &str, body: &T) -> String {
    let document = Document { api_version: API_VERSION, kind, body };
    let mut text = serde_json::to_string_pretty(&document).expect("our documents hold nothing that JSON cannot");
    text.push('\n');
    text
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

/// A table without borders: columns that `awk` can cut.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header).add_rows(rows);
    let lines: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    lines
}

/// Writes a result to stdout. A reader that has gone away (`| head`) is no failure.
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
    fn a_table_is_aligned_and_has_no_borders() {
        let rows = [["1".to_owned(), "leader".to_owned()], ["12".to_owned(), "-".to_owned()]];
        assert_eq!(table(["ID", "ROLE"], rows), " ID  ROLE\n 1   leader\n 12  -\n");
    }
}
