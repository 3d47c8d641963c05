//! Which files this process must not open itself, because SQLite has them open: closing a second descriptor of such a file would drop the
//! locks of the first (fcntl_locking(2)).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::state::{identity, with_suffix};

/// Device and number of each file, with how many connections have it open.
static OPEN: Mutex<BTreeMap<(u64, u64), usize>> = Mutex::new(BTreeMap::new());

/// The files of one connection, for as long as it is open.
#[derive(Default)]
pub(super) struct Held(Vec<(u64, u64)>);

impl Held {
    /// The database at `path` and what SQLite keeps beside it.
    pub(super) fn of(path: &Path) -> Held {
        let files: Vec<_> = ["", "-wal", "-shm"].iter().filter_map(|suffix| identity(&with_suffix(path, suffix))).collect();
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        files.iter().for_each(|file| *open.entry(*file).or_default() += 1);
        Held(files)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        for file in &self.0 {
            if let Some(count) = open.get_mut(file) {
                *count -= 1;
                if *count == 0 {
                    open.remove(file);
                }
            }
        }
    }
}

/// Whether the file with this device and number belongs to a state file that this process has open. Whoever walks over files leaves it closed.
pub fn is_open_here(device: u64, number: u64) -> bool {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&(device, number))
}
