//! The rules of this repository, as tests: imports between crates, import circles inside a crate,
//! the width of types, plain English in comments and documents, and links in the documents.
//!
//! ```text
//! layers ──── cargo metadata: imports between crates, and the owner of each outside library
//! documents ─ *.md: links and paths lead to files, the README stays short
//! places ──── sources as text: one place for encoding, one for the clock, a header in each file
//! walks  ──── crates/guide: the walks name files and functions that exist, and are short
//! maxima ──── tests/tidy/maxima.txt: one number for each crate and each measure below
//!   ├─ words     flagged words in prose          ├─ width    fields and methods of a type
//!   ├─ lines     long lines of prose, open docs  ├─ imports  imported names for each file
//!   ├─ circles   files that import each other    ├─ errors   types `Result<_, String>`
//!   └─ asserts   invariants that are asserted    └─ source, comments: the files, parsed
//! ```
//!
//! A number in `maxima.txt` may only fall. `QUORATE_TIDY_WRITE=1 cargo nextest run -p quorate-tests
//! -E 'binary(tidy)'` writes the present numbers into it, and refuses to raise one. A maximum rises
//! only by hand, with the reason in the commit.
//!
//! Each rule has unit tests on small samples which show that it reports a violation.

mod asserts;
mod circles;
mod comments;
mod documents;
mod errors;
mod imports;
mod layers;
mod lines;
mod maxima;
mod measures;
mod places;
mod source;
mod walks;
mod width;
mod words;

use std::path::PathBuf;

/// The root of the workspace. Cargo sets the variable at run time as well, so a binary that was
/// compiled in another clone with the same target directory still reads the files of this one.
fn root() -> PathBuf {
    let tests = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests"));
    tests.parent().expect("the tests are in the workspace").to_owned()
}
