//! Which sets are kept, and why: a pure function of what the log says, the policy and now (DESIGN §9).
//!
//! It only ever says what *may* go; [`crate::ops::prune`] deletes. In the order of the code:
//!
//! 1. a set whose date cannot be believed, or of a day with more sets than the schedule explains, takes no place and counts for nothing
//!    ([`dates`]);
//! 2. the keep rules choose among the good sets ([`slots`]), once among all of them and once among the proven ones, so that no unproven set
//!    takes a proven one's place;
//! 3. the floor keeps the newest proven sets of each source, whatever the rules say ([`floor`]);
//! 4. a chain is kept whole as soon as one of its sets is;
//! 5. what is left may go only if newer proven sets of each of its sources stay, and nothing speaks against freeing anything of its group now.

mod dates;
mod floor;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::catalog::{SetEntry, State};
use crate::config::typed::Retention;
use crate::model::manifest::SourceEntry;
use crate::model::record::Grade;
use crate::model::{SetClass, SetId, SetState};
use crate::ops::backup::OWN_SOURCE;
use crate::ops::words;

/// A set that nobody counts on is looked at by people for so long before it may go.
const BAD_SETS_STAY: Duration = Duration::from_secs(7 * 24 * 3600);
/// The only way back from a restore that loaded over the live data stays until somebody must have missed what it lost.
const SAFETY_SETS_STAY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Whether a set is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// It is.
    Complete,
    /// Something is missing.
    Partial,
    /// Whole, but not like its predecessors.
    Suspect,
}

/// A live set as retention sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The set.
    pub set: SetId,
    /// Number of its commit: the order of sets, which no clock can upset.
    pub number: u64,
    /// When that record was written, by the writer's clock.
    pub committed_at: Timestamp,
    /// The set its chain begins with.
    pub chain: SetId,
    /// Its group of sources.
    pub group: String,
    /// What it was made for.
    pub class: SetClass,
    /// Whether it is whole.
    pub whole: Whole,
    /// How far it is proven; `None` when a failed proof stands against it.
    pub grade: Option<Grade>,
    /// The sources that are whole in it.
    pub sources: Vec<String>,
    /// Bytes it takes in each store.
    pub stored_bytes: u64,
    /// Until when it is pinned (server date).
    pub pinned_until: Option<Timestamp>,
    /// Until when somebody reads it (server date).
    pub held_until: Option<Timestamp>,
}

/// The live sets of a log. With `provers_only` (sealed repositories) a writer's own proof raises no grade (FORMAT rule 15).
pub fn candidates(state: &State, provers_only: bool) -> Vec<Candidate> {
    let of = |entry: &SetEntry| {
        let manifest = &entry.manifest;
        let own = |source: &&SourceEntry| source.kind != OWN_SOURCE && source.problems.is_empty();
        Candidate {
            set: manifest.set.clone(),
            number: entry.number,
            committed_at: entry.at,
            chain: manifest.chain.clone(),
            group: manifest.group.clone(),
            class: manifest.class,
            whole: match manifest.state {
                SetState::Complete => Whole::Complete,
                SetState::Partial { .. } => Whole::Partial,
                SetState::Suspect { .. } => Whole::Suspect,
            },
            grade: entry.grade(provers_only),
            sources: manifest.sources.iter().filter(own).map(|source| source.name.clone()).collect(),
            stored_bytes: manifest.stored_bytes(),
            pinned_until: entry.pin.as_ref().map(|pin| pin.until),
            held_until: entry.holds.values().max().copied(),
        }
    };
    state.live().map(of).collect()
}

impl Candidate {
    /// Complete, and no failed proof stands against it.
    fn is_good(&self) -> bool {
        self.whole == Whole::Complete && self.grade.is_some() && !self.is_safety()
    }

    /// What was live before a restore loaded over it: it takes no place, and stops nothing.
    fn is_safety(&self) -> bool {
        self.class == SetClass::Safety
    }

    /// Good, and read back at least.
    fn is_proven(&self) -> bool {
        self.is_good() && self.grade >= Some(Grade::ReadBack)
    }
}

/// What is asked of one group.
#[derive(Clone, Debug)]
pub struct Policy<'a> {
    /// The keep rules; `None` keeps every set.
    pub retention: Option<&'a Retention>,
    /// The zone in which hours, days, weeks, months and years are meant.
    pub zone: &'a TimeZone,
    /// Sets a day that the schedule explains; `None` where nothing is scheduled.
    pub per_day: Option<u32>,
    /// Time between two scheduled sets.
    pub interval: Option<Duration>,
    /// Why nothing of the group may go now, known from elsewhere: its last run failed, say.
    pub stopped: Option<String>,
    /// A person has looked at the days with more sets than the schedule explains: they count like others.
    pub accept_surplus: bool,
    /// The newest date in the log that a person has found to be a clock's mistake: sets dated up to it are odd, and stop nothing.
    pub confirmed: Option<Timestamp>,
    /// The sources that the job has now: a set that holds another one stays. `None`: every source is one of them.
    pub sources: Option<&'a BTreeSet<String>>,
}

/// What becomes of one set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The set.
    pub set: SetId,
    /// The set its chain begins with.
    pub chain: SetId,
    /// Its group.
    pub group: String,
    /// Bytes it takes in each store.
    pub stored_bytes: u64,
    /// Whether it stays.
    pub keep: bool,
    /// Why it stays, or why it may go.
    pub reasons: Vec<String>,
}

/// What is to become of every set of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// One entry a set, oldest first by the log.
    pub sets: Vec<Decision>,
    /// Groups of which nothing may go now, each with why.
    pub stopped: BTreeMap<String, Vec<String>>,
}

impl Plan {
    /// The chains that may go, oldest first, each with the reason of its full set.
    pub fn doomed(&self) -> Vec<(&SetId, &str)> {
        let mut seen = BTreeSet::new();
        let gone = self.sets.iter().filter(|set| !set.keep && seen.insert(&set.chain));
        gone.map(|set| (&set.chain, set.reasons.first().map_or("no rule keeps it", String::as_str))).collect()
    }

    /// How many sets may go, and the bytes they take in each store.
    pub fn freed(&self) -> (usize, u64) {
        let gone = self.sets.iter().filter(|set| !set.keep);
        gone.fold((0, 0), |(sets, bytes), set| (sets + 1, bytes + set.stored_bytes))
    }
}

/// One group while it is planned: its sets in the log's order, and why each stays.
pub(crate) struct Group<'a> {
    name: &'a str,
    policy: Policy<'a>,
    sets: Vec<&'a Candidate>,
    /// When each set was made, as far as that can be believed.
    dates: Vec<Timestamp>,
    /// The same in the group's zone.
    civil: Vec<DateTime>,
    /// Why a set's date or day cannot be believed: it takes no place and counts for nothing.
    odd: Vec<Option<String>>,
    /// Why each set stays; empty while nothing keeps it.
    kept: Vec<Vec<String>>,
}

/// What stays and what may go. The order of `candidates` is of no matter. `policy` says what is asked of a group; `None` for a group that the
/// configuration does not have any more, whose sets stay.
pub fn plan<'p>(candidates: &[Candidate], policy: impl Fn(&str) -> Option<Policy<'p>>, now: Timestamp) -> Plan {
    let mut by_group: BTreeMap<&str, Vec<&Candidate>> = BTreeMap::new();
    let mut ordered: Vec<&Candidate> = candidates.iter().collect();
    ordered.sort_by_key(|candidate| candidate.number);
    for candidate in &ordered {
        by_group.entry(&candidate.group).or_default().push(candidate);
    }
    let mut reasons: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut stopped: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut free = Vec::new();
    for (name, sets) in by_group {
        let Some(policy) = policy(name) else {
            let why = "the configuration no longer has its group: nothing of it is freed (drctl prune --abandoned)".to_owned();
            reasons.extend(sets.iter().map(|set| (set.number, vec![why.clone()])));
            continue;
        };
        if policy.retention.is_none() {
            reasons.extend(sets.iter().map(|set| (set.number, vec!["no retention is configured: every set stays".to_owned()])));
            continue;
        }
        let group = Group::judged(name, policy, sets, now);
        let stops = group.stops(now);
        if !stops.is_empty() {
            stopped.insert(name.to_owned(), stops);
        }
        free.push(group);
    }
    // Sources may move between groups: the floor looks at all of them.
    floor::keep(&mut free);
    for group in &mut free {
        group.keep_odd();
    }
    let mut groups = free;
    for group in &mut groups {
        group.keep_chains();
    }
    let guard = floor::Guard::of(&groups);
    for group in &mut groups {
        match stopped.get(group.name) {
            Some(why) => group.keep_rest(|_, _| Some(format!("nothing of its group is freed now: {}", why.join("; ")))),
            None => group.keep_rest(|group, at| guard.needs(group, at)),
        }
        // A set that must stay keeps its chain.
        group.keep_chains();
    }
    for group in groups {
        reasons.extend(group.sets.iter().map(|set| set.number).zip(group.kept));
    }
    let sets = ordered.into_iter().map(|candidate| {
        let why = reasons.remove(&candidate.number).unwrap_or_default();
        let keep = !why.is_empty();
        Decision {
            set: candidate.set.clone(),
            chain: candidate.chain.clone(),
            group: candidate.group.clone(),
            stored_bytes: candidate.stored_bytes,
            keep,
            reasons: if keep { why } else { vec![no_rule(candidate)] },
        }
    });
    Plan { sets: sets.collect(), stopped }
}

/// What becomes of the sets of groups that a person gave up, for nothing makes them any more: all go, but for pins and holds.
pub fn abandon(plan: &mut Plan, candidates: &[Candidate], is_given_up: impl Fn(&str) -> bool, now: Timestamp) {
    let bound = |set: &Candidate| set.pinned_until.into_iter().chain(set.held_until).any(|until| until > now);
    let kept: BTreeSet<&SetId> = candidates.iter().filter(|set| bound(set)).map(|set| &set.chain).collect();
    for set in plan.sets.iter_mut().filter(|set| is_given_up(&set.group)) {
        set.keep = kept.contains(&set.chain);
        set.reasons = vec![
            if set.keep { "pinned, or somebody is reading it" } else { "given up: the configuration no longer has its group" }.to_owned(),
        ];
    }
}

fn no_rule(candidate: &Candidate) -> String {
    match (candidate.whole, candidate.grade) {
        (Whole::Partial, _) => "partial, and newer proven sets hold its sources".to_owned(),
        (Whole::Suspect, _) => "suspect, and newer proven sets hold its sources".to_owned(),
        (_, None) => "its last verification failed, and newer proven sets hold its sources".to_owned(),
        _ => "no rule keeps it".to_owned(),
    }
}

impl<'a> Group<'a> {
    /// The group with what the rules, pins, holds and oddities say of each of its sets.
    fn judged(name: &'a str, policy: Policy<'a>, sets: Vec<&'a Candidate>, now: Timestamp) -> Self {
        let (dates, odd) = dates::judge(&sets, &policy, now);
        let kept = vec![Vec::new(); sets.len()];
        let civil = dates.iter().map(|at| at.to_zoned(policy.zone.clone()).datetime()).collect();
        let mut group = Group { name, policy, sets, dates, civil, odd, kept };
        group.keep_bound(now);
        slots::keep(&mut group, now);
        group.keep_bad(now);
        group
    }

    fn keep_because(&mut self, at: usize, why: String) {
        if !self.kept[at].contains(&why) {
            self.kept[at].push(why);
        }
    }

    /// Pins and holds, and what the configuration no longer makes.
    fn keep_bound(&mut self, now: Timestamp) {
        for at in 0..self.sets.len() {
            let set = self.sets[at];
            let gone = |source: &&String| self.policy.sources.is_some_and(|known| !known.contains(*source));
            if let Some(source) = set.sources.iter().find(gone) {
                self.keep_because(at, format!("it holds {source}, which the configuration no longer has (drctl prune --abandoned)"));
            }
            if let Some(until) = set.pinned_until.filter(|until| *until > now) {
                self.keep_because(at, format!("pinned until {}", words::when(until, self.policy.zone)));
            }
            if set.held_until.is_some_and(|until| until > now) {
                self.keep_because(at, "somebody is reading it".to_owned());
            }
        }
    }

    /// What is not good stays for a while, for people to look at.
    fn keep_bad(&mut self, now: Timestamp) {
        for at in 0..self.sets.len() {
            let age = now.duration_since(self.dates[at]).unsigned_abs();
            if self.sets[at].is_safety() {
                if age < SAFETY_SETS_STAY {
                    self.keep_because(at, "the safety set of a restore, and younger than 30 days".to_owned());
                }
            } else if !self.sets[at].is_good() && age < BAD_SETS_STAY {
                self.keep_because(at, "not good, and younger than 7 days: for people to look at".to_owned());
            }
        }
    }

    /// A set whose date or day is odd stays as long as something older does.
    fn keep_odd(&mut self) {
        let oldest = self.kept.iter().position(|kept| !kept.is_empty());
        for at in 0..self.sets.len() {
            let Some(why) = self.odd[at].clone() else { continue };
            if oldest.is_some_and(|oldest| oldest <= at) || oldest.is_none() {
                self.keep_because(at, why);
            }
        }
    }

    /// A chain stays whole.
    fn keep_chains(&mut self) {
        let kept: BTreeMap<&SetId, &SetId> =
            (self.sets.iter().zip(&self.kept)).filter(|(_, kept)| !kept.is_empty()).map(|(set, _)| (&set.chain, &set.set)).collect();
        for at in 0..self.sets.len() {
            let set = self.sets[at];
            if self.kept[at].is_empty()
                && let Some(because) = kept.get(&set.chain)
            {
                self.kept[at].push(format!("its chain is kept for {because}"));
            }
        }
    }

    /// What nothing kept so far, if `why` gives a reason.
    fn keep_rest(&mut self, why: impl Fn(&Group<'_>, usize) -> Option<String>) {
        for at in 0..self.sets.len() {
            if self.kept[at].is_empty()
                && let Some(why) = why(self, at)
            {
                self.kept[at].push(why);
            }
        }
    }

    /// Why nothing of the group may go now. A failed, partial or suspect run frees nothing, nor does one that did not happen.
    fn stops(&self, now: Timestamp) -> Vec<String> {
        let mut why: Vec<String> = self.policy.stopped.iter().cloned().collect();
        // What is odd must not make up for what failed.
        let newest_good = (0..self.sets.len()).rev().find(|at| self.sets[*at].is_good() && self.odd[*at].is_none());
        let since = newest_good.map_or(0, |at| at + 1);
        if let Some(newest) = self.sets[since..].iter().rev().find(|set| !set.is_good() && !set.is_safety()) {
            let what = match newest.whole {
                Whole::Partial => "is partial",
                Whole::Suspect => "is suspect",
                Whole::Complete => "failed its verification",
            };
            why.push(format!("its newest set {} {what}", newest.set));
        }
        if let (Some(at), Some(interval)) = (newest_good, self.policy.interval) {
            /// A backup that is this late is a backup that does not run.
            const LEAST: Duration = Duration::from_secs(24 * 3600);
            let age = now.duration_since(self.dates[at]).unsigned_abs();
            if age > LEAST.max(interval.saturating_mul(2)) {
                why.push(format!("its newest good set is {} old, twice as old as the schedule allows", words::span(age)));
            }
        }
        let known = |set: &Candidate| self.policy.confirmed.is_some_and(|confirmed| set.committed_at <= confirmed);
        if let Some(ahead) = self.sets.iter().find(|set| dates::is_ahead(set, now) && !known(set)) {
            why.push(format!("{} is dated in the future: a clock is or was wrong (drctl prune --apply --confirm-clock)", ahead.set));
        }
        why
    }
}
