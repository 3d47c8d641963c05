//! `drctl cat`.

use crate::cli::Shell;
use crate::cli::args::CatArgs;
use crate::cli::open::Opened;
use crate::error::Result;
use crate::ops::choose::{self, Wanted};
use crate::ops::details::Details;
use crate::ops::verify::{held, let_go, while_holding};
use crate::ops::{cat, look};

/// Writes an artifact, or one file of it, to standard output.
pub async fn run(shell: &Shell, args: CatArgs) -> Result<u8> {
    let opened = Opened::for_reading(shell).await?;
    let setup = &opened.setup;
    let wanted = Wanted::word(&args.set);
    let mut log = setup.log(&opened.job_of(&wanted, args.job.as_deref()).await?).await?;
    let zone = opened.zone(Some(log.job()));
    let manifest = choose::set(&log, &wanted, None, setup.clock.now(), &zone)?.manifest.clone();
    // Damaged details must not keep anyone from an artifact that is whole: its file name is enough.
    let details = Details::read(setup, &setup.sinks[0].store, &manifest).await.ok();
    let artifact = look::artifact(&manifest, details.as_ref(), &args.artifact)?;
    let hold = held(setup, &mut log, &manifest.set).await?;
    let writing = async {
        match args.path {
            Some(path) => cat::cat_path(setup, &manifest, artifact, path, std::io::stdout()).await,
            None => cat::cat(setup, &manifest, artifact, std::io::stdout()).await.map(drop),
        }
    };
    let (written, hold) = while_holding(setup, &mut log, hold, writing).await;
    let_go(setup, &mut log, hold).await;
    match written {
        Ok(()) => Ok(0),
        Err(error) => Err(crate::catalog::hold::explain(&mut log, &manifest.set, error).await),
    }
}
