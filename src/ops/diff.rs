//! `drctl diff`: what changed between two sets. Counts come from the details; text and file lists are read from the artifacts.
//! Values of environment variables are compared and never shown.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::error::Result;
use crate::model::{Artifact, ArtifactFormat, Manifest, SetId};
use crate::ops::Setup;
use crate::ops::details::Details;
use crate::pipeline::plain;
use crate::pipeline::read::StoredArtifact;

/// Largest text that is compared line by line.
const TEXT_LIMIT: u64 = 4 << 20;

/// Lines kept per artifact.
const LINES_LIMIT: usize = 200;

/// What changed.
#[derive(Clone, Debug, Serialize)]
pub struct DiffReport {
    /// The earlier set.
    pub from: SetId,
    /// The later set.
    pub to: SetId,
    /// Artifacts that changed, in the later set's order, those gone at the end.
    pub artifacts: Vec<ArtifactDiff>,
}

/// One artifact that changed.
#[derive(Clone, Debug, Serialize)]
pub struct ArtifactDiff {
    /// `postgres.shop`: source and true name.
    pub artifact: String,
    /// Plain bytes before; `None` when it is new.
    pub plain_bytes_before: Option<u64>,
    /// Plain bytes after; `None` when it is gone.
    pub plain_bytes_after: Option<u64>,
    /// Counts that differ: rows per table, files …
    pub counts: Vec<Change>,
    /// `+ name`, `- name`, `~ name`: files, variables, lines of text.
    pub lines: Vec<String>,
    /// Lines left out.
    pub more: usize,
}

/// One count that differs.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Change {
    /// What is counted.
    pub name: String,
    /// Before.
    pub before: Option<u64>,
    /// After.
    pub after: Option<u64>,
}

/// Compares two sets of one repository.
pub async fn diff(setup: &Setup, from: &Manifest, to: &Manifest) -> Result<DiffReport> {
    let store = &setup.reading().store;
    let details = (Details::read(setup, store, from).await?, Details::read(setup, store, to).await?);
    let name = |details: &Details, artifact: &Artifact| {
        let name = details.artifact(&artifact.file).map_or(artifact.file.as_str(), |d| d.name.as_str());
        format!("{}.{name}", artifact.source)
    };
    let before: BTreeMap<String, &Artifact> = from.artifacts.iter().map(|a| (name(&details.0, a), a)).collect();
    let mut artifacts = Vec::new();
    let mut seen = BTreeSet::new();
    for artifact in &to.artifacts {
        let shown = name(&details.1, artifact);
        seen.insert(shown.clone());
        let earlier = before.get(&shown).copied();
        // Equal digests: equal frames, equal bytes.
        if earlier.is_some_and(|e| e.plain_digest == artifact.plain_digest) {
            continue;
        }
        let facts = |details: &Details, a: Option<&Artifact>| {
            a.and_then(|a| details.artifact(&a.file)).map(|d| d.facts.clone()).unwrap_or_default()
        };
        let (old, new) = (facts(&details.0, earlier), facts(&details.1, Some(artifact)));
        let mut counts = changes(&old.totals, &new.totals);
        counts.retain(|c| c.name != "bytes");
        counts.extend(changes(&old.per_name, &new.per_name));
        let mut lines = match earlier {
            Some(earlier) => content(setup, (from, earlier), (to, artifact)).await?,
            None => Vec::new(),
        };
        let more = lines.len().saturating_sub(LINES_LIMIT);
        lines.truncate(LINES_LIMIT);
        artifacts.push(ArtifactDiff {
            artifact: shown,
            plain_bytes_before: earlier.map(|e| e.plain_bytes),
            plain_bytes_after: Some(artifact.plain_bytes),
            counts,
            lines,
            more,
        });
    }
    for (shown, artifact) in before {
        if !seen.contains(&shown) {
            artifacts.push(ArtifactDiff {
                artifact: shown,
                plain_bytes_before: Some(artifact.plain_bytes),
                plain_bytes_after: None,
                counts: Vec::new(),
                lines: Vec::new(),
                more: 0,
            });
        }
    }
    Ok(DiffReport { from: from.set.clone(), to: to.set.clone(), artifacts })
}

fn changes(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Vec<Change> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let change = |name: &String| Change { name: name.clone(), before: before.get(name).copied(), after: after.get(name).copied() };
    names.into_iter().map(change).filter(|c| c.before != c.after).collect()
}

/// Named things of an artifact with a mark of their content; compared by name.
type Marks = BTreeMap<String, String>;

async fn content(setup: &Setup, before: (&Manifest, &Artifact), after: (&Manifest, &Artifact)) -> Result<Vec<String>> {
    match after.1.format {
        ArtifactFormat::Tar => Ok(compare(&tar_marks(setup, before).await?, &tar_marks(setup, after).await?)),
        ArtifactFormat::Env => Ok(compare(&env_marks(setup, before).await?, &env_marks(setup, after).await?)),
        ArtifactFormat::Yaml | ArtifactFormat::Raw | ArtifactFormat::Sql => text_lines(setup, before, after).await,
        ArtifactFormat::PgCustom | ArtifactFormat::Json => Ok(Vec::new()),
    }
}

fn compare(before: &Marks, after: &Marks) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let line = |name: &String| match (before.get(name), after.get(name)) {
        (None, Some(_)) => Some(format!("+ {name}")),
        (Some(_), None) => Some(format!("- {name}")),
        (old, new) if old != new => Some(format!("~ {name}")),
        _ => None,
    };
    names.into_iter().filter_map(line).collect()
}

fn stored(setup: &Setup, (manifest, artifact): (&Manifest, &Artifact)) -> StoredArtifact {
    StoredArtifact {
        store: setup.reading().store.clone(),
        prefix: manifest.set.prefix(),
        artifact: artifact.clone(),
        identities: setup.identities.clone(),
    }
}

async fn tar_marks(setup: &Setup, side: (&Manifest, &Artifact)) -> Result<Marks> {
    let (sender, receiver) = plain::channel();
    let listing = tokio::task::spawn_blocking(move || {
        let mut marks = Marks::new();
        crate::source::files::list(plain::Reader::new(receiver), |entry| {
            marks.insert(entry.path.escape_ascii().to_string(), format!("{:?} {} {:?}", entry.kind, entry.size, entry.mtime));
            Ok(())
        })?;
        Ok::<_, crate::error::Error>(marks)
    });
    let (read, listed) = tokio::join!(stored(setup, side).read(Some(sender), Default::default(), Default::default()), listing);
    let marks = listed.map_err(|e| crate::error::Error::failed("list the archive").because(e))?;
    read.and(marks)
}

async fn env_marks(setup: &Setup, side: (&Manifest, &Artifact)) -> Result<Marks> {
    let bytes = stored(setup, side).read_whole(TEXT_LIMIT).await?;
    // By names as they are read, never by what stands before any '=': a line of a value over several could be taken for a name, and told.
    let variables = crate::source::environment_dotenv::parse(&bytes).variables;
    Ok(variables.into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect())
}

async fn text_lines(setup: &Setup, before: (&Manifest, &Artifact), after: (&Manifest, &Artifact)) -> Result<Vec<String>> {
    // SQL of globals holds password hashes; only its size is spoken of.
    if after.1.format == ArtifactFormat::Sql || before.1.plain_bytes.max(after.1.plain_bytes) > TEXT_LIMIT {
        return Ok(Vec::new());
    }
    let old = stored(setup, before).read_whole(TEXT_LIMIT).await?;
    let new = stored(setup, after).read_whole(TEXT_LIMIT).await?;
    let (Ok(old), Ok(new)) = (String::from_utf8(old), String::from_utf8(new)) else { return Ok(Vec::new()) };
    let diff = similar::TextDiff::from_lines(&old, &new);
    let changed = diff.iter_all_changes().filter_map(|change| match change.tag() {
        similar::ChangeTag::Insert => Some(format!("+ {}", change.value().trim_end())),
        similar::ChangeTag::Delete => Some(format!("- {}", change.value().trim_end())),
        similar::ChangeTag::Equal => None,
    });
    Ok(changed.collect())
}
