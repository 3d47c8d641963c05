//! Readers without a hold, and dates on a real log.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::select::{When, choose, good_sets, groups};
use crate::catalog::testing::{Bed, at, plain_manifest, source_entry};
use crate::catalog::{hold, retire};
use crate::error::{Error, Kind};
use crate::model::manifest::SourceEntry;
use crate::model::{Manifest, SetKind};
use jiff::tz::TimeZone;

#[tokio::test]
async fn rule_9_a_failed_read_of_a_deleted_set_is_not_called_damage() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    let second = bed.backup(&mut log, SetKind::Full).await;
    let mut reader = bed.log().await;
    hold::check_readable(&mut reader, &first).await.unwrap();
    retire::retire_chain(&mut log, &first, "old").await.unwrap();
    let damaged = || Error::corrupt("files.a.tar.zst has other bytes");
    let said = hold::explain(&mut reader, &first, damaged()).await;
    assert_eq!(said.kind(), Kind::NoSuchSet);
    assert!(said.to_string().contains("is being deleted (record 3)"), "{said}");
    assert_eq!(hold::explain(&mut reader, &second, damaged()).await.kind(), Kind::Corrupt);
}

#[tokio::test]
async fn a_date_means_the_last_good_set_of_that_day_in_that_zone() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    // 02:00 on 1 January, 20:00 on 1 January, 02:00 on 3 January, all UTC.
    let a = bed.backup(&mut log, SetKind::Full).await;
    bed.hours(18);
    let b = bed.backup(&mut log, SetKind::Full).await;
    bed.hours(30);
    let c = bed.backup(&mut log, SetKind::Full).await;
    let utc = TimeZone::UTC;
    let shanghai = TimeZone::fixed(jiff::tz::offset(8));
    let now = at("2025-01-04T00:00:00Z");
    let pick =
        |text: &str, zone: &TimeZone| choose(log.state(), Some("main"), &When::parse(text, now).unwrap(), zone).map(|e| e.id().clone());
    assert_eq!(pick("20250101", &utc).unwrap(), b);
    assert_eq!(pick("2025-01-01", &shanghai).unwrap(), a);
    assert_eq!(pick("2025-01-02", &shanghai).unwrap(), b);
    assert_eq!(pick("latest", &utc).unwrap(), c);
    assert_eq!(pick("2025-01-01T19:59:59Z", &utc).unwrap(), a);
    assert_eq!(pick("2025-01-01T20:00:00Z", &utc).unwrap(), b);
    assert_eq!(pick("21 hours ago", &utc).unwrap(), c);
    let none = pick("2025-01-02", &utc).unwrap_err();
    assert_eq!(none.kind(), Kind::NoSuchSet);
    assert_eq!(none.to_string(), format!("no good set of 2025-01-02 (UTC) in group main; nearest before: {b}, nearest after: {c}"));
    let none = pick("2024-12-31T00:00:00Z", &utc).unwrap_err();
    assert_eq!(none.to_string(), format!("no good set at or before 2024-12-31T00:00:00Z in group main; none before, nearest after: {a}"));
    assert!(choose(log.state(), Some("hourly"), &When::Latest, &utc).unwrap_err().to_string().contains("there is no good set yet"));
    assert_eq!(groups(log.state()).into_iter().collect::<Vec<_>>(), ["main"]);
    assert_eq!(good_sets(log.state(), None).count(), 3);
}

#[test]
fn identities_that_are_the_same_are_shared_and_nothing_else_changes() {
    let source = |name: &str, id: &str| SourceEntry {
        identity: Arc::new(BTreeMap::from([("system_identifier".to_owned(), id.to_owned())])),
        ..source_entry(name, "postgres")
    };
    let of = |sources: Vec<SourceEntry>| Manifest { sources, ..plain_manifest() };
    let before = of(vec![source("db", "1"), source("other", "2")]).share_identities(None);
    let next = of(vec![source("other", "9"), source("db", "1"), source("new", "1")]);
    let sharing = next.clone().share_identities(Some(&before));
    assert_eq!(sharing, next);
    let shared: Vec<bool> =
        sharing.sources.iter().map(|s| before.source(&s.name).is_some_and(|b| Arc::ptr_eq(&b.identity, &s.identity))).collect();
    assert_eq!(shared, [false, true, false]);
}
