//! What a restore would do, shown before it is done.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::{JobLog, SetEntry};
use crate::error::{Error, Kind, Result};
use crate::model::SetClass;
use crate::model::clock::age_seconds;
use crate::model::record::Grade;
use crate::model::{Artifact, Manifest, SetId};
use crate::ops::backup::OWN_SOURCE;
use crate::ops::copies::check_is_here;
use crate::ops::details::Details;
use crate::ops::restore::pick::pick;
use crate::ops::restore::safety;
use crate::ops::restore::without::{Without, concerns_others, shown, way_past};
use crate::ops::restore::{Loaders, RestoreOptions};
use crate::ops::{Setup, choose};
use crate::source::load::{LoadArtifact, LoadPlan, LoadRequest, Loader, Rereads};

/// The value behind the plan's text and `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct RestorePlan {
    /// Id of this restore; part of every name it makes.
    pub restore: String,
    /// The sets, the one that the date means first; more than one where sources have schedules of their own.
    pub sets: Vec<PlannedSet>,
    /// How they were chosen: `last good set for 2025-01-01 (Asia/Shanghai)`.
    pub chosen: String,
    /// Now; ages are counted from here.
    pub now: Timestamp,
    /// One entry a source.
    pub sources: Vec<SourcePlan>,
    /// Seconds between the earliest and the latest instant that the sources stand for.
    pub spread_seconds: i64,
    /// Sources of the set that are left out, with what brings them in.
    pub left_out: Vec<String>,
    /// Artifacts that `--without` leaves out.
    pub without: Vec<String>,
    /// Worth knowing before saying yes.
    pub warnings: Vec<String>,
    /// Over the live data.
    pub in_place: bool,
    /// What is live is saved as a set first.
    pub safety_set: bool,
    /// What that may take in each store, as far as earlier sets tell.
    pub safety_bytes: Option<u64>,
    /// Databases under their live names, what is live put aside first.
    pub exchange_first: bool,
    /// Into another place, without its password.
    pub target: Option<String>,
    /// Seconds the last restore of this job took on this host, and when that was.
    pub took_before: Option<(f64, Timestamp)>,
}

/// One set of the plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedSet {
    /// The set.
    pub set: SetId,
    /// Its state: `complete` …
    pub state: &'static str,
    /// What it was made for; left out of an ordinary set.
    #[serde(skip_serializing_if = "SetClass::is_ordinary")]
    pub class: SetClass,
    /// Its proof grade, and when that was proven; `None` after a failed verification.
    pub proof: Option<(Grade, Timestamp)>,
}

impl PlannedSet {
    /// Its state, and what it was made for where it is no ordinary set.
    pub fn words(&self) -> String {
        [Some(self.state), self.class.words()].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// One source of the plan.
#[derive(Clone, Debug, Serialize)]
pub struct SourcePlan {
    /// Its name in the set.
    pub name: String,
    /// `postgres`, `files` …
    pub kind: String,
    /// The set it comes from.
    pub set: SetId,
    /// The instant the content stands for.
    pub as_of: Timestamp,
    /// What was written since then is lost: seconds from `as_of` to now; `None`: not known, it is dated in the future.
    pub lost_seconds: Option<i64>,
    /// Names of its artifacts: databases, trees …
    pub artifacts: Vec<String>,
    /// Plain bytes to load.
    pub plain_bytes: u64,
    /// What the loader says.
    pub load: LoadPlan,
}

/// A plan and what is needed to carry it out.
pub struct Prepared {
    /// What is shown.
    pub plan: RestorePlan,
    /// Requests and loaders, in order.
    pub work: Vec<Work>,
}

/// One source to load.
pub struct Work {
    /// Its kind, for later processes.
    pub kind: String,
    /// The set it comes from.
    pub set: SetId,
    /// What to load.
    pub request: LoadRequest,
    /// What loads it.
    pub loader: Arc<dyn Loader>,
}

/// Chooses the sets and asks every loader. Changes nothing.
pub async fn plan(setup: &Setup, log: &JobLog, loaders: &dyn Loaders, options: &RestoreOptions, restore: &str) -> Result<Prepared> {
    let now = setup.clock.now();
    let picked = pick(log, options, loaders.groups(log.job()).as_deref(), now)?;
    let names: Vec<&str> = picked.picks.iter().flat_map(|pick| &pick.sources).map(String::as_str).collect();
    let safety_bytes = options.safety_set.as_ref().and_then(|_| safety::bytes(log, &names));
    let grows = safety::growth(options.safety_set.as_deref().unwrap_or_default(), safety_bytes);
    let (mut work, mut sources, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let (mut without, mut requests, mut loads) = (Without::new(&options.without), Vec::new(), Vec::new());
    for pick in &picked.picks {
        let manifest = &pick.entry.manifest;
        // What the job knew of and the set does not hold.
        let missing = manifest.source(OWN_SOURCE).map(|own| own.warnings.clone()).unwrap_or_default();
        warnings.extend(missing.into_iter().filter(|warning| !warnings.contains(warning)).collect::<Vec<_>>());
        check_is_here(setup, manifest).await?;
        setup.bus.step(format!("reading the details of {}", manifest.set));
        let details = match Details::read(setup, &setup.reading().store, manifest).await {
            Ok(details) => details,
            Err(error) => {
                refuse_failed(setup, pick.entry, &manifest.artifacts.iter().collect::<Vec<_>>(), None)?;
                return Err(error);
            }
        };
        let mut loaded = Vec::new();
        for source in pick.sources.iter().filter_map(|name| manifest.source(name)) {
            let wanted = without.of(manifest, &details, source);
            if !wanted.is_empty() {
                let request = LoadRequest { grows: grows.clone(), ..request(manifest, &details, source, &wanted, options, restore)? };
                requests.push((manifest, source, request));
            }
            loaded.extend(wanted);
        }
        loads.push((pick.entry, loaded, details));
    }
    without.check(&picked.picks.iter().map(|pick| pick.entry.id()).collect::<Vec<_>>())?;
    for (entry, loaded, details) in &loads {
        warnings.extend(refuse_failed(setup, entry, loaded, Some(details))?);
    }
    for (manifest, source, mut request) in requests {
        let loader = loaders.loader(log.job(), &source.name, &source.kind, options.target.is_some())?;
        let load = loader.plan(&request, &setup.context(restore)).await?;
        request.artifacts.retain(|artifact| !load.leaves.contains(&artifact.name));
        sources.push(SourcePlan {
            name: source.name.clone(),
            kind: source.kind.clone(),
            set: manifest.set.clone(),
            as_of: source.as_of,
            lost_seconds: age_seconds(source.as_of, now),
            artifacts: request.artifacts.iter().map(|a| a.name.clone()).collect(),
            plain_bytes: request.artifacts.iter().map(|a| a.artifact.plain_bytes).sum(),
            load,
        });
        work.push(Work { kind: source.kind.clone(), set: manifest.set.clone(), request, loader });
    }
    if let (Some(first), Some(refusal)) = (sources.first_mut(), safety::no_room(&grows)) {
        first.load.refusals.push(refusal);
    }
    refuse_one_target(options, &mut sources);
    if setup.read_from > 0 {
        warnings.push(format!("read from the copy in store '{}'", setup.reading().name));
    }
    warnings.extend(picked.warnings);
    let sets: Vec<PlannedSet> = picked.picks.iter().map(|pick| planned_set(pick.entry)).collect();
    let plan = RestorePlan {
        restore: restore.to_owned(),
        chosen: chosen_how(options),
        now,
        spread_seconds: spread(&sources),
        sources,
        left_out: picked.left_out,
        without: without.left_out,
        in_place: options.in_place,
        safety_set: options.safety_set.is_some(),
        safety_bytes,
        exchange_first: options.exchange_first,
        target: options.target.as_deref().map(super::shown_target),
        warnings,
        took_before: super::run::took_before(setup, log.job()),
        sets,
    };
    Ok(Prepared { plan, work })
}

/// One folder takes the files of one source: the second would find it full, when the first is there already.
fn refuse_one_target(options: &RestoreOptions, sources: &mut [SourcePlan]) {
    let Some(target) = &options.target else { return };
    let into: Vec<String> = sources
        .iter()
        .filter(|source| matches!(source.kind.as_str(), "files" | "environment" | "compose"))
        .map(|source| source.name.clone())
        .collect();
    for source in sources.iter_mut().filter(|source| source.kind == "files") {
        let others: Vec<&str> = into.iter().filter(|name| **name != source.name).map(String::as_str).collect();
        if !others.is_empty() {
            source.load.refusals.push(format!(
                "{} would go into the same folder ({}): restore each into its own, --source {} --target FOLDER",
                others.join(", "),
                super::shown_target(target),
                source.name
            ));
        }
    }
}

fn planned_set(entry: &SetEntry) -> PlannedSet {
    let proof = entry.grade(false).map(|grade| (grade, entry.proven_at(grade).unwrap_or(entry.manifest.finished_at)));
    PlannedSet { set: entry.id().clone(), state: entry.manifest.state.name(), class: entry.manifest.class, proof }
}

/// A set that failed its last verification in the store that is read is not loaded. Where nobody knows which of its stores this is (`--repo`)
/// that is a warning only: every byte is checked on the way.
/// What was found wrong with what is not loaded at all is a warning too.
fn refuse_failed(setup: &Setup, entry: &SetEntry, loaded: &[&Artifact], details: Option<&Details>) -> Result<Option<String>> {
    let store = &setup.reading().name;
    let Some(failure) = entry.failure_in(store) else { return Ok(None) };
    let stores = &entry.manifest.stores;
    if stores.len() > 1 && !stores.contains(store) {
        return Ok(Some(format!("{} failed its last verification in store '{}'; here it may be whole", entry.id(), failure.proof.store)));
    }
    let findings = &failure.proof.findings;
    let said = format!("{} failed its last verification: {}", entry.id(), findings.join("; "));
    if !findings.is_empty() && findings.iter().all(|finding| concerns_others(finding, &entry.manifest, loaded)) {
        return Ok(Some(format!("{said}; what is restored here is not concerned")));
    }
    let mut hint = format!("choose another set (drctl list), or see what of this one is whole: drctl show {} --rescue", entry.id());
    let (damaged, whole): (Vec<&Artifact>, Vec<_>) =
        loaded.iter().partition(|a| findings.iter().any(|f| !concerns_others(f, &entry.manifest, &[a])));
    if !damaged.is_empty() && !whole.is_empty() {
        let name =
            |a: &&Artifact| details.and_then(|d| d.artifact(&a.file)).map_or_else(|| a.file.clone(), |known| shown(&a.source, &known.name));
        hint = format!("{hint}; {}", way_past(&damaged.iter().map(name).collect::<Vec<_>>()));
    }
    Err(Error::new(Kind::Verify, said).hint(hint))
}

/// Seconds between the earliest and the latest instant that the sources stand for.
fn spread(sources: &[SourcePlan]) -> i64 {
    let times = || sources.iter().map(|s| s.as_of.as_second());
    times().max().zip(times().min()).map_or(0, |(last, first)| last - first)
}

fn chosen_how(options: &RestoreOptions) -> String {
    match &options.wanted {
        choose::Wanted::Set(_) => "asked for by its id".to_owned(),
        choose::Wanted::Date(text) if text == "latest" => "newest good set".to_owned(),
        choose::Wanted::Date(text) => format!("last good set for {text} ({})", options.zone_name),
    }
}

fn request(
    manifest: &Manifest,
    details: &Details,
    source: &crate::model::manifest::SourceEntry,
    wanted: &[&Artifact],
    options: &RestoreOptions,
    restore: &str,
) -> Result<LoadRequest> {
    let known = details.source(&source.name);
    let mut artifacts = Vec::new();
    for artifact in wanted {
        let detail = details
            .artifact(&artifact.file)
            .ok_or_else(|| Error::corrupt(format!("the details of {} say nothing of {}", manifest.set, artifact.file)))?;
        artifacts.push(LoadArtifact {
            artifact: (*artifact).clone(),
            name: detail.name.clone(),
            facts: detail.facts.clone(),
            rereads: Rereads::default(),
        });
    }
    let mut all = known.map(|k| k.details.clone()).unwrap_or_default();
    // The loader compares where it is with where the set came from (FAULTS 83).
    if let Some(object) = all.as_object_mut() {
        object.insert("identity".into(), serde_json::to_value(&source.identity).unwrap_or_default());
    }
    Ok(LoadRequest {
        restore: restore.to_owned(),
        source: source.name.clone(),
        artifacts,
        details: all,
        as_of: source.as_of,
        in_place: options.in_place,
        grows: Vec::new(),
        exchange_first: options.exchange_first,
        target: options.target.clone(),
    })
}

impl RestorePlan {
    /// What of the live data would be dropped before the load and is in none of these sets: `postgres: database shop`.
    pub fn unsaved(&self, safety: &[Details]) -> Vec<String> {
        let is_saved = |source: &str, name: &str| {
            let saved = safety.iter().filter_map(|details| details.source(source)).flat_map(|s| &s.artifacts);
            saved.into_iter().any(|artifact| artifact.name == name)
        };
        let dropped = self.sources.iter().flat_map(|s| s.load.drops.iter().map(|name| (s.name.as_str(), name.as_str())));
        dropped.filter(|(source, name)| !is_saved(source, name)).map(|(source, name)| format!("{source}: {name}")).collect()
    }

    /// Every reason why it cannot work.
    pub fn refusals(&self) -> impl Iterator<Item = &String> {
        self.sources.iter().flat_map(|s| &s.load.refusals)
    }
}
