//! `drctl pin`, `unpin` and `hold`.

use jiff::tz::TimeZone;
use serde_json::json;

use crate::catalog::JobLog;
use crate::catalog::select::When;
use crate::cli::Shell;
use crate::cli::args::{HoldArgs, PinArgs, UnpinArgs};
use crate::cli::output::when;
use crate::config::values;
use crate::error::{Error, Kind, Result};
use crate::model::{SetId, Timestamp};
use crate::open::Opened;
use crate::ops::choose::{self, Wanted};
use crate::ops::pins;
use crate::state::Act;

/// A repository with the log of the job that a set belongs to.
struct Chosen {
    opened: Opened,
    log: JobLog,
    set: SetId,
    zone: TimeZone,
}

async fn chosen(shell: &Shell, set: &str, job: Option<&str>) -> Result<Chosen> {
    let opened = Opened::for_writing(&shell.around()).await?;
    let wanted = Wanted::word(set);
    let job = opened.job_of(&wanted, job).await?;
    let zone = opened.zone(Some(&job));
    let log = opened.setup.log(&job).await?;
    let set = choose::set(&log, &wanted, None, opened.setup.clock.now(), &zone)?.id().clone();
    Ok(Chosen { opened, log, set, zone })
}

/// A length of time on the command line.
pub fn length(text: &str) -> Result<std::time::Duration> {
    values::long_duration(text).map_err(|why| Error::new(Kind::Usage, why))
}

/// The end of a pin that begins now.
pub fn end(now: Timestamp, text: &str) -> Result<Timestamp> {
    now.checked_add(length(text)?).map_err(|e| Error::new(Kind::Usage, format!("'{text}' from now lies too far ahead")).because(e))
}

/// The end of a day, or an instant.
fn until(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp> {
    match When::parse(text, now)? {
        When::At(instant) => Ok(instant),
        When::Day(day) => {
            let end = day.tomorrow().and_then(|next| next.to_zoned(zone.clone()));
            end.map(|end| end.timestamp()).map_err(|e| Error::new(Kind::Usage, format!("'{text}' lies too far ahead")).because(e))
        }
        When::Latest => Err(Error::new(Kind::Usage, "a pin ends on a day or at an instant").hint("--until 2025-12-31, or --for 14d")),
    }
}

/// Pins a set.
pub async fn pin(shell: &Shell, args: PinArgs) -> Result<u8> {
    let mut chosen = chosen(shell, &args.set, args.job.as_deref()).await?;
    let now = chosen.opened.setup.clock.now();
    let until = match (&args.length, &args.until) {
        (Some(length), _) => end(now, length)?,
        (None, Some(text)) => until(text, now, &chosen.zone)?,
        (None, None) => return Err(Error::new(Kind::Usage, "a pin needs its end").hint("--for 14d, or --until 2025-12-31")),
    };
    let setup = &chosen.opened.setup;
    let act = Act::of("pin").job(chosen.set.job()).on(&chosen.set).with(json!({ "until": until.to_string(), "reason": args.reason }));
    let report = setup.audited(act, pins::pin(setup, &mut chosen.log, &chosen.set, until, &args.reason)).await?;
    shell.out.result("pin", &report, |report| format!("pinned {} until {}\n", report.set, when(until, &chosen.zone)));
    Ok(0)
}

/// Ends the pins of a set.
pub async fn unpin(shell: &Shell, args: UnpinArgs) -> Result<u8> {
    let mut chosen = chosen(shell, &args.set, args.job.as_deref()).await?;
    let setup = &chosen.opened.setup;
    let act = Act::of("unpin").job(chosen.set.job()).on(&chosen.set);
    let report = setup.audited(act, pins::unpin(setup, &mut chosen.log, &chosen.set)).await?;
    shell.out.result("unpin", &report, |report| match report.record {
        Some(_) => format!("{} is not pinned any more; retention decides: drctl prune\n", report.set),
        None => format!("{} was not pinned\n", report.set),
    });
    Ok(0)
}

/// Holds a set, or ends a hold.
pub async fn hold(shell: &Shell, args: HoldArgs) -> Result<u8> {
    let mut chosen = chosen(shell, &args.set, args.job.as_deref()).await?;
    let (setup, log) = (&chosen.opened.setup, &mut chosen.log);
    if let Some(name) = &args.release {
        let act = Act::of("hold --release").job(chosen.set.job()).on(&chosen.set).with(json!({ "hold": name }));
        let report = setup.audited(act, pins::release(setup, log, &chosen.set, name)).await?;
        shell.out.result("hold", &report, |report| format!("the hold on {} is ended\n", report.set));
        return Ok(0);
    }
    let act = Act::of("hold").job(chosen.set.job()).on(&chosen.set).with(json!({ "for": args.length }));
    let report = setup.audited(act, pins::hold_by_hand(setup, log, &chosen.set, length(&args.length)?)).await?;
    shell.out.result("hold", &report, |report| {
        let (name, end) = (report.hold.clone().unwrap_or_default(), report.until.map_or_else(String::new, |at| when(at, &chosen.zone)));
        format!("{} is held until {end}; end it earlier: drctl hold {} --release {name}\n", report.set, report.set)
    });
    Ok(0)
}
