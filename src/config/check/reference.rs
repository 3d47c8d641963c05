//! Text and secrets that stand in the file or are fetched from elsewhere.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Scope, items};
use crate::config::expand::reference_only;
use crate::config::problem::{Origin, shorten};
use crate::config::raw::{RawReference, RawText};
use crate::config::secret::{Reference, SecretRef, TextRef, exposed};
use crate::config::tree::Data;
use crate::model::Secret;

/// A reference with its file made absolute and looked at.
pub fn reference(scope: &Scope<'_>, raw: &RawReference) -> Option<Reference> {
    let environment = scope.world.environment;
    if let Some(name) = &raw.env {
        let scope = scope.key("env");
        if name.is_empty() || name.contains(['=', '\0']) {
            scope.error(format!("'{}' cannot name an environment variable", shorten(name)));
            return None;
        }
        if !environment.has_secret(name) {
            scope.warn(format!("environment variable {name} is not set here, and neither is {name}_FILE"));
        }
        return Some(Reference::Env(name.clone()));
    }
    if let Some(file) = &raw.file {
        let scope = scope.key("file");
        let path = scope.path(file)?;
        // One that is not there is told when it is used: on another host the rest of the configuration must still serve.
        if scope.world.look_at_files {
            match std::fs::metadata(&path) {
                Ok(meta) => {
                    if let Some(why) = exposed(&path, meta.permissions().mode()) {
                        scope.error(why);
                    }
                }
                Err(e) => scope.warn(format!("{} cannot be read: {e}", path.display())),
            }
        }
        return Some(Reference::File(path));
    }
    if raw.cmd.is_some() {
        let argv: Vec<String> = items(&raw.cmd).map(|(_, text)| text.clone()).collect();
        let program = argv.first()?;
        if program.is_empty() {
            scope.key("cmd").index(0).error("must not be empty");
            return None;
        }
        return Some(Reference::Cmd(argv));
    }
    let name = raw.cred.as_ref()?;
    let scope = scope.key("cred");
    if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
        scope.error(format!("'{}' cannot name a credential", shorten(name)));
        return None;
    }
    if environment.get("CREDENTIALS_DIRECTORY").is_none() {
        scope.warn("there are no systemd credentials here (CREDENTIALS_DIRECTORY is not set)");
    }
    Some(Reference::Cred(name.clone()))
}

/// Text that is no secret.
pub fn text(scope: &Scope<'_>, raw: Option<&RawText>) -> Option<TextRef> {
    match raw? {
        RawText::Plain(text) if text.is_empty() => {
            scope.error("must not be empty");
            None
        }
        RawText::Plain(text) => Some(TextRef::Plain(text.clone())),
        RawText::By(raw) => reference(scope, raw).map(TextRef::By),
    }
}

/// A secret. One that stands in the file is a warning.
pub fn secret(scope: &Scope<'_>, raw: Option<&RawText>) -> Option<SecretRef> {
    match raw? {
        RawText::Plain(text) if text.is_empty() => {
            scope.error("must not be empty");
            None
        }
        RawText::Plain(text) => {
            let shown = shown(scope);
            if shown.is_none() {
                in_the_file(scope, "a secret");
            }
            Some(SecretRef::Plain { value: Secret::new(text.as_str()), shown })
        }
        RawText::By(raw) => reference(scope, raw).map(SecretRef::By),
    }
}

/// Says that a secret stands in the configuration itself; where others may read the file it is refused (FAULTS 62).
pub fn in_the_file(scope: &Scope<'_>, what: &str) {
    const BETTER: &str = "{ file: … }, { env: … }, { cmd: […] } or { cred: … }";
    let open = match scope.root.origin_of(&scope.path) {
        Origin::File { file, .. } => scope.world.exposed.iter().find(|(label, _)| **label == *file),
        Origin::Named(_) => None,
    };
    match open {
        Some((file, mode)) => {
            scope.error(format!("{what} stands in a file that others can read (mode {mode:04o}); chmod 600 {file}, or use {BETTER}"));
        }
        None => scope.warn(format!("{what} stands in the file; better {BETTER}")),
    }
}

/// What may be shown of the text at this place: the `${NAME}` it came by.
pub fn shown(scope: &Scope<'_>) -> Option<String> {
    reference_only(&written(scope)?)
}

/// The text at this place before variables were put in, when there were any.
pub fn written(scope: &Scope<'_>) -> Option<String> {
    match &scope.root.at(&scope.path)?.data {
        Data::Scalar(scalar) => scalar.written.clone(),
        _ => None,
    }
}

/// A file that holds a private key: there, and open to its owner only (FAULTS 62).
pub fn key_file(scope: &Scope<'_>, text: &str) -> Option<PathBuf> {
    let path = scope.path(text)?;
    if !scope.world.look_at_files {
        return Some(path);
    }
    if let Err(what) = look_at_key(&path) {
        scope.error(what);
    }
    Some(path)
}

fn look_at_key(path: &Path) -> Result<(), String> {
    let meta = std::fs::metadata(path).map_err(|e| {
        let hint = if e.kind() == std::io::ErrorKind::NotFound { "; drctl init makes it" } else { "" };
        format!("{} cannot be read: {e}{hint}", path.display())
    })?;
    if !meta.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    if let Some(why) = exposed(path, meta.permissions().mode()) {
        return Err(why);
    }
    std::fs::File::open(path).map(|_| ()).map_err(|e| format!("{} cannot be read: {e}", path.display()))
}
