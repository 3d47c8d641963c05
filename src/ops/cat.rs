//! `drctl cat`: an artifact's plain bytes, or one file out of a tar.

use std::io::Write;

use tokio_util::sync::CancellationToken;

use crate::error::{Context, Error, Kind, Result};
use crate::model::{Artifact, ArtifactFormat, Manifest};
use crate::ops::Setup;
use crate::ops::dump::interrupted;
use crate::pipeline::plain::{self, Plain, PlainReceiver};
use crate::pipeline::read::StoredArtifact;

/// Writes the artifact's plain bytes to `out`. Bytes before a damaged place come out before the error does.
pub async fn cat(setup: &Setup, manifest: &Manifest, artifact: &Artifact, out: impl Write + Send + 'static) -> Result<u64> {
    stream(setup, manifest, artifact, move |mut receiver| {
        let mut out = out;
        let mut written = 0;
        loop {
            match receiver.blocking_next() {
                Some(Plain::Data(bytes)) => {
                    out.write_all(&bytes).context(|| "write the output")?;
                    written += bytes.len() as u64;
                }
                Some(Plain::Cut) => {}
                Some(Plain::End) | None => {
                    out.flush().context(|| "write the output")?;
                    return Ok(written);
                }
            }
        }
    })
    .await
}

/// Writes the bytes of one file of a tar artifact to `out`. [`Kind::NoSuchSet`] when the archive has no such file.
pub async fn cat_path(
    setup: &Setup,
    manifest: &Manifest,
    artifact: &Artifact,
    path: String,
    out: impl Write + Send + 'static,
) -> Result<()> {
    if artifact.format != ArtifactFormat::Tar {
        return Err(Error::new(Kind::Usage, format!("{} is not an archive: --path does not apply", artifact.file)));
    }
    let wanted = path.clone();
    let found = stream(setup, manifest, artifact, move |receiver| {
        let mut out = out;
        crate::source::files::extract_path(plain::Reader::new(receiver), wanted.trim_start_matches('/').as_bytes(), &mut out)
    })
    .await?;
    if found {
        return Ok(());
    }
    Err(Error::new(Kind::NoSuchSet, format!("{} holds no file '{path}'", artifact.file))
        .hint(format!("list what it holds: drctl cat {} {} | tar -t", manifest.set, artifact.file)))
}

/// Reads an artifact while `work` takes its bytes on a blocking thread.
async fn stream<T: Send + 'static>(
    setup: &Setup,
    manifest: &Manifest,
    artifact: &Artifact,
    work: impl FnOnce(PlainReceiver) -> Result<T> + Send + 'static,
) -> Result<T> {
    let stored = StoredArtifact {
        store: setup.reading().store.clone(),
        prefix: manifest.set.prefix(),
        artifact: artifact.clone(),
        identities: setup.identities.clone(),
    };
    let (sender, receiver) = plain::channel();
    let reading = stored.read(Some(sender), Default::default(), CancellationToken::new());
    let working = tokio::task::spawn_blocking(move || work(receiver));
    let (read, worked) = tokio::select! {
        biased;
        () = setup.cancel.cancelled() => return Err(interrupted()),
        both = async { tokio::join!(reading, working) } => both,
    };
    let worked = worked.map_err(|e| Error::failed("writing broke down").because(e))?;
    match (read, worked) {
        (Ok(_), worked) => worked,
        (Err(_), Err(error)) => Err(error),
        (Err(error), Ok(_)) => Err(error),
    }
}
