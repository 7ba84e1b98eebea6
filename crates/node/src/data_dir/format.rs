//! The first file of a data directory: the format of everything else in it.

use serde::{Deserialize, Serialize};

/// The format that this release writes. It reads this format and every older one.
pub(super) const FORMAT_VERSION: u32 = 1;

/// The file's name.
pub(super) const FORMAT: &str = "FORMAT";

/// The file as JSON.
#[derive(Serialize, Deserialize)]
pub(super) struct Format {
    pub(super) format: u32,
    pub(super) written_by: String,
}
