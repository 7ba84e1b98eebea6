//! Reading a history from a file, in any of the formats that we know.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use super::operation::Operation;
use super::{edn, jsonl, porcupine};

/// How a history is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Jepsen's and Knossos's EDN: a vector or list of maps, or the maps alone.
    Edn,
    /// Our own `history.jsonl`.
    Jsonl,
    /// Porcupine's two: the log lines of its etcd runs, and the maps of its key-value runs. Told apart by content.
    Porcupine,
}

/// Why a history cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong there.
    pub reason: String,
}

/// Why a history file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read, or is not text.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is no history.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// There is nothing in the file, or nothing but comments.
    #[error("the file holds no history")]
    Empty,
    /// Nothing says in which format the file is.
    #[error("cannot tell the format of the file; name it with --format edn|jsonl|porcupine")]
    Format,
}

/// The operations of a history file. Without a format it is told by content. Gives the format too.
///
/// # Errors
///
/// A file that cannot be read, or that is no history.
pub fn read(path: &Path, format: Option<Format>) -> Result<(Format, Vec<Operation>), ReadError> {
    // Opened once: it may be a pipe.
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
        // A history of a long run is gigabytes in our own format: it is read line by line. The others are small.
        Format::Jsonl => jsonl::read(reader)?,
    };
    Ok((format, operations))
}

/// All up to the first line that is neither empty nor a comment of EDN's. (In the other formats such a line is refused.)
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

/// Tells the format by the first line that says something.
fn guess(head: &str) -> Result<Format, ReadError> {
    for line in head.lines() {
        let text = line.trim_start();
        match text.as_bytes() {
            [] => {}
            [b';' | b'[' | b'(' | b'#', ..] => return Ok(Format::Edn),
            [b'I', b'N', b'F', b'O', ..] => return Ok(Format::Porcupine),
            [b'{', rest @ ..] => {
                let next = rest.iter().find(|byte| !byte.is_ascii_whitespace());
                // A map alone on its first line, with a key of its own, is Porcupine's; Knossos wraps its maps.
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

    /// A file that was cut off at its beginning was a valid history of nothing.
    #[test]
    fn an_empty_file_was_valid() {
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

    /// The head of what came through a pipe was read by whoever told the format, and a history that was all head was empty.
    #[test]
    fn a_history_from_a_pipe_lost_its_head() {
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
    fn formats_are_told_by_content() {
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
