//! Multipart uploads that nobody will end: those of this host's dead processes at once, any others below the prefix after a grace time.
//!
//! Parts of an open upload are invisible and cost money. Each upload that this process opens stands in a small locked file in the state folder; a
//! file that can be locked belongs to a process that is gone (killed, or the machine was), and its upload is aborted at the next start. What
//! other hosts left, or a host that lost its state, is known by its age alone.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Kind, Result};
use crate::file_lock::HeldFile;
use crate::store::s3::Inner;
use crate::store::s3::fail::{Class, Doing, Failure, failure};
use crate::store::s3::steps::Unheard;

/// Nobody's upload takes so long: objects have at most 7 GiB.
pub const GRACE: Duration = Duration::from_secs(3 * 24 * 3600);

/// What a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Uploads that were aborted.
    pub aborted: u64,
    /// Uploads that nobody will end and that stay; `None` where they may not be listed.
    pub left: Option<u64>,
}

/// What a note holds.
#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
struct Note {
    /// [`crate::config::s3::S3Place::url`]: bucket, prefix, endpoint.
    place: String,
    key: String,
    upload: String,
}

/// An upload of ours that is open. Dropped without a word, it is aborted in the background; the note stays until that worked.
pub struct OpenUpload {
    store: Arc<Inner>,
    key: String,
    id: String,
    note: Option<(PathBuf, HeldFile)>,
    over: bool,
}

impl OpenUpload {
    /// Notes an upload that was just begun.
    pub fn new(store: &Arc<Inner>, key: &str, id: String) -> OpenUpload {
        let note = store.settings.notes.as_deref().and_then(|folder| {
            let note = Note { place: store.place.url(), key: key.to_owned(), upload: id.clone() };
            match write(folder, &note) {
                Ok(written) => Some(written),
                Err(error) => {
                    // It is swept by its age then.
                    store.settings.bus.warn(format!("note an open upload in {}: {error}", folder.display()));
                    None
                }
            }
        });
        OpenUpload { store: store.clone(), key: key.to_owned(), id, note, over: false }
    }

    /// The store's id of it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// It was completed: there is nothing to abort.
    pub fn completed(mut self) {
        self.over = true;
        self.forget();
    }

    /// Aborts it. A failure is a warning: what brought us here is the error that counts.
    pub async fn abort(mut self) {
        self.over = true;
        if self.store.abort(&self.key, &self.id).await {
            self.forget();
        }
    }

    fn forget(&mut self) {
        if let Some((path, _)) = self.note.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for OpenUpload {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let rest = OpenUpload {
            store: self.store.clone(),
            key: std::mem::take(&mut self.key),
            id: std::mem::take(&mut self.id),
            note: self.note.take(),
            over: true,
        };
        runtime.spawn(async move { rest.abort().await });
    }
}

/// Writes a note and holds its lock. The lock is taken before the name exists: no sweeper can find the note unlocked in between.
fn write(folder: &Path, note: &Note) -> std::io::Result<(PathBuf, HeldFile)> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name = format!("{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>());
    let (temporary, path) = (folder.join(format!(".{name}")), folder.join(format!("{name}.json")));
    let mut file = HeldFile::of(std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?);
    file.try_exclusive()?;
    let written = serde_json::to_vec(note).map_err(std::io::Error::other).and_then(|json| file.write_all(&json));
    match written.and_then(|()| std::fs::rename(&temporary, &path)) {
        Ok(()) => Ok((path, file)),
        Err(error) => {
            let _ = std::fs::remove_file(&temporary);
            Err(error)
        }
    }
}

/// Whether a note that never got its name was begun so long ago that it never will.
fn is_old(entry: &std::fs::DirEntry) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > Duration::from_secs(3600)))
}

/// Notes whose processes are gone, locked by us now.
fn dead(folder: &Path) -> Vec<(PathBuf, HeldFile, Note)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") && !is_old(&entry) {
            // It is being written, and may not be locked yet.
            continue;
        }
        let Ok(mut file) = File::open(&path).map(HeldFile::of) else { continue };
        if file.try_exclusive().is_err() {
            continue;
        }
        let mut text = String::new();
        let read = std::io::Read::by_ref(&mut *file).take(1 << 16).read_to_string(&mut text);
        match read.ok().and_then(|_| serde_json::from_str::<Note>(&text).ok()) {
            Some(note) => found.push((path, file, note)),
            // Cut off by a crash, and of no use to anyone.
            None => drop(std::fs::remove_file(path)),
        }
    }
    found
}

impl Inner {
    /// Aborts uploads of dead processes of this host, and those below the prefix that are older than `grace`. What may not be listed or
    /// aborted is a warning that names the permission (FAULTS 36).
    pub async fn sweep(&self, grace: Duration) -> Result<Swept> {
        let mut swept = Swept::default();
        let notes = self.settings.notes.clone();
        let notes = match notes {
            Some(folder) => tokio::task::spawn_blocking(move || dead(&folder)).await.unwrap_or_default(),
            None => Vec::new(),
        };
        for (path, _lock, note) in notes.into_iter().filter(|(_, _, note)| note.place == self.place.url()) {
            if self.abort(&note.key, &note.upload).await {
                let _ = std::fs::remove_file(path);
                swept.aborted += 1;
            }
        }
        match self.old_uploads(grace).await {
            Ok(old) => {
                let mut left = 0;
                for (key, id) in old {
                    match self.abort(&key, &id).await {
                        true => swept.aborted += 1,
                        false => left += 1,
                    }
                }
                swept.left = Some(left);
            }
            Err(failed) if matches!(failed.error.kind(), Kind::Denied | Kind::Unsupported) => {
                self.settings.bus.warn(format!(
                    "unfinished uploads cannot be looked for, and what a crash leaves there costs money: {} (it takes s3:ListBucketMultipartUploads)",
                    failed.error
                ));
            }
            Err(failed) => return Err(failed.error),
        }
        Ok(swept)
    }

    /// Open uploads of sets below the prefix, begun longer ago than `grace` by the store's clock.
    async fn old_uploads(&self, grace: Duration) -> Result<Vec<(String, String)>, Failure> {
        let now = self.date().await.map_err(|error| Failure::new(Class::Final, error))?;
        let before = now.checked_sub(grace).unwrap_or(Timestamp::MIN);
        let doing = Doing { verb: "list uploads", object: "", place: &self.short, permission: "s3:ListBucketMultipartUploads" };
        let mut old = Vec::new();
        let mut from: (Option<String>, Option<String>) = (None, None);
        loop {
            let step = || async {
                let request = self.client.list_multipart_uploads().bucket(&self.place.bucket).prefix(self.full("jobs/"));
                let request = request.set_key_marker(from.0.clone()).set_upload_id_marker(from.1.clone());
                request.send().await.map_err(|e| failure(e, &doing))
            };
            let page = self.again(&doing, self.settings.stall, &Unheard::default(), step).await?;
            for upload in page.uploads.unwrap_or_default() {
                let (Some(key), Some(id), Some(begun)) = (upload.key, upload.upload_id, upload.initiated) else { continue };
                // Only what drctl makes: objects of sets.
                let Some(key) = self.own(&key).filter(|k| k.contains("/sets/") && crate::store::check_key(k).is_ok()) else { continue };
                if Timestamp::from_second(begun.secs()).is_ok_and(|begun| begun < before) {
                    old.push((key.to_owned(), id));
                }
            }
            let next = (page.next_key_marker, page.next_upload_id_marker);
            if !page.is_truncated.unwrap_or(false) || next.0.is_none() || next == from {
                return Ok(old);
            }
            from = next;
        }
    }

    /// Aborts an upload; says whether it is gone.
    async fn abort(&self, key: &str, id: &str) -> bool {
        let doing = Doing { verb: "give up storing", object: key, place: &self.short, permission: "s3:AbortMultipartUpload" };
        let step = || async {
            let request = self.client.abort_multipart_upload().bucket(&self.place.bucket).key(self.full(key)).upload_id(id);
            request.send().await.map(|_| ()).map_err(|e| failure(e, &doing))
        };
        match self.again(&doing, self.settings.stall, &Unheard::default(), step).await {
            Ok(()) | Err(Failure { class: Class::NoUpload | Class::Missing, .. }) => true,
            Err(failed) => {
                let error = failed.error;
                self.settings.bus.warn(format!("an unfinished upload stays and costs money: {error} (it takes {})", doing.permission));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f3_a_note_is_found_only_when_its_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let note = || Note { place: "s3://b/p".into(), key: "jobs/x".into(), upload: "id".into() };
        let (path, lock) = write(folder.path(), &note()).unwrap();
        assert!(dead(folder.path()).is_empty(), "its process lives");
        drop(lock);
        let found = dead(folder.path());
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].0, &found[0].2), (&path, &note()));
        assert!(dead(folder.path()).is_empty(), "another sweeper holds it");
        drop(found);
        std::fs::write(folder.path().join("broken.json"), "{").unwrap();
        assert_eq!(dead(folder.path()).len(), 1);
        assert!(!folder.path().join("broken.json").exists());
        // One that is being written belongs to its writer, until that surely is gone.
        let beginning = folder.path().join(".beginning");
        let file = std::fs::File::create(&beginning).unwrap();
        assert!(dead(folder.path()).len() == 1 && beginning.exists());
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(7200)).unwrap();
        assert!(dead(folder.path()).len() == 1 && !beginning.exists());
    }
}
