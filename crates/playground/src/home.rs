//! The playground's directory.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::{Error, Kind};
use crate::layout::Shape;

/// The file that records the shape of the directory's cluster.
const RECORD: &str = "playground.json";

/// A directory. A temporary one is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    temporary: bool,
    /// Reports a directory that cannot be removed.
    show: fn(&str),
}

impl Home {
    /// Creates the directory if it does not exist; without a name, a temporary one.
    pub(crate) fn open(dir: Option<PathBuf>, show: fn(&str)) -> Result<Self, Error> {
        let temporary = dir.is_none();
        let path =
            dir.unwrap_or_else(|| std::env::temp_dir().join(format!("quorate-playground-{}", Uuid::now_v7().simple())));
        // Other users have no access to the data.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        let made = made.and_then(|()| fs::canonicalize(&path));
        let path = made.map_err(|error| cannot("create", &path, &error))?;
        Ok(Home { path, temporary, show })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// The recorded shape; none: the directory is empty. Refuses a directory with other contents.
    pub(crate) fn recorded(&self) -> Result<Option<Shape>, Error> {
        let file = self.path.join(RECORD);
        match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| cannot("read", &file, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.check_empty().map(|()| None),
            Err(error) => Err(cannot("read", &file, &error)),
        }
    }

    fn check_empty(&self) -> Result<(), Error> {
        let mut entries = fs::read_dir(&self.path).map_err(|error| cannot("read", &self.path, &error))?;
        match entries.next() {
            None => Ok(()),
            Some(_) => {
                let what = format!("{} is neither a playground nor empty", self.path.display());
                Err(Error::new(Kind::Usage, what).next("choose a new or empty --dir"))
            }
        }
    }

    /// Records the shape. Call it before anything is started, so that the directory can be started
    /// again after a crash.
    pub(crate) fn record(&self, shape: Shape) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(&shape).expect("numbers are always JSON");
        replace(&self.path.join(RECORD), &text)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            (self.show)(&format!("cannot remove {}: {error}\n", self.path.display()));
        }
    }
}

/// Writes a file atomically: a reader sees all of it or none.
pub(crate) fn replace(file: &Path, text: &str) -> Result<(), Error> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let new = file.with_file_name(name);
    fs::write(&new, text).and_then(|()| fs::rename(&new, file)).map_err(|error| cannot("write", file, &error))
}

fn cannot(verb: &str, path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Failed, format!("cannot {verb} {}", path.display())).why(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { nodes: 3, shards: 16, port_base: 7100, added: 0 };

    #[test]
    fn a_temporary_home_is_removed_and_a_named_one_is_kept() {
        let home = Home::open(None, |_| {}).unwrap();
        let path = home.path().to_owned();
        home.record(SHAPE).unwrap();
        drop(home);
        assert!(!path.exists());

        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("a/b");
        let home = Home::open(Some(named.clone()), |_| {}).unwrap();
        assert_eq!(home.recorded().unwrap(), None);
        home.record(SHAPE).unwrap();
        drop(home);
        assert_eq!(Home::open(Some(named), |_| {}).unwrap().recorded().unwrap(), Some(SHAPE));
    }

    #[test]
    fn a_directory_with_other_contents_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "important").unwrap();
        let error = Home::open(Some(dir.path().to_owned()), |_| {}).unwrap().recorded().unwrap_err();
        assert!(error.what.contains("is neither a playground nor empty"), "{error}");
    }

    #[test]
    fn a_replaced_file_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ready.json");
        replace(&file, "one").unwrap();
        replace(&file, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
