//! The commands that alert rules and docs/monitoring.md tell people to type are ones that drctl takes.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use clap::CommandFactory as _;

fn takes(line: &str) -> Result<(), String> {
    drctl::cli::args::Cli::command().try_get_matches_from(line.split_whitespace()).map(drop).map_err(|e| e.to_string())
}

fn text(path: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_next_command_of_every_alert_is_one() {
    let mut seen = 0;
    for line in text("deploy/prometheus/drctl.rules.yml").lines() {
        let Some(next) = line.trim().strip_prefix("next: ") else { continue };
        let mut command = next.trim_matches('"').to_owned();
        while let Some((before, rest)) = command.split_once("{{ $labels.") {
            let (label, after) = rest.split_once(" }}").unwrap();
            command = format!("{before}{label}{after}");
        }
        takes(&command).unwrap_or_else(|error| panic!("{next}: {error}"));
        seen += 1;
    }
    assert!(seen > 15);
    assert!(takes("drctl statuss").is_err() && takes("drctl status --jobs x").is_err(), "the check is blind");
}
