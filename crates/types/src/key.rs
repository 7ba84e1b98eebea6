//! Keys, values, and the ring of tokens that keys live on.

use std::fmt;

use bincode::{Decode, Encode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::Blob;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// The largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// A key: 1 to [`KEY_BYTES_MAX`] arbitrary bytes. Keys of a shard are ordered by their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Key(Blob);

/// The reason why bytes cannot be a key. The caller must choose another key; no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key has no bytes.
    #[error("the key is empty; a key has 1 to {KEY_BYTES_MAX} bytes")]
    Empty,
    /// The key is longer than [`KEY_BYTES_MAX`].
    #[error("the key has {bytes} bytes; a key has at most {KEY_BYTES_MAX}")]
    TooLong {
        /// The length of the given bytes.
        bytes: usize,
    },
}

impl Key {
    /// Checks the limits and makes a key. Refuses an empty or over-long one with a [`KeyError`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            len if len > KEY_BYTES_MAX => Err(KeyError::TooLong { bytes: len }),
            _ => Ok(Key(Blob(bytes))),
        }
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.0
    }

    /// The key's bytes, shared and not copied.
    pub fn bytes(&self) -> Bytes {
        self.0.0.clone()
    }

    /// The part of the key that decides its shard: the text inside the first `{…}` if that is not
    /// empty, else the whole key. Keys with the same `{tag}` share a shard.
    ///
    /// ```
    /// # use quorate_types::Key;
    /// let routing = |text: &'static str| Key::new(text).unwrap().routing_key().to_vec();
    /// assert_eq!(routing("cart{user-7}"), b"user-7");
    /// assert_eq!(routing("cart{}"), b"cart{}");
    /// assert_eq!(routing("cart{user-7"), b"cart{user-7");
    /// ```
    pub fn routing_key(&self) -> &[u8] {
        let key = self.as_bytes();
        let Some(open) = key.iter().position(|&b| b == b'{') else { return key };
        let rest = &key[open + 1..];
        match rest.iter().position(|&b| b == b'}') {
            Some(len) if len > 0 => &rest[..len],
            _ => key,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

/// A value: 0 to [`VALUE_BYTES_MAX`] arbitrary bytes.
#[derive(Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Value(Blob);

/// The reason why bytes cannot be a value. The caller must store less; no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value has {bytes} bytes; a value has at most {VALUE_BYTES_MAX}")]
pub struct ValueError {
    /// The length of the given bytes.
    pub bytes: usize,
}

impl Value {
    /// Checks the limit and makes a value. Refuses an over-large one with a [`ValueError`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, ValueError> {
        let bytes = bytes.into();
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(ValueError { bytes: bytes.len() });
        }
        Ok(Value(Blob(bytes)))
    }

    /// The value's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.0
    }

    /// The value's bytes, shared and not copied.
    pub fn bytes(&self) -> Bytes {
        self.0.0.clone()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.as_bytes().len())
    }
}

/// A place on the ring of 2^64 tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Token(pub u64);

/// A half-open arc `[start, end)` of the ring, clockwise, wrapping past the top. `start == end` is
/// the whole ring: an arc is never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct TokenArc {
    /// The first token of the arc.
    pub start: Token,
    /// The first token after the arc.
    pub end: Token,
}

impl TokenArc {
    /// Whether the arc owns the token.
    pub fn contains(&self, token: Token) -> bool {
        let width = self.end.0.wrapping_sub(self.start.0);
        let offset = token.0.wrapping_sub(self.start.0);
        width == 0 || offset < width
    }
}

impl fmt::Display for TokenArc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}..{:016x}", self.start.0, self.end.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_arc_wraps_and_is_half_open() {
        let arc = |start, end| TokenArc { start: Token(start), end: Token(end) };
        assert!(arc(10, 20).contains(Token(10)));
        assert!(!arc(10, 20).contains(Token(20)));
        assert!(arc(20, 10).contains(Token(u64::MAX)));
        assert!(arc(20, 10).contains(Token(0)));
        assert!(!arc(20, 10).contains(Token(10)));
        assert!(arc(7, 7).contains(Token(6)), "start == end is the whole ring");
        assert!(arc(1 << 63, 0).contains(Token(u64::MAX)));
        assert!(!arc(1 << 63, 0).contains(Token(0)));
    }

    #[test]
    fn limits_are_refused_by_name() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert!(Key::new(vec![0; KEY_BYTES_MAX]).is_ok());
        assert_eq!(Key::new(vec![0; KEY_BYTES_MAX + 1]), Err(KeyError::TooLong { bytes: KEY_BYTES_MAX + 1 }));
        assert!(Value::new(vec![0; VALUE_BYTES_MAX]).is_ok());
        assert!(Value::new(vec![0; VALUE_BYTES_MAX + 1]).is_err());
    }

    proptest! {
        /// Two arcs that meet at both ends divide the ring: every token is in exactly one.
        #[test]
        fn an_arc_and_its_complement_divide_the_ring(a: u64, b: u64, token: u64) {
            prop_assume!(a != b);
            let one = TokenArc { start: Token(a), end: Token(b) };
            let other = TokenArc { start: Token(b), end: Token(a) };
            prop_assert!(one.contains(Token(token)) ^ other.contains(Token(token)));
        }
    }
}
