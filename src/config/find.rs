//! Where the configuration and the host's own state lie (FORMAT, last section).

use std::path::{Path, PathBuf};

use crate::config::environment::Environment;
use crate::config::problem::Problems;

/// The file's name everywhere.
pub const FILE: &str = "drctl.yaml";

/// The folder of job files beside it.
pub const JOBS: &str = "jobs";

/// The configuration file: `--config`, `DRCTL_CONFIG`, `./drctl.yaml`, the XDG configuration folder, `/etc/drctl`. The first two must
/// exist once they are given.
pub fn config_file(given: Option<&Path>, environment: &Environment) -> Result<PathBuf, Problems> {
    const HINT: &str = "drctl init writes one; or name one with --config FILE";
    let named = given.map(|p| ("--config", p.to_owned()));
    let named = named.or_else(|| environment.get("DRCTL_CONFIG").map(|p| ("DRCTL_CONFIG", PathBuf::from(p))));
    if let Some((by, path)) = named {
        let whole = environment.absolute(&path);
        // A folder is taken for the file in it.
        let whole = if whole.is_dir() { whole.join(FILE) } else { whole };
        return match whole.symlink_metadata() {
            Ok(_) => Ok(whole),
            Err(e) => Err(Problems::one(format!("no configuration at {}, which {by} names: {e}", path.display()), HINT)),
        };
    }
    let places = places(environment);
    if let Some(found) = places.iter().find(|p| p.symlink_metadata().is_ok()) {
        return Ok(found.clone());
    }
    let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
    Err(Problems::one(format!("no configuration found; looked for {}", looked.join(", ")), HINT))
}

/// Where a configuration is looked for when none is named.
pub fn places(environment: &Environment) -> Vec<PathBuf> {
    let xdg = environment.get("XDG_CONFIG_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let xdg = xdg.or_else(|| environment.home().map(|h| h.join(".config")));
    let own = xdg.map(|folder| folder.join("drctl").join(FILE));
    std::iter::once(environment.folder.join(FILE)).chain(own).chain([Path::new("/etc/drctl").join(FILE)]).collect()
}

/// Where this host keeps its own state: the flag, `$STATE_DIRECTORY` (systemd; its first folder), the XDG state folder, and
/// `/var/lib/drctl` where there is no home. Not created here.
pub fn state_folder(given: Option<&Path>, environment: &Environment) -> PathBuf {
    if let Some(path) = given {
        return environment.absolute(path);
    }
    if let Some(first) = environment.get("STATE_DIRECTORY").and_then(|list| list.split(':').find(|p| !p.is_empty())) {
        return environment.absolute(Path::new(first));
    }
    let xdg = environment.get("XDG_STATE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let xdg = xdg.or_else(|| environment.home().filter(|h| h.is_absolute()).map(|h| h.join(".local/state")));
    xdg.map_or_else(|| PathBuf::from("/var/lib/drctl"), |folder| folder.join("drctl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_wins() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["cwd", "xdg/drctl", "home/.config/drctl", "other"] {
            std::fs::create_dir_all(at(folder)).unwrap();
            std::fs::write(at(folder).join(FILE), "").unwrap();
        }
        let text = |p: PathBuf| p.to_str().unwrap().to_owned();
        let vars = [("XDG_CONFIG_HOME", text(at("xdg"))), ("HOME", text(at("home"))), ("DRCTL_CONFIG", text(at("other")))];
        let find = |given: Option<&Path>, folder: &str, skip: usize| {
            config_file(given, &Environment::of(at(folder), vars.iter().rev().skip(skip).map(|(k, v)| (*k, v.clone()))))
        };
        assert_eq!(find(Some(&at("other/drctl.yaml")), "cwd", 0), Ok(at("other").join(FILE)));
        assert_eq!(find(None, "cwd", 0), Ok(at("other").join(FILE)));
        assert_eq!(find(None, "cwd", 1), Ok(at("cwd").join(FILE)));
        assert_eq!(find(None, "nowhere", 1), Ok(at("xdg/drctl").join(FILE)));
        let only_home = Environment::of(at("nowhere"), [("HOME", text(at("home")))]);
        assert_eq!(config_file(None, &only_home), Ok(at("home/.config/drctl").join(FILE)));
        let missing = find(Some(Path::new("gone.yaml")), "cwd", 0).unwrap_err();
        assert!(missing.to_string().contains("gone.yaml, which --config names"), "{missing}");
        let none = config_file(None, &Environment::of(at("nowhere"), [("HOME", "/nonexistent")])).unwrap_err();
        assert!(none.hint.unwrap().contains("drctl init"));
    }

    #[test]
    fn state_folders() {
        let of = |vars: &[(&str, &str)]| state_folder(None, &Environment::of("/w", vars.iter().copied())).display().to_string();
        assert_eq!(of(&[("STATE_DIRECTORY", "/var/lib/a:/b"), ("HOME", "/h")]), "/var/lib/a");
        assert_eq!(of(&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")]), "/x/drctl");
        assert_eq!(of(&[("XDG_STATE_HOME", "relative"), ("HOME", "/h")]), "/h/.local/state/drctl");
        assert_eq!(of(&[]), "/var/lib/drctl");
        assert_eq!(state_folder(Some(Path::new("s")), &Environment::of("/w", [("HOME", "/h")])), Path::new("/w/s"));
    }
}
