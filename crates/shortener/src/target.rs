//! The check of the URLs that a short link may redirect to.
//!
//! The text is checked and never changed: it is stored and sent in `Location` as it was posted.
//! Parsing follows the WHATWG URL standard, as browsers do. The standard repairs many malformed
//! URLs; a URL whose repair *changes its meaning* is refused, because other readers of the
//! `Location` header may repair it differently.

use url::{ParseError, Url};

/// The longest target, in bytes: a length that all browsers and proxies support.
pub(crate) const TARGET_BYTES_MAX: usize = 2048;

/// The reason why a text cannot be the target of a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadTarget {
    #[error("long_url is empty")]
    Empty,
    #[error("long_url has {bytes} bytes; at most {TARGET_BYTES_MAX} are accepted")]
    TooLong { bytes: usize },
    #[error(
        "long_url holds {character} at byte {at}; percent-encode it (and write an international host name in punycode)"
    )]
    Character { character: &'static str, at: usize },
    #[error("long_url is not an absolute URL: {reason}")]
    Malformed { reason: String },
    #[error("long_url has the scheme '{scheme}'; only http and https are accepted")]
    Scheme { scheme: String },
}

/// Checks that a redirect to this URL, exactly as written, is allowed.
pub(crate) fn check(text: &str) -> Result<(), BadTarget> {
    if text.is_empty() {
        return Err(BadTarget::Empty);
    }
    if text.len() > TARGET_BYTES_MAX {
        return Err(BadTarget::TooLong { bytes: text.len() });
    }
    if let Some((at, byte)) = text.bytes().enumerate().find(|(_, byte)| !byte.is_ascii_graphic()) {
        return Err(BadTarget::Character { character: name(byte), at });
    }
    let url = Url::parse(text).map_err(malformed)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(BadTarget::Scheme { scheme: url.scheme().to_owned() });
    }
    // `http:host`, `http:///host` and `http:\\host` all parse as `http://host`, but other parsers
    // disagree.
    let after_scheme = &text[url.scheme().len()..];
    match after_scheme.strip_prefix("://") {
        Some(rest) if !rest.starts_with(['/', '\\']) => Ok(()),
        _ => Err(BadTarget::Malformed { reason: format!("'{}' must be followed by '://' and a host", url.scheme()) }),
    }
}

fn malformed(error: ParseError) -> BadTarget {
    let reason = match error {
        ParseError::RelativeUrlWithoutBase => "it has no scheme; write https://…".to_owned(),
        other => other.to_string(),
    };
    BadTarget::Malformed { reason }
}

fn name(byte: u8) -> &'static str {
    match byte {
        b' ' => "a space",
        0x80.. => "a character outside ASCII",
        _ => "a control character",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_urls_are_accepted() {
        for text in [
            "http://example.org",
            "https://example.org/",
            "HTTPS://Example.ORG/A/../b?x=1&y=%20#frag",
            "http://user@host.example:8080/a;b,c",
            "http://[2001:db8::1]:80/",
            "http://192.0.2.1/x",
            "https://example.org/a|b{c}^d`e\"f<g>",
            "http://xn--bcher-kva.example/",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        let longest = format!("http://example.org/{}", "a".repeat(TARGET_BYTES_MAX - 19));
        assert_eq!(check(&longest), Ok(()));
    }

    #[test]
    fn other_texts_are_refused_with_their_reason() {
        let reason = |text: &str| check(text).expect_err(text).to_string();
        assert_eq!(reason(""), "long_url is empty");
        assert!(reason("example.org/x").contains("no scheme"));
        assert!(reason("/etc/passwd").contains("no scheme"));
        assert!(reason("http://").contains("empty host"));
        assert!(reason("http://host:99999/").contains("port"));
        assert!(reason("http://a b/").contains("a space at byte 8"));
        assert!(reason("http://example.org/\r\nSet-Cookie: x").contains("a control character at byte 19"));
        assert!(reason("http://bücher.example/").contains("outside ASCII"));
        for text in ["ftp://example.org/", "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd"] {
            assert!(reason(text).contains("only http and https"), "{text}");
        }
        for text in ["http:example.org", "http:///example.org", "http:\\\\example.org", "https:/example.org"] {
            assert!(reason(text).contains("must be followed by '://'"), "{text}");
        }
        assert!(reason(&format!("http://e.org/{}", "a".repeat(TARGET_BYTES_MAX))).contains("at most 2048"));
    }
}
