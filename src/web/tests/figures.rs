//! `/metrics` and the textfile.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::exposition::read;
use super::*;
use crate::model::Severity;
use crate::ops::board::{QueueBoard, RunFacts, StoreBoard};

/// FIELD §4: what drctl's metrics are called.
pub const FIELD: [&str; 13] = [
    "drctl_last_success_timestamp_seconds",
    "drctl_last_attempt_timestamp_seconds",
    "drctl_schedule_expected_interval_seconds",
    "drctl_backup_size_bytes",
    "drctl_backup_duration_seconds",
    "drctl_last_verified_timestamp_seconds",
    "drctl_last_drill_success_timestamp_seconds",
    "drctl_restore_duration_seconds",
    "drctl_verified_sets",
    "drctl_rpo_seconds",
    "drctl_orphan_multiparts",
    "drctl_up",
    "drctl_build_info",
];

/// Names of all metrics of a board on which everything is known.
pub fn names() -> std::collections::BTreeSet<String> {
    read(&metrics::render(&testing::full())).unwrap().into_iter().map(|sample| sample.name).collect()
}

#[test]
fn a_full_board_as_metrics() {
    let page = metrics::render(&testing::full()).replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!(page);
    let names = names();
    for name in FIELD {
        assert!(names.contains(name), "{name}");
    }
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut board = Board::new("web-1", at(NOW));
    let samples = read(&metrics::render(&board)).unwrap();
    let names: Vec<&str> = samples.iter().map(|s| s.name.as_str()).collect();
    for unknown in ["drctl_config_last_reload_successful", "drctl_clock_skew_seconds", "drctl_last_tick_timestamp_seconds", "drctl_sets"] {
        assert!(!names.contains(&unknown), "{unknown}");
    }
    // A job that never ran, its log not read, by hand only.
    let mut job = testing::shop();
    (job.log, job.runs, job.running, job.next) = (None, RunFacts::default(), None, Vec::new());
    for source in &mut job.sources {
        (source.last_success, source.plain_bytes, source.stored_bytes, source.expected_interval_seconds) = (None, None, None, None);
    }
    board.jobs = vec![job];
    board.stores = vec![StoreBoard { name: "main".into(), ..StoreBoard::default() }];
    board.judge(at(NOW));
    let samples = read(&metrics::render(&board)).unwrap();
    let of_job: Vec<&str> = samples.iter().filter(|s| s.labels.contains_key("job")).map(|s| s.name.as_str()).collect();
    assert_eq!(
        of_job,
        [
            "drctl_component_status",
            "drctl_rpo_objective_seconds",
            "drctl_verify_objective_seconds",
            "drctl_drill_objective_seconds",
            "drctl_run_in_progress"
        ]
    );
    assert!(!samples.iter().any(|s| s.labels.contains_key("store")), "{samples:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever names hold, the page can be read, and the names come back as they were.
    #[test]
    fn metrics_can_be_read_whatever_the_names_are(
        names in prop::collection::hash_set("[\\PC\\\\\"\n\r\t{},= é]{0,20}", 1..5), skew in any::<f64>(), waiting in any::<u64>()
    ) {
        let names: Vec<String> = names.into_iter().collect();
        let mut board = testing::full();
        board.host = names[0].clone();
        board.clock.skew_seconds = Some(skew);
        board.queues = names.iter().map(|name| QueueBoard { notifier: name.clone(), waiting, ..QueueBoard::default() }).collect();
        let source = board.jobs[0].sources[0].clone();
        board.jobs[0].sources = names.iter().map(|name| crate::ops::board::SourceBoard { name: name.clone(), ..source.clone() }).collect();
        let samples = read(&metrics::render(&board)).unwrap();
        let of = |metric: &str, label: &str| -> Vec<String> {
            samples.iter().filter(|s| s.name == metric).map(|s| s.labels[label].clone()).collect()
        };
        prop_assert_eq!(of("drctl_notify_queue", "notifier"), names.clone());
        prop_assert_eq!(of("drctl_last_success_timestamp_seconds", "source"), names.clone());
        prop_assert_eq!(of("drctl_build_info", "host"), names[..1].to_vec());
        let read_skew = samples.iter().find(|s| s.name == "drctl_clock_skew_seconds").unwrap().value;
        prop_assert!(read_skew == skew || (read_skew.is_nan() && skew.is_nan()));
    }
}

#[test]
fn an_open_incident_counts_under_its_severity() {
    let mut board = testing::full();
    board.incidents.push(testing::incident(Severity::Critical, "x"));
    let page = metrics::render(&board);
    assert!(
        page.contains("drctl_incidents_open{severity=\"critical\"} 1\n") && page.contains("drctl_incidents_open{severity=\"info\"} 0\n")
    );
    assert!(page.contains("drctl_component_status{component=\"incidents\"} 2\n"));
}

#[test]
fn the_textfile_is_replaced_whole_and_may_be_read_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drctl.prom");
    std::fs::write(&path, "old").unwrap();
    let reader = std::fs::File::open(&path).unwrap();
    textfile::write(&path, &testing::full()).unwrap();
    assert_eq!(std::io::read_to_string(reader).unwrap(), "old", "who was reading sees the old text to its end");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), metrics::render(&testing::full()));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["drctl.prom"]);
}

#[test]
fn a_textfile_that_cannot_be_written_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let error = textfile::write(&folder.path().join("none/drctl.prom"), &testing::full()).unwrap_err();
    assert!(error.to_string().contains("none/drctl.prom") && error.hint_text().unwrap().contains("agent.textfile"), "{error}");
    // A folder stands under its name: the rename fails, and nothing is left behind.
    let path = folder.path().join("drctl.prom");
    std::fs::create_dir(&path).unwrap();
    textfile::write(&path, &testing::full()).unwrap_err();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
