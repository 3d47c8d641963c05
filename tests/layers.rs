//! The order of layers, as src/lib.rs draws it, holds in the source: a module names only what stands to its left.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Module → its place, read from the line in src/lib.rs that begins with `model ←`; `error` stands below them all.
fn layers(lib: &str) -> BTreeMap<String, usize> {
    let line = lib.lines().find_map(|l| l.trim_start_matches("//!").trim().strip_prefix("`model ←")).unwrap();
    let mut places = BTreeMap::from([("error".to_owned(), 0), ("model".to_owned(), 1)]);
    for (place, layer) in line.split('`').next().unwrap().split('←').enumerate() {
        for module in layer.trim().trim_matches(['{', '}']).split(',') {
            places.insert(module.trim().to_owned(), place + 2);
        }
    }
    places
}

/// Top modules of this crate that a source text names, comments left out.
fn named(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().map(|l| l.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let word = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + path.len()..];
        match rest.trim_start().strip_prefix('{') {
            None => {
                found.insert(word(rest));
            }
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (i, c) in group.char_indices() {
                    if start && depth == 0 && !c.is_whitespace() {
                        found.insert(word(&group[i..]));
                        start = false;
                    }
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' => start = true,
                        _ => {}
                    }
                }
            }
        }
    }
    found.remove("");
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn a_module_names_only_lower_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = std::fs::read_to_string(root.join("lib.rs")).unwrap();
    let places = layers(&lib);
    for module in lib.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')) {
        assert!(places.contains_key(module), "src/lib.rs does not say in which layer {module} stands");
    }
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 20);
    let mut wrong = Vec::new();
    for file in files {
        let inner = file.strip_prefix(&root).unwrap();
        let module = inner.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
        let Some(own) = places.get(&module) else { continue };
        for other in named(&std::fs::read_to_string(&file).unwrap()) {
            // A name that is no module is an item re-exported at the root, of which there are none.
            let lower = other == module || places.get(&other).is_some_and(|place| place < own);
            if !lower {
                wrong.push(format!("src/{} names crate::{other}", inner.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_names_is_not_blind() {
    let names = |text: &str| named(text).into_iter().collect::<Vec<_>>();
    assert_eq!(names("use crate::store::Store;\nuse crate::error::{Error, Kind};"), ["error", "store"]);
    assert_eq!(names("use crate::{error::{Error, Kind}, store, model::Sha256};"), ["error", "model", "store"]);
    assert_eq!(names("use crate::{\n    ops::run,\n    cli,\n};\nfn f() { crate::web::g() }"), ["cli", "ops", "web"]);
    assert_eq!(names("// crate::ops\n/// [`crate::cli`]\n//! crate::web"), Vec::<String>::new());
    assert_eq!(names("other_crate::x::y; pub(crate) fn f() {}"), Vec::<String>::new());
    let places = layers("//! `model ← config ← {state, process} ← ops`.");
    assert!(places["error"] < places["model"] && places["state"] == places["process"] && places["process"] < places["ops"]);
}
