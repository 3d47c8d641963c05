//! What a safety set will take, before it is made: as large as the newest set of the same sources, nobody knows better.

use std::path::PathBuf;

use crate::catalog::JobLog;
use crate::process::human_bytes;
use crate::source::load::Growth;
use crate::store::local::available_bytes;

/// Bytes that these sources took in their newest sets; `None` where none of them is in any.
pub(super) fn bytes(log: &JobLog, sources: &[&str]) -> Option<u64> {
    let newest = |name: &str| {
        log.state().live().rev().find_map(|entry| {
            let sizes: Vec<u64> = entry.manifest.artifacts.iter().filter(|a| a.source == name).map(|a| a.stored_bytes()).collect();
            (!sizes.is_empty()).then(|| sizes.iter().sum::<u64>())
        })
    };
    sources.iter().filter_map(|name| newest(name)).reduce(u64::saturating_add)
}

/// What that means for the folders that the stores are.
pub(super) fn growth(folders: &[PathBuf], bytes: Option<u64>) -> Vec<Growth> {
    folders.iter().filter_map(|folder| Some(Growth { folder: folder.clone(), bytes: bytes? })).collect()
}

/// Why the safety set would not fit, with the way on: a disk that it fills may be that of the server.
pub(super) fn no_room(grows: &[Growth]) -> Option<String> {
    grows.iter().find_map(|growth| {
        // Two stores on one disk share its room.
        let (left, needed) = (available_bytes(&growth.folder).ok()?, Growth::beside(grows, &growth.folder));
        (left < needed).then(|| {
            format!(
                "the safety set needs about {}, and {} has {} free: make room there, or, if nothing is left to save, add --no-safety-set",
                human_bytes(needed),
                growth.folder.display(),
                human_bytes(left)
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f112_a_safety_set_that_would_not_fit_is_refused_before_it_fills_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let grows = |bytes: u64| growth(&[folder.path().to_owned(), folder.path().join("copy")], Some(bytes));
        assert_eq!(no_room(&growth(&[folder.path().to_owned()], None)), None);
        assert_eq!(no_room(&grows(1)), None);
        let refusal = no_room(&grows(1 << 50)).unwrap();
        assert!(refusal.contains("needs about 2048 TiB") && refusal.contains("--no-safety-set"), "{refusal}");
        assert!(refusal.contains(&folder.path().display().to_string()), "{refusal}");
    }
}
