//! The metrics as a file for node_exporter's textfile collector.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Context, Result};
use crate::ops::board::Board;
use crate::web::metrics;

/// Writes the metrics to `path`, which everybody may read; who reads it sees the old text or the new one, never half of it. Blocks.
///
/// The folder must be there. After an error the old file stands as it was. The disk is not waited for: the next minute writes it anew.
pub fn write(path: &Path, board: &Board) -> Result<()> {
    // The collector reads every *.prom of its folder, so the unfinished one must be called otherwise.
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let unfinished = path.with_file_name(format!(".{name}.{:016x}.tmp", rand::random::<u64>()));
    let written = write_new(&unfinished, &metrics::render(board)).and_then(|()| std::fs::rename(&unfinished, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&unfinished);
    }
    written
        .context(|| format!("write metrics to {}", path.display()))
        .map_err(|error| error.hint_or("the folder of agent.textfile must be there, and drctl's user must be allowed to write in it"))
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    // Whatever the umask: node_exporter runs as another user.
    file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())
}
