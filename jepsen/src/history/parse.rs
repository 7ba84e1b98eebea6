//! Reads a history from a file in any known format.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use super::error::ReadError;
use super::operation::Operation;
use super::{edn, jsonl, porcupine};

/// File format of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// EDN of Jepsen and Knossos: a vector or list of maps, or bare maps.
    Edn,
    /// Our own `history.jsonl`.
    Jsonl,
    /// Porcupine's two formats: log lines of its etcd runs and maps of its key-value runs. The
    /// content tells them apart.
    Porcupine,
}

/// Reads the operations of a history file and returns the format too. Without a given format, the
/// content decides.
///
/// # Errors
///
/// The file cannot be read, or does not hold a history.
pub fn read(path: &Path, format: Option<Format>) -> Result<(Format, Vec<Operation>), ReadError> {
    // Opened only once, because it may be a pipe.
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let head = head(&mut reader)?;
    let format = format.map_or_else(|| guess(&head), Ok)?;
    let mut reader = Cursor::new(head).chain(reader);
    let mut whole = || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    };
    let operations = match format {
        Format::Edn => edn::history(&whole()?)?,
        Format::Porcupine => porcupine::history(&whole()?)?,
        // Our own format is read line by line, because a long run fills gigabytes. The others are
        // small.
        Format::Jsonl => jsonl::read(reader)?,
    };
    Ok((format, operations))
}

/// Reads up to the first line that is neither empty nor an EDN comment. (The other formats refuse
/// such a comment.)
fn head(reader: &mut impl BufRead) -> Result<String, ReadError> {
    let mut head = String::new();
    loop {
        let begin = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Err(ReadError::Empty);
        }
        if !matches!(head[begin..].trim_start().as_bytes(), [] | [b';', ..]) {
            return Ok(head);
        }
    }
}

/// Detects the format from the first line with content.
fn guess(head: &str) -> Result<Format, ReadError> {
    for line in head.lines() {
        let text = line.trim_start();
        match text.as_bytes() {
            [] => {}
            [b';' | b'[' | b'(' | b'#', ..] => return Ok(Format::Edn),
            [b'I', b'N', b'F', b'O', ..] => return Ok(Format::Porcupine),
            [b'{', rest @ ..] => {
                let next = rest.iter().find(|byte| !byte.is_ascii_whitespace());
                // A map on a single line, with a key of its own, is Porcupine's; Knossos wraps its
                // maps.
                return match next {
                    Some(b'"') => Ok(Format::Jsonl),
                    Some(b':') if text.contains(":key ") => Ok(Format::Porcupine),
                    Some(b':') => Ok(Format::Edn),
                    _ => Err(ReadError::Format),
                };
            }
            _ => return Err(ReadError::Format),
        }
    }
    Err(ReadError::Format)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty file is not a valid history without operations. (A truncated file once passed as
    /// valid.)
    #[test]
    fn empty_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str, format| {
            std::fs::write(file.path(), text).unwrap();
            read(file.path(), format)
        };
        for format in [None, Some(Format::Edn), Some(Format::Jsonl), Some(Format::Porcupine)] {
            for text in ["", "\n \n", "; nothing\n"] {
                assert!(matches!(read(text, format), Err(ReadError::Empty)), "{text:?} as {format:?}");
            }
        }
        assert!(matches!(read("; nothing\n[]", None), Ok((Format::Edn, operations)) if operations.is_empty()));
    }

    /// Detecting the format consumes the head of a pipe, which must still reach the parser.
    #[test]
    fn history_from_a_pipe_keeps_its_head() {
        let text = "; one write\n[{:process 0, :type :invoke, :f :write, :value 1}\n{:process 0, :type :ok, :f :write, :value 1}]\n";
        for format in [None, Some(Format::Edn)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("pipe");
            let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
            assert!(made.success());
            std::thread::scope(|scope| {
                scope.spawn(|| std::fs::write(&path, text).unwrap());
                assert_eq!(read(&path, format).unwrap().1.len(), 1);
            });
        }
    }

    #[test]
    fn content_determines_the_format() {
        let told = |text: &str| guess(text).ok();
        assert_eq!(told("; a comment\n[{:type :invoke}]"), Some(Format::Edn));
        assert_eq!(told("\n({:type :invoke})"), Some(Format::Edn));
        assert_eq!(told("{:type :invoke, :f :read}"), Some(Format::Edn));
        assert_eq!(told("{:process 9, :type :invoke, :f :get, :key \"0\"}"), Some(Format::Porcupine));
        assert_eq!(told("INFO  jepsen.util - 0"), Some(Format::Porcupine));
        assert_eq!(told("{\"index\":0}"), Some(Format::Jsonl));
        assert_eq!(told("hello"), None);
        assert_eq!(told(""), None);
    }
}
