//! Who is told of an incident, and when. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::Success;
use crate::model::Severity;
use crate::notify::{Message, What};
use crate::state::{Incident, Told};

/// Updates in a thread.
const UPDATE: Duration = Duration::from_secs(15 * 60);
/// A reminder of what is still open.
const REMIND: Duration = Duration::from_secs(24 * 3600);
/// First pause after a delivery that failed; it doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// How often a way may speak of one incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It has threads: the opening, updates every 15 minutes at most, a reminder each day, the end.
    Thread,
    /// It has none: the opening, a reminder each day, the end.
    Single,
    /// It hears of runs.
    Runs,
}

/// What one notifier wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Nothing milder.
    pub least: Severity,
    /// Good runs.
    pub success: Success,
    /// How often it may speak.
    pub pace: Pace,
}

/// What is to be told of an incident now; `None`: nothing.
pub fn incident(incident: &Incident, told: Option<&Told>, wants: Wants, now: Timestamp) -> Option<What> {
    let Some(told) = told else {
        // One that began and ended unheard stays so.
        let open = incident.recovered_at.is_none() && incident.severity >= wants.least;
        return open.then_some(What::IncidentOpened);
    };
    if wants.pace == Pace::Runs {
        // The next good run tells it the rest.
        return None;
    }
    if incident.recovered_at.is_some() {
        return (!told.closed).then_some(What::IncidentRecovered);
    }
    // Worse than it was said to be: at once.
    if incident.severity > told.severity {
        return Some(What::IncidentOpen);
    }
    // A clock that went back must not silence anything.
    let since = |pause: Duration| match Duration::try_from(now.duration_since(told.told_at)) {
        Ok(elapsed) => elapsed >= pause,
        Err(_) => true,
    };
    let news = incident.times > told.times;
    let due = since(REMIND) || (wants.pace == Pace::Thread && news && since(UPDATE));
    due.then_some(What::IncidentOpen)
}

/// Whether a message that belongs to no incident is for this one.
pub fn wanted(message: &Message, wants: Wants) -> bool {
    match message.what {
        What::RunStarted => wants.pace == Pace::Runs,
        // A failed run is an incident, and told as one.
        What::RunReport => wants.pace == Pace::Runs || (message.is_good_run() && wants.success == Success::Each),
        What::Done => {
            let heeded = message.severity > Severity::Info && message.severity >= wants.least;
            wants.pace != Pace::Runs && (heeded || wants.success == Success::Each)
        }
        What::Test | What::Digest => true,
        What::IncidentOpened | What::IncidentOpen | What::IncidentRecovered => message.severity >= wants.least,
    }
}

/// The pause after so many failed deliveries, and what the receiver asked for.
pub fn pause(attempts: u32, asked: Option<Duration>) -> Duration {
    let grown = PAUSE.saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1))).min(LONGEST_PAUSE);
    grown.max(asked.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_735_700_000 + minutes * 60).unwrap()
    }

    fn seen(times: u64, severity: Severity, over: bool) -> Incident {
        Incident {
            id: 1,
            key: "k".into(),
            severity,
            job: None,
            opened_at: at(0),
            raised_at: at(0),
            times,
            message: String::new(),
            recovered_at: over.then(|| at(0)),
            closing: None,
        }
    }

    #[test]
    fn f63_an_incident_is_told_when_it_begins_now_and_then_and_when_it_ends() {
        use Pace::*;
        use Severity::*;
        const DAY: i64 = 24 * 60;
        let told = |times, severity, closed| Told { notifier: "n".into(), severity, told_at: at(0), times, thread: None, closed };
        // seen: times, severity, over; told: times, severity, closed; pace, least; minutes since
        type Case = ((u64, Severity, bool), Option<(u64, Severity, bool)>, Pace, Severity, i64, Option<What>);
        let cases: &[Case] = &[
            ((1, Warning, false), None, Thread, Info, 0, Some(What::IncidentOpened)),
            ((1, Warning, false), None, Single, Warning, 0, Some(What::IncidentOpened)),
            ((1, Warning, false), None, Single, Critical, 0, None),
            ((1, Warning, true), None, Single, Info, 0, None),
            ((2, Warning, false), Some((1, Warning, false)), Thread, Info, 14, None),
            ((2, Warning, false), Some((1, Warning, false)), Thread, Info, 15, Some(What::IncidentOpen)),
            ((1, Warning, false), Some((1, Warning, false)), Thread, Info, 15, None),
            ((1, Warning, false), Some((1, Warning, false)), Thread, Info, DAY, Some(What::IncidentOpen)),
            ((9, Warning, false), Some((1, Warning, false)), Single, Info, DAY - 1, None),
            ((9, Warning, false), Some((1, Warning, false)), Single, Info, DAY, Some(What::IncidentOpen)),
            ((1, Warning, false), Some((1, Warning, false)), Single, Info, -1, Some(What::IncidentOpen)),
            ((2, Critical, false), Some((1, Warning, false)), Single, Info, 0, Some(What::IncidentOpen)),
            ((2, Warning, true), Some((1, Warning, false)), Single, Critical, 0, Some(What::IncidentRecovered)),
            ((2, Warning, true), Some((2, Warning, true)), Single, Info, DAY, None),
            ((1, Critical, false), None, Runs, Info, 0, Some(What::IncidentOpened)),
            ((2, Critical, false), Some((1, Warning, true)), Runs, Info, DAY, None),
        ];
        for (i, (seen_as, told_as, pace, least, minutes, want)) in cases.iter().enumerate() {
            let incident_seen = seen(seen_as.0, seen_as.1, seen_as.2);
            let told = told_as.map(|(times, severity, closed)| told(times, severity, closed));
            let wants = Wants { least: *least, success: Success::Quiet, pace: *pace };
            assert_eq!(incident(&incident_seen, told.as_ref(), wants, at(*minutes)), *want, "case {i}");
        }
    }

    #[test]
    fn f63_pauses_grow_to_a_quarter_of_an_hour_and_heed_the_receiver() {
        let seconds: Vec<u64> = (1..=10).map(|n| pause(n, None).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]);
        assert_eq!(pause(u32::MAX, None).as_secs(), 900);
        assert_eq!(pause(1, Some(Duration::from_secs(90))).as_secs(), 90);
        assert_eq!(pause(9, Some(Duration::from_secs(90))).as_secs(), 900);
    }
}
