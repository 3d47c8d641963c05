//! What the journal holds of a restore, and the names a restore gives.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::server::open_sql;
use crate::error::{Error, Kind, Result};
use crate::model::Sha256;
use crate::source::load::Journal;
use crate::source::postgres::catalog::Server;

/// Longest name of a database in bytes (`NAMEDATALEN` - 1 as PostgreSQL is built everywhere).
pub(super) const NAME_BYTES: usize = 63;

/// `<database>_drctl_<suffix>`, shortened to what PostgreSQL takes; names that are cut get part of a hash, so that no two become one.
pub(super) fn name_beside(database: &str, suffix: &str) -> String {
    let tail = format!("_drctl_{suffix}");
    if database.len() + tail.len() <= NAME_BYTES {
        return format!("{database}{tail}");
    }
    let hash = &Sha256::of(database.as_bytes()).to_string()[..8];
    let mut room = NAME_BYTES.saturating_sub(tail.len() + hash.len() + 1);
    while !database.is_char_boundary(room) {
        room -= 1;
    }
    format!("{}_{hash}{tail}", &database[..room])
}

/// What a restore calls a database that is not live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source::postgres) enum Beside {
    /// Being loaded.
    Loading,
    /// Kept aside after a switch or an undo.
    Kept,
}

const LENT_MARK: &str = "drctl: being loaded by restore ";

/// The comment of a database that is loaded under a live name.
pub(super) fn lent_mark(restore: &str) -> String {
    format!("{LENT_MARK}{restore}")
}

/// Whether a database's comment says that it has its name only while it is loaded.
pub(in crate::source::postgres) fn is_lent(comment: Option<&str>) -> bool {
    comment.is_some_and(|comment| comment.starts_with(LENT_MARK))
}

/// What a database is by its name, and the restore that gave it that name, if one did.
pub(in crate::source::postgres) fn beside(name: &str) -> Option<(Beside, &str)> {
    // As restores are named: eight of Crockford's letters and digits, not digits alone, which are the dates of people's own copies.
    let is_id = |id: &str| {
        id.len() == 8 && id.bytes().all(|b| b"0123456789abcdefghjkmnpqrstvwxyz".contains(&b)) && !id.bytes().all(|b| b.is_ascii_digit())
    };
    let (database, suffix) = name.rsplit_once("_drctl_")?;
    let kept = suffix.strip_prefix("old_").or_else(|| suffix.strip_prefix("undone_"));
    let (beside, restore) = kept.map_or((Beside::Loading, suffix), |id| (Beside::Kept, id));
    (is_id(restore) && !database.is_empty()).then_some((beside, restore))
}

/// How far one database has come. What was really done is asked of the server, by oid: a step is noted before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// The new database is being made and filled.
    Loading,
    /// It is being filled under the live name; the live one, if there is one, is put aside meanwhile.
    Lent,
    /// The new database is whole.
    Loaded,
    /// The live one is being closed and replaced.
    Switching,
    /// The new one is live, the old one kept aside.
    Switched,
    /// The old one is being put back.
    Undoing,
    /// The old one is live, the new one kept aside.
    Undone,
    /// Nothing is kept aside.
    Finished,
    /// The new one was dropped without having been live.
    Discarded,
}

/// One database of a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its name in the source.
    pub(super) source: String,
    /// The name it is to have.
    pub(super) live: String,
    /// Where it is loaded.
    pub(super) new: String,
    /// Where the live one goes.
    pub(super) old: String,
    /// Where it goes itself when the switch is undone.
    pub(super) undone: String,
    pub(super) new_oid: Option<u32>,
    /// The one that was live, if there was one.
    pub(super) old_oid: Option<u32>,
    /// Whether that one accepted connections.
    pub(super) old_open: bool,
    pub(super) in_place: bool,
    pub(super) phase: Phase,
}

/// The whole of it; one value, so that it changes as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) restore: String,
    /// The server, when it is not the one of the settings: a URL without password.
    pub(super) target: Option<String>,
    /// Which server it really was; absent where it does not tell.
    #[serde(default)]
    pub(super) system_identifier: Option<String>,
    pub(super) entries: Vec<Entry>,
    /// Roles that were missing and are made here.
    pub(super) roles: BTreeSet<String>,
}

const KEY: &str = "postgres";

impl State {
    pub(super) fn read(journal: &dyn Journal) -> Result<Option<State>> {
        let Some(value) = journal.get(KEY) else { return Ok(None) };
        serde_json::from_value(value).map(Some).map_err(|e| Error::corrupt("the journal of the restore cannot be read").because(e))
    }

    pub(super) async fn write(&self, journal: &dyn Journal) -> Result<()> {
        journal.note(KEY, serde_json::json!(self)).await
    }

    /// Ties the restore to the server that answers; fails when it is another than the restore began with.
    pub(super) fn tie_to(&mut self, server: &Server, address: &str) -> Result<()> {
        match (&self.system_identifier, &server.system_identifier) {
            (None, is) => {
                self.system_identifier.clone_from(is);
                Ok(())
            }
            _ => match self.elsewhere(server, address) {
                Some(why) => Err(Error::new(Kind::Preflight, why).hint(format!(
                    "give the address of the server that was restored to; if that one is gone for good: drctl restore --forget {}",
                    self.restore
                ))),
                None => Ok(()),
            },
        }
    }

    /// A sentence when the server that answers is proven to be another than the restore began with.
    pub(super) fn elsewhere(&self, server: &Server, address: &str) -> Option<String> {
        let (was, is) = self.system_identifier.as_ref().zip(server.system_identifier.as_ref())?;
        (was != is).then(|| format!("the restore went to server {was}, {address} is server {is}"))
    }

    /// What may be left of it, a line each, where nobody looks at the server. Databases that are live now are none of it.
    pub(super) fn traces(&self, address: &str) -> Vec<String> {
        let number = self.system_identifier.as_ref().map(|number| format!(" (server {number})")).unwrap_or_default();
        let at = format!("at {}{number}", self.target.as_deref().unwrap_or(address));
        let mut lines = Vec::new();
        for entry in &self.entries {
            let Entry { live, new, old, undone, .. } = entry;
            match entry.phase {
                Phase::Loading | Phase::Loaded => lines.push(format!("database {new} {at}: what was loaded and never went live")),
                Phase::Lent => {
                    lines.push(format!("database {live} or {new} {at}: what was loaded; it is not whole"));
                    if entry.old_oid.is_some() {
                        lines.push(format!(
                            "database {old} {at}: what was live before, put aside; drctl restore --undo gives it its name back"
                        ));
                        lines.push(format!("database {old} {at} may be closed; to open it: {}", open_sql(old, true)));
                    }
                }
                Phase::Switching => lines.extend([
                    format!("databases {new} and {old} {at}, whichever are there: what was loaded, and what was live before"),
                    format!("database {live} {at} may be closed; to open it: {}", open_sql(live, true)),
                ]),
                Phase::Undoing => {
                    lines.push(format!("databases {old} and {undone} {at}, whichever are there: what was live before, and since"));
                    lines.push(format!("database {live} {at} may be closed; to open it: {}", open_sql(live, true)));
                }
                Phase::Switched if entry.old_oid.is_some() => {
                    lines.push(format!("database {old} {at}: what was live before the restore"));
                }
                Phase::Undone => lines.push(format!("database {undone} {at}: what was live from the restore to its undo")),
                Phase::Switched | Phase::Finished | Phase::Discarded => {}
            }
        }
        let never_live = |phase| matches!(phase, Phase::Loading | Phase::Lent | Phase::Loaded | Phase::Switching);
        if !self.roles.is_empty() && self.entries.iter().all(|entry| never_live(entry.phase)) {
            let roles: Vec<&str> = self.roles.iter().map(String::as_str).collect();
            lines.push(format!("roles {} {at}: made for it", roles.join(", ")));
        }
        lines
    }

    pub(super) fn of_source(&self, name: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.source == name)
    }

    /// Notes a phase durably.
    pub(super) async fn enter(&mut self, at: usize, phase: Phase, journal: &dyn Journal) -> Result<()> {
        if self.entries[at].phase != phase {
            self.entries[at].phase = phase;
            self.write(journal).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_stay_apart() {
        assert_eq!(name_beside("shop", "old_7k3q"), "shop_drctl_old_7k3q");
        let (a, b) = (format!("{}a", "ü".repeat(31)), format!("{}b", "ü".repeat(31)));
        let (short_a, short_b) = (name_beside(&a, "undone_0123456789abcdef"), name_beside(&b, "undone_0123456789abcdef"));
        assert!(short_a.len() <= 63 && short_a.ends_with("_drctl_undone_0123456789abcdef"));
        assert_ne!(short_a, short_b);
    }

    #[test]
    fn f119_a_database_that_was_put_aside_for_a_load_is_told_of() {
        let entry = |phase, old_oid| Entry {
            source: "shop".into(),
            live: "shop".into(),
            new: "shop_drctl_7k3q9xyz".into(),
            old: "shop_drctl_old_7k3q9xyz".into(),
            undone: "shop_drctl_undone_7k3q9xyz".into(),
            new_oid: Some(2),
            old_oid,
            old_open: true,
            in_place: false,
            phase,
        };
        let traces = |phase, old_oid| State { entries: vec![entry(phase, old_oid)], ..State::default() }.traces("db:5432").join("\n");
        let aside = traces(Phase::Lent, Some(1));
        assert!(aside.contains("database shop or shop_drctl_7k3q9xyz at db:5432: what was loaded; it is not whole"), "{aside}");
        assert!(aside.contains("shop_drctl_old_7k3q9xyz at db:5432: what was live before, put aside"), "{aside}");
        assert!(aside.contains("ALTER DATABASE \"shop_drctl_old_7k3q9xyz\" ALLOW_CONNECTIONS true"), "{aside}");
        assert!(!traces(Phase::Lent, None).contains("_old_"), "{}", traces(Phase::Lent, None));
        assert!(!traces(Phase::Loading, Some(1)).contains("_old_"));
    }

    #[test]
    fn names_that_restores_gave_are_known() {
        let id = "7k3q9xyz";
        assert_eq!(beside(&name_beside("shop", id)), Some((Beside::Loading, id)));
        assert_eq!(beside(&name_beside("a_drctl_b", &format!("old_{id}"))), Some((Beside::Kept, id)));
        assert_eq!(beside(&name_beside(&"x".repeat(63), &format!("undone_{id}"))), Some((Beside::Kept, id)));
        for other in [
            "shop",
            "shop_drctl_",
            "shop_drctl_7k3q",
            "shop_drctl_7k3q9xyu",
            "shop_drctl_7k3q9xyz_",
            "_drctl_7k3q9xyz",
            "shop_drctl_old_7k3q",
            "shop_drctl_20241231",
        ] {
            assert_eq!(beside(other), None, "{other}");
        }
    }
}
