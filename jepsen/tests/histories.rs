//! Checks recorded histories of other systems with known verdicts: all those listed in
//! `shared/histories/MANIFEST.tsv`.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate_jepsen::check::{self, Limits, ModelName, Verdict};
use quorate_jepsen::history::{Format, parse};
use serde_json::{Value, json};

/// Time limit for all histories in an unoptimised build; an optimised one needs less than 10 s.
const TIME_MAX: Duration = Duration::from_secs(60);

struct Listed {
    path: PathBuf,
    format: Format,
    model: ModelName,
    valid: bool,
    operations: usize,
}

/// Reads the manifest.
fn manifest() -> std::io::Result<Vec<Listed>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/histories");
    let path = folder.join("MANIFEST.tsv");
    let text = std::fs::read_to_string(&path)?;
    let listed = text.lines().skip(1).map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [path, format, model, _, valid, operations, ..] = columns[..] else { panic!("a short line: {line}") };
        Listed {
            path: folder.join(path),
            format: if format == "C" { Format::Edn } else { Format::Porcupine },
            model: model.split('(').next().unwrap().parse().unwrap(),
            valid: valid.parse().unwrap(),
            operations: operations.parse().unwrap(),
        }
    });
    Ok(listed.collect())
}

/// Every verdict is the published one, every format is detected from the content, and no file
/// yields too many operations.
#[test]
fn recorded_histories_get_their_known_verdicts() {
    let listed = match manifest() {
        Ok(listed) => listed,
        Err(error) => return println!("skipped: no recorded histories ({error})"),
    };
    assert!(listed.len() > 100, "only {} histories are listed", listed.len());
    let begun = Instant::now();
    let mut wrong = Vec::new();
    for Listed { path, format, model, valid, operations } in &listed {
        let initial = if *model == ModelName::MultiRegister { json!(0) } else { Value::Null };
        let limits = Limits { initial, ..Limits::default() };
        let (detected, history) = parse::read(path, None).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(detected, *format, "{}", path.display());
        let verdict = check::check(*model, &history, &limits);
        if !matches!((&verdict, valid), (Verdict::Valid, true) | (Verdict::Invalid(_), false)) {
            wrong.push(format!("{}: {verdict:?}", path.display()));
        }
        if let Verdict::Invalid(violation) = &verdict {
            let failed = violation.operation.expect("a search names the operation");
            assert!(violation.window.contains(&failed), "{violation:?}");
            assert!(!violation.placed.contains(&failed), "{violation:?}");
        }
        // Failed operations are not part of an EDN history, but a failed compare-and-set of a log
        // is.
        assert!(history.len() <= *operations, "{}: {} of {operations}", path.display(), history.len());
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), listed.len(), wrong.join("\n"));
    let took = begun.elapsed();
    println!("{} histories in {took:?}", listed.len());
    assert!(took < TIME_MAX, "{took:?}");
}
