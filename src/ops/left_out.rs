//! What a source holds and does not give out: a database that accepts no connections, say. A set without it is partial, until a person says
//! that it is known (`backup --accept-smaller SOURCE`) or takes it out of the configuration; from then on it is a warning.
//!
//! What a person has said is kept in the state file, by name. Without it the next set is partial again, which is the safe side.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::model::JobName;
use crate::model::ids::artifact_file;
use crate::ops::Setup;
use crate::source::LeftOut;

/// What came of asking a source what it leaves out.
#[derive(Default)]
pub struct Judged {
    /// Why the source is not whole.
    pub problems: Vec<String>,
    /// Known to a person.
    pub warnings: Vec<String>,
    /// Names that a person accepts with this run.
    pub accepted: BTreeSet<String>,
    /// Beginnings of file names of artifacts that the configuration leaves out: `postgres.shop`.
    pub on_purpose: BTreeSet<String>,
}

/// Judges. `accepted`: a person has said with this run that what is missing of the source is known.
pub fn judge(setup: &Setup, job: &JobName, source: &str, left_out: &[LeftOut], accepted: bool) -> Judged {
    let known = known(setup, job, source);
    let mut judged = Judged::default();
    for LeftOut { artifact, words, on_purpose } in left_out {
        if *on_purpose {
            judged.on_purpose.insert(stem(source, artifact));
        } else if accepted {
            judged.accepted.insert(artifact.clone());
            judged.warnings.push(format!("{words} That is known from now on."));
        } else if known.contains(artifact) {
            judged.warnings.push(format!("{words} That is known."));
        } else {
            judged.problems.push(format!(
                "{words} If that is as it should be, leave it out for good (exclude: at {source}), or say once that it is known: drctl backup \
                 now {job} --accept-smaller {source}"
            ));
        }
    }
    judged
}

/// Source and artifact as a file name begins.
fn stem(source: &str, artifact: &str) -> String {
    artifact_file(source, artifact, "").trim_end_matches('.').to_owned()
}

fn key(setup: &Setup, job: &JobName, source: &str) -> String {
    format!("left-out/{}/{job}/{source}", setup.repository.id())
}

fn known(setup: &Setup, job: &JobName, source: &str) -> BTreeSet<String> {
    let text = setup.state.as_ref().and_then(|state| state.setting(&key(setup, job, source)).ok().flatten());
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Keeps what a person has accepted, besides what was accepted before.
pub fn keep(setup: &Setup, job: &JobName, source: &str, accepted: &BTreeSet<String>) -> Result<()> {
    let Some(state) = setup.state.as_ref().filter(|_| !accepted.is_empty()) else { return Ok(()) };
    let mut all = known(setup, job, source);
    all.extend(accepted.iter().cloned());
    let text = serde_json::to_string(&all).map_err(|e| Error::failed("keep what is known to be left out").because(e))?;
    state.set_setting(&key(setup, job, source), &text)
}
