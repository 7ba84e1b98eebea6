//! A short link's code: seven random Base62 characters.

use std::fmt;
use std::str::FromStr;

use rand::RngExt as _;

/// Characters of a code. 62^7 = 3.5 · 10^12 codes make collisions rare and guessing slow.
pub const CODE_CHARS: usize = 7;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A short link's code. Invariant: exactly [`CODE_CHARS`] characters of `0-9A-Za-z`; case matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code([u8; CODE_CHARS]);

/// A text that no link can have as its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a code is {CODE_CHARS} characters of 0-9, A-Z and a-z")]
pub struct NotACode;

impl Code {
    /// A new code, uniformly distributed. Sequential codes would let anyone enumerate the links.
    pub fn random() -> Self {
        let mut rng = rand::rng();
        Code(std::array::from_fn(|_| ALPHABET[rng.random_range(0..ALPHABET.len())]))
    }

    /// The code's text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a code is ASCII by its invariant")
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Code {
    type Err = NotACode;

    fn from_str(text: &str) -> Result<Self, NotACode> {
        let bytes: [u8; CODE_CHARS] = text.as_bytes().try_into().map_err(|_| NotACode)?;
        if bytes.iter().all(u8::is_ascii_alphanumeric) { Ok(Code(bytes)) } else { Err(NotACode) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_random_code_is_a_code_and_uses_the_whole_alphabet() {
        let codes: Vec<Code> = (0..2_000).map(|_| Code::random()).collect();
        for code in &codes {
            assert_eq!(code.as_str().parse(), Ok(*code));
        }
        let distinct: HashSet<_> = codes.iter().collect();
        assert_eq!(distinct.len(), codes.len());
        let letters: HashSet<u8> = codes.iter().flat_map(|code| code.0).collect();
        assert_eq!(letters.len(), ALPHABET.len(), "14,000 draws miss none of 62 characters");
    }

    #[test]
    fn other_texts_are_no_codes() {
        for text in ["", "abcdef", "abcdefgh", "abc-efg", "abc efg", "äbcdef", "abcde/f"] {
            assert_eq!(text.parse::<Code>(), Err(NotACode), "{text:?}");
        }
        assert_eq!("aZ09xyz".parse::<Code>().unwrap().to_string(), "aZ09xyz");
    }
}
