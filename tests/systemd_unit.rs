//! deploy/systemd/drctl.service: systemd understands it, and what it keeps from the agent stays kept.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use drctl::config::running::AgentConfig;

const UNIT: &str = include_str!("../deploy/systemd/drctl.service");

fn setting(name: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.split_once('=')).filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
}

#[test]
fn it_says_what_the_agent_relies_on() {
    assert_eq!(setting("Type"), ["notify"]);
    assert_eq!(setting("KillMode"), ["mixed"], "pg_dump must not get the signal that lets it finish");
    assert_eq!(setting("StateDirectory"), ["drctl"], "which sets STATE_DIRECTORY");
    assert_eq!(setting("CapabilityBoundingSet"), [""]);
    let minutes: u64 = setting("TimeoutStopSec")[0].strip_suffix("min").unwrap().parse().unwrap();
    assert!(Duration::from_secs(minutes * 60) > AgentConfig::default().stop_within + Duration::from_secs(60));
}

/// Runs `systemd-analyze`; `None` where there is none.
fn analyze(args: &[&str]) -> Option<(bool, String)> {
    // With a program that exists here: whether it is installed is not the unit's mistake.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drctl.service");
    std::fs::write(&path, UNIT.replace("/usr/local/bin/drctl", env!("CARGO_BIN_EXE_drctl"))).unwrap();
    match Command::new("systemd-analyze").args(args).arg(&path).output() {
        Ok(output) => Some((
            output.status.success(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )),
        Err(_) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED systemd-analyze: it is not installed");
            None
        }
    }
}

#[test]
fn systemd_understands_every_line() {
    let Some((good, said)) = analyze(&["verify", "--man=no"]) else { return };
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("drctl.service")).collect();
    assert!(good && ours.is_empty(), "{said}");
}

#[test]
fn systemd_finds_little_exposed() {
    let Some((good, said)) = analyze(&["security", "--offline=true", "--no-pager", "--threshold=25"]) else { return };
    assert!(good, "more than 2.5 of 10 is exposed:\n{said}");
}
