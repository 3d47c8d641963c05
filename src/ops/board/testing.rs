//! A board on which everything is known, for the tests of what shows it.

use std::sync::Arc;

use super::*;
use crate::model::record::Grade;
use crate::model::{SetClass, SetId, SetKind};
use crate::ops::look::SetLine;

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// When [`full`] was taken.
pub const NOW: &str = "2025-01-31T14:37:00Z";

pub fn line(job: &str, begun: &str) -> SetLine {
    let started_at = at(begun);
    SetLine {
        set: SetId::new(job.parse().unwrap(), started_at, SetKind::Full, 7),
        kind: SetKind::Full,
        started_at,
        state: "complete",
        class: SetClass::Ordinary,
        sources: vec!["postgres".into(), "uploads".into()],
        plain_bytes: 3_000_000,
        stored_bytes: 900_000,
        grade: Some(Grade::ReadBack),
        proven_at: Some(started_at),
        pinned_until: None,
    }
}

/// Job `shop`, all of which is well.
pub fn shop() -> JobBoard {
    let source = |name: &str, kind: &'static str, group: &str, every: i64, last: &str| SourceBoard {
        ahead: false,
        name: name.into(),
        kind,
        group: group.into(),
        expected_interval_seconds: Some(every),
        last_success: Some(at(last)),
        plain_bytes: Some(2_000_000),
        stored_bytes: Some(600_000),
    };
    let groups = [("main", "2025-01-31T14:00:00Z", 42.5), ("uploads", "2025-01-31T02:00:00Z", 600.0)];
    let log = LogFacts {
        head: 42,
        sets: 31,
        verified_sets: 29,
        stored_bytes: 27_900_000,
        newest_good: Some(line("shop", "2025-01-31T14:00:00Z")),
        newest_bad: None,
        as_of: Some(at("2025-01-31T02:00:00Z")),
        latest: Some(at("2025-01-31T02:00:00Z")),
        groups_without_good: Vec::new(),
        groups: groups
            .map(|(group, begun, duration_seconds)| (group.to_owned(), GroupFacts { started_at: at(begun), duration_seconds }))
            .into(),
        verified: vec![
            Verified { grade: Grade::ReadBack, at: at("2025-01-31T06:00:00Z") },
            Verified { grade: Grade::Restored, at: at("2025-01-26T05:10:00Z") },
        ],
        drill: Some(Drill { at: at("2025-01-26T05:10:00Z"), duration_seconds: 370.25 }),
        findings: Vec::new(),
        sizes: BTreeMap::new(),
        sources: BTreeMap::new(),
        lines: Arc::from([line("shop", "2025-01-31T14:00:00Z"), line("shop", "2025-01-31T13:00:00Z")]),
    };
    JobBoard {
        job: "shop".parse().unwrap(),
        groups: vec!["main".into(), "uploads".into()],
        sources: vec![
            source("postgres", "postgres", "main", 3600, "2025-01-31T14:00:42Z"),
            source("uploads", "files", "uploads", 86_400, "2025-01-31T02:10:00Z"),
        ],
        objectives: ObjectivesBoard {
            rpo_seconds: Some(26 * 3600),
            rto_seconds: Some(1800),
            verified_within_seconds: Some(2 * 86_400),
            drilled_within_seconds: Some(8 * 86_400),
            max_duration_seconds: 1800,
            max_total_bytes: Some(100_000_000),
        },
        log: Some(Arc::new(log)),
        log_problem: None,
        rpo_seconds: None,
        age_unknown: false,
        runs: RunFacts {
            attempted_at: Some(at("2025-01-31T14:30:00Z")),
            last_attempt: Some(Attempt {
                started_at: at("2025-01-31T14:00:00Z"),
                finished_at: Some(at("2025-01-31T14:00:43Z")),
                exit_code: Some(0),
                error: None,
                set: Some("shop/20250131T140000Z-full-0007".into()),
            }),
            restore_seconds: Some(95.0),
            recent_failed: vec![false; 20],
        },
        running: Some(Running { verb: "backup".into(), since: at("2025-01-31T14:30:00Z") }),
        next: vec![
            Next { group: "main".into(), what: "full", at: at("2025-01-31T15:00:00Z") },
            Next { group: "uploads".into(), what: "full", at: at("2025-02-01T02:00:00Z") },
            Next { group: "main".into(), what: "full", at: at("2025-01-31T16:00:00Z") },
        ],
        alarms: Vec::new(),
    }
}

/// Everything known, everything well.
pub fn full() -> Board {
    let now = at(NOW);
    let store = |name: &str, optional| StoreBoard {
        name: name.into(),
        location: format!("/mnt/{name}"),
        optional,
        reachable: Some(true),
        probed_at: Some(at("2025-01-31T14:35:00Z")),
        problem: None,
        orphan_multiparts: Some(0),
    };
    let mut board = Board {
        config: ConfigBoard { path: Some("/etc/drctl/drctl.yaml".into()), loaded_at: Some(at("2025-01-01T00:00:00Z")), refused: None },
        scheduler: SchedulerBoard { last_tick: Some(at("2025-01-31T14:36:30Z")) },
        repository: RepositoryBoard { location: "/mnt/main".into(), looked_at: Some(at("2025-01-31T14:35:00Z")), problem: None },
        stores: vec![store("main", false), store("far", true)],
        queues: vec![
            QueueBoard { notifier: "slack".into(), waiting: 2, waiting_since: Some(at("2025-01-31T14:36:00Z")), ..QueueBoard::default() },
            QueueBoard { notifier: "webhook".into(), ..QueueBoard::default() },
        ],
        clock: ClockBoard { skew_seconds: Some(-0.25), compared_at: Some(now) },
        state: StateBoard { path: Some("/var/lib/drctl/state.sqlite".into()), problem: None },
        jobs: vec![shop()],
        ..Board::new("web-1", at("2025-01-01T00:00:00Z"))
    };
    board.judge(now);
    board
}

/// An open incident.
pub fn incident(severity: Severity, message: &str) -> IncidentBoard {
    IncidentBoard {
        key: "shop/backup".into(),
        severity,
        job: Some("shop".into()),
        opened_at: at("2025-01-31T14:00:00Z"),
        times: 3,
        message: message.into(),
    }
}
