//! Is a source still the one that the sets before it came from? (FAULTS I11)
//!
//! The newest set that holds a source says which real thing it was. Another one under the same name is refused: a wrong address, a test copy
//! or a second server would otherwise take the place of the data that the job is for, until retention has nothing else left. Two things
//! make another one right: a person names it (`backup --accept-new-identity SOURCE`), or a restore of this host put the data there.
//!
//! What is compared is only what the source itself calls lasting ([`Session::bound_by`]). Paths and settings change with the
//! configuration, names of hosts with every container: these are recorded and shown, never refused.

use crate::catalog::JobLog;
use crate::error::{Error, Kind, Result};
use crate::model::JobName;
use crate::model::manifest::SourceEntry;
use crate::ops::Setup;
use crate::ops::restore::journal::{Phase, RestoreNote};
use crate::source::{Session, Source};

/// What is known of a job's sources, and which of them may be others now.
pub struct Known<'a> {
    /// For what restores of this host noted.
    pub setup: &'a Setup,
    /// The job's log.
    pub log: &'a JobLog,
    /// Names of sources that a person accepts as new.
    pub accepted: &'a [String],
}

impl Known<'_> {
    /// Compares an opened source with the newest set that holds it, whole or not: a set without it says nothing of it.
    ///
    /// Gives a sentence when it is another one and may be; [`Kind::Preflight`] when it may not.
    pub fn check(&self, source: &dyn Source, session: &dyn Session) -> Result<Option<String>> {
        let name = source.name();
        let Some(key) = session.bound_by() else { return Ok(None) };
        let Some(is) = session.identity().remove(key) else { return Ok(None) };
        let entries = self.log.state().live().rev().map(|entry| entry.manifest.as_ref());
        let last = entries.filter(|m| m.artifacts.iter().any(|a| a.source == name)).find_map(|manifest| {
            let before = manifest.source(name).filter(|s| s.kind == source.kind())?;
            Some((manifest, before, before.identity.get(key)?))
        });
        let Some((manifest, before, was)) = last.filter(|(.., was)| **was != is) else { return Ok(None) };
        let told = told(before, key, was, &is, &manifest.set.to_string());
        if self.accepted.iter().any(|accepted| accepted == name) {
            return Ok(Some(format!("{told}; it is accepted from now on")));
        }
        let job = self.log.job();
        if let Some(restore) = self.restored_to(job, name, key, &is) {
            return Ok(Some(format!("{told}; restore {restore} put the data there, so it is accepted")));
        }
        // In the words themselves, not only in the hint: these stand in the set, in a quiet run and in `drctl show` too.
        let line = format!("drctl backup now {job} --accept-new-identity {name}");
        Err(Error::new(Kind::Preflight, format!("{told}; if that is meant, say so: {line}")).hint(format!(
            "it is meant after a rebuild, a move or pg_upgrade: {line}; if it is not, mend the address of {name} in the configuration"
        )))
    }

    /// The restore of this host that put the source's data where it is now, if one did. What went to a `--target` is not the source.
    fn restored_to(&self, job: &JobName, name: &str, key: &str, is: &str) -> Option<String> {
        let notes = RestoreNote::all(self.setup.state.as_ref()?).ok()?;
        let done = |note: &&RestoreNote| matches!(note.phase, Phase::Switched | Phase::Finished) && note.target.is_none();
        let there = |note: &&RestoreNote| note.identities.get(name).and_then(|identity| identity.get(key)).is_some_and(|at| at == is);
        notes.iter().rev().filter(done).filter(|note| note.set.job() == job).find(there).map(|note| note.restore.clone())
    }
}

fn told(before: &SourceEntry, key: &str, was: &str, is: &str, set: &str) -> String {
    format!(
        "this is another {kind} than before: {key} {is} now, {was} when it was last backed up ({at}, {set})",
        kind = before.kind,
        key = key.replace('_', " "),
        at = before.as_of.strftime("%Y-%m-%d %H:%M UTC"),
    )
}
