//! Jobs: name, zone, schedule, retention, stores, sources.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde_json::Value;

use super::notify::{Names, notify};
use super::source::{later_source, source};
use super::{LATER, Scope, items, running};
use crate::config::problem::{shorten, suggestion};
use crate::config::raw::{RawDefaults, RawJob, RawObjectives, RawRetention, RawSchedule};
use crate::config::running::Limits;
use crate::config::typed::{Job, LaterSource, MAIN_GROUP, Objectives, Repository, Retention, Schedule, SourceConfig, StorePlace};
use crate::config::values::{self, CronSchedule, time_zone};
use crate::model::JobName;

/// What jobs share.
pub struct Context<'a> {
    /// Settings of jobs without their own.
    pub defaults: Defaults,
    /// Names of the stores, and whether each is optional.
    pub stores: Vec<(String, bool)>,
    /// The repository, when nothing is wrong with it.
    pub repository: Option<&'a Repository>,
    /// Names of notifiers given so far.
    pub notifiers: &'a Names,
}

/// Settings of jobs without their own.
#[derive(Default)]
pub struct Defaults {
    timezone: Option<TimeZone>,
    schedule: Option<Schedule>,
    retention: Option<Retention>,
    objectives: Option<Objectives>,
    limits: Limits,
}

/// Reads `defaults`.
pub fn defaults(scope: &Scope<'_>, raw: &RawDefaults) -> Defaults {
    Defaults {
        timezone: raw.timezone.as_ref().and_then(|name| scope.key("timezone").take(time_zone(name))),
        schedule: raw.schedule.as_ref().map(|raw| schedule(&scope.key("schedule"), raw)),
        retention: raw.retention.as_ref().and_then(|raw| retention(&scope.key("retention"), raw)),
        objectives: raw.objectives.as_ref().map(|raw| objectives(&scope.key("objectives"), raw)),
        limits: raw.limits.as_ref().map(|raw| running::limits(&scope.key("limits"), raw, Limits::default())).unwrap_or_default(),
    }
}

/// One job, or `None` when a finding stands in the way.
pub fn job(scope: &Scope<'_>, raw: &RawJob, context: &Context<'_>) -> Option<Job> {
    let name = raw.job.as_ref().and_then(|name| scope.key("job").take(name.parse::<JobName>().map_err(|e| e.to_string())));
    let timezone = match &raw.timezone {
        Some(name) => scope.key("timezone").take(time_zone(name)),
        None => Some(context.defaults.timezone.clone().unwrap_or_else(system_zone)),
    };
    let found = sources(&scope.key("sources"), raw, context);
    let stores = stores(&scope.key("stores"), raw, context);
    let own_schedule = raw.schedule.as_ref().map(|raw| schedule(&scope.key("schedule"), raw));
    let own_retention = raw.retention.as_ref().map(|raw| retention(&scope.key("retention"), raw));
    let own_objectives = raw.objectives.as_ref().map(|raw| objectives(&scope.key("objectives"), raw));
    let notify = notify(&scope.key("notify"), &raw.notify, raw.job.as_deref(), context.notifiers);
    let base = context.defaults.limits;
    let limits = raw.limits.as_ref().map_or(base, |raw| running::limits(&scope.key("limits"), raw, base));
    let hooks = raw.hooks.as_ref().map(|raw| running::hooks(&scope.key("hooks"), raw)).unwrap_or_default();
    let (sources, later_sources) = found?;
    Some(Job {
        name: name?,
        timezone: timezone?,
        sources,
        later_sources,
        stores: stores?,
        schedule: own_schedule.or_else(|| context.defaults.schedule.clone()).unwrap_or_default(),
        retention: match own_retention {
            Some(own) => Some(own?),
            None => context.defaults.retention.clone(),
        },
        objectives: own_objectives.or_else(|| context.defaults.objectives.clone()).unwrap_or_default(),
        limits,
        hooks,
        notify,
    })
}

/// The machine's zone; UTC where it has none that is known by name.
fn system_zone() -> TimeZone {
    TimeZone::try_system().ok().filter(|zone| zone.iana_name().is_some()).unwrap_or(TimeZone::UTC)
}

fn sources(scope: &Scope<'_>, raw: &RawJob, context: &Context<'_>) -> Option<(Vec<SourceConfig>, Vec<LaterSource>)> {
    let (mut all, mut later): (Vec<SourceConfig>, Vec<LaterSource>) = Default::default();
    let mut whole = true;
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (i, raw) in items(&raw.sources) {
        let scope = scope.index(i);
        if let Some(raw) = &raw.later {
            let found = later_source(&scope.key("later"), raw);
            whole &= found.is_some();
            later.extend(found);
            continue;
        }
        let Some((kind_scope, name, made)) = source(&scope, raw) else {
            whole = false;
            continue;
        };
        match seen.get(&name) {
            Some(first) => kind_scope.error(format!(
                "'{}' names two sources of this job, first at {first}; give this one a name of its own (name: …)",
                shorten(&name)
            )),
            None => {
                seen.insert(name, kind_scope.place());
            }
        }
        let Some(made) = made else {
            whole = false;
            continue;
        };
        source_in_job(&kind_scope, &made, context);
        all.push(made);
    }
    if whole && all.is_empty() && !later.is_empty() {
        scope.error("every source is marked 'later:', so nothing would be backed up");
    }
    (whole && !all.is_empty()).then_some((all, later))
}

/// What can only be said of a source together with its job and repository.
fn source_in_job(scope: &Scope<'_>, source: &SourceConfig, context: &Context<'_>) {
    if source.schedule.is_some() && source.name == MAIN_GROUP {
        scope.error(format!("a source with a schedule of its own cannot be named '{MAIN_GROUP}': that is the group of all others"));
    }
    if source.retention.is_some() && source.schedule.is_none() {
        scope.key("retention").error("needs a schedule of the source's own: without one it shares its sets with the other sources");
    }
    let Some(repository) = context.repository else { return };
    if !repository.encrypt && source.kind.secret() && !source.allow_plaintext {
        scope.error(format!(
            "{} holds secrets and repository.encryption is 'none'; encrypt, or write allow_plaintext: true here",
            source.kind.name()
        ));
    }
    if let crate::config::typed::SourceKind::Files(files) = &source.kind {
        for store in &repository.stores {
            let StorePlace::Local { path: store_path } = &store.place else { continue };
            for (i, path) in files.paths.iter().enumerate() {
                if super::source::backs_up(files, path, store_path) {
                    scope.key("paths").index(i).error(format!(
                        "the store '{}' ({}) lies inside, so every backup would back up the backups; move the store, or exclude it (exclude: [\"{1}\"])",
                        store.name,
                        store_path.display()
                    ));
                }
            }
        }
    }
}

fn stores(scope: &Scope<'_>, raw: &RawJob, context: &Context<'_>) -> Option<Vec<String>> {
    if raw.stores.is_none() {
        return Some(context.stores.iter().map(|(name, _)| name.clone()).collect());
    }
    let known: Vec<&str> = context.stores.iter().map(|(name, _)| name.as_str()).collect();
    let mut named: Vec<String> = Vec::new();
    let mut whole = true;
    for (i, name) in items(&raw.stores) {
        let scope = scope.index(i);
        match context.stores.iter().find(|(known, _)| known == name) {
            _ if named.contains(name) => scope.error(format!("'{}' stands twice", shorten(name))),
            // Every log of the repository lies in its first store; adopting another one is a step of its own.
            Some(_) if named.is_empty() && known.first() != Some(&name.as_str()) => {
                scope.error(format!("a job's log lies in the repository's first store: name '{}' first", known[0]));
            }
            Some(_) => named.push(name.clone()),
            // When no store is known, that has been told.
            None if known.is_empty() => {}
            None => scope.error(format!("no store is named '{}'{}", shorten(name), suggestion(name, &known))),
        }
        whole &= named.last() == Some(name);
    }
    (whole && !named.is_empty()).then_some(named)
}

/// A schedule; entries that cannot be read are told and left out.
pub fn schedule(scope: &Scope<'_>, raw: &RawSchedule) -> Schedule {
    let cron = |key: &str, text: &Option<String>| scope.key(key).take(CronSchedule::parse(text.as_ref()?));
    let made = Schedule {
        full: cron("full", &raw.full),
        incremental: cron("incremental", &raw.incremental),
        archive: cron("archive", &raw.archive),
        verify: cron("verify", &raw.verify),
        drill: cron("drill", &raw.drill),
        prune: cron("prune", &raw.prune),
        jitter: scope.duration("jitter", raw.jitter.as_ref()).unwrap_or_default(),
        catch_up: scope.duration("catch_up", raw.catch_up.as_ref()).unwrap_or(Schedule::CATCH_UP),
    };
    if made.incremental.is_some() {
        scope.key("incremental").warn("incremental sets do not exist yet: each of these runs makes a full set");
    }
    if made.drill.is_some() {
        scope.key("drill").warn(format!("drills are {LATER}"));
    }
    made
}

/// Retention; one that keeps nothing is a finding.
pub fn retention(scope: &Scope<'_>, raw: &RawRetention) -> Option<Retention> {
    let keep_within = match &raw.keep_within {
        Some(text) => Some(scope.long_duration("keep_within", Some(text))?),
        None => None,
    };
    let count = |n: Option<u32>| n.unwrap_or(0);
    let made = Retention {
        keep_last: count(raw.keep_last),
        keep_within,
        keep_hourly: count(raw.keep_hourly),
        keep_daily: count(raw.keep_daily),
        keep_weekly: count(raw.keep_weekly),
        keep_monthly: count(raw.keep_monthly),
        keep_yearly: count(raw.keep_yearly),
        keep_min_verified: raw.keep_min_verified.unwrap_or(1),
    };
    let rules = [made.keep_last, made.keep_hourly, made.keep_daily, made.keep_weekly, made.keep_monthly, made.keep_yearly];
    if made.keep_within.is_none() && rules.iter().all(|n| *n == 0) {
        // A rule that the schema refused was meant to keep something.
        let tried = scope.root.at(&scope.path).is_some_and(|node| {
            ["keep_last", "keep_within", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly"]
                .iter()
                .any(|key| node.get(key).is_some_and(|e| e.node.to_json() != serde_json::json!(0)))
        });
        if !tried {
            scope.error("keeps nothing; set keep_within, keep_last or another rule, or leave retention out to keep every set");
        }
        return None;
    }
    Some(made)
}

fn objectives(scope: &Scope<'_>, raw: &RawObjectives) -> Objectives {
    Objectives {
        rpo: scope.duration("rpo", raw.rpo.as_ref()),
        rto: scope.duration("rto", raw.rto.as_ref()),
        spread: scope.duration("spread", raw.spread.as_ref()),
        max_duration: scope.duration("max_duration", raw.max_duration.as_ref()).unwrap_or(Objectives::MAX_DURATION),
        verified_within: scope.long_duration("verified_within", raw.verified_within.as_ref()),
        drilled_within: scope.long_duration("drilled_within", raw.drilled_within.as_ref()),
        max_total_size: raw.max_total_size.as_ref().and_then(|text| scope.key("max_total_size").take(values::size(text))),
    }
}

/// Text becomes `***` unless it says where a secret is fetched from.
pub fn masked(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(masked).collect()),
        Value::Object(map) => {
            let reference = map.len() == 1 && map.keys().all(|k| matches!(k.as_str(), "env" | "file" | "cred"));
            map.iter().map(|(key, v)| (key.clone(), if reference { v.clone() } else { masked(v) })).collect()
        }
        Value::String(_) => Value::String("***".to_owned()),
        other => other.clone(),
    }
}
