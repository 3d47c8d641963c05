//! Programs around a run, and runs that are given up: by the built program, as a person sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use cli::Home;

/// A job with a `command` source and these further settings.
fn home(script: &str, more: &str) -> Home {
    let home = Home::new();
    // Writes down what it was given and what it can see.
    home.write(
        "note",
        "#!/bin/sh\nenv | grep -v '^PWD=\\|^_=\\|^SHLVL=\\|^OLDPWD=' | sort > \"$1.env\"\npwd > \"$1.pwd\"\necho \"$1\" >> order\n",
    );
    std::fs::set_permissions(home.path("note"), PermissionsExt::from_mode(0o700)).unwrap();
    home.init(&format!("jobs:\n  - job: shop\n    sources:\n      - command: {{ name: db, run: [sh, -c, '{script}'] }}\n{more}"));
    home
}

fn hooks(before: &str, after: &str) -> String {
    format!("    hooks: {{ before: [{before}], after: [{after}] }}\n")
}

fn read(home: &Home, name: &str) -> String {
    std::fs::read_to_string(home.path(name)).unwrap_or_default()
}

fn variable<'a>(env: &'a str, name: &str) -> Option<&'a str> {
    env.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// No child, no object and no lease of a run that came to nothing.
fn nothing_left(home: &Home) {
    let files = home.files("drctl-repository");
    assert!(!files.iter().any(|file| file.contains("/sets/") || file.ends_with(".signed")), "{files:?}");
}

/// How long something may take, and how that is said. What is held up before its child has begun shows nothing: then the next one is taken.
const LIMITS: [(&str, &str); 3] = [("800ms", "0.8 s"), ("5s", "5 s"), ("40s", "40 s")];

fn gone(home: &Home) {
    let pid = read(home, "pid").trim().parse().unwrap();
    let since = Instant::now();
    while drctl::state::process_is_alive(pid) {
        assert!(since.elapsed() < Duration::from_secs(60), "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn hooks_run_around_a_run_and_are_told_of_it() {
    let note = |name: &str| format!("{{ run: [./note, {name}] }}");
    let before = format!("{{ run: [./note, one], env: {{ WORD: hunter2 }} }}, {}", note("two"));
    let mut home = home("echo db >> order; echo x", &hooks(&before, &note("three")));
    home.env("SECRET_OF_THE_HOST", "canary");
    home.ok(&["backup", "now"]);
    assert_eq!(read(&home, "order"), "one\ntwo\ndb\nthree\n");
    assert_eq!(read(&home, "one.pwd").trim(), home.path("").canonicalize().unwrap().to_str().unwrap());
    let (one, two, three) = (read(&home, "one.env"), read(&home, "two.env"), read(&home, "three.env"));
    assert_eq!((variable(&one, "WORD"), variable(&two, "WORD")), (Some("hunter2"), None));
    for env in [&one, &two, &three] {
        assert_eq!((variable(env, "DRCTL_JOB"), variable(env, "DRCTL_GROUP")), (Some("shop"), Some("main")));
        assert!(!env.contains("canary") && !env.contains("STATE_DIRECTORY"), "{env}");
    }
    assert_eq!(variable(&one, "DRCTL_OUTCOME"), None);
    let told = ["DRCTL_OUTCOME", "DRCTL_EXIT_CODE", "DRCTL_SET"].map(|name| variable(&three, name).unwrap_or_default().to_owned());
    assert_eq!(told, ["ok".to_owned(), "0".to_owned(), home.newest()]);
    // What is only looked at runs none.
    home.ok(&["backup", "now", "--dry-run"]);
    assert_eq!(read(&home, "order").lines().count(), 4);
}

#[test]
fn a_hook_before_that_fails_keeps_the_run_from_happening() {
    let failing = "{ run: [sh, -c, 'echo password is hunter2 >&2; exit 7'], env: { PW: hunter2 } }, { run: [./note, never] }";
    let home = home("echo db >> order; echo x", &hooks(failing, "{ run: [./note, after] }"));
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("job shop: not run: hook before[0] (sh) exited 7 after 0 bytes: password is ***"), "{}", ran.err);
    assert!(!ran.all().contains("hunter2"));
    assert_eq!(read(&home, "order"), "after\n", "neither the next hook nor the source, but what comes after");
    let env = read(&home, "after.env");
    assert_eq!(
        (variable(&env, "DRCTL_OUTCOME"), variable(&env, "DRCTL_EXIT_CODE"), variable(&env, "DRCTL_SET")),
        (Some("failed"), Some("4"), None)
    );
    nothing_left(&home);
    for (program, says) in [("./gone", "start hook before[0] (gone)"), ("no-such-program", "program 'no-such-program' was not found")] {
        let text = read(&home, "drctl.yaml");
        let at = text.find("    hooks:").unwrap();
        home.write("drctl.yaml", &format!("{}{}", &text[..at], hooks(&format!("{{ run: [{program}] }}"), "")));
        let ran = home.run(&["backup", "now"]);
        assert!(ran.code == 4 && ran.err.contains(says) && ran.err.contains("hint:"), "{}", ran.err);
    }
}

#[test]
fn a_hook_has_a_time_limit() {
    for (limit, says) in LIMITS {
        let slow = format!("{{ run: [sh, -c, 'sleep 600 & echo $! > pid; wait'], timeout: {limit} }}");
        let home = home("echo x", &hooks(&slow, ""));
        let ran = home.run(&["backup", "now"]);
        assert_eq!(ran.code, 4);
        assert!(ran.err.contains(&format!("hook before[0] (sh) was not done within {says}")), "{}", ran.err);
        nothing_left(&home);
        if !read(&home, "pid").is_empty() {
            return gone(&home);
        }
    }
    panic!("the hook never began");
}

#[test]
fn a_hook_after_that_fails_is_a_warning_and_the_next_one_runs() {
    let after = "{ run: [sh, -c, 'echo broken >&2; exit 3'] }, { run: [./note, last] }";
    let ok = home("echo x", &hooks("", after));
    let ran = ok.ok(&["backup", "now"]);
    assert!(ran.out.contains("- hook after[0] (sh) exited 3 after 0 bytes: broken"), "{}", ran.out);
    assert_eq!(read(&ok, "order"), "last\n");
    // After a run that failed, too, whose own error is what counts.
    let failed = home("exit 9", &hooks("", after));
    let ran = failed.run(&["backup", "now"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("hook after[0] (sh) exited 3") && ran.err.contains("exited 9"), "{}", ran.err);
    let env = read(&failed, "last.env");
    assert_eq!((variable(&env, "DRCTL_OUTCOME"), variable(&env, "DRCTL_EXIT_CODE")), (Some("failed"), Some("1")));
}

#[test]
fn f8_after_a_signal_hooks_run_and_learn_of_it() {
    let home = home("echo $$ > pid; sleep 600", &hooks("", "{ run: [./note, after] }"));
    let child = home.command(&["backup", "now"]).spawn().unwrap();
    let since = Instant::now();
    while read(&home, "pid").is_empty() {
        assert!(since.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    assert_eq!(cli::Ran::of(child.wait_with_output().unwrap()).code, 130);
    let env = read(&home, "after.env");
    assert_eq!((variable(&env, "DRCTL_OUTCOME"), variable(&env, "DRCTL_EXIT_CODE")), (Some("interrupted"), Some("130")));
    gone(&home);
    nothing_left(&home);
}

/// A run that a limit must end as failed, with nothing kept and no child left. `says` of it, with `TIME` for how long it is.
fn ended(script: &str, limit: &str, says: &str) {
    for (at, (time, words)) in LIMITS.into_iter().enumerate() {
        let (limits, says) = (format!("    limits: {{ {limit}: {time} }}\n"), says.replace("TIME", words));
        let home = home(script, &format!("{limits}{}", hooks("", "{ run: [./note, after] }")));
        let since = Instant::now();
        let ran = home.run(&["backup", "now"]);
        assert!(since.elapsed() < Duration::from_secs(300), "{:?}", since.elapsed());
        if at + 1 < LIMITS.len() && (read(&home, "pid").is_empty() || !ran.err.contains(&says)) {
            continue;
        }
        assert_eq!(ran.code, 1, "{}", ran.err);
        assert!(
            ran.err.contains(&format!("{says}: nothing of it was kept")) && ran.err.contains("hint: ") && ran.err.contains("of the job"),
            "{}",
            ran.err
        );
        assert_eq!(variable(&read(&home, "after.env"), "DRCTL_OUTCOME"), Some("failed"));
        gone(&home);
        nothing_left(&home);
        // The lease is given back, and the run is known for one that failed by itself.
        home.write("drctl.yaml", &read(&home, "drctl.yaml").replace(script, "echo x").replace(&limits, ""));
        home.ok(&["backup", "now"]);
        assert!(!home.ok(&["status"]).out.contains("interrupted"));
        return;
    }
}

#[test]
fn f29_a_run_in_which_no_byte_moves_is_given_up() {
    ended("echo x; echo $$ > pid; sleep 600", "no_progress", "job shop: db.output moved no byte for TIME (limits.no_progress)");
}

#[test]
fn f29_an_artifact_that_trickles_for_too_long_is_given_up() {
    let trickle = "echo $$ > pid; while :; do echo x; sleep 0.05; done";
    ended(trickle, "step", "job shop: db.output was not done within TIME (limits.step)");
}

#[test]
fn f29_a_run_that_takes_too_long_in_all_is_given_up() {
    let trickle = "echo $$ > pid; while :; do echo x; sleep 0.05; done";
    ended(trickle, "total", "job shop: the run was not done within TIME, it was at db.output (limits.total)");
}

#[test]
fn the_schedule_is_shown_without_a_repository() {
    let home = home("echo x", "    timezone: Europe/Berlin\n    schedule: { full: \"0 2 * * *\", drill: \"0 5 * * 0\", jitter: 5m }\n");
    std::fs::rename(home.path("drctl-repository"), home.path("away")).unwrap();
    let shown = home.ok(&["schedule"]).out;
    assert_eq!(shown.lines().count(), 11, "{shown}");
    assert!(
        shown.contains("0 2 * * * +5m") && shown.contains("drill (never run by this version)") && shown.contains("Europe/Berlin"),
        "{shown}"
    );
    let json = home.json(&["schedule", "--job", "shop"]);
    assert_eq!(json["result"]["entries"][0]["next"].as_array().unwrap().len(), 5);
    let unknown = home.run(&["schedule", "--job", "shpo"]);
    assert!(unknown.code == 2 && unknown.err.contains("its jobs are: shop"), "{}", unknown.err);
}
