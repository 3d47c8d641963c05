//! `drctl key confirm`: has the recovery file opened a set? A file that was never tried is a hope, not a way back.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::catalog::RecoveryFile;
use crate::catalog::recovery::RecoverySecrets;
use crate::error::{Context, Error, Kind, Result};
use crate::model::SetId;
use crate::model::clock::age_seconds;
use crate::ops::Setup;
use crate::ops::details::Details;
use crate::pipeline::seal::{Identities, Sealing};

/// A confirmation older than this is asked for again: papers get lost, password managers are left.
const LASTS: SignedDuration = SignedDuration::from_hours(365 * 24);

/// When the recovery file last opened a set; kept in the state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// When.
    pub at: Timestamp,
    /// The newest set of each job, each opened.
    pub sets: Vec<SetId>,
    /// Public keys of the identities in the recovery file.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Whether it could be noted on this host.
    #[serde(default, skip_deserializing)]
    pub recorded: bool,
}

fn setting(setup: &Setup) -> String {
    format!("recovery-confirmed/{}", setup.repository.id())
}

/// Opens the newest set of every job with nothing but the recovery file's identity and notes that it worked.
///
/// A file of another repository is [`Kind::Preflight`]; a set that the identity cannot open is [`Kind::Denied`], naming its
/// recipients; a repository without a set [`Kind::NoSuchSet`].
pub async fn confirm(setup: &Setup, file: &RecoveryFile, secrets: &RecoverySecrets) -> Result<Confirmation> {
    let repository = &setup.repository;
    if file.repository != repository.id() || file.root != *repository.root() {
        return Err(Error::new(
            Kind::Preflight,
            format!(
                "this recovery file is for repository {} ({}), not for {} ({})",
                file.repository,
                file.location,
                repository.id(),
                repository.location()
            ),
        )
        .hint("find the recovery file that init made with this repository; without it, make a new repository before this host is lost"));
    }
    let mut alone = setup.clone();
    alone.identities = Identities::parse(&secrets.identities, "the recovery file")?;
    // A file from before a rotation opens every set there is, and none that comes.
    if !alone.identities.can_open(&setup.sealing.encryption()) {
        return Err(Error::new(Kind::Denied, "this recovery file does not open what is written from now on: it is not for any of this host's recipients")
            .hint("after drctl key rotate --identity take the newest recovery file; otherwise its recipient must stand under recipients: in drctl.yaml"));
    }
    let mut sets = Vec::new();
    for job in repository.jobs().await? {
        let log = alone.log(&job).await?;
        let Some(entry) = log.state().live().next_back() else { continue };
        let manifest = &entry.manifest;
        if let Some(closed) = manifest.artifacts.iter().find(|a| !alone.identities.can_open(&a.encryption)) {
            return Err(Error::new(Kind::Denied, format!("the recovery file cannot open {} of {}", closed.file, manifest.set))
                .hint("its recipient must stand under recipients: in drctl.yaml; then make a new set: drctl backup now"));
        }
        Details::read(&alone, repository.store(), manifest).await.context(|| "open a set with the recovery file".to_owned())?;
        sets.push(manifest.set.clone());
    }
    if sets.is_empty() {
        return Err(Error::new(Kind::NoSuchSet, "the recovery file and its passphrase fit, but there is no set to open with them yet")
            .hint("drctl backup now, then this again"));
    }
    let mut confirmed = Confirmation {
        at: setup.clock.now(),
        sets,
        recipients: alone.identities.recipients().iter().map(ToString::to_string).collect(),
        recorded: false,
    };
    if let Some(state) = &setup.state {
        let json = serde_json::to_string(&confirmed).map_err(|e| Error::failed("note the confirmation").because(e))?;
        match state.set_setting(&setting(setup), &json) {
            Ok(()) => confirmed.recorded = true,
            Err(error) => setup.bus.warn(format!("it worked, but this host could not note it: {error}")),
        }
    }
    Ok(confirmed)
}

/// The last confirmation that this host knows of. One that cannot be read counts as none: the worst is being asked again.
pub fn last(setup: &Setup) -> Option<Confirmation> {
    let text = setup.state.as_ref()?.setting(&setting(setup)).ok()??;
    serde_json::from_str(&text).ok()
}

/// Why the recovery file should be tried now: never yet, or a year ago; nothing where no state is kept.
pub fn untried(setup: &Setup) -> Option<String> {
    setup.state.as_ref()?;
    match last(setup) {
        None => Some("the recovery file was never tried".to_owned()),
        Some(known) if !opens(&known, &setup.sealing) => Some("the recovery file was not tried since the identity was changed".to_owned()),
        Some(known) if age_seconds(known.at, setup.clock.now()).is_none_or(|age| age > LASTS.as_secs()) => {
            Some(format!("the recovery file was last tried on {}", known.at.strftime("%Y-%m-%d")))
        }
        Some(_) => None,
    }
}

/// Whether the recovery file that was tried opens what is written now.
fn opens(known: &Confirmation, sealing: &Sealing) -> bool {
    match sealing {
        Sealing::Age(recipients) => recipients.iter().any(|recipient| known.recipients.contains(&recipient.to_string())),
        Sealing::None => true,
    }
}

/// The same with the line that does it, as `status` says it.
pub fn reminder(setup: &Setup) -> Option<String> {
    untried(setup).map(|words| format!("{words}. Fetch it from where you keep it: drctl key confirm FILE"))
}
