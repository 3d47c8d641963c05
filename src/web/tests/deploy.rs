//! The files of deploy/ and docs/monitoring.md name metrics that there are, and all that users know.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::figures::{FIELD, names};
use super::*;

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every word of a text that begins like a metric of ours.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("drctl_")).map(str::to_owned).collect()
}

/// Every text under one of these keys, however deep.
fn under(value: &Value, keys: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if let (true, Value::String(text)) = (keys.contains(&key.as_str()), value) {
                    found.push(text.clone());
                }
                under(value, keys, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| under(value, keys, found)),
        _ => {}
    }
}

fn rules() -> Value {
    serde_saphyr::from_str(&text("deploy/prometheus/drctl.rules.yml")).unwrap()
}

fn expressions(value: &Value, keys: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    under(value, keys, &mut found);
    assert!(found.len() > 10, "{found:?}");
    found
}

fn dashboard() -> Value {
    serde_json::from_str(&text("deploy/grafana/drctl.json")).unwrap()
}

#[test]
fn alerts_and_dashboard_name_metrics_that_there_are() {
    let known = names();
    let mut used = BTreeSet::new();
    for expression in expressions(&rules(), &["expr"]).into_iter().chain(expressions(&dashboard(), &["expr", "query", "definition"])) {
        let here = named(&expression);
        assert!(!here.is_empty() || expression == "prometheus", "{expression} looks at nothing");
        assert_eq!(here.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "{expression}");
        for (open, close) in [('(', ')'), ('{', '}')] {
            assert_eq!(expression.matches(open).count(), expression.matches(close).count(), "{expression}");
        }
        used.extend(here);
    }
    for name in FIELD {
        assert!(used.contains(name), "nothing uses {name}");
    }
}

/// Labels that an expression selects by or joins on stand on the metrics it names.
#[test]
fn alerts_and_dashboard_select_by_labels_that_there_are() {
    let samples = exposition::read(&metrics::render(&testing::full())).unwrap();
    let mut looked_at = 0;
    for expression in expressions(&rules(), &["expr"]).into_iter().chain(expressions(&dashboard(), &["expr"])) {
        for (at, _) in expression.match_indices('{') {
            let name = expression[..at].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            let end = at + expression[at..].find('}').unwrap();
            for selector in expression[at + 1..end].split(", ") {
                let label = selector.split(['=', '!']).next().unwrap();
                // Prometheus gives these to every series of a target.
                if ["instance", "job"].contains(&label) {
                    continue;
                }
                assert!(samples.iter().any(|s| s.name == name && s.labels.contains_key(label)), "{name} has no {label}: {expression}");
                looked_at += 1;
            }
        }
    }
    assert!(looked_at >= 4);
}

#[test]
fn alerts_fire_on_absence_and_name_the_next_command() {
    let rules = rules();
    let all: Vec<&Value> = rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    let mut seen = BTreeSet::new();
    for rule in &all {
        let name = rule["alert"].as_str().unwrap();
        assert!(seen.insert(name), "{name} twice");
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{name}");
        for annotation in ["summary", "description", "next"] {
            assert!(rule["annotations"][annotation].as_str().is_some_and(|text| !text.is_empty()), "{name}: {annotation}");
        }
        assert!(rule["annotations"]["next"].as_str().unwrap().starts_with("drctl "), "{name}");
    }
    let expression = |name: &str| all.iter().find(|rule| rule["alert"] == name).unwrap()["expr"].as_str().unwrap().to_owned();
    assert_eq!(expression("DrctlAbsent"), "absent(drctl_up)");
    // What never was is no series, and no comparison finds it.
    for (name, absent) in [
        ("DrctlGone", "unless present_over_time(drctl_up[10m])"),
        ("DrctlStandsStill", "drctl_up unless drctl_last_tick_timestamp_seconds"),
        ("DrctlNeverSucceeded", "unless drctl_last_success_timestamp_seconds"),
        ("DrctlVerifyTooOld", "unless on (instance, job) drctl_last_verified_timestamp_seconds"),
        ("DrctlDrillTooOld", "unless drctl_last_drill_success_timestamp_seconds"),
    ] {
        assert!(expression(name).contains(absent), "{name}");
    }
}

#[test]
fn the_dashboard_has_whole_panels() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_i64().unwrap()));
        let grid = &panel["gridPos"];
        assert!(grid["x"].as_i64().unwrap() + grid["w"].as_i64().unwrap() <= 24, "{panel}");
        if panel["type"] != "row" {
            assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{panel}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}");
        }
    }
    assert!(ids.len() > 20);
}

#[test]
fn the_documentation_names_every_metric() {
    let table = named(&text("docs/monitoring.md"));
    assert_eq!(table.symmetric_difference(&names()).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// Prometheus' own tool, where it is there: the rules, when they fire, and the page.
#[test]
fn promtool_takes_rules_and_metrics() {
    if Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED promtool's look at alert rules and metrics: there is no promtool here");
        return;
    }
    for (what, file) in [("check", "deploy/prometheus/drctl.rules.yml"), ("test", "tests/data/drctl.rules.test.yml")] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let checked = Command::new("promtool").args([what, "rules"]).arg(file).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
    let mut check = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), metrics::render(&testing::full()).as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
