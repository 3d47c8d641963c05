//! Sources with schedules of their own make sets of their own; a date joins them again (FORMAT, Keys).

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;

use cli::Home;

const JOBS: &str = r#"jobs:
  - job: shop
    schedule: { full: "0 2 * * *" }
    sources:
      - files: { name: uploads, paths: [uploads] }
      - files: { name: logs, paths: [logs], schedule: { full: "0 3 1 * *" } }
      - environment: { from: { file: app.env } }
"#;

fn home() -> Home {
    let home = Home::new();
    home.write("uploads/a", "a1");
    home.write("logs/l", "l1");
    home.write("app.env", "A=1\n");
    home.init(JOBS);
    home
}

#[test]
fn a_run_makes_a_set_for_each_group_and_a_date_joins_them() {
    let home = home();
    home.ok(&["backup", "now"]);
    assert_eq!(home.sets().len(), 2, "main and logs");
    // The main group moves on, the logs' set stays the newest of its group.
    home.write("uploads/a", "a2");
    home.ok(&["backup", "now", "--source", "uploads", "--source", "environment"]);
    assert_eq!(home.sets().len(), 3);
    assert_eq!(home.run(&["backup", "now", "--source", "nothing"]).code, 2);

    home.write("uploads/a", "broken");
    home.write("logs/l", "broken");
    let plan = home.json(&["restore", "--date", "latest", "--dry-run"]);
    let sets: Vec<&str> = plan["result"]["sets"].as_array().unwrap().iter().map(|s| s["set"].as_str().unwrap()).collect();
    assert_eq!(sets.len(), 2, "{plan}");
    assert_eq!(sets[0], home.newest());
    home.ok(&["restore", "--date", "latest", "--yes"]);
    let read = |below: &str| std::fs::read_to_string(home.path(below)).unwrap();
    assert_eq!((read("uploads/a").as_str(), read("logs/l").as_str()), ("a2", "l1"));
    home.ok(&["restore", "--undo"]);
    assert_eq!((read("uploads/a").as_str(), read("logs/l").as_str()), ("broken", "broken"));
}

#[test]
fn a_partial_set_gives_only_the_named_sources_that_are_whole_in_it() {
    let home = home();
    home.ok(&["backup", "now"]);
    let good = home.newest();
    home.write("uploads/a", "a2");
    std::fs::remove_file(home.path("app.env")).unwrap();
    let ran = home.run(&["backup", "now", "--source", "uploads", "--source", "environment"]);
    assert_eq!(ran.code, 3, "{}", ran.all());
    let partial = home.newest();
    assert_ne!(partial, good);
    let set_of = |args: &[&str]| {
        let plan = home.json(args);
        plan["result"]["sources"].as_array().unwrap().iter().find(|s| s["name"] == "uploads").unwrap()["set"].as_str().unwrap().to_owned()
    };
    // By date alone the good set, by the source that is whole the newer partial one.
    assert_ne!(set_of(&["restore", "--date", "latest", "--dry-run"]), partial);
    assert_eq!(set_of(&["restore", "--date", "latest", "--source", "uploads", "--dry-run"]), partial);
    assert_eq!(set_of(&["restore", &partial, "--dry-run"]), partial);
}

#[test]
fn a_run_of_some_sources_only_is_never_what_a_date_means() {
    let home = home();
    home.ok(&["backup", "now"]);
    let whole =
        home.sets().into_iter().find(|set| home.json(&["show", set])["result"]["set"]["sources"].as_array().unwrap().len() == 2).unwrap();
    let ran = home.ok(&["backup", "now", "--source", "uploads"]);
    assert!(ran.out.contains("on request without environment: no whole restore point"), "{}", ran.out);
    let plan = home.json(&["restore", "--date", "latest", "--dry-run"]);
    assert!(plan["result"]["sets"].as_array().unwrap().iter().any(|s| s["set"] == whole.as_str()), "{plan}");
}

/// A fresh set of one group does not stand for a stale one, nor for one that has no set at all.
#[test]
fn status_is_as_bad_as_its_worst_group() {
    let home = home();
    // Only the main group has a set.
    home.ok(&["backup", "now", "--source", "uploads", "--source", "environment"]);
    let status = home.run(&["status", "--max-age", "1h"]);
    assert_eq!(status.code, 9, "{}", status.all());
    assert!(status.out.contains("NO GOOD SET of the sources of group logs"), "{}", status.out);
    let job = &home.json(&["status"])["result"]["jobs"][0];
    assert_eq!((&job["groups_without_good"], &job["rpo_seconds"]), (&serde_json::json!(["logs"]), &serde_json::Value::Null), "{job}");
    // Both have one: the age of the job is that of the older.
    let begun = std::time::Instant::now();
    home.ok(&["backup", "now", "--source", "logs"]);
    assert_eq!(home.run(&["status", "--max-age", "1h"]).code, 0);
    std::thread::sleep(std::time::Duration::from_millis(3100));
    home.ok(&["backup", "now", "--source", "uploads", "--source", "environment"]);
    let job = &home.json(&["status"])["result"]["jobs"][0];
    let rpo = job["rpo_seconds"].as_i64().unwrap();
    assert!(rpo >= 3 && rpo <= begun.elapsed().as_secs() as i64 + 2, "{job}");
    assert_eq!(job["groups_without_good"], serde_json::json!([]), "{job}");
    let stale = home.run(&["status", "--max-age", "2s"]);
    assert_eq!(stale.code, 9, "{}", stale.all());
    assert!(stale.out.contains("STALE"), "{}", stale.out);
    home.ok(&["backup", "now", "--source", "logs"]);
    // A group whose newest set is partial counts by the good one before it.
    std::fs::remove_file(home.path("app.env")).unwrap();
    assert_eq!(home.run(&["backup", "now", "--source", "uploads", "--source", "environment"]).code, 3);
    let status = home.ok(&["status"]);
    assert!(status.out.contains("newer, not good") && !status.out.contains("NO GOOD SET"), "{}", status.out);
}
