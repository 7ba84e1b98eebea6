//! The shape of comments: at most 100 columns wide, and no doc comment that is half of a sentence.

use crate::comments::{Comment, comments};
use crate::measures::Finding;
use crate::source::{Package, Source};

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
