//! `drctl key rotate --identity`: what is written from now on is sealed for a new age identity. Sets of before stay open to the old one.
//!
//! The order makes each step repeatable, and no set unreadable: the recovery file first (the new identity lies nowhere else yet), then the host's
//! identity file, then the recipients in the configuration. A call that broke off finds the new identity in the new recovery file and goes on.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use crate::catalog::RecoveryFile;
use crate::catalog::recovery::RecoverySecrets;
use crate::cli::files::{create_whole, exchange};
use crate::cli::{Shell, key};
use crate::config::load::load;
use crate::config::secret::read_secret_file;
use crate::config::typed::Config;
use crate::error::{Context, Error, Kind, Result};
use crate::model::Secret;
use crate::open::{self, Opened, recovery_file_with};
use crate::pipeline::seal::Identities;
use crate::state::Act;

/// What was done, and what is left to do.
#[derive(Serialize)]
struct Rotated {
    /// The new public key.
    recipient: String,
    /// The one that it takes the place of.
    replaces: String,
    /// The new recovery file.
    recovery: PathBuf,
    /// The host's identity file, which has both now; none on a sealed host.
    identity: Option<PathBuf>,
    /// The configuration, where it was changed; otherwise a person changes it.
    changed: Option<PathBuf>,
    /// The file with the recipients.
    config: PathBuf,
}

/// Rotates the identity of the recovery file `by`; `out` is where the new one goes.
pub async fn run(shell: &Shell, by: &Path, out: Option<&Path>) -> Result<u8> {
    let opened = Opened::for_reading(&shell.around()).await?;
    let Some(config) = &opened.config else {
        return Err(Error::new(Kind::Usage, "this needs a configuration").hint("drctl init"));
    };
    let act = Act::of("key rotate --identity").with(json!({ "by": by.display().to_string() }));
    let rotated = opened.setup.audited(act, rotate(shell, &opened, config, by, out)).await?;
    shell.out.result("key", &rotated, text);
    Ok(0)
}

async fn rotate(shell: &Shell, opened: &Opened, config: &Config, by: &Path, out: Option<&Path>) -> Result<Rotated> {
    let passphrase = open::passphrase()?;
    let (file, secrets) = recovery_file_with(by, || Ok(passphrase.clone())).await?;
    key::same_repository(opened, &file)?;
    check_current(config, &file, by)?;
    let out = out.map_or_else(|| next_name(by), Path::to_owned);
    shell.bus.step("sealing the new recovery file");
    let identities = new_recovery(&file, secrets, &passphrase, &out).await?;
    fail::fail_point!("rotate-identity::recovery");

    let newest = identities.expose().lines().next().unwrap_or_default().to_owned();
    let recipient = recipient_of(&newest)?;
    if let Some(path) = &config.repository.identity {
        add_identity(path, &newest, &recipient)?;
    }
    fail::fail_point!("rotate-identity::identity");
    let main = config.files.first().cloned().unwrap_or_else(|| config.folder.join(crate::config::find::FILE));
    let changed = change_recipient(&main, &file.recipient, &recipient, config)?;
    Ok(Rotated {
        recipient,
        replaces: file.recipient,
        recovery: out,
        identity: config.repository.identity.clone(),
        changed: changed.then(|| main.clone()),
        config: main,
    })
}

/// The identity to be rotated must be one that this host seals for; else this is an old recovery file, or somebody else's.
fn check_current(config: &Config, file: &RecoveryFile, by: &Path) -> Result<()> {
    let repository = &config.repository;
    if !repository.encrypt {
        return Err(Error::new(Kind::Preflight, "backup sets are not encrypted here: there is no identity to rotate"));
    }
    if repository.recipients.contains(&file.recipient) {
        return Ok(());
    }
    let text = format!("{} is for {}, and this host seals for {}", by.display(), file.recipient, repository.recipients.join(", "));
    Err(Error::new(Kind::Preflight, text).hint("nothing was changed; after an earlier rotation take the newest recovery file"))
}

/// Writes the new recovery file; gives all identities, the new one first. One that stands there from a call that broke off is taken as it is.
async fn new_recovery(file: &RecoveryFile, secrets: RecoverySecrets, passphrase: &Secret, out: &Path) -> Result<Secret> {
    if out.symlink_metadata().is_ok() {
        return match recovery_file_with(out, || Ok(passphrase.clone())).await {
            Ok((there, inside)) if goes_on(file, &secrets, &there, &inside) => Ok(inside.identities),
            _ => Err(Error::new(Kind::Preflight, format!("{} exists already: nothing was changed", out.display()))
                .hint("name another place for the new recovery file: --out FILE")),
        };
    }
    let (new, _) = Identities::generate();
    let identities = Secret::new(format!("{}\n{}", new.expose(), secrets.identities.expose()));
    let (location, repository, sealed, passphrase) =
        (file.location.clone(), file.repository.clone(), identities.clone(), passphrase.clone());
    let sealing = tokio::task::spawn_blocking(move || RecoveryFile::seal(&location, &repository, &secrets.root, &sealed, &passphrase));
    let made = sealing.await.map_err(|e| Error::failed("seal the recovery file").because(e))??;
    create_whole(out, made.to_text().as_bytes())?;
    Ok(identities)
}

/// Whether `there` is `file` with one identity more.
fn goes_on(file: &RecoveryFile, secrets: &RecoverySecrets, there: &RecoveryFile, inside: &RecoverySecrets) -> bool {
    let older = inside.identities.expose().split_once('\n').map(|(_, older)| older);
    there.repository == file.repository && there.root == file.root && older == Some(secrets.identities.expose())
}

fn recipient_of(line: &str) -> Result<String> {
    let identities = Identities::parse(&Secret::new(line), "the new identity")?;
    let first = identities.recipients().first().map(ToString::to_string);
    first.ok_or_else(|| Error::failed("the new identity has no public key"))
}

/// Puts a line above those of an identity file.
fn add_identity(path: &Path, line: &str, recipient: &str) -> Result<()> {
    let before = read_secret_file(path)?;
    if before.expose().lines().any(|there| there.trim() == line) {
        return Ok(());
    }
    let after = Secret::new(format!(
        "# public key: {recipient} (new sets; the lines below open older ones)\n{line}\n{}\n",
        before.expose().trim_end()
    ));
    exchange(path, after.expose().as_bytes())
}

/// Changes the recipient in the configuration file. `false`, and nothing done, where that cannot be done without doubt: it stands there not exactly
/// once, the file is a link, or what would come of it is not the same configuration with that one recipient changed.
fn change_recipient(main: &Path, old: &str, new: &str, config: &Config) -> Result<bool> {
    if main.symlink_metadata().context(|| format!("look at {}", main.display()))?.file_type().is_symlink() {
        return Ok(false);
    }
    let text = std::fs::read_to_string(main).context(|| format!("read {}", main.display()))?;
    let Some(changed) = with_recipient(&text, old, new) else { return Ok(false) };
    let mut wanted: Vec<String> = config.repository.recipients.iter().map(|r| if r == old { new } else { r }.to_owned()).collect();
    wanted.sort();
    // Beside it, for what it names is relative to its folder.
    let trial = main.with_file_name(".drctl.yaml.trial");
    let _ = std::fs::remove_file(&trial);
    create_whole(&trial, changed.as_bytes())?;
    let loaded = load(&open::load_options(Some(&trial)));
    let _ = std::fs::remove_file(&trial);
    let same = loaded.is_ok_and(|loaded| loaded.repository.recipients == wanted && loaded.jobs == config.jobs);
    if same {
        exchange(main, changed.as_bytes())?;
    }
    Ok(same)
}

/// The text with one recipient for another; `None` unless it stands there once.
fn with_recipient(text: &str, old: &str, new: &str) -> Option<String> {
    (text.matches(old).count() == 1).then(|| text.replacen(old, new, 1))
}

/// `recovery.txt` becomes `recovery-2.txt`, that becomes `recovery-3.txt`.
fn next_name(by: &Path) -> PathBuf {
    let stem = by.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (name, number) = match stem.rsplit_once('-').and_then(|(name, number)| Some((name, number.parse::<u32>().ok()?))) {
        Some((name, number)) if number < 1000 => (name.to_owned(), number + 1),
        _ => (stem, 2),
    };
    let ending = by.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    by.with_file_name(format!("{name}-{number}{ending}"))
}

fn text(rotated: &Rotated) -> String {
    let Rotated { recipient, replaces, recovery, identity, changed, config } = rotated;
    let mut out = match changed {
        Some(path) => format!("ok  sets are sealed for {recipient} from now on ({})\n", path.display()),
        None => format!(
            "CHANGE {}: under recipients: put\n    {recipient}\nin the place of\n    {replaces}\nUntil then sets are sealed as before.\n",
            config.display()
        ),
    };
    out.push_str(&format!(
        "made  {}  the new recovery file, under the same passphrase; it opens old sets and new ones\n",
        recovery.display()
    ));
    if let Some(path) = identity {
        out.push_str(&format!("made  {}  has the new identity above the old one\n", path.display()));
    }
    out.push_str(
        "\nOther machines of this repository need the same recipient, and those that read sets the new line of the identity file.\n",
    );
    out.push_str(&format!(
        "\nnext:   put {} where the old one is kept; drctl backup now; then fetch it from there: drctl key confirm FILE.\n        Destroy the old recovery file after that.\n",
        recovery.display()
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_up() {
        for (by, next) in [
            ("drctl-recovery.txt", "drctl-recovery-2.txt"),
            ("/a/recovery-2.txt", "/a/recovery-3.txt"),
            ("recovery-999.txt", "recovery-1000.txt"),
            ("recovery-2026.txt", "recovery-2026-2.txt"),
            ("x", "x-2"),
            ("a.b.c", "a.b-2.c"),
        ] {
            assert_eq!(next_name(Path::new(by)), Path::new(next), "{by}");
        }
    }

    #[test]
    fn a_recipient_is_changed_only_where_it_stands_once() {
        assert_eq!(with_recipient("a\n  - age1x\nb", "age1x", "age1y").as_deref(), Some("a\n  - age1y\nb"));
        for text in ["", "age1z", "age1x # age1x"] {
            assert_eq!(with_recipient(text, "age1x", "age1y"), None, "{text}");
        }
    }
}
