//! What people ask of single sets: pins, and holds by hand.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::{Hold, JobLog, hold};
use crate::error::{Error, Kind, Result};
use crate::model::SetId;
use crate::model::record::Body;
use crate::observe::Event;
use crate::ops::{Setup, copies};

/// What stands in the log now.
#[derive(Clone, Debug, Serialize)]
pub struct PinReport {
    /// The set.
    pub set: SetId,
    /// Number of the record; `None` when there was nothing to change.
    pub record: Option<u64>,
    /// End of the pin or hold.
    pub until: Option<Timestamp>,
    /// The hold's name, to end it by.
    pub hold: Option<String>,
}

/// Keeps a set until `until`, whatever retention says.
pub async fn pin(setup: &Setup, log: &mut JobLog, set: &SetId, until: Timestamp, reason: &str) -> Result<PinReport> {
    with_keys(setup, "pin a set")?;
    if until <= setup.clock.now() {
        return Err(Error::new(Kind::Usage, format!("pin {set} until {until}: that is past")));
    }
    if reason.trim().is_empty() {
        return Err(Error::new(Kind::Usage, "a pin needs a reason: whoever finds it has to know").hint("--reason 'before upgrade to 2.4'"));
    }
    let appended = hold::pin(log, set, until, reason).await?;
    told(setup, log, "pin", appended.number).await;
    Ok(PinReport { set: set.clone(), record: Some(appended.number), until: Some(until), hold: None })
}

/// Ends every pin of a set.
pub async fn unpin(setup: &Setup, log: &mut JobLog, set: &SetId) -> Result<PinReport> {
    with_keys(setup, "unpin a set")?;
    let mut report = PinReport { set: set.clone(), record: None, until: None, hold: None };
    if log.state().get(set).is_some_and(|entry| entry.pin.is_none()) {
        return Ok(report);
    }
    let appended = hold::unpin(log, set).await?;
    told(setup, log, "unpin", appended.number).await;
    report.record = Some(appended.number);
    Ok(report)
}

/// Keeps a set for `length` at most, for a reader that is not drctl.
pub async fn hold_by_hand(setup: &Setup, log: &mut JobLog, set: &SetId, length: Duration) -> Result<PinReport> {
    with_keys(setup, "hold a set")?;
    let held = Hold::acquire(log, set, length).await?;
    told(setup, log, "hold", log.head()).await;
    Ok(PinReport { set: set.clone(), record: Some(log.head()), until: Some(held.until), hold: Some(held.name) })
}

/// Ends a hold by its name.
pub async fn release(setup: &Setup, log: &mut JobLog, set: &SetId, name: &str) -> Result<PinReport> {
    with_keys(setup, "release a set")?;
    let entry = log.state().get(set).ok_or_else(|| Error::new(Kind::NoSuchSet, format!("{set} was never committed")).hint("drctl list"))?;
    if !entry.holds.contains_key(name) {
        let known: Vec<&str> = entry.holds.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
        return Err(Error::new(Kind::Usage, format!("{set} has no hold '{name}'")).hint(format!("its holds: {known}")));
    }
    let appended = log.append(Body::Release { set: set.clone(), hold: name.to_owned() }).await?;
    told(setup, log, "release", appended.number).await;
    Ok(PinReport { set: set.clone(), record: Some(appended.number), until: None, hold: None })
}

fn with_keys(setup: &Setup, what: &str) -> Result<()> {
    if setup.keys.is_empty() {
        return Err(Error::new(Kind::Preflight, format!("{what}: there is no signing key at hand")).hint("drctl key list"));
    }
    Ok(())
}

async fn told(setup: &Setup, log: &mut JobLog, record: &str, number: u64) {
    setup.bus.emit(Event::Recorded { record: record.into(), number });
    copies::bring_records(setup, log).await;
}
