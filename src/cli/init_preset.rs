//! `drctl init --preset NAME`: ready-made jobs beside the configuration.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::output::{Output, table};
use crate::config::environment::Environment;
use crate::config::find::JOBS;
use crate::config::preset::{PRESETS, Preset, Variable};
use crate::error::Result;

/// What stands for a name to see them all.
pub(super) const LIST: &str = "list";

/// One preset and what it needs here.
#[derive(Serialize)]
pub(super) struct PresetReport {
    pub name: &'static str,
    about: &'static str,
    /// Where it is written.
    pub file: PathBuf,
    /// What it takes from the environment of drctl; those that must be set first.
    variables: Vec<Variable>,
    /// What it knows of and does not back up yet.
    later: Vec<String>,
    #[serde(skip)]
    pub text: &'static str,
}

/// The presets that were named, each once.
pub(super) fn chosen(names: &[String], folder: &Path, environment: &Environment) -> Result<Vec<PresetReport>> {
    let mut presets: Vec<&Preset> = Vec::new();
    for name in names {
        let preset = Preset::named(name)?;
        if !presets.contains(&preset) {
            presets.push(preset);
        }
    }
    let report = |preset: &Preset| PresetReport {
        name: preset.name,
        about: preset.about(),
        file: folder.join(JOBS).join(format!("{}.yaml", preset.name)),
        variables: preset.variables(environment),
        later: preset.later(),
        text: preset.text,
    };
    Ok(presets.into_iter().map(report).collect())
}

/// `--preset list`.
pub(super) fn list(out: Output) {
    #[derive(Serialize)]
    struct Line {
        name: &'static str,
        about: &'static str,
    }
    let lines: Vec<Line> = PRESETS.iter().map(|preset| Line { name: preset.name, about: preset.about() }).collect();
    out.result("init", &lines, |lines| {
        let rows: Vec<Vec<String>> = lines.iter().map(|line| vec![line.name.to_owned(), line.about.to_owned()]).collect();
        table(&["PRESET", "BACKS UP"], &rows, &[]) + "drctl init --preset NAME writes it as jobs/NAME.yaml beside drctl.yaml\n"
    });
}

/// Names of variables that must be set and are not.
pub(super) fn missing(presets: &[PresetReport]) -> Vec<String> {
    let all = presets.iter().flat_map(|preset| &preset.variables).filter(|variable| !variable.set && variable.default.is_none());
    let mut names: Vec<String> = all.map(|variable| variable.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// What they need, and what they leave out.
pub(super) fn text(presets: &[PresetReport]) -> String {
    let mut out = String::new();
    for preset in presets {
        let _ = writeln!(out, "\npreset {}: {}", preset.name, preset.about);
        let width = preset.variables.iter().map(|v| v.name.len()).max().unwrap_or(0);
        for Variable { name, default, set } in &preset.variables {
            let how = match (set, default.as_deref()) {
                (true, _) => "set".to_owned(),
                (false, None) => "NOT SET".to_owned(),
                (false, Some(".")) => "not set: the folder of drctl.yaml".to_owned(),
                (false, Some(default)) => format!("not set: {default}"),
            };
            let _ = writeln!(out, "  {name:width$}  {how}");
        }
        if !preset.later.is_empty() {
            let _ = writeln!(out, "  NOT BACKED UP yet, marked 'later:' in it: {}", preset.later.join(", "));
        }
    }
    out
}
