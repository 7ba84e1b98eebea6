//! The shape of prose: at most 100 columns wide, and no doc comment that is half of a sentence.

use crate::comments::{Comment, comments, hash_comments};
use crate::measures::Finding;
use crate::source::{Package, Source, Text};

const COLUMNS_MAX: usize = 100;

/// Comment lines that reach beyond column 100.
pub(crate) fn long_lines(package: &Package) -> Finding {
    let mut finding = Finding::default();
    for file in &package.files {
        for comment in counted(file) {
            let columns = comment.column + comment.text.chars().count();
            if columns > COLUMNS_MAX {
                finding.add(1, format!("{}:{}: {columns} columns", file.path.display(), comment.line));
            }
        }
    }
    finding
}

/// Lines that reach beyond column 100 and could be broken: of a document's prose, or of the
/// comments of a shell script.
pub(crate) fn long_prose(texts: &[Text]) -> Finding {
    let mut finding = Finding::default();
    for Text { path, text } in texts {
        let lines = match path.extension().and_then(|extension| extension.to_str()) {
            Some("md") => document_prose(text),
            // A shell script; many have no extension.
            Some("sh") | None => hash_comments(text),
            _ => Vec::new(),
        };
        for (line, text) in lines {
            let columns = text.chars().count();
            if columns > COLUMNS_MAX && can_break(text) {
                finding.add(1, format!("{}:{line}: {columns} columns", path.display()));
            }
        }
    }
    finding
}

/// The lines of a Markdown document outside of code fences, tables and headings, with their
/// numbers.
fn document_prose(text: &str) -> Vec<(usize, &str)> {
    let mut is_fenced = false;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let start = line.trim_start();
        if start.starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced && !start.starts_with(['|', '#']) {
            lines.push((number, line));
        }
    }
    lines
}

/// Whether a line has a space after its list marker or comment sign that is not part of a code
/// span.
fn can_break(line: &str) -> bool {
    let is_marker = |c: char| c.is_ascii_digit() || "*-.# ".contains(c);
    line.trim_start_matches(is_marker).trim_end().split('`').step_by(2).any(|part| part.contains(' '))
}

/// Doc comments that begin or end with "…": rustdoc shows each alone, without the neighbour that
/// completes the sentence.
pub(crate) fn open_docs(package: &Package) -> Finding {
    let mut finding = Finding::default();
    for file in &package.files {
        let docs: Vec<Comment> = counted(file).into_iter().filter(Comment::is_doc).collect();
        for block in docs.chunk_by(|a, b| b.line == a.line + 1 && a.text[..3] == b.text[..3]) {
            let (Some(first), Some(last)) = (block.first(), block.last()) else { continue };
            if first.prose().starts_with('…') || last.prose().ends_with('…') {
                finding.add(1, format!("{}:{}: {}", file.path.display(), first.line, first.prose()));
            }
        }
    }
    finding
}

fn counted(file: &Source) -> Vec<Comment> {
    let mut all = comments(&file.text);
    all.retain(|comment| !file.is_test_line(comment.line));
    all
}

#[test]
fn long_and_open_comments_are_found() {
    let long = format!("    // {}\n    // {}\nfn f() {{}}\n", "x".repeat(93), "x".repeat(94));
    let docs =
        "/// How long …\nconst A: u8 = 1;\n/// … and how\n/// often.\nconst B: u8 = 1;\n/// a … b\nconst C: u8 = 1;\n";
    let package = Package::sample(&[("lib.rs", long.as_str()), ("docs.rs", docs)]);
    assert_eq!(long_lines(&package).places, ["lib.rs:2: 101 columns"]);
    assert_eq!(open_docs(&package).places, ["docs.rs:1: How long …", "docs.rs:3: … and how"]);
}

#[test]
fn long_prose_is_found_in_documents_and_scripts() {
    let long = format!("{} {}", "x".repeat(50), "y".repeat(50));
    let code = format!("`a {}`", "x".repeat(100));
    let long_lines = |path: &str, text: String| long_prose(&[Text { path: path.into(), text }]).places;
    let document = format!("{long}\n# {long}\n| {long} |\n```\n{long}\n```\n* {code}\n{}\n* {long}\n", &long[1..]);
    assert_eq!(long_lines("a.md", document), ["a.md:1: 101 columns", "a.md:9: 103 columns"]);
    assert_eq!(long_lines("a.md", format!("see {code}\n")), ["a.md:1: 108 columns"]);
    let script = format!("#!{long}\n# {long}\n#{}\necho \"{long}\"\n  # {code}\n", &long[2..]);
    assert_eq!(long_lines("tests/run", script), ["tests/run:2: 103 columns"]);
}
