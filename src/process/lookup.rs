//! Finding tools: absolute paths, executable, in the order in which the folders are given.

use std::path::{Path, PathBuf};

/// The folders of `PATH`, absolute ones only: a relative one would depend on where drctl was started.
pub fn path_folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect()
}

/// Folders `<parent>/<prefix><number><suffix>` that exist, the highest number first: `/usr/lib/postgresql/15/bin`.
pub fn numbered_folders(parent: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut found: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix(prefix)?.split('.').next()?.parse().ok()?;
            let folder = entry.path().join(suffix);
            folder.is_dir().then_some((number, folder))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// What looking for a tool found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Executable files of that name, one a folder, in the folders' order.
    pub tools: Vec<PathBuf>,
    /// Files of that name that may not be executed.
    pub not_executable: Vec<PathBuf>,
}

/// Looks for `tool` in folders; relative folders are passed over.
pub fn find(tool: &str, folders: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for folder in folders.iter().filter(|f| f.is_absolute()) {
        let path = folder.join(tool);
        if !path.is_file() || found.tools.contains(&path) {
            continue;
        }
        match rustix::fs::access(&path, rustix::fs::Access::EXEC_OK) {
            Ok(()) => found.tools.push(path),
            Err(_) => found.not_executable.push(path),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn finds_executable_files_in_order() {
        let root = tempfile::tempdir().unwrap();
        for (version, mode) in [("9.6", 0o755), ("15", 0o755), ("16", 0o644)] {
            let folder = root.path().join(version).join("bin");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("pg_dump"), "").unwrap();
            std::fs::set_permissions(folder.join("pg_dump"), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir_all(root.path().join("common")).unwrap();
        let folders = numbered_folders(root.path(), "", "bin");
        assert_eq!(folders, ["16", "15", "9.6"].map(|v| root.path().join(v).join("bin")));
        let found = find("pg_dump", &folders);
        assert_eq!(found.tools, [folders[1].join("pg_dump"), folders[2].join("pg_dump")]);
        assert_eq!(found.not_executable, [folders[0].join("pg_dump")]);
        assert_eq!(find("pg_dumpall", &folders), Found::default());
    }
}
