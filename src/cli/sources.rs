//! From the configuration of a source to the source, and to its loader.

use std::sync::Arc;

use crate::config::typed::{FilesConfig, SourceConfig, SourceKind};
use crate::error::{Error, Kind, Result};
use crate::source::Source;
use crate::source::files::{FilesSettings, FilesSource};
use crate::source::load::Loader;

/// The source that a configuration describes.
pub fn source(config: &SourceConfig) -> Result<Arc<dyn Source>> {
    Ok(match &config.kind {
        SourceKind::Files(files) => Arc::new(FilesSource::new(&config.name, files_settings(files))?),
        _ => return Err(Error::new(Kind::Config, "not yet")),
    })
}

/// A loader for a source of a set: what is configured under its name, or, for a target, what its kind alone can do.
pub fn loader(name: &str, kind: &str, _configured: Option<&SourceConfig>) -> Result<Arc<dyn Loader>> {
    Err(Error::new(Kind::Config, format!("{name} {kind}: not yet")))
}

fn files_settings(config: &FilesConfig) -> FilesSettings {
    FilesSettings {
        paths: config.paths.clone(),
        include: config.include.clone(),
        exclude: config.exclude.clone(),
        newer_than: config.newer_than,
        one_file_system: config.one_file_system,
        allow_empty: config.allow_empty,
    }
}
