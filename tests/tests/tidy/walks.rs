//! The walks through the code (`crates/guide`): their files and functions exist, and a main line
//! stays short enough to be read in one sitting.

use std::path::PathBuf;

use anyhow::{Context, ensure};

/// The most files on the main line of a request.
const MAIN_LINE_MAX: usize = 16;

/// A list item that names a file: on the main line if it is numbered, otherwise a leaf.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    is_numbered: bool,
    file: String,
    names: Vec<String>,
}

/// All steps of a page: ``1. `file` (`name`, `name`): text``, or with `*` instead of the number.
fn steps(page: &str) -> Vec<Step> {
    let items = page.lines().filter_map(|line| line.strip_prefix("//! ")?.split_once(". `").or(leaf(line)));
    items
        .filter_map(|(mark, item)| {
            let (file, rest) = item.split_once("` (")?;
            let (names, _) = rest.split_once("):")?;
            let is_numbered = mark.parse::<u32>().is_ok();
            (is_numbered || mark == "*").then(|| Step { is_numbered, file: file.to_owned(), names: quoted(names) })
        })
        .collect()
}

fn leaf(line: &str) -> Option<(&str, &str)> {
    Some(("*", line.strip_prefix("//! * `")?))
}

/// The parts of a text in backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether the source defines the name.
fn defines(source: &str, name: &str) -> bool {
    ["fn", "struct", "enum", "trait", "type", "const"].iter().any(|keyword| {
        let definition = format!("{keyword} {name}");
        source.match_indices(&definition).any(|(at, _)| {
            let next = source[at + definition.len()..].chars().next();
            !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
    })
}

fn page(name: &str) -> anyhow::Result<Vec<Step>> {
    let path = crate::root().join("crates/guide/src").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let steps = steps(&text);
    ensure!(!steps.is_empty(), "{name} names no files");
    Ok(steps)
}

#[test]
fn walks_name_files_and_functions_that_exist() -> anyhow::Result<()> {
    for name in ["put.rs", "get.rs", "moves.rs"] {
        for step in page(name)? {
            let path: PathBuf = crate::root().join(&step.file);
            let source = std::fs::read_to_string(&path).with_context(|| format!("{name}: {}", step.file))?;
            ensure!(!step.names.is_empty(), "{name}: {} without a function to read", step.file);
            for item in &step.names {
                ensure!(defines(&source, item), "{name}: {} has no '{item}'", step.file);
            }
        }
    }
    Ok(())
}

#[test]
fn main_lines_of_put_and_get_stay_short() -> anyhow::Result<()> {
    for name in ["put.rs", "get.rs"] {
        let files = page(name)?.iter().filter(|step| step.is_numbered).count();
        ensure!(files > 0 && files <= MAIN_LINE_MAX, "{name}: {files} files on the main line, at most {MAIN_LINE_MAX}");
    }
    Ok(())
}

#[test]
fn steps_and_definitions_are_recognized() {
    let page = "//! # Title\n//! 1. `a/b.rs` (`f`, `G`): text with `code.rs`\n//! * `c.rs` (`h`): a leaf\n\
                //! * no file (7): text\n//! 2. no file. `x` (`y`)\n";
    let step = |is_numbered, file: &str, names: &[&str]| Step {
        is_numbered,
        file: file.to_owned(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    assert_eq!(steps(page), [step(true, "a/b.rs", &["f", "G"]), step(false, "c.rs", &["h"])]);
    assert!(defines("pub async fn write(", "write"));
    assert!(!defines("fn write_all(", "write"));
}
