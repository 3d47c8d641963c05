//! What a restore would do, shown before it is done.

use std::sync::Arc;

use jiff::{Timestamp, Unit};
use serde::Serialize;

use crate::catalog::{JobLog, SetEntry};
use crate::error::{Error, Kind, Result};
use crate::model::record::Grade;
use crate::model::{Manifest, SetId};
use crate::ops::backup::OWN_SOURCE;
use crate::ops::details::Details;
use crate::ops::restore::{DATA_KINDS, Loaders, RestoreOptions};
use crate::ops::{Setup, choose};
use crate::source::load::{LoadArtifact, LoadPlan, LoadRequest, Loader};

/// The value behind the plan's text and `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct RestorePlan {
    /// Id of this restore; part of every name it makes.
    pub restore: String,
    /// The set.
    pub set: SetId,
    /// Its state: `complete` …
    pub state: String,
    /// How it was chosen: `last good set of 2025-01-01 (Asia/Shanghai)`.
    pub chosen: String,
    /// Its proof grade, and when that was proven.
    pub proof: Option<(Grade, Timestamp)>,
    /// Now; ages are counted from here.
    pub now: Timestamp,
    /// One entry a source.
    pub sources: Vec<SourcePlan>,
    /// Sources of the set that are left out, with what brings them in.
    pub left_out: Vec<String>,
    /// Over the live data.
    pub in_place: bool,
    /// Into another place.
    pub target: Option<String>,
    /// Seconds the last restore of this job took on this host, and when that was.
    pub took_before: Option<(f64, Timestamp)>,
}

/// One source of the plan.
#[derive(Clone, Debug, Serialize)]
pub struct SourcePlan {
    /// Its name in the set.
    pub name: String,
    /// `postgres`, `files` …
    pub kind: String,
    /// The instant the content stands for.
    pub as_of: Timestamp,
    /// What was written since then is lost: seconds from `as_of` to now.
    pub lost_seconds: i64,
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
    /// The set's manifest.
    pub manifest: Arc<Manifest>,
    /// What was said of it when it was made.
    pub details: Details,
    /// Requests and loaders, in order.
    pub work: Vec<Work>,
}

/// One source to load.
pub struct Work {
    /// Its kind, for later processes.
    pub kind: String,
    /// Folder of the set, with a slash at its end.
    pub prefix: String,
    /// What to load.
    pub request: LoadRequest,
    /// What loads it.
    pub loader: Arc<dyn Loader>,
}

/// Chooses the set and asks every loader. Changes nothing.
pub async fn plan(setup: &Setup, log: &JobLog, loaders: &dyn Loaders, options: &RestoreOptions, restore: &str) -> Result<Prepared> {
    let now = setup.clock.now();
    let entry = choose::set(log, &options.wanted, None, now, &options.zone)?;
    refuse_partial(entry, options)?;
    let manifest = entry.manifest.clone();
    if let Some(failure) = entry.failure() {
        return Err(Error::new(
            Kind::Verify,
            format!("{} failed its last verification: {}", manifest.set, failure.proof.findings.join("; ")),
        )
        .hint(format!("choose another set (drctl list), or read what is left of it: drctl show {} --rescue", manifest.set)));
    }
    setup.bus.step(format!("reading the details of {}", manifest.set));
    let details = Details::read(setup, &setup.sinks[0].store, &manifest).await?;

    let (chosen, left_out) = sources(&manifest, options)?;
    let (mut work, mut sources) = (Vec::new(), Vec::new());
    for name in chosen {
        let Some(source) = manifest.source(&name) else { continue };
        let loader = loaders.loader(&source.name, &source.kind)?;
        let request = request(&manifest, &details, source, options, restore)?;
        let load = loader.plan(&request, &setup.context(restore)).await?;
        sources.push(SourcePlan {
            name: source.name.clone(),
            kind: source.kind.clone(),
            as_of: source.as_of,
            lost_seconds: now.since((Unit::Second, source.as_of)).map_or(0, |span| span.get_seconds()).max(0),
            artifacts: request.artifacts.iter().map(|a| a.name.clone()).collect(),
            plain_bytes: request.artifacts.iter().map(|a| a.artifact.plain_bytes).sum(),
            load,
        });
        work.push(Work { kind: source.kind.clone(), prefix: manifest.set.prefix(), request, loader });
    }
    let proof = entry.grade(false).map(|grade| {
        let proven = entry.proofs.iter().rev().find(|p| p.proof.passed && p.proof.grade == grade).map(|p| p.proof.finished_at);
        (grade, proven.unwrap_or(manifest.finished_at))
    });
    let plan = RestorePlan {
        restore: restore.to_owned(),
        set: manifest.set.clone(),
        state: manifest.state.name().to_owned(),
        chosen: chosen_how(options),
        proof,
        now,
        sources,
        left_out,
        in_place: options.in_place,
        target: options.target.clone(),
        took_before: super::run::took_before(setup, manifest.set.job()),
    };
    Ok(Prepared { plan, manifest, details, work })
}

fn chosen_how(options: &RestoreOptions) -> String {
    match &options.wanted {
        choose::Wanted::Set(_) => "asked for by its id".to_owned(),
        choose::Wanted::Date(text) if text == "latest" => "newest good set".to_owned(),
        choose::Wanted::Date(text) => format!("last good set for {text} ({})", options.zone_name),
    }
}

/// A partial set only by its id, or with sources that are whole in it (FORMAT, Keys).
fn refuse_partial(entry: &SetEntry, options: &RestoreOptions) -> Result<()> {
    let broken: Vec<&str> = entry
        .manifest
        .sources
        .iter()
        .filter(|s| !s.problems.is_empty() && options.sources.contains(&s.name))
        .map(|s| s.name.as_str())
        .collect();
    if broken.is_empty() || matches!(options.wanted, choose::Wanted::Set(_)) {
        return Ok(());
    }
    Err(Error::new(Kind::NoSuchSet, format!("{} is not whole in {}", broken.join(", "), entry.id()))
        .hint(format!("to restore what is there, name the set itself: drctl restore {}", entry.id())))
}

/// Names of the sources to restore, and what is said of the others.
fn sources(manifest: &Manifest, options: &RestoreOptions) -> Result<(Vec<String>, Vec<String>)> {
    for name in &options.sources {
        if manifest.source(name).is_none() {
            let known: Vec<&str> = manifest.sources.iter().map(|s| s.name.as_str()).collect();
            return Err(Error::new(Kind::NoSuchSet, format!("{} has no source '{name}'", manifest.set))
                .hint(format!("its sources are: {}", known.join(", "))));
        }
    }
    let wanted = |name: &str, kind: &str| {
        if options.sources.is_empty() { DATA_KINDS.contains(&kind) } else { options.sources.iter().any(|s| s == name) }
    };
    let (mut chosen, mut left_out) = (Vec::new(), Vec::new());
    for source in &manifest.sources {
        let whole = manifest.artifacts.iter().any(|a| a.source == source.name);
        if source.kind == OWN_SOURCE && !wanted(&source.name, &source.kind) {
            // drctl's own configuration: nobody asks for it in a restore, and drctl cat shows it.
        } else if wanted(&source.name, &source.kind) && whole {
            chosen.push(source.name.clone());
        } else if !whole {
            left_out.push(format!("{}: nothing of it is in this set", source.name));
        } else {
            left_out.push(format!("{}: --source {}", source.name, source.name));
        }
    }
    if chosen.is_empty() {
        return Err(Error::new(Kind::NoSuchSet, format!("{} holds no database and no files", manifest.set))
            .hint(format!("name what to restore: {}", left_out.join(", "))));
    }
    // Databases before files: these are quick to exchange once those are ready.
    chosen.sort_by_key(|name| manifest.source(name).is_some_and(|s| s.kind == "files"));
    Ok((chosen, left_out))
}

fn request(
    manifest: &Manifest,
    details: &Details,
    source: &crate::model::manifest::SourceEntry,
    options: &RestoreOptions,
    restore: &str,
) -> Result<LoadRequest> {
    let known = details.source(&source.name);
    let mut artifacts = Vec::new();
    for artifact in manifest.artifacts.iter().filter(|a| a.source == source.name) {
        let detail = details
            .artifact(&artifact.file)
            .ok_or_else(|| Error::corrupt(format!("the details of {} say nothing of {}", manifest.set, artifact.file)))?;
        artifacts.push(LoadArtifact { artifact: artifact.clone(), name: detail.name.clone(), facts: detail.facts.clone() });
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
        target: options.target.clone(),
    })
}

impl RestorePlan {
    /// Every reason why it cannot work.
    pub fn refusals(&self) -> impl Iterator<Item = &String> {
        self.sources.iter().flat_map(|s| &s.load.refusals)
    }
}
