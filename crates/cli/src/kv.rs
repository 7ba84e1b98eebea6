//! `kv`: reading and writing keys.
//!
//! Without `-o` a result is as plain as a shell wants it: `get` prints the value and nothing else.

use std::future::IntoFuture;
use std::io::Read as _;

use bytes::Bytes;
use clap::{ArgGroup, Args, Subcommand};
use quorate_client::{Error, Written};
use quorate_types::{Key, ReadLevel, Record, Served, ServedBy, VALUE_BYTES_MAX};
use serde::Serialize;

use crate::args::Connect;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};

/// Read and write keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Write a value.
    Put(PutArgs),
    /// Print a key's value. Exit code 11 if the key is absent.
    Get(GetArgs),
    /// Delete a key. Deleting an absent key succeeds.
    Del(DelArgs),
    /// Write a value only if the key still holds what is expected. Exit code 6 if it does not.
    Cas(CasArgs),
}

/// What all of them take.
#[derive(Args, Debug)]
pub(crate) struct Common {
    #[command(flatten)]
    connect: Connect,
    /// How to write the result; without it, plainly.
    #[arg(short, long, env = "QUORATE_OUTPUT", value_enum)]
    output: Option<Format>,
}

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// The key: 1 to 4096 bytes.
    key: String,
    /// How fresh the answer must be: strong (linearizable) or eventual (the nearest replica's, also without a quorum).
    #[arg(long, value_name = "LEVEL", default_value_t)]
    read: ReadLevel,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    /// The key: 1 to 4096 bytes. Keys with the same {tag} share a shard.
    key: String,
    /// The value: up to 1 MiB. `-` reads it from stdin; write `--` before a value that begins with a dash.
    value: String,
    #[command(flatten)]
    condition: PutCondition,
    #[command(flatten)]
    common: Common,
}

/// What must hold for a put.
#[derive(Args, Debug)]
pub(crate) struct PutCondition {
    /// Only if the key holds nothing.
    #[arg(long, conflicts_with_all = ["if_exists", "if_version", "if_value"])]
    if_absent: bool,
    #[command(flatten)]
    present: Condition,
}

#[derive(Args, Debug)]
pub(crate) struct DelArgs {
    /// The key.
    key: String,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    common: Common,
}

/// What must hold for a write to a key that is there.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct Condition {
    /// Only if the key holds something.
    #[arg(long)]
    if_exists: bool,
    /// Only if the key's record has this version; 0: only if the key is absent.
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// Only if the key holds exactly this value.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    if_value: Option<String>,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("expected").required(true).args(["expect", "if_version"]))]
pub(crate) struct CasArgs {
    /// The key.
    key: String,
    /// The value that the key must hold.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    expect: Option<String>,
    /// The version that the key's record must have; 0: the key must be absent.
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// The new value; `-` reads it from stdin.
    new: String,
    #[command(flatten)]
    common: Common,
}

impl KvCommand {
    /// Whether it changes anything.
    pub(crate) fn writes(&self) -> bool {
        !matches!(self, KvCommand::Get(_))
    }

    /// Does it, and prints what came of it.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            KvCommand::Get(args) => args.run().await,
            KvCommand::Put(args) => {
                let condition = args.condition.expected();
                put("put", args.key, args.value, condition, args.common).await
            }
            KvCommand::Del(args) => args.run().await,
            KvCommand::Cas(args) => {
                let condition = match (args.expect, args.if_version) {
                    (Some(value), _) => Expected::Value(value),
                    (None, Some(version)) => Expected::Version(version),
                    (None, None) => {
                        return Err(Failure::new(Exit::Usage, "say what is expected: --expect or --if-version"));
                    }
                };
                put("replace", args.key, args.new, condition, args.common).await
            }
        }
    }
}

/// What must hold for a write.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Anything,
    Absent,
    Exists,
    Version(u64),
    Value(String),
}

impl PutCondition {
    fn expected(self) -> Expected {
        if self.if_absent { Expected::Absent } else { self.present.expected() }
    }
}

impl Condition {
    fn expected(self) -> Expected {
        match self {
            Condition { if_exists: true, .. } => Expected::Exists,
            Condition { if_version: Some(version), .. } => Expected::Version(version),
            Condition { if_value: Some(value), .. } => Expected::Value(value),
            Condition { .. } => Expected::Anything,
        }
    }
}

impl GetArgs {
    async fn run(self) -> Result<(), Failure> {
        check_key(&self.key)?;
        let (client, within) = self.common.connect.client().await?;
        let read = client.get(&self.key).level(self.read).deadline(within).await;
        let read = read.map_err(|error| {
            no_quorum_hint(&self, Failure::from_client(format!("cannot get '{}'", self.key), error))
        })?;
        let Some(record) = read.value else {
            return Err(Failure::new(Exit::Absent, format!("'{}' is absent", self.key)));
        };
        print_record(&self.key, &record, &read.by, self.common.output)
    }
}

/// A strong read that found no quorum could have been an eventual one.
fn no_quorum_hint(args: &GetArgs, failure: Failure) -> Failure {
    match args.read {
        ReadLevel::Strong => failure.hint("a possibly stale value may do?  --read eventual"),
        ReadLevel::Eventual => failure,
    }
}

/// `verb` says what is tried, for the error.
async fn put(verb: &str, key: String, value: String, expected: Expected, common: Common) -> Result<(), Failure> {
    check_key(&key)?;
    let value = value_bytes(value)?;
    let (client, within) = common.connect.client().await?;
    let put = client.put(&key, value).deadline(within);
    let put = match expected {
        Expected::Anything => put,
        Expected::Absent => put.if_absent(),
        Expected::Exists => put.if_exists(),
        Expected::Version(version) => put.if_version(version),
        Expected::Value(value) => put.if_value(value),
    };
    let served = written(&format!("cannot {verb} '{key}'"), put).await?;
    print_written("put", &key, &served, common.output)
}

impl DelArgs {
    async fn run(self) -> Result<(), Failure> {
        check_key(&self.key)?;
        let (client, within) = self.common.connect.client().await?;
        let delete = client.delete(&self.key).deadline(within);
        let delete = match self.condition.expected() {
            Expected::Anything => delete,
            Expected::Absent => delete.if_absent(),
            Expected::Exists => delete.if_exists(),
            Expected::Version(version) => delete.if_version(version),
            Expected::Value(value) => delete.if_value(value),
        };
        let served = written(&format!("cannot delete '{}'", self.key), delete).await?;
        print_written("del", &self.key, &served, self.common.output)
    }
}

async fn written(
    message: &str,
    write: impl IntoFuture<Output = Result<Served<Written>, Error>>,
) -> Result<Served<Written>, Failure> {
    write.await.map_err(|error| Failure::from_client(message, error))
}

/// Refuses a key before anything is connected.
fn check_key(key: &str) -> Result<(), Failure> {
    Key::new(key.to_owned()).map(drop).map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

/// The value of a command line: itself, or what stdin holds.
fn value_bytes(text: String) -> Result<Bytes, Failure> {
    if text != "-" {
        return check_value(text.into());
    }
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that there is too much, without reading all of it.
    let mut limited = std::io::stdin().lock().take(VALUE_BYTES_MAX as u64 + 1);
    limited.read_to_end(&mut bytes).map_err(|error| Failure::new(Exit::Other, "cannot read stdin").cause(error))?;
    check_value(bytes.into())
}

fn check_value(bytes: Bytes) -> Result<Bytes, Failure> {
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(Failure::new(Exit::Usage, format!("the value has more than {VALUE_BYTES_MAX} bytes"))
            .hint("a value has at most 1 MiB: store it in parts"));
    }
    Ok(bytes)
}

/// Who served a reply, as JSON has it.
#[derive(Serialize)]
struct By {
    level: String,
    node: String,
    role: String,
    shard: String,
    epoch: u64,
    revision: u64,
    applied_index: u64,
}

impl From<&ServedBy> for By {
    fn from(by: &ServedBy) -> Self {
        By {
            level: by.level.to_string(),
            node: by.node.to_string(),
            role: by.role.to_string(),
            shard: by.shard.to_string(),
            epoch: by.epoch,
            revision: by.revision,
            applied_index: by.applied,
        }
    }
}

/// A record, as JSON has it. A value that is not UTF-8 comes as hexadecimal digits.
#[derive(Serialize)]
struct RecordDocument<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    served_by: By,
}

fn print_record(key: &str, record: &Record, by: &ServedBy, format: Option<Format>) -> Result<(), Failure> {
    let value = record.value.as_bytes();
    let Some(format) = format else { return output::print([value, b"\n"].concat()) };
    output::show(format, "Record", &document(key, record, by), || {
        let row = [
            key.to_owned(),
            value.escape_ascii().to_string(),
            record.version.to_string(),
            by.level.to_string(),
            format!("{} ({})", by.node, by.role),
            by.shard.to_string(),
        ];
        output::table(["KEY", "VALUE", "VERSION", "LEVEL", "NODE", "SHARD"], [row])
    })
}

fn document<'a>(key: &'a str, record: &'a Record, by: &ServedBy) -> RecordDocument<'a> {
    let bytes = record.value.as_bytes();
    let value = std::str::from_utf8(bytes).ok();
    let hex = || bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    RecordDocument {
        key,
        value,
        value_hex: value.is_none().then(hex),
        version: record.version,
        expires_at_ms: record.expires_at_ms,
        served_by: by.into(),
    }
}

/// What came of a write, as JSON has it.
#[derive(Serialize)]
struct WrittenDocument<'a> {
    operation: &'a str,
    key: &'a str,
    version: u64,
    replaced_version: u64,
    served_by: By,
}

fn print_written(operation: &str, key: &str, served: &Served<Written>, format: Option<Format>) -> Result<(), Failure> {
    let Written { version, replaced, .. } = served.value;
    let printed = match format {
        None => output::print(format!("{}\n", written_line(operation, version, replaced))),
        Some(format) => {
            let by = By::from(&served.by);
            let document = WrittenDocument { operation, key, version, replaced_version: replaced, served_by: by };
            output::show(format, "Written", &document, || {
                let (node, shard) = (served.by.node.to_string(), served.by.shard.to_string());
                output::table(["KEY", "VERSION", "NODE", "SHARD"], [[key.to_owned(), version.to_string(), node, shard]])
            })
        }
    };
    printed.map_err(|failure| failure.hint(format!("the write was applied all the same, as version {version}")))
}

fn written_line(operation: &str, version: u64, replaced: u64) -> String {
    match (operation, replaced) {
        ("del", 0) => "ok: it was absent already".to_owned(),
        ("del", replaced) => format!("ok: deleted version {replaced}"),
        _ => format!("ok: version {version}"),
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{KEY_BYTES_MAX, NodeId, Role, ShardId, Value};
    use serde_json::json;

    use super::*;

    fn by() -> ServedBy {
        ServedBy {
            level: ReadLevel::Eventual,
            node: NodeId(2),
            role: Role::Follower,
            shard: ShardId(11),
            epoch: 1,
            revision: 40,
            applied: 99,
        }
    }

    fn record(value: &'static [u8]) -> Record {
        Record { version: 7, value: Value::new(value).unwrap(), expires_at_ms: None }
    }

    #[test]
    fn a_record_says_who_served_it() {
        let record = record(b"world");
        let text = output::json("Record", &document("hello", &record, &by()));
        let expected = json!({
            "apiVersion": "quorate/v1",
            "kind": "Record",
            "key": "hello",
            "value": "world",
            "version": 7,
            "served_by": {
                "level": "eventual", "node": "2", "role": "follower", "shard": "11",
                "epoch": 1, "revision": 40, "applied_index": 99,
            },
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected);
    }

    #[test]
    fn a_value_that_is_not_text_comes_as_digits() {
        let record = record(b"\xff\x00");
        let document = document("k", &record, &by());
        assert_eq!((document.value, document.value_hex.as_deref()), (None, Some("ff00")));
    }

    #[test]
    fn a_write_says_what_it_did() {
        assert_eq!(written_line("put", 8, 7), "ok: version 8");
        assert_eq!(written_line("del", 9, 8), "ok: deleted version 8");
        assert_eq!(written_line("del", 9, 0), "ok: it was absent already");
    }

    #[test]
    fn conditions_are_read_from_their_flags() {
        let none = || Condition { if_exists: false, if_version: None, if_value: None };
        assert_eq!(none().expected(), Expected::Anything);
        assert_eq!(Condition { if_exists: true, ..none() }.expected(), Expected::Exists);
        assert_eq!(Condition { if_version: Some(0), ..none() }.expected(), Expected::Version(0));
        let value = Condition { if_value: Some("-x".into()), ..none() };
        assert_eq!(value.expected(), Expected::Value("-x".into()));
        let absent = PutCondition { if_absent: true, present: none() };
        assert_eq!(absent.expected(), Expected::Absent);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_before_connecting() {
        for key in [String::new(), "k".repeat(KEY_BYTES_MAX + 1)] {
            let failure = check_key(&key).unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage);
            assert!(failure.to_string().contains("4096"), "{failure}");
        }
        assert!(check_key(&"k".repeat(KEY_BYTES_MAX)).is_ok());
        assert!(check_value(vec![0; VALUE_BYTES_MAX].into()).is_ok());
        assert_eq!(check_value(vec![0; VALUE_BYTES_MAX + 1].into()).unwrap_err().exit(), Exit::Usage);
    }
}
