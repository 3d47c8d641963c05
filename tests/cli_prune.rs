//! `prune`, `pin`, `unpin` and `hold` as a person types them.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;

use cli::Home;

const JOBS: &str = r#"jobs:
  - job: shop
    timezone: Asia/Shanghai
    retention: { keep_last: 1 }
    sources: [ { command: { name: data, run: [cat, data] } } ]
  - job: other
    retention: { keep_last: 1 }
    sources: [ { command: { name: data, run: [cat, data] } } ]
"#;

fn home() -> Home {
    let home = Home::new();
    home.write("data", "one");
    home.init(JOBS);
    for _ in 0..2 {
        home.ok(&["backup", "now", "--verify", "read-back"]);
    }
    home
}

/// Verbs of the audit log, in their order.
fn audited(home: &Home) -> Vec<String> {
    let audit = home.json(&["audit", "--last", "1000"]);
    let begun = audit["result"]["entries"].as_array().unwrap().iter().filter(|entry| entry["ends"] == 0);
    begun.map(|entry| entry["verb"].as_str().unwrap().to_owned()).collect()
}

fn of_job(home: &Home, job: &str) -> usize {
    home.sets().iter().filter(|set| set.starts_with(&format!("{job}/"))).count()
}

#[test]
fn looking_changes_nothing_and_apply_is_for_the_jobs_that_are_meant() {
    let home = home();
    assert_eq!(home.sets().len(), 4);
    let plan = home.ok(&["prune"]).out;
    assert!(plan.contains("shop: 1 set of 2 may go") && plan.contains("other: 1 set of 2 may go"), "{plan}");
    let unknown = home.run(&["prune", "--job", "shpo", "--apply"]);
    assert!(unknown.code == 2 && unknown.err.contains("shpo"), "{}", unknown.all());
    assert_eq!((home.sets().len(), audited(&home)), (4, vec![]), "looking leaves no entry");
    home.ok(&["prune", "--job", "other", "--apply"]);
    assert_eq!((of_job(&home, "shop"), of_job(&home, "other"), audited(&home)), (2, 1, vec!["prune".to_owned()]));
}

#[test]
fn f141_a_job_that_is_no_longer_configured_is_named_apart_and_goes_when_it_is_given_up() {
    let home = home();
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let (before, _) = text.split_once("  - job: other").unwrap();
    home.write("drctl.yaml", before);
    let status = home.ok(&["status"]).out;
    assert!(status.contains("no longer configured: other: 2 sets") && status.contains("drctl prune --job other --abandoned"), "{status}");
    home.ok(&["prune", "--apply"]);
    assert_eq!((of_job(&home, "shop"), of_job(&home, "other")), (1, 2));
    let refused = home.run(&["prune", "--job", "other", "--apply"]);
    assert!(refused.code == 2 && refused.err.contains("--abandoned"), "{}", refused.all());
    assert_eq!(home.run(&["prune", "--abandoned"]).code, 2, "which job has to be said");
    let plan = home.ok(&["prune", "--job", "other", "--abandoned"]).out;
    assert!(plan.contains("other: 2 sets of 2 may go") && plan.contains("given up"), "{plan}");
    assert_eq!(of_job(&home, "other"), 2);
    home.ok(&["prune", "--job", "other", "--abandoned", "--apply"]);
    assert_eq!((of_job(&home, "shop"), of_job(&home, "other")), (1, 0));
}

#[test]
fn a_job_that_cannot_be_pruned_fails_the_verb_and_keeps_no_other_from_it() {
    let home = home();
    let records = home.path("drctl-repository/jobs/shop/log");
    let first = std::fs::read_dir(&records).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    std::fs::write(&first, "garbage").unwrap();
    let ran = home.run(&["prune", "--apply"]);
    assert!(ran.code != 0 && ran.err.contains("delete from the log of job shop"), "{}", ran.all());
    assert_eq!(of_job(&home, "other"), 1, "{}", ran.all());
}

#[test]
fn pins_and_holds_are_written_down_and_end_with_their_day() {
    let home = home();
    let set = home.sets().into_iter().find(|set| set.starts_with("shop/")).unwrap();
    let pinned = home.json(&["pin", &set, "--until", "2030-01-01", "--reason", "before the upgrade"]);
    assert_eq!(pinned["result"]["until"], "2030-01-01T16:00:00Z", "the end of that day in Shanghai");
    let kept = home.ok(&["prune", "--job", "shop"]).out;
    assert!(kept.contains("pinned until 2030-01-02") && kept.contains("nothing to delete"), "{kept}");
    for until in ["latest", "2020-01-01"] {
        assert_eq!(home.run(&["pin", &set, "--until", until, "--reason", "x"]).code, 2, "{until}");
    }
    home.ok(&["unpin", &set]);
    let held = home.json(&["hold", &set, "--for", "1h"]);
    let name = held["result"]["hold"].as_str().unwrap();
    assert!(home.ok(&["prune", "--job", "shop"]).out.contains("somebody is reading it"));
    home.ok(&["hold", &set, "--release", name]);
    assert_eq!(audited(&home), ["pin", "pin", "unpin", "hold", "hold --release"]);
}

#[test]
fn what_was_found_in_a_log_hinders_until_a_person_has_looked_at_it() {
    let home = home();
    // The second record of shop is its first proof; what is written over it no longer verifies.
    let record = home.path("drctl-repository/jobs/shop/log/0000000002.signed");
    std::fs::write(&record, "garbage\n").unwrap();
    // This host has read it while it was whole; another one has not.
    std::fs::remove_dir_all(home.state().join("cache")).unwrap();
    for verb in ["status", "list"] {
        let said = home.run(&[verb]);
        assert!(said.out.contains("shop: record 2"), "{}", said.all());
    }
    let refused = home.run(&["prune", "--job", "shop", "--apply"]);
    assert_eq!((refused.code, of_job(&home, "shop")), (5, 2), "{}", refused.all());
    assert!(refused.err.contains("drctl repository acknowledge shop"), "{}", refused.err);

    let asked = home.run(&["repository", "acknowledge", "shop"]);
    assert_eq!(asked.code, 4, "{}", asked.all());
    assert!(asked.err.contains("record 2") && asked.err.contains("drctl repository acknowledge shop --yes"), "{}", asked.err);
    assert!(!home.run(&["prune", "--job", "shop", "--apply"]).err.is_empty(), "nothing was changed");
    assert!(home.ok(&["repository", "acknowledge", "other", "--yes"]).out.contains("nothing was found"));
    let done = home.ok(&["repository", "acknowledge", "shop", "--yes"]);
    assert!(done.out.contains("2 findings of shop acknowledged"), "{}", done.out);
    for verb in ["status", "list"] {
        assert!(!home.run(&[verb]).out.contains("shop: record 2"), "{verb}");
    }
    home.ok(&["backup", "now", "shop", "--verify", "read-back"]);
    home.ok(&["prune", "--job", "shop", "--apply"]);
    assert_eq!(of_job(&home, "shop"), 1);
    assert_eq!(audited(&home).iter().filter(|verb| *verb == "repository acknowledge").count(), 2);
}
