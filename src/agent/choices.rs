//! Which sets and groups a scheduled run is about, and what of a difference may be told. Pure.

use jiff::Timestamp;

use crate::catalog::{SetEntry, State};
use crate::config::typed::{Job, MAIN_GROUP, Schedule};
use crate::error::{Error, Kind, Result};
use crate::model::record::Grade;
use crate::model::{SetId, SetState};

/// The good set that `host` committed for `group` in a run that began at `died` or after it, but for those that are known to be `another`'s.
pub fn committed_since<'a>(
    state: &'a State,
    group: &str,
    host: &str,
    died: Timestamp,
    another: impl Fn(&SetId) -> bool,
) -> Option<&'a SetId> {
    // Ids and starts have whole seconds: a run that ended just before may have begun in the same one.
    let from = Timestamp::from_second(died.as_second()).unwrap_or(died);
    let made = state.live().rev().find(|entry| {
        let manifest = &entry.manifest;
        manifest.group == group && manifest.host == host && manifest.started_at >= from && entry.is_good() && !another(entry.id())
    });
    made.map(SetEntry::id)
}

/// Every good set of `groups` that was never read back, the newest first; when there is none, the newest once more.
pub fn to_verify(state: &State, groups: &[String]) -> Vec<SetId> {
    let good: Vec<_> =
        state.live().rev().filter(|entry| groups.contains(&entry.manifest.group) && entry.manifest.state == SetState::Complete).collect();
    // What failed is known, and is told until a newer proof beats it; reading it again would say the same.
    let unread: Vec<SetId> = good.iter().filter(|entry| entry.grade(false) == Some(Grade::Uploaded)).map(|e| e.id().clone()).collect();
    if !unread.is_empty() {
        return unread;
    }
    good.first().map(|entry| vec![entry.id().clone()]).unwrap_or_default()
}

/// What of `sets`, as [`to_verify`] gives them, this host verifies. One that cannot read them reads nothing again; [`Kind::Config`] when there
/// is one that nobody has read.
pub fn readable(state: &State, sets: Vec<SetId>, can_read: bool) -> Result<Vec<SetId>> {
    let Some(newest) = sets.first().filter(|_| !can_read) else { return Ok(sets) };
    if state.get(newest).is_none_or(|entry| entry.grade(false) >= Some(Grade::ReadBack)) {
        return Ok(Vec::new());
    }
    Err(Error::new(Kind::Config, format!("{newest} was never read back, and this host has no identity to read it with"))
        .hint("verify where the identity is (drctl agent there), or take schedule.verify out here"))
}

/// The groups that an entry of the group `own` means: itself, or, of the main group, all without an entry of their own.
pub fn groups_meant(job: &Job, own: &str, has_own: impl Fn(&Schedule) -> bool) -> Vec<String> {
    if own != MAIN_GROUP {
        return vec![own.to_owned()];
    }
    let own_entry = |group: &str| job.sources.iter().any(|s| s.group() == group && s.schedule.as_ref().is_some_and(&has_own));
    job.group_names().into_iter().filter(|group| !own_entry(group)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::JobLog;
    use crate::catalog::testing::{Bed, at};
    use crate::model::Manifest;
    use crate::model::SetKind;
    use crate::model::record::{Body, Proof};

    async fn made(bed: &Bed, log: &mut JobLog, group: &str, change: impl FnOnce(&mut Manifest)) -> SetId {
        let run = log.begin_run(SetKind::Full, group).await.unwrap();
        let set = run.set().clone();
        let mut manifest = bed.upload(&run).await;
        change(&mut manifest);
        run.commit(log, manifest, |_| Ok(())).await.unwrap();
        bed.hours(1);
        set
    }

    async fn read(log: &mut JobLog, set: &SetId, passed: bool) {
        let when = at("2025-01-02T00:00:00Z");
        let (set, grade, store) = (set.clone(), Grade::ReadBack, "main".to_owned());
        let proof = Proof { set, grade, passed, findings: Vec::new(), started_at: when, finished_at: when, store };
        log.append(Body::Proof { proof }).await.unwrap();
    }

    fn partial(manifest: &mut Manifest) {
        manifest.state = SetState::Partial { reasons: vec!["db: gone".into()] };
    }

    #[tokio::test]
    async fn f05_what_a_run_that_died_had_committed_is_its_own_and_good() {
        let bed = Bed::new().await;
        let mut log = bed.log().await;
        // At two, three and four o'clock.
        let two = made(&bed, &mut log, "main", |_| {}).await;
        made(&bed, &mut log, "uploads", |_| {}).await;
        made(&bed, &mut log, "main", partial).await;
        let since = |host: &str, died: &str| committed_since(log.state(), "main", host, at(died), |_| false).cloned();
        assert_eq!(since("web-1", "2025-01-01T01:59:00Z"), Some(two.clone()));
        assert_eq!(since("web-1", "2025-01-01T02:00:00.9Z"), Some(two.clone()), "a set's start has whole seconds");
        let but_for_two = committed_since(log.state(), "main", "web-1", at("2025-01-01T02:00:00.9Z"), |set| *set == two);
        assert_eq!(but_for_two, None, "another run's");
        assert_eq!(since("web-1", "2025-01-01T02:00:01Z"), None, "neither another group's nor one that lacks something");
        assert_eq!(since("web-2", "2025-01-01T01:59:00Z"), None, "another host's");
    }

    #[tokio::test]
    async fn a_set_is_compared_with_the_good_one_before_it() {
        let bed = Bed::new().await;
        let mut log = bed.log().await;
        let one = made(&bed, &mut log, "main", |_| {}).await;
        made(&bed, &mut log, "main", partial).await;
        made(&bed, &mut log, "uploads", |_| {}).await;
        let two = made(&bed, &mut log, "main", |_| {}).await;
        made(&bed, &mut log, "main", |_| {}).await;
        let before =
            |set: &SetId| crate::catalog::select::good_before(log.state(), log.state().get(set).unwrap()).map(|entry| entry.id().clone());
        assert_eq!((before(&two), before(&one)), (Some(one), None));
    }

    #[tokio::test]
    async fn what_nobody_read_is_verified_and_else_the_newest_again() {
        let bed = Bed::new().await;
        let mut log = bed.log().await;
        let wanted = ["main".to_owned()];
        assert_eq!(to_verify(log.state(), &wanted), []);
        let one = made(&bed, &mut log, "main", |_| {}).await;
        let two = made(&bed, &mut log, "main", |_| {}).await;
        let three = made(&bed, &mut log, "main", |_| {}).await;
        made(&bed, &mut log, "main", partial).await;
        made(&bed, &mut log, "uploads", |_| {}).await;
        assert_eq!(to_verify(log.state(), &wanted), [three.clone(), two.clone(), one.clone()]);
        let can = |log: &JobLog, can_read: bool| readable(log.state(), to_verify(log.state(), &wanted), can_read);
        assert_eq!(can(&log, true).unwrap().len(), 3);
        assert_eq!(can(&log, false).unwrap_err().kind(), Kind::Config, "a host without an identity says so");
        read(&mut log, &three, true).await;
        read(&mut log, &two, false).await;
        assert_eq!(to_verify(log.state(), &wanted), std::slice::from_ref(&one), "what failed is known");
        read(&mut log, &one, true).await;
        assert_eq!(to_verify(log.state(), &wanted), std::slice::from_ref(&three));
        assert_eq!((can(&log, true).unwrap(), can(&log, false).unwrap()), (vec![three], vec![]), "what was read elsewhere is enough");
    }

    #[test]
    fn an_entry_of_the_main_group_means_those_without_one_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"
repository:
  id: shop-7k3q
  root_key: RWR3cBpllPzfHE/HcwpCzx0LtLbYTVuI6FSpV6SdSJzNM53mU1tJlsq/
  stores: [{ name: main, local: { path: store } }]
  recipients: [age17et55u4d4df3aee5pafa5cs4ahcwfrl507ultujwu3a9ntsk34xs7r78nm]
  identity: keys/identity
  signing_key: keys/signing
jobs:
  - job: shop
    schedule: { full: "0 2 * * *", verify: "0 6 * * *", prune: "0 7 * * *" }
    retention: { keep_last: 2 }
    sources:
      - files: { name: etc, paths: [/etc] }
      - files: { name: uploads, paths: [/srv], schedule: { full: "0 3 * * *", verify: "0 8 * * *" } }
"#;
        let path = folder.path().join("drctl.yaml");
        std::fs::write(&path, text).unwrap();
        let environment = crate::config::Environment::of(folder.path(), [("HOME", "/nonexistent")]);
        let mut options = crate::config::LoadOptions::new(environment);
        (options.config, options.look_at_files) = (Some(path), false);
        let config = crate::config::load(&options).unwrap_or_else(|problems| panic!("{problems}"));
        let job = &config.jobs[0];
        assert_eq!(groups_meant(job, "main", |s| s.verify.is_some()), ["main"], "uploads has a verification of its own");
        assert_eq!(groups_meant(job, "main", |s| s.prune.is_some()), ["main", "uploads"]);
        assert_eq!(groups_meant(job, "uploads", |s| s.verify.is_some()), ["uploads"]);
    }
}
