//! `drctl cat`.

use std::io::{IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::Shell;
use crate::cli::args::CatArgs;
use crate::error::{Error, Kind, Result};
use crate::model::ArtifactFormat;
use crate::open::Opened;
use crate::ops::choose::{self, Wanted};
use crate::ops::copies::check_is_here;
use crate::ops::details::Details;
use crate::ops::verify::{hold_all, release_all, while_holding};
use crate::ops::{cat, look};

/// How a shell shows the end of a program whose reader went away: 128 and the number of SIGPIPE.
const BY_SIGPIPE: u8 = 141;

/// Standard output, noting when its reader went away: that is no failure of ours.
struct Stdout {
    left: Arc<AtomicBool>,
}

impl Stdout {
    fn noted<T>(&self, result: std::io::Result<T>) -> std::io::Result<T> {
        result.inspect_err(|error| {
            if error.kind() == std::io::ErrorKind::BrokenPipe {
                self.left.store(true, Ordering::Relaxed);
            }
        })
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.noted(std::io::stdout().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.noted(std::io::stdout().flush())
    }
}

/// Writes an artifact, or one file of it, to standard output.
pub async fn run(shell: &Shell, args: CatArgs) -> Result<u8> {
    let opened = Opened::for_reading_from(&shell.around(), args.from_store.store.as_deref()).await?;
    let setup = &opened.setup;
    let wanted = Wanted::word(&args.set);
    let mut log = setup.log(&opened.job_of(&wanted, args.job.as_deref()).await?).await?;
    let zone = opened.zone(Some(log.job()));
    let manifest = choose::set(&log, &wanted, None, setup.clock.now(), &zone)?.manifest.clone();
    check_is_here(setup, &manifest).await?;
    // Damaged details must not keep anyone from an artifact that is whole: its file name is enough.
    let details = Details::read(setup, &setup.reading().store, &manifest).await.ok();
    let artifact = look::artifact(&manifest, details.as_ref(), &args.artifact)?;
    // An archive would leave the terminal in a state of its own.
    if args.path.is_none() && matches!(artifact.format, ArtifactFormat::PgCustom | ArtifactFormat::Tar) && std::io::stdout().is_terminal() {
        return Err(Error::new(Kind::Usage, format!("{} is an archive and not for a terminal", artifact.file))
            .hint(format!("drctl cat {} {} > FILE", manifest.set, artifact.file)));
    }
    let mut holds = hold_all(setup, &mut log, std::slice::from_ref(&manifest.set)).await?;
    let left = Arc::new(AtomicBool::new(false));
    let out = Stdout { left: left.clone() };
    let writing = async {
        match args.path {
            Some(path) => cat::cat_path(setup, &manifest, artifact, path, out).await,
            None => cat::cat(setup, &manifest, artifact, out).await.map(drop),
        }
    };
    let written = while_holding(setup, &mut log, &mut holds, writing).await;
    release_all(setup, &mut log, holds).await;
    match written {
        Ok(()) => Ok(0),
        // As `cat` ends when `head` has seen enough: without a word, and as if by the signal.
        Err(_) if left.load(Ordering::Relaxed) => Ok(BY_SIGPIPE),
        Err(error) => Err(crate::catalog::hold::explain(&mut log, &manifest.set, error).await),
    }
}
