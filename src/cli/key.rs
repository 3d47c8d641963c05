//! `drctl key`.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use crate::catalog::keys::{KeyFile, all_in_one};
use crate::catalog::recovery::RecoverySecrets;
use crate::catalog::{RecoveryFile, Repository, Role, Roles};
use crate::cli::args::{KeyArgs, KeyVerb, RoleArg};
use crate::cli::output::table;
use crate::cli::{Shell, rotate_identity};
use crate::error::{Error, Kind, Result};
use crate::open::{Opened, recovery_file};
use crate::ops::confirm::confirm;
use crate::ops::keys::{self, KeyLine, Wanted};
use crate::state::Act;

/// Tries the recovery file; lists, adds, rotates signing keys.
pub async fn run(shell: &Shell, args: KeyArgs) -> Result<u8> {
    match args.verb {
        KeyVerb::Confirm { file } => {
            let opened = Opened::for_reading(&shell.around()).await?;
            let act = Act::of("key confirm").on(file.display());
            let confirming = async {
                let (file, secrets) = recovery_file(&file).await?;
                confirm(&opened.setup, &file, &secrets).await
            };
            let confirmed = opened.setup.audited(act, confirming).await?;
            shell.out.result("key", &confirmed, |confirmed| {
                let sets: Vec<String> = confirmed.sets.iter().map(ToString::to_string).collect();
                format!(
                    "ok  the recovery file and its passphrase open {}\nput it back where it came from, away from this host\n",
                    sets.join(", ")
                )
            });
        }
        KeyVerb::List => {
            let opened = Opened::for_reading(&shell.around()).await?;
            shell.out.result("key", &keys::list(&opened.setup).await?, |lines| list_text(lines));
        }
        KeyVerb::Add { role, holder, out, by, revoke } => {
            let opened = Opened::for_reading(&shell.around()).await?;
            let wanted = Wanted { roles: roles(&role), holder, revokes: revoke };
            let act = Act::of("key add").on(out.display()).with(json!({
                "roles": role_names(&wanted.roles), "holder": wanted.holder, "by": by.display().to_string(), "revoke": wanted.revokes,
            }));
            let adding = async {
                let secrets = root(&opened, &by).await?;
                check_revoked(&opened.setup.repository, &wanted.revokes).await?;
                keys::add(&opened.setup, &secrets.root, &out, &wanted).await
            };
            let file = opened.setup.audited(act, adding).await?;
            let made = Made::of(&file, &out);
            shell.out.result("key", &made, |made| {
                format!(
                    "ok  key {} ({}) for {}: {}\ncarry it to that machine (mode 0600), name it there as signing_key: in drctl.yaml, and delete it here\n",
                    made.number,
                    role_names(&made.roles),
                    made.holder,
                    made.path
                )
            });
        }
        KeyVerb::Rotate { identity: true, by, out, .. } => return rotate_identity::run(shell, &by, out.as_deref()).await,
        KeyVerb::Rotate { role, by, revoke, .. } => {
            let opened = Opened::for_writing(&shell.around()).await?;
            let path = opened.config.as_ref().map(|config| config.repository.signing_key.clone());
            let path = path.ok_or_else(|| Error::new(Kind::Usage, "this needs a configuration").hint("drctl init"))?;
            let wanted = (!role.is_empty()).then(|| roles(&role));
            let act = Act::of("key rotate").on(path.display()).with(json!({
                "roles": wanted.as_ref().map(role_names), "by": by.display().to_string(), "revoke": revoke,
            }));
            let rotating = async {
                let secrets = root(&opened, &by).await?;
                check_revoked(&opened.setup.repository, &revoke).await?;
                keys::rotate(&opened.setup, &secrets.root, &path, wanted, &revoke).await
            };
            let file = opened.setup.audited(act, rotating).await?;
            let made = Made::of(&file, &path);
            shell.out.result("key", &made, |made| {
                let revoked: Vec<String> = made.revokes.iter().map(ToString::to_string).collect();
                format!(
                    "ok  this host signs with key {} ({}); key {} is revoked\n",
                    made.number,
                    role_names(&made.roles),
                    revoked.join(", ")
                )
            });
        }
    }
    Ok(0)
}

/// A key that was made.
#[derive(Serialize)]
struct Made {
    number: u64,
    roles: Roles,
    holder: String,
    revokes: Vec<u64>,
    path: String,
}

impl Made {
    fn of(file: &KeyFile, path: &Path) -> Made {
        let KeyFile { number, roles, holder, revokes, .. } = file.clone();
        Made { number, roles, holder, revokes, path: path.display().to_string() }
    }
}

/// What is to be revoked must be there: a wrong number would leave a stolen key in force.
pub(super) async fn check_revoked(repository: &Repository, revoke: &[u64]) -> Result<()> {
    if revoke.is_empty() {
        return Ok(());
    }
    let known = repository.key_files().await?;
    match revoke.iter().find(|number| !known.iter().any(|file| file.number == **number)) {
        Some(unknown) => Err(Error::new(Kind::Usage, format!("--revoke {unknown}: there is no such key")).hint("drctl key list")),
        None => Ok(()),
    }
}

/// The secrets of a recovery file of this very repository.
pub(super) async fn root(opened: &Opened, path: &Path) -> Result<RecoverySecrets> {
    let (file, secrets) = recovery_file(path).await?;
    same_repository(opened, &file)?;
    Ok(secrets)
}

/// Refuses a recovery file of another repository.
pub(super) fn same_repository(opened: &Opened, file: &RecoveryFile) -> Result<()> {
    let repository = &opened.setup.repository;
    if file.repository == repository.id() && file.root == *repository.root() {
        return Ok(());
    }
    let text = format!("this recovery file is for repository {}, not for {}", file.repository, repository.id());
    Err(Error::new(Kind::Preflight, text))
}

/// The roles that were typed.
pub(super) fn roles(args: &[RoleArg]) -> Roles {
    let roles = |arg: &RoleArg| match arg {
        RoleArg::Writer => [Role::Writer].into(),
        RoleArg::Prover => [Role::Prover].into(),
        RoleArg::Pruner => [Role::Pruner].into(),
        RoleArg::Restorer => [Role::Restorer].into(),
        RoleArg::AllInOne => all_in_one(),
    };
    args.iter().flat_map(roles).collect()
}

pub(super) fn role_names(roles: &Roles) -> String {
    roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ")
}

fn list_text(lines: &[KeyLine]) -> String {
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let state = match line.revoked_by {
                Some(by) => format!("revoked by key {by}"),
                None if line.here => "on this host".to_owned(),
                None => String::new(),
            };
            let date = line.at.strftime("%Y-%m-%d").to_string();
            vec![line.number.to_string(), role_names(&line.roles), line.holder.clone(), date, state]
        })
        .collect();
    let mut out = table(&["KEY", "ROLES", "HOLDER", "MADE", ""], &rows, &[0]);
    for line in lines.iter().filter(|line| line.revoked_by.is_none() && !line.unknown_to.is_empty()) {
        let jobs: Vec<&str> = line.unknown_to.iter().map(|job| job.as_str()).collect();
        let _ = writeln!(out, "key {} is not known yet to the log of {}: its holder's next run brings it", line.number, jobs.join(", "));
    }
    out
}
