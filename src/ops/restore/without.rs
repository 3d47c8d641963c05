//! `--without`: artifacts that a restore goes past because they cannot be used, or are not wanted (FAULTS 108).

use crate::error::{Error, Kind, Result};
use crate::model::manifest::SourceEntry;
use crate::model::{Artifact, Manifest, SetId};
use crate::ops::details::Details;
use crate::process::shell_word;

/// What was asked to be left out, and what of it was met.
pub struct Without<'a> {
    words: &'a [String],
    met: Vec<bool>,
    /// Every artifact that could have been meant.
    known: Vec<String>,
    /// What is left out, as it is shown.
    pub left_out: Vec<String>,
}

/// `postgres.shop`: how an artifact is named where its source must be told too.
pub fn shown(source: &str, name: &str) -> String {
    format!("{source}.{name}")
}

impl<'a> Without<'a> {
    /// Of these words: an artifact's `source.name` or the name of its file, both as `drctl show` prints them.
    pub fn new(words: &'a [String]) -> Self {
        Without { words, met: vec![false; words.len()], known: Vec::new(), left_out: Vec::new() }
    }

    /// The artifacts of a source that are to be loaded.
    pub fn of<'m>(&mut self, manifest: &'m Manifest, details: &Details, source: &SourceEntry) -> Vec<&'m Artifact> {
        let mut wanted = Vec::new();
        for artifact in manifest.artifacts.iter().filter(|artifact| artifact.source == source.name) {
            let name = details.artifact(&artifact.file).map(|known| shown(&source.name, &known.name));
            let meant = |word: &String| *word == artifact.file || Some(word) == name.as_ref();
            let hits: Vec<usize> = (0..self.words.len()).filter(|at| meant(&self.words[*at])).collect();
            for at in &hits {
                self.met[*at] = true;
            }
            let name = name.unwrap_or_else(|| artifact.file.clone());
            match hits.is_empty() {
                true => wanted.push(artifact),
                false => self.left_out.push(name.clone()),
            }
            self.known.push(name);
        }
        wanted
    }

    /// Once all sources were looked at: a word that names nothing is a mistake, and so is leaving out everything.
    pub fn check(&self, sets: &[&SetId]) -> Result<()> {
        let set = sets.iter().map(|set| set.to_string()).collect::<Vec<_>>().join(", ");
        if let Some((word, _)) = self.words.iter().zip(&self.met).find(|(_, met)| !**met) {
            return Err(Error::new(Kind::NoSuchSet, format!("--without {word}: this restore of {set} loads no such artifact"))
                .hint(format!("there are: {}", self.known.join(", "))));
        }
        if !self.words.is_empty() && self.left_out.len() == self.known.len() {
            return Err(Error::new(Kind::Usage, format!("--without leaves out all that is to be restored of {set}"))
                .hint(format!("there are: {}", self.known.join(", "))));
        }
        Ok(())
    }
}

/// Whether what a verification found concerns nothing of what is to be loaded: RESTORE.md, and artifacts that are left out. In doubt it does
/// concern it.
pub fn concerns_others(finding: &str, manifest: &Manifest, loaded: &[&Artifact]) -> bool {
    let names = |artifact: &Artifact| finding.contains(&artifact.file) || artifact.every_object().any(|o| finding.contains(&o.file));
    let others = manifest.artifacts.iter().filter(|artifact| !loaded.iter().any(|l| l.file == artifact.file));
    !loaded.iter().any(|artifact| names(artifact)) && (others.into_iter().any(names) || finding.contains(&manifest.guide.file))
}

/// The words of a hint for an artifact that stands in the way of others.
pub fn way_past(artifacts: &[String]) -> String {
    let options: Vec<String> = artifacts.iter().map(|artifact| format!("--without {}", shell_word(artifact))).collect();
    format!("the rest can be had without it: the same line with {}", options.join(" "))
}

/// An error of one artifact, with the way past it where it has a hint or needs one.
pub fn explained(error: Error, source: &str, name: &str) -> Error {
    if matches!(error.kind(), Kind::Interrupted | Kind::Terminated | Kind::Unreachable | Kind::Locked | Kind::OutcomeUnknown) {
        return error;
    }
    let past = way_past(&[shown(source, name)]);
    let hint = error.hint_text().map_or_else(|| past.clone(), |hint| format!("{hint}; {past}"));
    error.hint(hint)
}
