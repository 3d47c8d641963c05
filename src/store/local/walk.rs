//! Listing: the folders walked so that full keys come in byte order.
//!
//! A folder's name is compared with its `/`: `a-b` < `a/b` < `a0`, as whole keys compare.

use rustix::fs::{Dir, FileType};

use crate::error::Result;
use crate::store::Entry;
use crate::store::local::folder::{Folder, file_type, trouble};
use crate::store::local::{Inner, temp};
use crate::store::{check_key, is_key_byte};

/// One page of a listing; runs on a blocking thread.
pub(super) fn list(store: &Inner, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
    let mut walk = Walk { prefix, after, limit, found: Vec::new() };
    let mut folder = store.root()?;
    let Some((parents, _)) = prefix.rsplit_once('/') else {
        walk.folder(&folder)?;
        return Ok(walk.found);
    };
    if check_key(parents).is_err() || temp::is_reserved(parents) {
        // No key starts so.
        return Ok(Vec::new());
    }
    for part in parents.split('/') {
        // Whoever may write there may put a link there. It leads nowhere: what is asked for by its key behind it is refused.
        if folder.is_link(part)? {
            return Ok(Vec::new());
        }
        match folder.child(part)? {
            Some(child) => folder = child,
            None => return Ok(Vec::new()),
        }
    }
    walk.folder(&folder)?;
    Ok(walk.found)
}

struct Walk<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    limit: usize,
    found: Vec<Entry>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Folder) -> Result<()> {
        for (name, is_folder) in self.names(folder)? {
            if self.found.len() >= self.limit {
                return Ok(());
            }
            let name = if is_folder { &name[..name.len() - 1] } else { &name[..] };
            if is_folder {
                // Gone since the names were read, or exchanged for a link: as if it had never been there.
                if !folder.is_link(name)?
                    && let Some(child) = folder.child(name)?
                {
                    self.folder(&child)?;
                }
            } else if let Some((bytes, modified)) = folder.stat_object(name)? {
                self.found.push(Entry { key: folder.join(name), bytes, modified });
            }
        }
        Ok(())
    }

    /// The names that may lead to something, in order; folders with their `/`.
    fn names(&self, folder: &Folder) -> Result<Vec<(String, bool)>> {
        let failed = |e: rustix::io::Errno| trouble("read folder", folder.path(), e.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // What cannot be part of a key is none of ours: `lost+found`, `.`, `..`.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !name.bytes().all(is_key_byte) || matches!(name, "." | "..") {
                continue;
            }
            let path = folder.join(name);
            if check_key(&path).is_err() || temp::is_reserved(&path) {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => match folder.stat(name)? {
                    Some(stat) => file_type(&stat),
                    None => continue,
                },
                known => known,
            };
            let is_folder = kind == FileType::Directory;
            if self.leads_on(&path, is_folder) {
                names.push((if is_folder { format!("{name}/") } else { name.to_owned() }, is_folder));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Whether a file is asked for, or a folder may hold something that is.
    fn leads_on(&self, path: &str, is_folder: bool) -> bool {
        if !is_folder {
            return path.starts_with(self.prefix) && self.after.is_none_or(|after| path > after);
        }
        let path = format!("{path}/");
        let on_the_way = path.starts_with(self.prefix) || self.prefix.starts_with(&path);
        // Keys in the folder are all greater than `after`, or `after` is one of theirs.
        on_the_way && self.after.is_none_or(|after| path.as_str() > after || after.starts_with(&path))
    }
}
