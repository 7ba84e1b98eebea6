//! `kv`: reads and writes keys.
//!
//! Without `-o` the result is plain text for shells: `get` prints only the value.

use std::future::IntoFuture;
use std::io::Read as _;

use bytes::Bytes;
use clap::{ArgGroup, Args, Subcommand};
use quorate_client::{Error, Written};
use quorate_types::{Condition, Key, ReadLevel, Record, Served, ServedBy, VALUE_BYTES_MAX, Value};
use serde::Serialize;

use crate::connect::Connect;
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
    /// Write a value only if the key still has the expected value or version. Exit code 6 if not.
    Cas(CasArgs),
}

/// The flags of all commands.
#[derive(Args, Debug)]
pub(crate) struct Common {
    #[command(flatten)]
    connect: Connect,
    /// Format of the result; plain text by default.
    #[arg(short, long, env = "QUORATE_OUTPUT", value_enum)]
    output: Option<Format>,
}

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// The key: 1 to 4096 bytes.
    key: String,
    /// Consistency: strong (linearizable) or eventual (from the nearest replica, even without a
    /// quorum).
    #[arg(long, value_name = "LEVEL", default_value_t)]
    read: ReadLevel,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    /// The key: 1 to 4096 bytes. Keys with the same {tag} share a shard.
    key: String,
    /// The value: up to 1 MiB. `-` reads it from stdin; put `--` before a value that begins with a
    /// dash.
    value: String,
    #[command(flatten)]
    condition: PutConditionArgs,
    #[command(flatten)]
    common: Common,
}

/// The condition of a put.
#[derive(Args, Debug)]
pub(crate) struct PutConditionArgs {
    /// Only if the key is absent.
    #[arg(long, conflicts_with_all = ["if_exists", "if_version", "if_value"])]
    if_absent: bool,
    #[command(flatten)]
    present: ConditionArgs,
}

#[derive(Args, Debug)]
pub(crate) struct DelArgs {
    /// The key.
    key: String,
    #[command(flatten)]
    condition: ConditionArgs,
    #[command(flatten)]
    common: Common,
}

/// The condition of a write to an existing key.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct ConditionArgs {
    /// Only if the key exists.
    #[arg(long)]
    if_exists: bool,
    /// Only if the key's record has this version; 0: only if the key is absent.
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// Only if the key has exactly this value.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    if_value: Option<String>,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("expected").required(true).args(["expect", "if_version"]))]
pub(crate) struct CasArgs {
    /// The key.
    key: String,
    /// The expected value.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    expect: Option<String>,
    /// The expected version of the key's record; 0: the key must be absent.
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// The new value; `-` reads it from stdin.
    new: String,
    #[command(flatten)]
    common: Common,
}

impl KvCommand {
    /// Whether the command writes.
    pub(crate) fn writes(&self) -> bool {
        !matches!(self, KvCommand::Get(_))
    }

    /// Executes the command and prints its result.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            KvCommand::Get(args) => args.run().await,
            KvCommand::Put(args) => {
                let condition = args.condition.condition()?;
                put("put", args.key, args.value, condition, args.common).await
            }
            KvCommand::Del(args) => args.run().await,
            KvCommand::Cas(args) => {
                let condition = match (args.expect, args.if_version) {
                    (Some(value), _) => Condition::Value(check_value(value.into())?),
                    (None, Some(version)) => Condition::Version(version),
                    (None, None) => {
                        return Err(Failure::new(Exit::Usage, "missing expectation: pass --expect or --if-version"));
                    }
                };
                put("replace", args.key, args.new, Some(condition), args.common).await
            }
        }
    }
}

impl PutConditionArgs {
    fn condition(self) -> Result<Option<Condition>, Failure> {
        if self.if_absent { Ok(Some(Condition::Absent)) } else { self.present.condition() }
    }
}

impl ConditionArgs {
    fn condition(self) -> Result<Option<Condition>, Failure> {
        Ok(match self {
            ConditionArgs { if_exists: true, .. } => Some(Condition::Exists),
            ConditionArgs { if_version: Some(version), .. } => Some(Condition::Version(version)),
            ConditionArgs { if_value: Some(value), .. } => Some(Condition::Value(check_value(value.into())?)),
            ConditionArgs { .. } => None,
        })
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

/// Points out that an eventual read needs no quorum.
fn no_quorum_hint(args: &GetArgs, failure: Failure) -> Failure {
    match args.read {
        ReadLevel::Strong => failure.hint("if stale is acceptable: --read eventual"),
        ReadLevel::Eventual => failure,
    }
}

/// Writes a value. `verb` names the attempt in an error.
async fn put(
    verb: &str,
    key: String,
    value: String,
    condition: Option<Condition>,
    common: Common,
) -> Result<(), Failure> {
    check_key(&key)?;
    let value = argument_or_stdin(value)?;
    let (client, within) = common.connect.client().await?;
    let put = client.put(&key, value.bytes()).deadline(within);
    let put = match condition {
        None => put,
        Some(Condition::Absent) => put.if_absent(),
        Some(Condition::Exists) => put.if_exists(),
        Some(Condition::Version(version)) => put.if_version(version),
        Some(Condition::Value(value)) => put.if_value(value.bytes()),
    };
    let served = written(&format!("cannot {verb} '{key}'"), put).await?;
    print_written("put", &key, &served, common.output)
}

impl DelArgs {
    async fn run(self) -> Result<(), Failure> {
        check_key(&self.key)?;
        let condition = self.condition.condition()?;
        let (client, within) = self.common.connect.client().await?;
        let delete = client.delete(&self.key).deadline(within);
        let delete = match condition {
            None => delete,
            Some(Condition::Absent) => delete.if_absent(),
            Some(Condition::Exists) => delete.if_exists(),
            Some(Condition::Version(version)) => delete.if_version(version),
            Some(Condition::Value(value)) => delete.if_value(value.bytes()),
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

/// Refuses an invalid key before connecting.
fn check_key(key: &str) -> Result<(), Failure> {
    Key::new(key.to_owned()).map(drop).map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

/// The value of an argument: its text, or for `-` the contents of stdin.
fn argument_or_stdin(text: String) -> Result<Value, Failure> {
    if text != "-" {
        return check_value(text.into());
    }
    let mut bytes = Vec::new();
    // Reading one byte beyond the limit detects a value that is too long.
    let mut limited = std::io::stdin().lock().take(VALUE_BYTES_MAX as u64 + 1);
    limited.read_to_end(&mut bytes).map_err(|error| Failure::new(Exit::Other, "cannot read stdin").cause(error))?;
    check_value(bytes.into())
}

fn check_value(bytes: Bytes) -> Result<Value, Failure> {
    Value::new(bytes).map_err(|_| {
        Failure::new(Exit::Usage, format!("the value has more than {VALUE_BYTES_MAX} bytes"))
            .hint("a value has at most 1 MiB: store it in parts")
    })
}

/// The replica that served a reply, as JSON.
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

/// A record, as JSON. A value that is not UTF-8 is given as hexadecimal digits.
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

/// The result of a write, as JSON.
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
    printed.map_err(|failure| failure.hint(format!("the write was applied, as version {version}")))
}

fn written_line(operation: &str, version: u64, replaced: u64) -> String {
    match (operation, replaced) {
        ("del", 0) => "ok: the key was already absent".to_owned(),
        ("del", replaced) => format!("ok: deleted version {replaced}"),
        _ => format!("ok: version {version}"),
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{KEY_BYTES_MAX, NodeId, Role, ShardId};
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
    fn a_record_names_the_replica_that_served_it() {
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
    fn a_binary_value_is_given_as_hexadecimal_digits() {
        let record = record(b"\xff\x00");
        let document = document("k", &record, &by());
        assert_eq!((document.value, document.value_hex.as_deref()), (None, Some("ff00")));
    }

    #[test]
    fn a_write_reports_its_effect() {
        assert_eq!(written_line("put", 8, 7), "ok: version 8");
        assert_eq!(written_line("del", 9, 8), "ok: deleted version 8");
        assert_eq!(written_line("del", 9, 0), "ok: the key was already absent");
    }

    #[test]
    fn conditions_are_read_from_their_flags() {
        let none = || ConditionArgs { if_exists: false, if_version: None, if_value: None };
        let condition = |args: ConditionArgs| args.condition().unwrap();
        assert_eq!(condition(none()), None);
        assert_eq!(condition(ConditionArgs { if_exists: true, ..none() }), Some(Condition::Exists));
        assert_eq!(condition(ConditionArgs { if_version: Some(0), ..none() }), Some(Condition::Version(0)));
        let value = ConditionArgs { if_value: Some("-x".into()), ..none() };
        assert_eq!(condition(value), Some(Condition::Value(Value::new("-x").unwrap())));
        let absent = PutConditionArgs { if_absent: true, present: none() };
        assert_eq!(absent.condition().unwrap(), Some(Condition::Absent));
    }

    #[test]
    fn keys_and_values_out_of_bounds_are_refused_before_connecting() {
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
