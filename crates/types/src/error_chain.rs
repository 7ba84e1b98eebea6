//! An error with its causes as one line of text.

use std::error::Error;

/// The error and its causes, from the outermost to the innermost, separated by `: `. A cause that
/// the text already contains is left out.
///
/// ```
/// # use quorate_types::error_chain;
/// #[derive(Debug, thiserror::Error)]
/// #[error("no connection to {node}")]
/// struct NoConnection { node: u64, source: std::io::Error }
///
/// let source = std::io::Error::other("connection refused");
/// let error = NoConnection { node: 3, source };
/// assert_eq!(error_chain(&error), "no connection to 3: connection refused");
/// ```
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
