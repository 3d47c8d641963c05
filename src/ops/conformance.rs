//! What each bucket was found to do: tried once a day, remembered in the state file, and told when it changed (FAULTS 38).
//!
//! A change for the worse never keeps a set from being made: what has just become less safe needs its backups most. It is an error at the end
//! of every run until a person says that it is meant.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::catalog::Role;
use crate::error::{Error, Kind, Result};
use crate::ops::Setup;
use crate::ops::doctor::Finding;
use crate::state::StateFile;
use crate::store::profile::{Answer, Change, Checksum, Lock, StoreProfile};
use crate::store::s3::{Algorithm, S3Store};

/// What was tried longer ago is tried again.
const LASTS: SignedDuration = SignedDuration::from_hours(24);

/// A bucket of the configuration.
#[derive(Clone)]
pub struct Bucket {
    /// Its name among the stores.
    pub name: String,
    /// [`S3Store::url`]: what it is remembered by.
    pub url: String,
}

fn if_meant(store: &str) -> String {
    format!("who changed the bucket? If it is meant: drctl backup now --accept-changed-store {store}")
}

/// What is remembered of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// When `accepted` was found.
    pub accepted_at: Timestamp,
    /// What it did when all was well.
    pub accepted: StoreProfile,
    /// When it was last tried.
    pub tried_at: Timestamp,
    /// What it did then.
    pub tried: StoreProfile,
}

impl Known {
    /// What changed since all was well.
    pub fn changes(&self) -> Vec<Change> {
        self.tried.changes_since(&self.accepted)
    }

    /// Changes for the worse, as one error.
    pub fn alarm(&self, store: &str) -> Option<Error> {
        let worse: Vec<String> = self.changes().into_iter().filter(|change| change.worse).map(|change| change.words).collect();
        (!worse.is_empty()).then(|| {
            let since = self.accepted_at.strftime("%Y-%m-%d");
            Error::failed(format!("store '{store}' is less safe than it was on {since}: {}", worse.join("; "))).hint(if_meant(store))
        })
    }

    /// The same knowledge after another trial. A change that is not for the worse is taken in, and returned to be told once.
    fn after(self, now: Timestamp, tried: StoreProfile) -> (Known, Vec<Change>) {
        let known = Known { tried_at: now, tried, ..self };
        let changes = known.changes();
        if changes.iter().any(|change| change.worse) {
            return (known, Vec::new());
        }
        (Known { accepted_at: now, accepted: known.tried.clone(), ..known }, changes)
    }
}

fn setting(url: &str) -> String {
    format!("store-profile/{url}")
}

/// What this host remembers of a bucket; what cannot be read counts as nothing, and is found out again.
pub fn known(state: Option<&StateFile>, url: &str) -> Option<Known> {
    let text = state?.setting(&setting(url)).ok()??;
    serde_json::from_str(&text).ok()
}

fn remember(state: Option<&StateFile>, url: &str, known: &Known) -> Result<()> {
    let Some(state) = state else { return Ok(()) };
    let json = serde_json::to_string(known).map_err(|e| Error::failed("note what the store does").because(e))?;
    state.set_setting(&setting(url), &json)
}

fn uploads_setting(url: &str) -> String {
    format!("store-uploads/{url}")
}

/// Keeps how many uploads that nobody will end stay in a bucket, for the agent's pages; `None`: not known. A figure that cannot be kept is not
/// known either.
pub fn note_left_uploads(state: Option<&StateFile>, url: &str, left: Option<u64>) {
    if let Some(state) = state {
        let _ = state.set_setting(&uploads_setting(url), &left.map(|n| n.to_string()).unwrap_or_default());
    }
}

/// What [`note_left_uploads`] kept last.
pub fn left_uploads(state: Option<&StateFile>, url: &str) -> Option<u64> {
    state?.setting(&uploads_setting(url)).ok()??.parse().ok()
}

/// Whether a bucket is to be tried: never yet, a day ago, changed for the worse, or tried in the future.
pub fn is_due(known: Option<&Known>, now: Timestamp) -> bool {
    known.is_none_or(|known| {
        let age = now.duration_since(known.tried_at);
        age >= LASTS || age < SignedDuration::ZERO || known.changes().iter().any(|change| change.worse)
    })
}

/// What to write with where this was found; `None` where nothing was.
pub fn algorithm(found: Checksum) -> Option<Algorithm> {
    match found {
        Checksum::Crc64nvme => Some(Algorithm::Crc64Nvme),
        Checksum::Crc32c => Some(Algorithm::Crc32c),
        Checksum::None => Some(Algorithm::None),
        Checksum::Unknown => None,
    }
}

/// Tries a bucket out and remembers what it did; returns what is known now, and changes to be told once.
///
/// [`Kind::Denied`]: these keys may not write there, with the day on which they still could.
pub async fn try_out(store: &S3Store, state: Option<&StateFile>, now: Timestamp) -> Result<(Known, Vec<Change>)> {
    let url = store.url();
    let before = known(state, &url);
    let tried = store.try_out().await.map_err(|e| match (&before, e.kind()) {
        (Some(before), Kind::Denied) => {
            e.context(format!("these keys could still write there on {}", before.tried_at.strftime("%Y-%m-%d")))
        }
        _ => e,
    })?;
    let (known, changes) = match before {
        Some(before) => before.after(now, tried),
        None => (Known { accepted_at: now, accepted: tried.clone(), tried_at: now, tried }, Vec::new()),
    };
    remember(state, &url, &known)?;
    Ok((known, changes))
}

/// Takes a bucket as it is now for right, on the word of a person. False where there was nothing to accept.
pub fn accept(state: Option<&StateFile>, url: &str) -> Result<bool> {
    let Some(known) = known(state, url).filter(|known| known.tried != known.accepted) else { return Ok(false) };
    remember(state, url, &Known { accepted_at: known.tried_at, accepted: known.tried.clone(), ..known })?;
    Ok(true)
}

/// The buckets of which something is remembered, by name.
fn tried(setup: &Setup) -> impl Iterator<Item = (&str, Known)> {
    setup.buckets.iter().filter_map(|bucket| Some((bucket.name.as_str(), known(setup.state.as_deref(), &bucket.url)?)))
}

/// Buckets that are less safe than they were.
pub fn alarms(setup: &Setup) -> Vec<Error> {
    tried(setup).filter_map(|(name, known)| known.alarm(name)).collect()
}

/// What a thief of this host could do to the buckets, as far as they were tried; for `status`.
pub fn exposure(setup: &Setup) -> Option<String> {
    let names: Vec<&str> = tried(setup).filter(|(_, known)| known.tried.can_lose_all()).map(|(name, _)| name).collect();
    (!names.is_empty()).then(|| {
        format!(
            "with this host's keys every set in {} can be destroyed for good: drctl grants s3, or a lock on the bucket",
            names.join(", ")
        )
    })
}

/// What `doctor` says of store `name`; nothing of a folder, or of what was never tried.
pub fn findings(name: &str, setup: &Setup) -> Vec<Finding> {
    tried(setup).find(|(bucket, _)| *bucket == name).map_or_else(Vec::new, |(_, known)| judge(name, &known, setup))
}

fn judge(name: &str, known: &Known, setup: &Setup) -> Vec<Finding> {
    let tried = &known.tried;
    let mut found = vec![Finding::ok("store", name, words(tried))];
    for change in known.changes() {
        let of = if change.worse { Finding::problem } else { Finding::warning };
        found.push(of("store", name, change.words, if_meant(name)));
    }
    if tried.ranges == Answer::No {
        found.push(Finding::problem(
            "store",
            name,
            "does not answer with the bytes asked for: nothing can be read back",
            "use another store, or take away the proxy in between",
        ));
    }
    if tried.lists_at_once == Answer::No {
        found.push(Finding::warning(
            "store",
            name,
            "its listings lag behind what is there",
            "nothing to do: drctl believes no listing that something is gone",
        ));
    }
    if tried.may_delete == Answer::Yes && !setup.roles.is_empty() && !setup.roles.contains(&Role::Pruner) {
        found.push(Finding::warning(
            "store",
            name,
            "this host's role deletes nothing, but its store keys may",
            "give it keys of its own: drctl grants s3 --role writer",
        ));
    }
    // Where versions are kept the question was whether those may be deleted; a plain delete is another permission.
    if tried.may_delete == Answer::No && tried.versioning != Answer::Yes && setup.roles.contains(&Role::Pruner) {
        found.push(Finding::ok("store", name, "these keys may not delete: old sets have to be pruned from elsewhere"));
    }
    found
}

/// `refuses to overwrite, CRC64NVME, …`.
fn words(profile: &StoreProfile) -> String {
    let of = |answer: Answer, yes: &'static str, no: &'static str| match answer {
        Answer::Yes => Some(yes.to_owned()),
        Answer::No => Some(no.to_owned()),
        Answer::Unknown => None,
    };
    let checksum = match profile.checksum {
        Checksum::Unknown => None,
        Checksum::None => Some("no checksums (each request's SHA-256 is signed instead)".to_owned()),
        other => Some(format!("checks {other}")),
    };
    let lock = match &profile.lock {
        Lock::Unknown => None,
        lock => Some(format!("object lock {lock}")),
    };
    let parts = [
        of(profile.create_only, "creates only", "OVERWRITES although told not to"),
        of(profile.create_only_multipart, "also by multipart", "overwrites by multipart (harmless: names are never used twice)"),
        checksum,
        of(profile.versioning, "keeps versions", "keeps no versions"),
        lock,
        of(profile.may_overwrite, "these keys may overwrite", "these keys may not overwrite"),
        match profile.versioning {
            Answer::Yes => of(profile.may_delete, "these keys may delete versions", "these keys may not delete versions"),
            _ => of(profile.may_delete, "these keys may delete", "these keys may not delete"),
        },
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    fn of(versioning: Answer, delete: Answer) -> StoreProfile {
        StoreProfile { create_only: Answer::Yes, versioning, may_delete: delete, ..StoreProfile::default() }
    }

    fn first(profile: StoreProfile) -> Known {
        Known { accepted_at: at(0), accepted: profile.clone(), tried_at: at(0), tried: profile }
    }

    #[test]
    fn f38_a_bucket_is_tried_once_a_day_and_each_time_while_it_is_less_safe() {
        assert!(is_due(None, at(0)));
        let known = first(of(Answer::Yes, Answer::No));
        assert!(!is_due(Some(&known), at(23)));
        assert!(is_due(Some(&known), at(24)));
        assert!(is_due(Some(&known), at(-1)), "a clock that was set back");
        let (worse, _) = known.after(at(24), of(Answer::No, Answer::No));
        assert!(is_due(Some(&worse), at(25)));
    }

    #[test]
    fn f38_worse_stays_an_alarm_until_it_is_accepted_or_over_and_better_is_told_once() {
        let (worse, told) = first(of(Answer::Yes, Answer::No)).after(at(24), of(Answer::No, Answer::No));
        assert!(told.is_empty(), "the alarm tells it");
        let text = worse.alarm("s3").unwrap().to_string();
        assert!(text.contains("store 's3'") && text.contains("versioning was yes and is no"), "{text}");
        // The next day it is measured against what was well, not against yesterday.
        let (worse, _) = worse.after(at(48), of(Answer::No, Answer::No));
        assert!(worse.alarm("s3").is_some());
        let (over, told) = worse.after(at(72), of(Answer::Yes, Answer::No));
        assert!(over.alarm("s3").is_none() && told.is_empty());
        let (known, told) = first(of(Answer::No, Answer::Yes)).after(at(24), of(Answer::No, Answer::No));
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((known.accepted_at, &known.accepted), (at(24), &known.tried));
    }

    #[test]
    fn f38_what_a_person_accepts_is_no_alarm_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::open(&folder.path().join("state"), std::sync::Arc::new(crate::model::SystemClock)).unwrap();
        let state = Some(&file);
        assert!(known(state, "s3://b/p").is_none() && !accept(state, "s3://b/p").unwrap());
        let (worse, _) = first(of(Answer::Yes, Answer::No)).after(at(24), of(Answer::No, Answer::No));
        remember(state, "s3://b/p", &worse).unwrap();
        assert_eq!(known(state, "s3://b/p"), Some(worse));
        assert!(accept(state, "s3://b/p").unwrap());
        let now = known(state, "s3://b/p").unwrap();
        assert!(now.alarm("s3").is_none());
        assert_eq!(now.accepted_at, at(24));
        assert!(!accept(state, "s3://b/p").unwrap(), "once");
        file.set_setting(&setting("s3://b/p"), "{").unwrap();
        assert!(known(state, "s3://b/p").is_none(), "found out again");
        assert_eq!(left_uploads(state, "s3://b/p"), None);
        for left in [Some(3), Some(0), None] {
            note_left_uploads(state, "s3://b/p", left);
            assert_eq!((left_uploads(state, "s3://b/p"), left_uploads(state, "s3://b/q")), (left, None));
        }
    }
}
