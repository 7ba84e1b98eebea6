//! The files of a snapshot that is being sent: each is written while the one before it is sent, and
//! deleted once it is sent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_machine::state::{EXPORT_FILE_BYTES, Export};
use quorate_testpoints::{FailPoint, fail_point};
use quorate_types::ReplicaId;

use crate::blocking;
use crate::error::FileError;
use crate::snapshot_data::Pin;
use crate::snapshot_slots::{OutgoingDir, SnapshotsOut};

/// Bytes read at a time to compute a file's checksum.
const CHECKSUM_BUFFER_BYTES: usize = 256 << 10;

/// The files of a snapshot to send. Nothing is written before the first one is asked for.
pub struct SnapshotFiles {
    snapshots: Arc<SnapshotsOut>,
    to: ReplicaId,
    step: Step,
}

/// How far the files are.
enum Step {
    Pinned(Pin),
    Exporting(Exporting),
    /// A failure, or a call that was cancelled.
    Over,
}

/// An export, in the order in which its parts are dropped: without the directory the export ends
/// soon, and the pin waits for that.
struct Exporting {
    _dir: OutgoingDir,
    export: Box<dyn Export>,
    pin: Pin,
}

impl SnapshotFiles {
    pub(crate) fn new(snapshots: Arc<SnapshotsOut>, pin: Pin, to: ReplicaId) -> Self {
        SnapshotFiles { snapshots, to, step: Step::Pinned(pin) }
    }

    /// The next file; none after the last one. Drop the one before it first: its space is needed.
    ///
    /// # Errors
    /// The transfer is over, and the next one uses a new snapshot. The disk of this node never goes
    /// below its reserve for a snapshot.
    pub async fn next(&mut self) -> Result<Option<OutgoingFile>, FileError> {
        let (snapshots, to) = (self.snapshots.clone(), self.to);
        let step = std::mem::replace(&mut self.step, Step::Over);
        let next = move || {
            let mut exporting = match step {
                Step::Pinned(pin) => begin(&snapshots, pin, to)?,
                Step::Exporting(exporting) => {
                    snapshots.check_room(EXPORT_FILE_BYTES.min(exporting.pin.bytes()))?;
                    exporting
                }
                Step::Over => return Err(FileError::FailedBefore),
            };
            let file = exporting.export.next_file()?.map(OutgoingFile::measure).transpose()?;
            Ok((exporting, file))
        };
        let (exporting, file) = blocking::elsewhere(next).await??;
        self.step = Step::Exporting(exporting);
        fail_point(FailPoint::SnapshotWritten);
        Ok(file)
    }
}

impl Drop for SnapshotFiles {
    fn drop(&mut self) {
        // The pin's thread may be in the middle of a file, which blocks for a moment.
        blocking::drop_in_place(std::mem::replace(&mut self.step, Step::Over));
    }
}

fn begin(snapshots: &SnapshotsOut, pin: Pin, to: ReplicaId) -> Result<Exporting, FileError> {
    let dir = snapshots.outgoing_dir(pin.bytes())?;
    let export = pin.export(dir.path(), to)?;
    Ok(Exporting { _dir: dir, export, pin })
}

/// A file of a snapshot, deleted on drop.
#[derive(Debug)]
pub struct OutgoingFile {
    path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its crc32c.
    pub checksum: u32,
}

impl OutgoingFile {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Computes the length and the checksum of a file.
    fn measure(path: PathBuf) -> Result<Self, FileError> {
        use std::io::Read;
        let mut measured = OutgoingFile { path, bytes: 0, checksum: 0 };
        let mut read = || -> std::io::Result<()> {
            let mut file = std::fs::File::open(&measured.path)?;
            let mut buffer = vec![0; CHECKSUM_BUFFER_BYTES];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(()),
                    read => {
                        measured.checksum = crc32c::crc32c_append(measured.checksum, &buffer[..read]);
                        measured.bytes += read as u64;
                    }
                }
            }
        };
        match read() {
            Ok(()) => Ok(measured),
            Err(error) => Err(FileError::Io { path: measured.path.clone(), error }),
        }
    }
}

impl Drop for OutgoingFile {
    fn drop(&mut self) {
        // A file that cannot be deleted is deleted with its directory.
        let _ = std::fs::remove_file(&self.path);
    }
}
