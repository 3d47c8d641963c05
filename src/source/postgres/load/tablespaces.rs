//! Tablespaces of single tables, indexes and materialized views: where the target lacks one, nothing that names it can be made.
//!
//! pg_restore then loads with `--no-tablespaces`: everything lies in the new database's own tablespace. It cannot leave out one alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::error::Result;
use crate::process::shell_word;
use crate::source::postgres::catalog::Database;
use crate::source::postgres::connect::{Connection, ident, literal, pg_error};
use crate::source::postgres::load::properties::DEFAULT_TABLESPACE;

/// The argument of pg_restore.
pub(super) const WITHOUT: &str = "--no-tablespaces";

/// What a load does about tablespaces of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tablespaces {
    /// Those that the target does not have.
    missing: BTreeSet<String>,
    /// Those that it has, in which this role may not make anything.
    denied: BTreeSet<String>,
    /// The set is of an older version and does not say which of the server's tablespaces this database used.
    unsure: bool,
}

impl Tablespaces {
    /// Looks whether the target can take what the set recorded. `surroundings` is that part of the source's details, where its tablespaces
    /// and their folders stand.
    pub(super) async fn look(connection: &Connection, database: &Database, surroundings: &Value) -> Result<Tablespaces> {
        let (used, unsure) = match &database.object_tablespaces {
            Some(used) => (used.clone(), false),
            None => (locations(surroundings).into_keys().collect(), true),
        };
        let mut found = Tablespaces { unsure, ..Tablespaces::default() };
        if used.is_empty() {
            return Ok(found);
        }
        let query = "select spcname::text, has_tablespace_privilege(oid, 'CREATE') from pg_tablespace";
        let rows = connection.query(query, &[]).await.map_err(|e| pg_error("look for the tablespaces", &e))?;
        let has: BTreeMap<String, bool> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        // What goes where the database itself lies needs no right of its own.
        let own = if has.contains_key(&database.tablespace) { database.tablespace.as_str() } else { DEFAULT_TABLESPACE };
        for name in used.into_iter().filter(|name| name != own) {
            match has.get(&name) {
                None => drop(found.missing.insert(name)),
                Some(false) => drop(found.denied.insert(name)),
                Some(true) => {}
            }
        }
        Ok(found)
    }

    /// What pg_restore is given for it.
    pub(super) fn argument(&self) -> Option<String> {
        (!self.missing.is_empty() || !self.denied.is_empty()).then(|| WITHOUT.to_owned())
    }

    /// A line for the plan, with what makes the tablespaces there.
    pub(super) fn warning(&self, source: &str, live: &str, user: &str, surroundings: &Value) -> Option<String> {
        self.argument()?;
        let locations = locations(surroundings);
        let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
        let (mut why, mut mend) = (Vec::new(), Vec::new());
        if !self.missing.is_empty() {
            why.push(format!("the target lacks ({})", list(&self.missing)));
            for name in &self.missing {
                let folder = locations.get(name).filter(|folder| folder.starts_with('/'));
                let folder = folder.map_or_else(|| format!("/FOLDER/{name}"), Clone::clone);
                let word = shell_word(&folder);
                mend.push(format!(
                    "on its host `mkdir -p {word} && chown postgres {word}`, then CREATE TABLESPACE {} LOCATION {}",
                    ident(name),
                    literal(&folder).trim()
                ));
            }
        }
        if !self.denied.is_empty() {
            why.push(format!("role {user} may make nothing in ({})", list(&self.denied)));
            mend.extend(self.denied.iter().map(|name| format!("GRANT CREATE ON TABLESPACE {} TO {}", ident(name), ident(user))));
        }
        let may = if self.unsure { "may lie" } else { "lie" };
        Some(format!(
            "Tables or indexes of database {source} {may} in tablespaces that {}: all are made in the own tablespace of {live}. To have them where \
             they were, first: {}.",
            why.join(", or that "),
            mend.join("; ")
        ))
    }
}

/// Folders of the tablespaces that the server had, by name; of managed servers they may be empty.
fn locations(surroundings: &Value) -> BTreeMap<String, String> {
    let entries = surroundings["tablespaces"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    entries.filter_map(|entry| Some((text(&entry["name"])?, text(&entry["location"]).unwrap_or_default()))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_plan_says_how_missing_tablespaces_are_made() {
        let surroundings = json!({ "tablespaces": [{ "name": "fast", "owner": "postgres", "location": "/mnt/fast disk" }] });
        assert_eq!(Tablespaces::default().warning("shop", "shop", "u", &surroundings), None);
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let found = Tablespaces { missing: set(&["fast", "other"]), denied: set(&["slow"]), unsure: false };
        let line = found.warning("shop", "shop2", "u", &surroundings).unwrap();
        for part in [
            "lie in tablespaces that the target lacks (fast, other), or that role u may make nothing in (slow)",
            "mkdir -p '/mnt/fast disk' && chown postgres '/mnt/fast disk'",
            "CREATE TABLESPACE \"fast\" LOCATION '/mnt/fast disk'",
            "/FOLDER/other",
            "GRANT CREATE ON TABLESPACE \"slow\" TO \"u\"",
            "in the own tablespace of shop2",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert_eq!(found.argument().as_deref(), Some("--no-tablespaces"));
    }
}
