//! Is a whole set like those before it? One that is not is suspect: kept and told, but no date means it and it frees nothing (FAULTS 66).
//! Pure.

use std::collections::BTreeSet;

use crate::model::{Artifact, ArtifactFormat, Manifest};

/// So many good sets before are looked at; the median of them is what is usual.
pub const LOOK_BACK: usize = 7;

/// What a source may do that would be odd of another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// Come out empty.
    pub empty: bool,
    /// Come out much smaller.
    pub smaller: bool,
    /// Lack an artifact that it had: what it holds is named in the configuration, and what is missing there is an error.
    pub fewer: bool,
}

/// What is counted, how much of it there has to be for a drop to say something, and to which share of the usual it may drop.
const COUNTED: [(&str, u64, f64); 3] = [("tables", 4, 0.75), ("rows", 1000, 0.5), ("files", 20, 0.5)];

/// The same for the bytes of an artifact, which follow what nobody sees: a vacuum, a type.
const BYTES: (u64, f64) = (1 << 20, 0.4);

/// What is odd about `manifest`, a sentence each. `before` are the newest good sets of its group, the newest first. `on_purpose` are artifacts
/// that the configuration leaves out, as their file names begin.
pub fn findings(
    manifest: &Manifest,
    before: &[&Manifest],
    on_purpose: &BTreeSet<String>,
    allowed: &dyn Fn(&str) -> Allowed,
) -> Vec<String> {
    let Some(newest) = before.first() else { return Vec::new() };
    let mut found = Vec::new();
    for artifact in &manifest.artifacts {
        let Some(previous) = of(newest, artifact) else { continue };
        let (source, file) = (&artifact.source, &artifact.file);
        let may = allowed(source);
        for total in ["files", "tables"] {
            let count = |a: &Artifact| a.totals.get(total).copied();
            if let (Some(0), Some(had @ 1..), false) = (count(artifact), count(previous), may.empty) {
                found.push(format!(
                    "{source}: {file} is empty, {} had {had} {total}; if that is as it should be, set `allow_empty: true`",
                    newest.set
                ));
            }
        }
        if may.smaller || may.empty || found.iter().any(|told: &String| told.starts_with(&format!("{source}: {file} is empty"))) {
            continue;
        }
        let alike: Vec<&Manifest> = before.iter().copied().filter(|other| is_same(source, manifest, other)).collect();
        found.extend(smaller(artifact, &alike).map(|how| format!("{source}: {file} has {how}: {}", accept(source))));
    }
    for previous in &newest.artifacts {
        let still_backed_up = manifest.source(&previous.source).is_some_and(|source| source.problems.is_empty());
        let may = allowed(&previous.source);
        let odd = !may.fewer && !may.smaller && !may.empty;
        if still_backed_up
            && of(manifest, previous).is_none()
            && !on_purpose.contains(stem(&previous.file))
            && odd
            && is_data(previous)
            && is_same(&previous.source, manifest, newest)
        {
            let (source, file) = (&previous.source, &previous.file);
            found.push(format!("{source}: {file} is gone, {} had it: {}", newest.set, accept(source)));
        }
    }
    found
}

/// Whether a source was the same server in both: another one, accepted as that, is as large as it is.
fn is_same(source: &str, one: &Manifest, other: &Manifest) -> bool {
    let server = |manifest: &Manifest| manifest.source(source).and_then(|entry| entry.identity.get("system_identifier").cloned());
    match (server(one), server(other)) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

fn accept(source: &str) -> String {
    format!("if that is as it should be, back up once more with --accept-smaller {source}")
}

/// The same artifact in another set. A database may be called `globals`, as that which holds the roles is.
fn of<'a>(manifest: &'a Manifest, artifact: &Artifact) -> Option<&'a Artifact> {
    let is_dump = |artifact: &Artifact| artifact.format == ArtifactFormat::PgCustom;
    manifest.artifacts.iter().find(|other| stem(&other.file) == stem(&artifact.file) && is_dump(other) == is_dump(artifact))
}

/// Source and artifact of a file name. What follows them says how it is stored, which is no matter here; neither holds a dot.
fn stem(file: &str) -> &str {
    let end = file.match_indices('.').nth(1).map_or(file.len(), |(at, _)| at);
    &file[..end]
}

/// Roles and settings come and go.
fn is_data(artifact: &Artifact) -> bool {
    COUNTED.iter().any(|(name, ..)| artifact.totals.contains_key(*name))
}

/// The first count that dropped too far, with what is usual.
fn smaller(artifact: &Artifact, before: &[&Manifest]) -> Option<String> {
    let earlier: Vec<&Artifact> = before.iter().take(LOOK_BACK).filter_map(|manifest| of(manifest, artifact)).collect();
    let drop = |name: &str, now: u64, were: Vec<u64>, least: u64, share: f64| {
        let usual = median(were)?;
        let odd = usual >= least && (now as f64) < usual as f64 * share;
        odd.then(|| format!("{} {name} where {} are usual", super::words::number(now), super::words::number(usual)))
    };
    let counted = COUNTED.iter().find_map(|(name, least, share)| {
        let now = artifact.totals.get(*name).copied()?;
        drop(name, now, earlier.iter().filter_map(|a| a.totals.get(*name).copied()).collect(), *least, *share)
    });
    counted.or_else(|| drop("bytes", artifact.plain_bytes, earlier.iter().map(|a| a.plain_bytes).collect(), BYTES.0, BYTES.1))
}

/// The middle one; of two middle ones the smaller, so that few sets do not cry wolf.
fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing;

    /// A set whose one artifact has these counts, after sets that had those.
    fn judged(now: &[(&str, u64)], before: &[&[(&str, u64)]], may: Allowed) -> Vec<String> {
        let make = |totals: &[(&str, u64)]| {
            let mut manifest = testing::plain_manifest();
            let artifact = &mut manifest.artifacts[0];
            artifact.totals = totals.iter().filter(|(name, _)| *name != "plain").map(|(name, n)| ((*name).to_owned(), *n)).collect();
            artifact.plain_bytes = totals.iter().find(|(name, _)| *name == "plain").map_or(10, |(_, n)| *n);
            manifest
        };
        let before: Vec<Manifest> = before.iter().map(|totals| make(totals)).collect();
        findings(&make(now), &before.iter().collect::<Vec<_>>(), &BTreeSet::new(), &|_| may)
    }

    #[test]
    fn what_is_much_smaller_than_usual_is_found() {
        let no = Allowed::default();
        let found = |now: &[(&str, u64)], before: &[&[(&str, u64)]]| judged(now, before, no).len();
        assert_eq!(found(&[("rows", 400)], &[&[("rows", 10_000)]]), 1);
        assert_eq!(found(&[("rows", 6_000)], &[&[("rows", 10_000)]]), 0);
        assert_eq!(found(&[("rows", 10)], &[&[("rows", 900)]]), 0, "little says nothing");
        assert_eq!(found(&[("tables", 10)], &[&[("tables", 20)]]), 1);
        assert_eq!(found(&[("tables", 16)], &[&[("tables", 20)]]), 0);
        assert_eq!(found(&[("files", 9)], &[&[("files", 20)]]), 1);
        assert_eq!(found(&[("plain", 300 << 10)], &[&[("plain", 1 << 20)]]), 1);
        // One big set among usual ones changes nothing.
        assert_eq!(found(&[("rows", 5000)], &[&[("rows", 90_000)], &[("rows", 6000)], &[("rows", 6000)]]), 0);
        assert_eq!(found(&[("rows", 5000)], &[&[("rows", 90_000)], &[("rows", 6000)]]), 0);
        assert_eq!(found(&[("rows", 5)], &[]), 0, "the first set");
        assert_eq!(judged(&[("rows", 5)], &[&[("rows", 90_000)]], Allowed { smaller: true, ..no }), Vec::<String>::new());
    }

    #[test]
    fn how_an_artifact_is_stored_is_no_matter() {
        assert_eq!(["a.b.tar.zst.age", "a.b.tar", "a.b", "a"].map(stem), ["a.b", "a.b", "a.b", "a"]);
        let mut before = testing::plain_manifest();
        before.artifacts[0].totals.insert("files".into(), 1);
        let mut now = before.clone();
        (before.artifacts[0].file, now.artifacts[0].file) = ("files.a.tar.zst.age".into(), "files.a.tar".into());
        now.sources.push(testing::source_entry(&now.artifacts[0].source, "postgres"));
        assert_eq!(findings(&now, &[&before], &BTreeSet::new(), &|_| Allowed::default()), Vec::<String>::new());
    }

    #[test]
    fn f66_what_is_empty_is_found_once_unless_it_may_be() {
        let found = judged(&[("files", 0), ("rows", 0)], &[&[("files", 50), ("rows", 50_000)]], Allowed::default());
        assert!(found.len() == 1 && found[0].contains("is empty") && found[0].contains("allow_empty"), "{found:?}");
        assert!(judged(&[("files", 0)], &[&[("files", 50)]], Allowed { empty: true, ..Allowed::default() }).is_empty());
        assert!(judged(&[("files", 0)], &[&[("files", 50)]], Allowed { smaller: true, ..Allowed::default() }).len() == 1);
    }

    #[test]
    fn f66_what_is_usual_is_that_of_the_newest_sets_of_the_same_server() {
        let no = Allowed::default();
        assert!(judged(&[("files", 0)], &[&[("files", 0)], &[("files", 50)]], no).is_empty(), "it was empty before");
        assert!(
            judged(&[("rows", 1000)], &[&[("rows", 9000)]], Allowed { empty: true, ..no }).is_empty(),
            "what may be empty may be small"
        );
        // Three that were large, behind as many small ones as are looked at.
        let small: &[(&str, u64)] = &[("rows", 1000)];
        let large: &[(&str, u64)] = &[("rows", 90_000)];
        let before = |smaller: usize, larger: usize| [vec![small; smaller], vec![large; larger]].concat();
        assert_eq!(judged(&[("rows", 1000)], &before(3, 20), no).len(), 1);
        assert_eq!(judged(&[("rows", 1000)], &before(4, 20), no).len(), 0, "of the newest seven the middle one");
        assert_eq!(judged(&[("rows", 1000)], &[large, small, small, small], no).len(), 0);
        // A server that took the other's place is as large as it is.
        let of = |system: &str, rows: u64| {
            let mut manifest = testing::plain_manifest();
            manifest.artifacts[0].totals.insert("rows".into(), rows);
            manifest.sources.push(testing::source_entry(&manifest.artifacts[0].source, "postgres"));
            std::sync::Arc::make_mut(&mut manifest.sources[0].identity).insert("system_identifier".into(), system.into());
            manifest
        };
        let found = |system: &str| findings(&of("2", 1000), &[&of(system, 90_000)], &BTreeSet::new(), &|_| no).len();
        assert_eq!((found("1"), found("2")), (0, 1));
    }

    #[test]
    fn f123_a_database_called_globals_is_missed_although_the_roles_are_there() {
        let mut before = testing::plain_manifest();
        before.sources.push(testing::source_entry(&before.artifacts[0].source, "postgres"));
        let roles = Artifact { file: "postgres.globals.sql.zst".into(), format: ArtifactFormat::Sql, ..before.artifacts[0].clone() };
        let mut database = Artifact { file: "postgres.globals.dump.zst".into(), format: ArtifactFormat::PgCustom, ..roles.clone() };
        database.totals.insert("tables".into(), 1);
        let mut now = before.clone();
        before.artifacts = vec![roles.clone(), database];
        now.artifacts = vec![roles];
        let found = findings(&now, &[&before], &BTreeSet::new(), &|_| Allowed::default());
        assert!(found.len() == 1 && found[0].contains("postgres.globals.dump.zst is gone"), "{found:?}");
    }

    #[test]
    fn a_database_that_is_gone_is_found() {
        let mut before = testing::plain_manifest();
        before.artifacts[0].totals.insert("tables".into(), 1);
        let mut now = before.clone();
        now.sources.push(testing::source_entry(&before.artifacts[0].source, "postgres"));
        now.artifacts.clear();
        let found = |allowed: Allowed| findings(&now, &[&before], &BTreeSet::new(), &|_| allowed);
        assert!(found(Allowed::default())[0].contains("is gone, "), "{:?}", found(Allowed::default()));
        assert!(found(Allowed { smaller: true, ..Allowed::default() }).is_empty());
        assert!(found(Allowed { fewer: true, ..Allowed::default() }).is_empty());
        assert!(found(Allowed { empty: true, ..Allowed::default() }).is_empty());
        let on_purpose = |name: &str| findings(&now, &[&before], &BTreeSet::from([name.to_owned()]), &|_| Allowed::default()).len();
        assert_eq!((on_purpose(stem(&before.artifacts[0].file)), on_purpose("postgres.other")), (0, 1), "the configuration leaves it out");
        let mut failed = now.clone();
        failed.sources[0].problems.push("cannot be reached".into());
        assert!(findings(&failed, &[&before], &BTreeSet::new(), &|_| Allowed::default()).is_empty(), "that it failed is said already");
        let mut roles = before.clone();
        roles.artifacts[0].totals.clear();
        assert!(findings(&now, &[&roles], &BTreeSet::new(), &|_| Allowed::default()).is_empty(), "what has no count comes and goes");
        // Another server that was accepted has what it has.
        let mut older = before.clone();
        older.sources.push(testing::source_entry(&older.artifacts[0].source, "postgres"));
        std::sync::Arc::make_mut(&mut older.sources[0].identity).insert("system_identifier".into(), "1".into());
        std::sync::Arc::make_mut(&mut now.sources[0].identity).insert("system_identifier".into(), "2".into());
        assert!(findings(&now, &[&older], &BTreeSet::new(), &|_| Allowed::default()).is_empty());
        std::sync::Arc::make_mut(&mut now.sources[0].identity).insert("system_identifier".into(), "1".into());
        assert_eq!(findings(&now, &[&older], &BTreeSet::new(), &|_| Allowed::default()).len(), 1);
        now.sources.clear();
        assert!(findings(&now, &[&before], &BTreeSet::new(), &|_| Allowed::default()).is_empty(), "its source was taken out of the job");
    }
}
