//! Words that make prose slow to read, as the style guide lists them: relatives that hide a noun,
//! persons where machines act, and phrases that were translated word by word.
//!
//! Prose is in comments, in string literals of more than one word (messages), in `Cargo.toml`, in
//! the documents and in the comments of shell scripts; of tests and examples too.

use std::path::Path;

use crate::comments::{comments, hash_comments, literals};
use crate::measures::Finding;
use crate::source::Text;

/// This file and its samples are the only place that must name the words.
const NAMES_THE_WORDS: &str = "tests/tests/tidy/words.rs";

/// Hides the noun that the reader needs.
pub(crate) const WHAT: &[&str] = &["what"];

/// Persons; machines receive, report and time out.
pub(crate) const WHO: &[&str] =
    &["who", "whom", "whoever", "whomever", "nobody", "somebody", "everybody", "anybody", "whatever", "whichever"];

/// Translated word by word.
pub(crate) const CALQUES: &[&str] = &[
    "at once",
    "for ever",
    "in vain",
    "anew",
    "goes on",
    "go on",
    "going on",
    "stands still",
    "stand still",
    "comes to its end",
    "comes to an end",
    "on its way",
    "taken back",
    "take back",
    "any more",
    "all the same",
    "is told",
    "are told",
    "hand over",
    "hands over",
    "handed over",
    "what came of",
    "by and by",
    "so that nobody",
    "as long as",
    "hear of",
    "hears of",
    "aimed elsewhere",
    "it is so",
    "so it is",
    "that is so",
];

/// Every place of one of `phrases` in the prose of `texts`.
pub(crate) fn flagged(texts: &[Text], phrases: &[&str]) -> Finding {
    let mut finding = Finding::default();
    for Text { path, text } in texts.iter().filter(|text| text.path != Path::new(NAMES_THE_WORDS)) {
        for (line, prose) in prose(path, text) {
            finding.add(occurrences(&prose, phrases), format!("{}:{line}: {}", path.display(), prose.trim()));
        }
    }
    finding
}

/// The prose of a file, with line numbers.
fn prose(path: &Path, text: &str) -> Vec<(usize, String)> {
    let lines = || (1..).zip(text.lines());
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("rs") => {
            let comments = comments(text).into_iter().map(|comment| (comment.line, comment.prose().to_owned()));
            let messages = literals(text).into_iter().map(|literal| (literal.line, message(&literal.text)));
            comments.chain(messages).collect()
        }
        Some("proto") => comments(text).into_iter().map(|comment| (comment.line, comment.prose().to_owned())).collect(),
        Some("md") => lines().map(|(line, text)| (line, without_code(text))).collect(),
        // A shell script; many have no extension.
        Some("sh") | None => hash_comments(text).into_iter().map(|(line, text)| (line, without_code(text))).collect(),
        _ => lines().map(|(line, text)| (line, text.to_owned())).collect(),
    }
}

/// A literal without line breaks and `{placeholders}`; empty if that is a single word, which is a
/// key or a name.
fn message(literal: &str) -> String {
    let whole = literal.split("\\\n").map(str::trim_start).collect::<String>();
    let mut parts = whole.split('{');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text += "{}";
        text += part.split_once('}').map_or(part, |(_, after)| after);
    }
    if text.split_whitespace().nth(1).is_some() { text } else { String::new() }
}

/// A line of Markdown without the parts in backticks, which quote names.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// How often one of `phrases` is in `text` as whole words, in upper or lower case.
fn occurrences(text: &str, phrases: &[&str]) -> usize {
    let text = text.to_lowercase();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |start: usize, end: usize| {
        !text[..start].chars().next_back().is_some_and(is_word) && !text[end..].chars().next().is_some_and(is_word)
    };
    phrases
        .iter()
        .map(|phrase| text.match_indices(phrase).filter(|(start, _)| whole(*start, start + phrase.len())).count())
        .sum()
}

#[cfg(test)]
fn places(path: &str, text: &str, phrases: &[&str]) -> Vec<String> {
    flagged(&[Text { path: path.into(), text: text.to_owned() }], phrases).places
}

#[test]
fn flagged_words_are_found_in_comments_also_of_tests() {
    let text = "//! What users had.\nfn f() { let what = a; } // somewhat\n/// Whoever asks, at once.\nfn g() {}\n\
                #[cfg(test)]\n/// Nobody reads this.\nmod tests {}\n";
    assert_eq!(places("lib.rs", text, WHAT), ["lib.rs:1: What users had."]);
    assert_eq!(
        places("tests/a.rs", text, WHO),
        ["tests/a.rs:3: Whoever asks, at once.", "tests/a.rs:6: Nobody reads this."]
    );
    assert_eq!(places("lib.rs", text, CALQUES).len(), 1);
    assert_eq!(places("a.proto", "// What it holds.\nbytes what = 1;\n", WHAT), ["a.proto:1: What it holds."]);
}

#[test]
fn flagged_words_are_found_in_messages_and_not_in_names() {
    let text = "f(\"what\", \"the {what} address\");\n#[error(\"{what} gone, and \\\n    what was in it\")]\n\
                m!(r#\"nobody \"reads\" this\"#);\n";
    assert_eq!(places("lib.rs", text, WHAT), ["lib.rs:2: {} gone, and what was in it"]);
    assert_eq!(places("lib.rs", text, WHO), ["lib.rs:4: nobody \"reads\" this"]);
}

#[test]
fn flagged_words_are_found_in_manifests_and_documents() {
    let manifest = "[package]\nname = \"x\"\ndescription = \"What follows\"\n";
    assert_eq!(places("Cargo.toml", manifest, WHAT), ["Cargo.toml:3: description = \"What follows\""]);
    let document = "# Title\n\nNot `what`, but what\nfollows\n";
    assert_eq!(places("docs/a.md", document, WHAT), ["docs/a.md:3: Not `, but what"]);
}

#[test]
fn flagged_words_are_found_in_comments_of_scripts() {
    let script = "#!/usr/bin/env what\n# Says what it does.\nwhat=1\n  # `what` is a name\n";
    assert_eq!(places("tests/run", script, WHAT), ["tests/run:2: # Says what it does."]);
    assert_eq!(places("tests/setup.sh", script, WHAT), ["tests/setup.sh:2: # Says what it does."]);
}
