//! The signing keys of a repository: which there are, a new one for another machine, a new one in place of this host's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::catalog::keys::{KeyFile, LogHead};
use crate::catalog::{JobLog, MinisignKey, Repository, Role, RoleKey, Roles, SetEntry, Signer as _};
use crate::error::{Context, Error, Kind, Result};
use crate::model::{FORMAT, JobName};
use crate::ops::Setup;

/// The name of a new signing key beside the one that it will replace, until every log knows it.
pub fn next_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    PathBuf::from(name)
}

/// The signing keys of this host with their numbers, and the roles that their files give them. One that no key file of the repository names
/// is [`Kind::Denied`].
pub async fn at_hand(repository: &Repository, signers: Vec<MinisignKey>) -> Result<(Vec<RoleKey>, Roles)> {
    let files = repository.key_files().await?;
    let (mut keys, mut roles) = (Vec::new(), Roles::new());
    for signer in signers {
        let file = files.iter().find(|file| file.public == *signer.public()).ok_or_else(|| {
            Error::new(Kind::Denied, format!("the signing key {} is none of the repository in {}", signer.public(), repository.location()))
                .hint("signing_key: in drctl.yaml names the file; drctl key list shows the keys of the repository")
        })?;
        roles.extend(file.roles.iter().copied());
        keys.push(RoleKey { number: file.number, signer: Arc::new(signer) });
    }
    Ok((keys, roles))
}

/// Live sets of a log that this host's identities do not open, in words; nothing on a host that has none.
pub fn closed_sets(setup: &Setup, log: &JobLog) -> Option<String> {
    if setup.identities.recipients().is_empty() {
        return None;
    }
    let closed = |entry: &&SetEntry| !entry.manifest.artifacts.iter().all(|artifact| setup.identities.can_open(&artifact.encryption));
    let (all, closed) = (log.state().live().count(), log.state().live().filter(closed).count());
    let sets = if all == 1 { "set" } else { "sets" };
    (closed > 0).then(|| format!("{closed} of {all} {sets} cannot be opened by the identities on this host"))
}

/// What brings them back.
pub const PUT_BACK: &str =
    "an identity that live sets need was taken away: put it back into the file under identity:, a line more; the recovery file holds it";

/// One key as `key list` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct KeyLine {
    /// Number of its file.
    pub number: u64,
    /// What it may do.
    pub roles: Roles,
    /// Who has the secret.
    pub holder: String,
    /// When it was made.
    pub at: jiff::Timestamp,
    /// The public key.
    pub public: String,
    /// Whether this host has the secret.
    pub here: bool,
    /// Number of the key that revokes it.
    pub revoked_by: Option<u64>,
    /// Jobs whose log does not know it: it can write nothing there yet.
    pub unknown_to: Vec<JobName>,
}

/// Every key of the repository.
pub async fn list(setup: &Setup) -> Result<Vec<KeyLine>> {
    let files = setup.repository.key_files().await?;
    let mut lines: Vec<KeyLine> = files
        .iter()
        .map(|file| KeyLine {
            number: file.number,
            roles: file.roles.clone(),
            holder: file.holder.clone(),
            at: file.at,
            public: file.public.to_string(),
            here: setup.keys.iter().any(|key| key.number == file.number),
            revoked_by: files.iter().find(|other| other.revokes.contains(&file.number)).map(|other| other.number),
            unknown_to: Vec::new(),
        })
        .collect();
    for job in setup.repository.jobs().await? {
        let log = setup.log(&job).await?;
        for line in &mut lines {
            if log.state().key(line.number).is_none() {
                line.unknown_to.push(job.clone());
            }
        }
    }
    Ok(lines)
}

/// What a new key shall be.
pub struct Wanted {
    /// What it may do.
    pub roles: Roles,
    /// For people: who has the secret.
    pub holder: String,
    /// Keys that it takes the place of.
    pub revokes: Vec<u64>,
}

/// Makes a signing key at `path` (0600, never overwriting) and makes it valid in every job's log.
///
/// The secret is on disk before the root key signs for it, and every step may be repeated: a run that died in between leaves a key that
/// is good for nothing, or one that the next append of its holder makes valid.
pub async fn add(setup: &Setup, root: &MinisignKey, path: &Path, wanted: &Wanted) -> Result<KeyFile> {
    let secret = match MinisignKey::load(path) {
        Ok(secret) => secret,
        Err(_) if path.symlink_metadata().is_err() => {
            let secret = MinisignKey::generate()?;
            secret.save(path)?;
            secret
        }
        Err(error) => return Err(error),
    };
    let files = setup.repository.key_files().await?;
    let known = files.into_iter().find(|file| file.public == *secret.public());
    let file = match known {
        // A run that died after the file: its own wishes hold.
        Some(file) => file,
        None => {
            let heads = if wanted.revokes.is_empty() { None } else { Some(heads(setup).await?) };
            let file = KeyFile {
                format: FORMAT,
                repository: setup.repository.id().to_owned(),
                number: 0,
                roles: wanted.roles.clone(),
                public: secret.public().clone(),
                holder: wanted.holder.clone(),
                at: setup.clock.now(),
                revokes: wanted.revokes.clone(),
                heads,
            };
            setup.repository.add_key(root, file).await?
        }
    };
    tell_late(setup, &file).await?;
    let mut with = setup.clone();
    with.keys.push(RoleKey { number: file.number, signer: Arc::new(secret) });
    for job in setup.repository.jobs().await? {
        let mut log = with.log(&job).await?;
        log.introduce().await.context(|| format!("make key {} valid in the log of job {job}", file.number))?;
    }
    Ok(file)
}

/// Where every log ends now: what a revoked key signed counts up to there.
async fn heads(setup: &Setup) -> Result<BTreeMap<JobName, LogHead>> {
    let mut heads = BTreeMap::new();
    for job in setup.repository.jobs().await? {
        let log = setup.log(&job).await?;
        // The thief must not be able to keep his key in force by what he does to a log.
        if let Some(finding) = log.state().open_findings().find(|finding| finding.stops_appends()) {
            setup.bus.warn(format!("what the revoked key signed in the log of job {job} counts up to record {}: {finding}", log.head()));
        }
        heads.insert(job, LogHead { number: log.head(), sha256: *log.state().head_sha256() });
    }
    Ok(heads)
}

/// Tells what a revoked key signed after the heads that its revocation names: runs that were at work meanwhile, or a thief.
async fn tell_late(setup: &Setup, file: &KeyFile) -> Result<()> {
    for (job, head) in file.heads.iter().flatten() {
        let log = setup.log(job).await?;
        for late in log.state().findings().iter().filter(|late| late.number().is_some_and(|number| number > head.number)) {
            setup.bus.warn(format!("job {job}: {late}; if that was a run of yours: drctl backup now {job}"));
        }
    }
    Ok(())
}

/// Replaces this host's signing key at `path` by a new one, of `roles` or of the old one's; the old one is revoked, and `further` ones with it.
pub async fn rotate(setup: &Setup, root: &MinisignKey, path: &Path, roles: Option<Roles>, further: &[u64]) -> Result<KeyFile> {
    let mut revokes: Vec<u64> = setup.keys.iter().map(|key| key.number).collect();
    revokes.extend(further.iter().filter(|number| !setup.keys.iter().any(|key| key.number == **number)));
    let roles = roles.unwrap_or_else(|| setup.roles.clone());
    let next = next_of(path);
    let file = add(setup, root, &next, &Wanted { roles, holder: setup.host.clone(), revokes }).await?;
    std::fs::rename(&next, path).context(|| format!("put the new key in the place of {}", path.display()))?;
    Ok(file)
}

/// What a thief of this host could do, in words for `status`.
pub fn exposure(roles: &Roles, can_open: bool) -> String {
    let all = crate::catalog::keys::all_in_one();
    let mut can = Vec::new();
    if can_open {
        can.push("read every set");
    }
    if roles.contains(&Role::Writer) {
        can.push("write sets that drctl believes");
    }
    if roles.contains(&Role::Prover) {
        can.push("vouch for damaged ones");
    }
    if roles.contains(&Role::Pruner) {
        can.push("have old ones deleted");
    }
    let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    let kind = match (names.as_slice(), can_open) {
        (_, true) if *roles == all => "all-in-one".to_owned(),
        (["writer"], false) => "sealed writer".to_owned(),
        ([], _) => "reader".to_owned(),
        (names, _) => names.join(" and "),
    };
    match can.as_slice() {
        [] => format!("{kind}: a thief of this host can do no more than the store's own rights allow"),
        can => format!("{kind}: a thief of this host can {}, and whatever the store's own rights allow", can.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thief_could_do_is_said_of_each_role() {
        let roles = |names: &[Role]| names.iter().copied().collect::<Roles>();
        let all = crate::catalog::keys::all_in_one();
        assert!(exposure(&all, true).starts_with("all-in-one: a thief of this host can read every set, write"));
        let sealed = exposure(&roles(&[Role::Writer]), false);
        assert!(sealed.starts_with("sealed writer: ") && !sealed.contains("read") && !sealed.contains("deleted"), "{sealed}");
        assert!(exposure(&roles(&[Role::Prover]), true).contains("prover: a thief of this host can read every set, vouch"));
        assert!(exposure(&roles(&[Role::Pruner]), false).contains("have old ones deleted"));
        assert!(exposure(&Roles::new(), false).contains("no more than"));
    }
}
