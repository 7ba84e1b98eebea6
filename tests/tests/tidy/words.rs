//! Words that make a comment slow to read, as the style guide lists them: relatives that
//! hide a noun, persons where machines act, and phrases that were translated word by word.

use crate::comments::comments;
use crate::measures::Finding;
use crate::source::Package;

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

/// Every place of one of `phrases` in the comments of `package`.
pub(crate) fn flagged(package: &Package, phrases: &[&str]) -> Finding {
    let mut finding = Finding::default();
    for file in &package.files {
        for comment in comments(&file.text) {
            if file.is_test_line(comment.line) {
                continue;
            }
            let place = format!("{}:{}: {}", file.path.display(), comment.line, comment.prose());
            finding.add(occurrences(&comment.text, phrases), place);
        }
    }
    finding
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

#[test]
fn flagged_words_are_found_in_comments_only() {
    let package = Package::sample(&[(
        "lib.rs",
        "//! What users had.\nfn f() { let what = \"somebody\"; } // somewhat\n/// Whoever asks, at once.\nfn g() {}\n\
         #[cfg(test)]\n/// Nobody reads this.\nmod tests {}\n",
    )]);
    assert_eq!(flagged(&package, WHAT).count, 1);
    assert_eq!(flagged(&package, WHO).places, ["lib.rs:3: Whoever asks, at once."]);
    assert_eq!(flagged(&package, CALQUES).count, 1);
}
