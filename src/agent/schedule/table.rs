//! What is due now.
//!
//! Each scheduled instant is handled at most once: [`Table::take`] gives the marks that the caller stores *before* the run begins, and gives
//! back at the next start. Of instants that were missed the latest counts. How long no tick came, and how far the clock jumped, costs nothing:
//! no missed instant is looked at one by one but the first two dozen, which are counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Entry, next_after};
use crate::model::{JobName, Sha256};
use crate::state::ScheduleMark;

/// A clock that goes back by more than this was set, and its instants count anew; by less, it was corrected, and nothing runs twice.
pub const CLOCK_STEP: SignedDuration = SignedDuration::from_hours(1);

/// Missed runs are counted up to so many.
pub const MISSED_COUNTED: u32 = 24;

const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// Something to run now, or to say that it will not be made up for.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    /// What.
    pub entry: Arc<Entry>,
    /// The latest scheduled instant that came; jitter is not in it.
    pub scheduled_at: Timestamp,
    /// Earlier instants that passed without a run; [`MISSED_COUNTED`] stands for that many or more.
    pub missed: u32,
    /// It should have begun longer ago than the entry catches up with: it is told of, taken, and not run.
    pub too_old: bool,
    /// Weaker backups of the same group whose instant came too, with their latest: this run stands for them, and taking it takes them.
    pub covers: Vec<(Arc<Entry>, Timestamp)>,
}

/// All entries with what was handled of them. Entries that this version never runs are not in it.
#[derive(Debug)]
pub struct Table {
    seed: String,
    rows: Vec<Row>,
    /// The latest time seen.
    seen: Timestamp,
    /// Nothing begins before this; `None`: not known.
    earliest: Option<Timestamp>,
    went_back: Option<SignedDuration>,
}

#[derive(Debug)]
struct Row {
    entry: Arc<Entry>,
    /// Every instant up to this one is done with.
    handled: Timestamp,
    next: Option<Next>,
}

/// The first instant that is not done with.
#[derive(Clone, Copy, Debug)]
struct Next {
    scheduled_at: Timestamp,
    start_at: Timestamp,
}

impl Table {
    /// A table at `now`. An entry without a mark, or whose mark is of another expression or zone, begins now: nothing before is due.
    /// `seed` is this host's own, so that hosts with the same configuration do not start at once: its name, or the machine's id.
    pub fn new(entries: Vec<Entry>, marks: &[ScheduleMark], now: Timestamp, seed: &str) -> Table {
        let mut table = Table { seed: seed.to_owned(), rows: Vec::new(), seen: now, earliest: None, went_back: None };
        let name = |mark: &'_ ScheduleMark| (mark.job.clone(), mark.group.clone(), mark.what.clone());
        let by_name: HashMap<_, _> = marks.iter().map(|mark| (name(mark), mark)).collect();
        for entry in entries.into_iter().filter(|entry| entry.what.is_run()) {
            let mark = by_name.get(&(entry.job.to_string(), entry.group.clone(), entry.what.name().to_owned()));
            let handled = mark.filter(|mark| mark.schedule == entry.schedule()).map_or(now, |mark| mark.handled);
            table.seen = table.seen.max(handled);
            table.rows.push(Row { entry: Arc::new(entry), handled, next: None });
        }
        table.look_at_clock(now);
        for row in &mut table.rows {
            row.next = row.first(&table.seed);
        }
        table
    }

    /// The table of a new configuration; what stayed as it was goes on as it was.
    pub fn reload(&mut self, entries: Vec<Entry>, now: Timestamp) {
        self.look_at_clock(now);
        let new = Table::new(entries, &self.marks(), now, &self.seed);
        *self = Table { seen: self.seen.max(new.seen), went_back: self.went_back.or(new.went_back), ..new };
    }

    /// Everything that the state file must know. To be stored once at the start and after [`Table::reload`], in place of what it knew: an
    /// entry that began now would otherwise begin anew at the next start, and lose what is missed until then.
    pub fn marks(&self) -> Vec<ScheduleMark> {
        self.rows.iter().map(Row::mark).collect()
    }

    /// By how much the clock was set back, once: instants that were handled by the old clock and lie ahead by the new one come again.
    /// [`Table::marks`] are to be stored then.
    pub fn clock_went_back(&mut self) -> Option<SignedDuration> {
        self.went_back.take()
    }

    /// When something will next be due, jitter included, if the clock runs on as it does.
    pub fn next_start(&mut self) -> Option<Timestamp> {
        if self.earliest.is_none() {
            self.earliest = self.rows.iter().filter_map(|row| Some(row.next?.start_at)).min();
        }
        self.earliest
    }

    /// What is due. The same is given again until it is taken.
    pub fn due(&mut self, now: Timestamp) -> Vec<Due> {
        if self.look_at_clock(now) {
            for row in &mut self.rows {
                row.next = row.first(&self.seed);
            }
            self.earliest = None;
        }
        if self.next_start().is_none_or(|earliest| now < earliest) {
            return Vec::new();
        }
        let due = self.rows.iter().filter_map(|row| row.due(now, &self.seed)).collect();
        strongest(due, &self.rows, now)
    }

    /// Counts a due run as handled, with all it covers, and gives the marks that must be stored before it begins.
    pub fn take(&mut self, due: &Due) -> Vec<ScheduleMark> {
        self.earliest = None;
        let mut marks = Vec::new();
        for (taken, up_to) in std::iter::once(&(due.entry.clone(), due.scheduled_at)).chain(&due.covers) {
            for row in self.rows.iter_mut().filter(|row| row.entry.is(taken.job.as_str(), &taken.group, taken.what.name())) {
                row.handled = row.handled.max(*up_to);
                row.next = row.first(&self.seed);
                marks.push(row.mark());
            }
        }
        marks
    }

    /// Takes note of the time. `true`: the clock was set back, and rows that are ahead of it were set back too.
    fn look_at_clock(&mut self, now: Timestamp) -> bool {
        let behind = self.seen.duration_since(now);
        if behind <= CLOCK_STEP {
            self.seen = self.seen.max(now);
            return false;
        }
        (self.seen, self.went_back) = (now, Some(behind));
        for row in &mut self.rows {
            row.handled = row.handled.min(now);
        }
        true
    }
}

/// Of backups of one group that are due only the strongest, which stands for the others. Those too old to run stand for nothing.
fn strongest(due: Vec<Due>, rows: &[Row], now: Timestamp) -> Vec<Due> {
    /// What came of one group.
    #[derive(Default)]
    struct Group<'a> {
        strongest: u8,
        came: Vec<(&'a Row, Timestamp)>,
    }
    let name = |entry: &'_ Entry| (entry.job.clone(), entry.group.clone());
    let mut groups: HashMap<(JobName, String), Group<'_>> = HashMap::new();
    for due in due.iter().filter(|due| !due.too_old) {
        let Some(strength) = due.entry.what.strength() else { continue };
        let group = groups.entry(name(&due.entry)).or_default();
        group.strongest = group.strongest.max(strength);
    }
    // One that only waits for its jitter came as well.
    for row in rows.iter().filter(|row| row.entry.what.strength().is_some()) {
        if let Some(next) = row.next.filter(|next| next.scheduled_at <= now)
            && let Some(group) = groups.get_mut(&name(&row.entry))
        {
            group.came.push((row, next.scheduled_at));
        }
    }
    let mut kept = Vec::new();
    for mut due in due {
        if let (Some(strength), Some(group)) = (due.entry.what.strength(), groups.get(&name(&due.entry))) {
            if strength < group.strongest {
                continue;
            }
            let weaker = group.came.iter().filter(|(row, _)| !due.too_old && row.entry.what.strength() < Some(strength));
            due.covers = weaker.map(|(row, first)| (row.entry.clone(), latest(&row.entry, *first, now))).collect();
        }
        kept.push(due);
    }
    kept
}

impl Row {
    fn mark(&self) -> ScheduleMark {
        let Entry { job, group, what, .. } = &*self.entry;
        let what = what.name().to_owned();
        ScheduleMark { job: job.to_string(), group: group.clone(), what, schedule: self.entry.schedule(), handled: self.handled }
    }

    fn first(&self, seed: &str) -> Option<Next> {
        let scheduled_at = next_after(&self.entry, self.handled)?;
        Some(Next { scheduled_at, start_at: start_at(&self.entry, scheduled_at, seed) })
    }

    fn due(&self, now: Timestamp, seed: &str) -> Option<Due> {
        let Next { scheduled_at: first, start_at: mut began } = self.next.filter(|next| next.start_at <= now)?;
        let mut scheduled_at = latest(&self.entry, first, now);
        if scheduled_at > first {
            began = start_at(&self.entry, scheduled_at, seed);
        }
        if began > now {
            // Its jitter is not over; that of the one before is, for it ends before the next instant.
            scheduled_at = latest(&self.entry, first, scheduled_at - SECOND);
            began = start_at(&self.entry, scheduled_at, seed);
        }
        let catch_up = SignedDuration::try_from(self.entry.catch_up).unwrap_or(SignedDuration::MAX);
        Some(Due {
            entry: self.entry.clone(),
            scheduled_at,
            missed: missed(&self.entry, first, scheduled_at),
            too_old: now.duration_since(began) > catch_up,
            covers: Vec::new(),
        })
    }
}

/// The latest scheduled instant up to `until`, where `first` is one and not after it. A search by halves: its cost does not grow with what
/// lies between.
fn latest(entry: &Entry, first: Timestamp, until: Timestamp) -> Timestamp {
    let come = |after: Timestamp| next_after(entry, after).filter(|next| *next <= until);
    // The usual case, and the whole of it.
    let Some(mut found) = come(first) else { return first };
    // Nothing comes in (none, until].
    let mut none = until.as_second();
    while found.as_second() < none {
        let middle = found.as_second() + (none - found.as_second()) / 2;
        match Timestamp::from_second(middle).ok().and_then(come) {
            Some(later) => found = later,
            None => none = middle,
        }
    }
    found
}

/// Instants from `first` on and before `last`, up to [`MISSED_COUNTED`].
fn missed(entry: &Entry, first: Timestamp, last: Timestamp) -> u32 {
    let (mut at, mut count) = (first, 0);
    while at < last && count < MISSED_COUNTED {
        count += 1;
        match next_after(entry, at) {
            Some(next) => at = next,
            None => break,
        }
    }
    count
}

/// When a scheduled instant begins: later by a part of the jitter that is always the same for it on this host, and the same for all backups of
/// a group, so that those of one instant stay together. Before the next instant in any case.
pub fn start_at(entry: &Entry, scheduled_at: Timestamp, seed: &str) -> Timestamp {
    let jitter = u64::try_from(entry.jitter.as_millis()).unwrap_or(u64::MAX);
    if jitter == 0 {
        return scheduled_at;
    }
    let class = if entry.what.strength().is_some() { "backup" } else { entry.what.name() };
    let text = format!("{seed}\0{}\0{}\0{class}\0{}", entry.job, entry.group, scheduled_at.as_second());
    let hash = Sha256::of(text.as_bytes());
    let part = hash.0.iter().take(8).fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let mut delay = part % jitter;
    if let Some(next) = next_after(entry, scheduled_at) {
        delay %= u64::try_from(next.duration_since(scheduled_at).as_millis()).unwrap_or(u64::MAX).max(1);
    }
    scheduled_at.checked_add(Duration::from_millis(delay)).unwrap_or(scheduled_at)
}
