//! `drctl config history` and `drctl config rollback`. A configuration that cannot be read must not stand in the way of going back.

use std::path::PathBuf;

use serde_json::json;

use crate::cli::args::Global;
use crate::cli::output::{Output, table};
use crate::config::environment::Environment;
use crate::config::find;
use crate::config::load::load;
use crate::error::{Context as _, Result};
use crate::observe::Bus;
use crate::open::{STATE_FILE, history, load_options};
use crate::state::{Act, Audited, StateFile};

/// The folder of the configuration, and that of the state.
fn places(global: &Global) -> Result<(PathBuf, PathBuf)> {
    let environment = Environment::system();
    let file = find::config_file(global.config.as_deref(), &environment)?;
    let folder = file.parent().map(PathBuf::from).unwrap_or_default();
    Ok((folder, find::state_folder(None, &environment)))
}

/// Lists those kept.
pub fn list(global: &Global, out: Output) -> Result<u8> {
    let (folder, state) = places(global)?;
    let kept = history::list(&state, &folder)?;
    out.result("config", &kept, |kept| {
        if kept.is_empty() {
            return "no configuration was kept yet: drctl agent keeps each that it takes into use\n".to_owned();
        }
        let row = |kept: &history::Kept| {
            vec![kept.name.clone(), kept.files.join(", "), if kept.current { "as it is now" } else { "" }.to_owned()]
        };
        table(&["NAME", "FILES", ""], &kept.iter().map(row).collect::<Vec<_>>(), &[])
    });
    Ok(0)
}

/// Goes back to one.
pub fn roll_back(global: &Global, out: Output, name: Option<&str>) -> Result<u8> {
    let (folder, state) = places(global)?;
    let file = state.join(STATE_FILE);
    let opened = if file.exists() {
        StateFile::open(&file, std::sync::Arc::new(crate::model::SystemClock)).ok().map(std::sync::Arc::new)
    } else {
        None
    };
    let audited = Audited::begin(opened.as_ref(), &Bus::new(), Act::of("config rollback").on(folder.display()).with(json!({ "to": name })));
    let done = history::roll_back(&state, &folder, name);
    audited.ended(&done);
    let done = done.context(|| format!("go back to an earlier configuration in {}", folder.display()))?;
    // It was good when it was kept; what it refers to may have gone since.
    let problem = load(&load_options(global.config.as_deref())).err().map(|problems| problems.to_string());
    out.result("config", &json!({ "rolled_back": done, "problem": problem }), |_| {
        let mut text = format!("the configuration is that of {} again\n", done.to);
        for path in &done.written {
            text.push_str(&format!("  wrote {path}\n"));
        }
        for path in &done.aside {
            text.push_str(&format!("  laid aside {path}\n"));
        }
        match &problem {
            None => text.push_str("a running agent takes it into use by itself\n"),
            Some(problem) => text.push_str(&format!("it does not load any more:\n{problem}\n")),
        }
        text
    });
    Ok(0)
}
