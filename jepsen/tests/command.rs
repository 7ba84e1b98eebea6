//! Output and exit codes of `quorate-jepsen check`.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

const VALID: &str = "[{:process 1, :type :invoke, :f :write, :value 1} {:process 1, :type :ok, :f :write, :value 1}]";
const INVALID: &str = "[{:process 1, :type :invoke, :f :read, :value nil} {:process 1, :type :ok, :f :read, :value 3}]";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn run(arguments: &[&str], files: &[&PathBuf]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate-jepsen")).args(arguments).args(files).output().unwrap()
}

fn check(arguments: &[&str], files: &[&PathBuf]) -> (Option<i32>, String, String) {
    let output = run(&[&["check", "--model", "cas-register"], arguments].concat(), files);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// One line per file, and one exit code for all: invalid outweighs unknown, unknown outweighs
/// valid.
#[test]
fn worst_verdict_determines_the_exit_code() {
    let folder = Folder::new();
    let (good, bad) = (folder.file("good.edn", VALID), folder.file("bad.edn", INVALID));
    let broken = folder.file("broken.edn", "[\n{:process 1, :type :jump, :f :read}]");
    let (code, stdout, _) = check(&[], &[&good]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.starts_with(&format!("valid {} (1 ops, ", good.display())) && stdout.ends_with(" ms)\n"),
        "{stdout}"
    );
    let (code, stdout, stderr) = check(&["--format", "edn"], &[&good, &bad, &broken]);
    assert_eq!((code, stdout.lines().count()), (Some(1), 3));
    assert!(stdout.contains("invalid") && stdout.contains("unknown"), "{stdout}");
    assert!(stderr.contains("line 2: unknown type 'jump'") && stderr.contains("read: 3 by process 1"), "{stderr}");
    let (code, ..) = check(&[], &[&good, &broken]);
    assert_eq!(code, Some(2));
    let (code, stdout, stderr) = check(&[], &[&folder.0.path().join("missing")]);
    assert_eq!(code, Some(2));
    assert!(stdout.starts_with("unknown") && stderr.contains("No such file"), "{stderr}");
}

#[test]
fn unknown_model_is_refused_with_a_list_of_models() {
    let output = run(&["check", "--model", "queue", "x.edn"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("queue") && stderr.contains("multi-register"), "{stderr}");
}

/// An operation that the model does not support makes the history unknown, not valid.
#[test]
fn history_of_another_model_is_unknown() {
    let folder = Folder::new();
    let lock = folder.file("lock.edn", "[{:process 1, :type :invoke, :f :acquire, :value nil}]");
    let (code, _, stderr) = check(&[], &[&lock]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("cas-register does not support 'acquire"), "{stderr}");
}

#[test]
fn violation_is_drawn_as_html() {
    let folder = Folder::new();
    let bad = folder.file("bad.edn", INVALID);
    let page = folder.0.path().join("why.html");
    let (code, ..) = check(&["--html", page.to_str().unwrap()], &[&bad]);
    assert_eq!(code, Some(1));
    assert!(std::fs::read_to_string(page).unwrap().contains("<svg"));
}

/// A generated history passes `check` and `replay`; with a lost write it fails.
#[test]
fn generated_history_is_valid_until_altered() {
    let folder = Folder::new();
    let path = folder.0.path().join("history.jsonl");
    let out = [
        "generate",
        "--kind",
        "kv-version",
        "--operations",
        "2000",
        "--keys",
        "20",
        "--unknown",
        "0",
        "--out",
        path.to_str().unwrap(),
    ];
    assert!(run(&out, &[]).status.success());
    assert_eq!(run(&["check", "--model", "kv-version"], &[&path]).status.code(), Some(0));
    assert_eq!(run(&["replay"], &[&path]).status.code(), Some(0));
    let text = std::fs::read_to_string(&path).unwrap();
    let is_read = |line: &&str| line.contains(r#""type":"ok","f":"read""#) && !line.contains(r#""version":0"#);
    let last = text.lines().rfind(is_read).unwrap();
    let mut altered: serde_json::Value = serde_json::from_str(last).unwrap();
    altered["value"] = serde_json::Value::Null;
    altered["version"] = 0.into();
    let bad = folder.file("bad.jsonl", &text.replace(last, &altered.to_string()));
    assert_eq!(run(&["replay"], &[&bad]).status.code(), Some(1));
}
