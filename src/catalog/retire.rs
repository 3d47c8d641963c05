//! Deleting: intent, objects, `deleted`; for sets that retention gave up and for orphans (rules 7 and 8). Every step is repeatable.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::catalog::log::JobLog;
use crate::catalog::rules::no_such_set;
use crate::catalog::state::{SetEntry, State};
use crate::error::{Error, Kind, Result};
use crate::model::SetId;
use crate::model::record::Body;
use crate::pipeline::split::Sink;
use crate::store::{Store, whole};

/// What a plan wants gone: a whole chain and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retirement {
    /// The full set the chain begins with.
    pub chain: SetId,
    /// Why, for people.
    pub reason: String,
    /// A person has given its group up: the last good set may go too.
    pub abandoned: bool,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Sets without a commit that were put under an intent now.
    pub doomed: Vec<SetId>,
    /// Objects deleted.
    pub objects: u64,
    /// Bytes they took.
    pub bytes: u64,
    /// Orphans younger than the grace time.
    pub waiting: Vec<SetId>,
    /// Keys below `sets/` that belong to no set id; never touched.
    pub strange: Vec<String>,
}

/// What one finished intent took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Objects deleted now.
    pub objects: u64,
    /// Bytes they took, as far as known.
    pub bytes: u64,
}

/// Appends a delete-intent for the chain that `plan` names; `plan` is asked again on every conflict (rule 7). Returns the intent's
/// number, or `None` when the plan wants nothing gone.
///
/// Refused ([`Kind::Preflight`]) whatever the plan says: a chain with a pin or hold in force, and the last good set of a group, unless a person
/// gave the group up.
pub async fn retire<F>(log: &mut JobLog, mut plan: F) -> Result<Option<u64>>
where
    F: FnMut(&State, Timestamp) -> Result<Option<Retirement>> + Send,
{
    read_past_cache(log).await?;
    log.refresh().await?;
    log.refuse_if_tampered(true)?;
    let plan_anew = log.rules.plan_anew;
    let mut first: Option<Option<Body>> = None;
    let appended = log
        .append_if(|state, date| {
            if let Some(planned) = first.clone().filter(|_| !plan_anew) {
                return Ok(planned);
            }
            let body = match plan(state, date)? {
                Some(wish) => Some(intent_for_chain(state, date, &wish)?),
                None => None,
            };
            first = Some(body.clone());
            Ok(body)
        })
        .await?;
    Ok(appended.map(|appended| appended.number))
}

/// [`retire`] for one chain, whatever else the log says meanwhile.
pub async fn retire_chain(log: &mut JobLog, chain: &SetId, reason: &str) -> Result<Option<u64>> {
    let wish = Retirement { chain: chain.clone(), reason: reason.to_owned(), abandoned: false };
    retire(log, |_, _| Ok(Some(wish.clone()))).await
}

/// The intent for a whole chain, or why it may not be.
fn intent_for_chain(state: &State, date: Timestamp, wish: &Retirement) -> Result<Body> {
    let refuse = |why: String| Error::new(Kind::Preflight, format!("retire the chain of {}: {why}", wish.chain));
    let chain: Vec<&SetEntry> = state.chain(&wish.chain).collect();
    if chain.is_empty() {
        return Err(no_such_set(state, &wish.chain));
    }
    for entry in &chain {
        if entry.is_pinned(date) {
            return Err(refuse(format!("{} is pinned", entry.id()))
                .hint(format!("pins end by themselves, this one at {}", entry.pin.as_ref().map_or(date, |pin| pin.until))));
        }
        if entry.is_held(date) {
            return Err(refuse(format!("{} is being read", entry.id())).hint("try again later: holds end by themselves"));
        }
    }
    // Promise 6: of every group that loses a good set, a good set must remain that no failed proof stands against.
    for lost in chain.iter().filter(|entry| entry.is_good() && !wish.abandoned) {
        let group = &lost.manifest.group;
        let remains = state.live().any(|other| {
            other.manifest.group == *group && other.manifest.chain != wish.chain && other.is_good() && other.grade(false).is_some()
        });
        if !remains {
            return Err(
                refuse(format!("it holds the last good set of group {group}")).hint("make a new backup first: drctl backup now --full")
            );
        }
    }
    Ok(Body::DeleteIntent { sets: chain.iter().map(|entry| entry.id().clone()).collect(), reason: wish.reason.clone() })
}

/// What a cache says deletes nothing.
async fn read_past_cache(log: &mut JobLog) -> Result<()> {
    if log.is_from_cache() { log.reread().await } else { Ok(()) }
}

/// Deletes the objects of every set under the intent, in the first store and in every copy, then appends `deleted`. May be repeated by
/// anyone with the role.
///
/// An error of a store ([`Kind::Denied`], say) leaves the intent standing; a later call goes on. One copy's error keeps no other store from
/// its deletes.
pub async fn finish_delete(log: &mut JobLog, intent: u64) -> Result<Deletion> {
    read_past_cache(log).await?;
    log.refresh().await?;
    log.refuse_if_tampered(true)?;
    let standing = log.state().intents().find(|known| known.number == intent).cloned();
    let standing = standing.ok_or_else(|| Error::failed(format!("record {intent} of job {} is no delete-intent", log.job())))?;
    let mut deletion = Deletion::default();
    for set in &standing.sets {
        let known: BTreeMap<String, u64> = log.state().get(set).map(objects_of).unwrap_or_default();
        delete_set(&**log.repository().store(), set, known, &mut deletion).await?;
    }
    let mut outcome = Ok(());
    for copy in log.copies.clone() {
        let done = delete_in_copy(log, &copy, intent, &standing.sets, &mut deletion).await;
        outcome = outcome.and(done.map_err(|e| e.context(format!("delete in store '{}'", copy.name))));
    }
    outcome?;
    fail::fail_point!("retire::before-deleted");
    if standing.deleted.is_none() {
        let done = |state: &State, _| {
            let open = state.intents().any(|known| known.number == intent && known.deleted.is_none());
            Ok(open.then_some(Body::Deleted { intent }))
        };
        log.append_if(done).await?;
    }
    Ok(deletion)
}

/// Keys and sizes of a committed set's objects, by its manifest.
fn objects_of(entry: &SetEntry) -> BTreeMap<String, u64> {
    let prefix = entry.id().prefix();
    entry.manifest.every_object().map(|object| (format!("{prefix}{}", object.file), object.stored_bytes)).collect()
}

/// Deletes the sets of an intent in a copy, once that intent stands there (rule 11): who reads from the copy, and knows no more than its log
/// says, must not find a set listed and its objects gone. A copy that has nothing of the sets is left alone.
async fn delete_in_copy(log: &mut JobLog, copy: &Sink, intent: u64, sets: &[SetId], deletion: &mut Deletion) -> Result<()> {
    let mut found = Vec::new();
    for set in sets {
        let known = log.state().get(set).filter(|entry| entry.is_copy(&copy.name)).map(objects_of).unwrap_or_default();
        if !known.is_empty() || !copy.store.list(&set.prefix(), None, 1).await?.is_empty() {
            found.push((set, known));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    if log.rules.copy_intent {
        log.copy_to(&copy.store).await?;
        if !log.stands_in(&copy.store, intent).await? {
            return Err(Error::failed(format!("the intent, record {intent}, does not stand in {}", copy.store.location())));
        }
    }
    for (set, known) in found {
        delete_set(&*copy.store, set, known, deletion).await?;
    }
    Ok(())
}

/// Deletes what the manifest names and what a listing shows below the set's folder, until a listing shows nothing.
async fn delete_set(store: &dyn Store, set: &SetId, known: BTreeMap<String, u64>, deletion: &mut Deletion) -> Result<()> {
    /// A store that still lists what was deleted is not asked for ever.
    const PASSES: usize = 3;
    let mut doomed = known;
    for _ in 0..PASSES {
        for entry in whole::list_all(store, &set.prefix()).await? {
            doomed.insert(entry.key, entry.bytes);
        }
        if doomed.is_empty() {
            return Ok(());
        }
        for (key, bytes) in std::mem::take(&mut doomed) {
            store.delete(&key).await.map_err(|e| e.context(format!("delete {key}")))?;
            fail::fail_point!("retire::deleting");
            deletion.objects += 1;
            deletion.bytes += bytes;
        }
    }
    match whole::list_all(store, &set.prefix()).await?.first() {
        None => Ok(()),
        Some(entry) => Err(Error::failed(format!("delete {set}: {} is still listed after it was deleted", entry.key))
            .hint("the store may lag, or forbid deletes without saying so; see what the log still counts: drctl list")),
    }
}

/// What lies in the stores beside the live sets.
struct Beside {
    /// Sets without a commit whose grace time is over.
    old: Vec<SetId>,
    /// Intents that have objects again, or still.
    late: BTreeSet<u64>,
}

/// Finds objects of sets that no commit names, and deletes nothing: `doomed` are those whose grace time is over.
pub async fn orphans(log: &mut JobLog, grace: Duration) -> Result<Swept> {
    let mut swept = Swept::default();
    swept.doomed = beside(log, grace, &mut swept).await?.old;
    Ok(swept)
}

/// Lists first, then reads the log to its head: a set whose commit is read later than its objects were listed is no orphan.
async fn beside(log: &mut JobLog, grace: Duration, swept: &mut Swept) -> Result<Beside> {
    let found = list_sets(log, swept).await?;
    log.refresh().await?;
    let mut beside = Beside { old: Vec::new(), late: BTreeSet::new() };
    for (set, age) in &found {
        match (log.state().get(set), log.state().intent_for(set)) {
            (_, Some(intent)) => {
                beside.late.insert(intent);
            }
            (Some(_), None) => {}
            (None, None) if *age > SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX) => beside.old.push(set.clone()),
            (None, None) => swept.waiting.push(set.clone()),
        }
    }
    Ok(beside)
}

/// Finds objects of sets that no commit names, and of dead sets; deletes them under an intent once the newest object of the set is
/// older than `grace` (server date). Grace must be longer than any run takes, or runs are voided by the sweep: never harmed, but lost.
pub async fn sweep(log: &mut JobLog, grace: Duration) -> Result<Swept> {
    let mut swept = Swept::default();
    read_past_cache(log).await?;
    let Beside { old, mut late } = beside(log, grace, &mut swept).await?;
    log.refuse_if_tampered(true)?;
    if !log.rules.orphan_intent {
        for set in old {
            let mut deletion = Deletion::default();
            delete_everywhere(log, &set, &mut deletion).await?;
        }
        return Ok(swept);
    }
    if !old.is_empty() {
        let mut named = Vec::new();
        let intent = log
            .append_if(|state, _| {
                named = old.iter().filter(|set| state.get(set).is_none() && state.intent_for(set).is_none()).cloned().collect();
                let reason = "no commit names it and its grace time is over".to_owned();
                Ok((!named.is_empty()).then(|| Body::DeleteIntent { sets: named.clone(), reason }))
            })
            .await?;
        fail::fail_point!("retire::sweeping");
        late.extend(intent.map(|appended| appended.number));
        swept.doomed = if intent.is_some() { named } else { Vec::new() };
    }
    for intent in late {
        let deletion = finish_delete(log, intent).await?;
        swept.objects += deletion.objects;
        swept.bytes += deletion.bytes;
    }
    Ok(swept)
}

/// Every set id below the job's `sets/` in any store, with the age of its newest object by that store's clock. A store that cannot be listed
/// is an error: what lies there may be younger than the rest.
async fn list_sets(log: &JobLog, swept: &mut Swept) -> Result<BTreeMap<SetId, SignedDuration>> {
    let mut found: BTreeMap<SetId, SignedDuration> = BTreeMap::new();
    let prefix = format!("jobs/{}/sets/", log.job());
    for store in std::iter::once(log.repository().store()).chain(log.copies.iter().map(|copy| &copy.store)) {
        let listed = whole::list_all(&**store, &prefix).await?;
        let date = store.server_date().await.map_err(|e| e.context(format!("ask {} for its date", store.location())))?;
        for entry in listed {
            match SetId::of_key(&entry.key) {
                Some(set) => {
                    let age = date.duration_since(entry.modified);
                    let youngest = found.entry(set).or_insert(age);
                    *youngest = (*youngest).min(age);
                }
                None => swept.strange.push(entry.key),
            }
        }
    }
    Ok(found)
}

/// Deletes the objects of a run that came to nothing: only after [`crate::catalog::Outcome::Void`] or [`crate::catalog::Settled::Void`],
/// or when no commit was ever sent (rules 5 and 17). Needs no intent: the set never was and never will be.
pub async fn discard(log: &mut JobLog, set: &SetId) -> Result<Deletion> {
    log.refresh().await?;
    if log.state().get(set).is_some() {
        return Err(Error::failed(format!("{set} was committed: its objects are not thrown away")));
    }
    let mut deletion = Deletion::default();
    delete_everywhere(log, set, &mut deletion).await?;
    Ok(deletion)
}

/// Deletes a set that never was, in every store.
async fn delete_everywhere(log: &JobLog, set: &SetId, deletion: &mut Deletion) -> Result<()> {
    for store in std::iter::once(log.repository().store()).chain(log.copies.iter().map(|copy| &copy.store)) {
        delete_set(&**store, set, BTreeMap::new(), deletion).await?;
    }
    Ok(())
}
