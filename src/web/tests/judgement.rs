//! What makes a component degraded or failing.

use super::*;
use crate::model::Severity;
use crate::ops::board::{Attempt, Refused, Running};
use crate::web::health::{Status, health};

fn judged(change: impl FnOnce(&mut Board)) -> (Status, Vec<(String, Status, String)>) {
    let mut board = testing::full();
    change(&mut board);
    board.judge(at(NOW));
    let health = health(&board, board.at);
    let bad = health.components.into_iter().filter(|(_, c)| c.status != Status::Ok);
    (health.status, bad.map(|(name, c)| (name, c.status, c.detail)).collect())
}

fn log(board: &mut Board) -> &mut crate::ops::board::LogFacts {
    std::sync::Arc::make_mut(board.jobs[0].log.as_mut().unwrap())
}

#[test]
fn a_board_on_which_all_is_well_is_ok() {
    assert_eq!(judged(|_| {}), (Status::Ok, Vec::new()));
    let health = health(&testing::full(), at(NOW));
    let names: Vec<&str> = health.components.keys().map(String::as_str).collect();
    assert_eq!(names, ["clock", "config", "incidents", "jobs/shop", "notify", "repository", "scheduler", "state", "stores"]);
    assert_eq!(health.components["jobs/shop"].detail, "12 h 37 min of work would be lost now");
}

#[test]
fn each_trouble_is_seen_in_its_component() {
    use Status::{Degraded, Failing};
    fn ended(exit_code: Option<u8>) -> Option<Attempt> {
        Some(Attempt { started_at: at(NOW), finished_at: Some(at(NOW)), exit_code, error: None, set: None })
    }
    type Case = (&'static str, Status, &'static str, fn(&mut Board));
    let cases: &[Case] = &[
        ("scheduler", Failing, "not started", |b| b.scheduler.last_tick = None),
        ("scheduler", Failing, "3 min ago", |b| b.scheduler.last_tick = Some(at("2025-01-31T14:34:00Z"))),
        ("scheduler", Failing, "4 min ago", |b| b.scheduler.last_tick = Some(at("2025-01-31T14:41:00Z"))),
        ("repository", Failing, "not been looked at", |b| b.repository.looked_at = None),
        ("repository", Failing, "drctl doctor", |b| b.repository.problem = Some("x".into())),
        ("stores", Failing, "main", |b| b.stores[0].reachable = Some(false)),
        ("stores", Degraded, "far", |b| b.stores[1].reachable = Some(false)),
        ("state", Degraded, "drctl doctor", |b| b.state.problem = Some("x".into())),
        ("notify", Degraded, "slack: drctl notify test", |b| b.queues[0].waiting_since = Some(at("2025-01-31T14:21:00Z"))),
        ("notify", Degraded, "webhook", |b| b.queues[1].refused = 1),
        ("notify", Degraded, "webhook", |b| b.queues[1].dropped = 1),
        ("config", Failing, "not loaded", |b| b.config.loaded_at = None),
        ("config", Degraded, "drctl config check", |b| b.config.refused = Some(Refused { at: at(NOW), why: "x".into() })),
        ("clock", Degraded, "2 min ahead", |b| b.clock.skew_seconds = Some(120.0)),
        ("clock", Degraded, "2 min behind", |b| b.clock.skew_seconds = Some(-120.0)),
        ("clock", Degraded, "NTP", |b| b.clock.skew_seconds = Some(f64::NAN)),
        ("incidents", Degraded, "1 incident open, the worst warning", |b| b.incidents.push(testing::incident(Severity::Warning, "x"))),
        ("incidents", Failing, "the worst critical", |b| b.incidents.push(testing::incident(Severity::Critical, "x"))),
        ("jobs/shop", Failing, "dated in the future", |b| log(b).latest = Some(at("2031-01-31T02:00:00Z"))),
        ("jobs/shop", Failing, "the last success is dated in the future", |b| {
            b.jobs[0].sources[0].last_success = Some(at("2031-01-31T02:00:00Z"))
        }),
        ("jobs/shop", Degraded, "verified at a date in the future", |b| log(b).verified[0].at = at("2031-01-29T13:00:00Z")),
        ("notify", Degraded, "slack: drctl notify test", |b| b.queues[0].waiting_since = Some(at("2031-01-31T14:21:00Z"))),
        ("jobs/shop", Degraded, "log cannot be read", |b| b.jobs[0].log_problem = Some("x".into())),
        ("jobs/shop", Failing, "1 finding in its log", |b| log(b).findings.push("x".into())),
        ("jobs/shop", Failing, "no good set of group uploads", |b| log(b).groups_without_good.push("uploads".into())),
        ("jobs/shop", Degraded, "no good set of group uploads", |b| {
            log(b).groups_without_good.push("uploads".into());
            (b.jobs[0].runs.last_attempt, b.started_at) = (None, at(NOW));
        }),
        ("jobs/shop", Failing, "1 d 3 h of work would be lost", |b| log(b).as_of = Some(at("2025-01-30T11:37:00Z"))),
        ("jobs/shop", Failing, "postgres: no success for 2 h 1 min, expected every 1 h", |b| {
            b.jobs[0].sources[0].last_success = Some(at("2025-01-31T12:36:00Z"));
        }),
        ("jobs/shop", Degraded, "newest set is not good", |b| log(b).newest_bad = Some(testing::line("shop", NOW))),
        ("jobs/shop", Degraded, "last verified 2 d 1 h ago", |b| log(b).verified[0].at = at("2025-01-29T13:00:00Z")),
        ("jobs/shop", Degraded, "never verified: drctl verify --job shop", |b| {
            log(b).verified.retain(|v| v.grade == crate::model::record::Grade::Restored)
        }),
        ("jobs/shop", Degraded, "last drilled 11 d", |b| log(b).verified[1].at = at("2025-01-20T13:00:00Z")),
        ("jobs/shop", Degraded, "drctl prune", |b| log(b).stored_bytes = 200_000_000),
        ("jobs/shop", Degraded, "exit code 3: drctl backup now shop", |b| b.jobs[0].runs.last_attempt = ended(Some(3))),
        ("jobs/shop", Degraded, "interrupted", |b| b.jobs[0].runs.last_attempt = ended(None)),
        ("jobs/shop", Degraded, "3 times in its last 20 backups", |b| {
            for n in [1, 3, 5] {
                b.jobs[0].runs.recent_failed[n] = true;
            }
        }),
        ("jobs/shop", Degraded, "the newest set of group main takes", |b| {
            log(b).sizes.insert("main".into(), vec![7 << 20, 3 << 20, 3 << 20, 3 << 20]);
        }),
        ("jobs/shop", Degraded, "running for 1 h", |b| {
            b.jobs[0].running = Some(Running { verb: "backup".into(), since: at("2025-01-31T13:30:00Z") });
        }),
    ];
    for (component, status, words, change) in cases {
        let (all, bad) = judged(change);
        assert_eq!((all, bad.len()), (*status, 1), "{component} {words}: {bad:?}");
        assert_eq!((bad[0].0.as_str(), bad[0].1), (*component, *status));
        assert!(bad[0].2.contains(words), "{words}: {}", bad[0].2);
    }
}

#[test]
fn what_is_within_its_bounds_is_no_trouble() {
    let changes: [fn(&mut Board); 11] = [
        |b| b.jobs[0].runs.last_attempt.as_mut().unwrap().exit_code = Some(7),
        |b| b.jobs[0].sources[0].last_success = Some(at("2025-01-31T12:37:00Z")),
        |b| b.jobs[0].sources[0].expected_interval_seconds = Some(i64::MAX),
        |b| log(b).as_of = Some(at("2025-01-30T12:37:00Z")),
        |b| log(b).verified[0].at = at("2025-01-29T14:37:00Z"),
        |b| b.clock.skew_seconds = Some(60.0),
        |b| b.stores[0].reachable = None,
        |b| b.queues[0].waiting_since = Some(at("2025-01-31T14:22:00Z")),
        |b| b.scheduler.last_tick = Some(at("2025-01-31T14:34:30Z")),
        |b| b.jobs[0].log = None,
        |b| b.jobs.clear(),
    ];
    for change in changes {
        assert_eq!(judged(change), (Status::Ok, Vec::new()));
    }
}
