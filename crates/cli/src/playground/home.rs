//! The playground's directory.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::layout::Shape;
use crate::failure::{Exit, Failure};

/// Holds the shape of the cluster that the directory is for.
const RECORD: &str = "playground.json";

/// A directory; a temporary one is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    temporary: bool,
}

impl Home {
    /// Makes the directory if it is not there; without a name, a temporary one.
    pub(super) fn open(dir: Option<PathBuf>) -> Result<Self, Failure> {
        let temporary = dir.is_none();
        let path =
            dir.unwrap_or_else(|| std::env::temp_dir().join(format!("quorate-playground-{}", Uuid::now_v7().simple())));
        // Nobody else reads what is in it.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        let made = made.and_then(|()| fs::canonicalize(&path));
        let path = made.map_err(|error| cannot("make", &path, &error))?;
        Ok(Home { path, temporary })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// The shape of the cluster that is here already. Refuses a directory that holds something else.
    pub(super) fn recorded(&self) -> Result<Option<Shape>, Failure> {
        let file = self.path.join(RECORD);
        match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| cannot("read", &file, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.check_empty().map(|()| None),
            Err(error) => Err(cannot("read", &file, &error)),
        }
    }

    fn check_empty(&self) -> Result<(), Failure> {
        let mut entries = fs::read_dir(&self.path).map_err(|error| cannot("read", &self.path, &error))?;
        match entries.next() {
            None => Ok(()),
            Some(_) => {
                Err(Failure::new(Exit::Usage, format!("{} is no playground and not empty", self.path.display()))
                    .hint("give a new or empty --dir"))
            }
        }
    }

    /// Records the shape, before anything is started: a crash later leaves a directory that can be started again.
    pub(super) fn record(&self, shape: Shape) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(&shape).expect("numbers are always JSON");
        replace(&self.path.join(RECORD), &text)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tell!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Writes a file so that a reader sees all of it or none.
pub(super) fn replace(file: &Path, text: &str) -> Result<(), Failure> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let new = file.with_file_name(name);
    fs::write(&new, text).and_then(|()| fs::rename(&new, file)).map_err(|error| cannot("write", file, &error))
}

fn cannot(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Other, format!("cannot {what} {}", path.display())).cause(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { nodes: 3, shards: 16, port_base: 7100, added: 0 };

    #[test]
    fn a_temporary_home_is_removed_and_a_named_one_is_kept() {
        let home = Home::open(None).unwrap();
        let path = home.path().to_owned();
        home.record(SHAPE).unwrap();
        drop(home);
        assert!(!path.exists());

        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("a/b");
        let home = Home::open(Some(named.clone())).unwrap();
        assert_eq!(home.recorded().unwrap(), None);
        home.record(SHAPE).unwrap();
        drop(home);
        assert_eq!(Home::open(Some(named)).unwrap().recorded().unwrap(), Some(SHAPE));
    }

    #[test]
    fn a_directory_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "important").unwrap();
        let failure = Home::open(Some(dir.path().to_owned())).unwrap().recorded().unwrap_err();
        assert!(failure.to_string().contains("is no playground and not empty"), "{failure}");
    }

    #[test]
    fn a_replaced_file_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ready.json");
        replace(&file, "one").unwrap();
        replace(&file, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
