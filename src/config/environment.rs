//! What a configuration may look at outside its files: environment variables and a few well-known folders. Given from outside, so
//! that tests and `init` can look at another world than their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::model::Secret;

/// Environment variables and the folders that depend on them.
#[derive(Clone, Default)]
pub struct Environment {
    vars: BTreeMap<String, String>,
    /// The folder relative names start from.
    pub folder: PathBuf,
    /// The name of the user this process runs as, where known.
    pub user: Option<String>,
}

impl std::fmt::Debug for Environment {
    /// Values are left out: they may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("names", &self.vars.keys().collect::<Vec<_>>()).field("folder", &self.folder).finish()
    }
}

impl Environment {
    /// This process's own. Variables that are not UTF-8 are left out.
    pub fn system() -> Self {
        let vars: BTreeMap<String, String> =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        let user = vars.get("USER").or_else(|| vars.get("LOGNAME")).filter(|u| !u.is_empty()).cloned();
        let user = user.or_else(|| rustix::process::geteuid().is_root().then(|| "root".to_owned()));
        Environment { vars, folder: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")), user }
    }

    /// One with these variables only.
    pub fn of<K: Into<String>, V: Into<String>>(folder: impl Into<PathBuf>, vars: impl IntoIterator<Item = (K, V)>) -> Self {
        let vars: BTreeMap<String, String> = vars.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        let user = vars.get("USER").cloned();
        Environment { vars, folder: folder.into(), user }
    }

    /// A variable's value; one that is set but empty counts as not set, as is usual for paths and names.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// A variable's value, also when it is empty.
    pub fn get_raw(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str)
    }

    /// The names of all variables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.vars.keys().map(String::as_str)
    }

    /// The home folder.
    pub fn home(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from)
    }

    /// `path` from the folder this environment stands in.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// Whether [`Environment::secret`] would find something.
    pub fn has_secret(&self, name: &str) -> bool {
        self.get(name).is_some() || self.get(&format!("{name}_FILE")).is_some()
    }

    /// A secret from a variable, or from the file that `<name>_FILE` names, as the official images of databases have it.
    pub fn secret(&self, name: &str) -> Result<Secret> {
        if let Some(value) = self.get(name) {
            return Ok(Secret::new(value));
        }
        let file_name = format!("{name}_FILE");
        match self.get(&file_name) {
            Some(path) => crate::config::secret::read_secret_file(&self.absolute(Path::new(path)))
                .map_err(|e| e.context(format!("read the file that {file_name} names"))),
            None => Err(Error::new(Kind::Config, format!("environment variable {name} is not set, and neither is {file_name}"))
                .hint(format!("export {name}=…, or put it into the service's environment"))),
        }
    }
}
