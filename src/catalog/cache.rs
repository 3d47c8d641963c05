//! A local copy of record bytes that were verified once. It saves requests; everything in it is hashed again when read, and
//! nothing is deleted on its word.

use std::path::PathBuf;

/// A folder of record bytes. Deleting it costs time only.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// A cache below `folder`, which is made when something is first kept.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Cache { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }
}
