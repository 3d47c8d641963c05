//! Which databases of a server are dumped, and why the others are not.

use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobMatcher};

use crate::error::{Error, Kind};
use crate::source::LeftOut;
use crate::source::postgres::catalog::Database;
use crate::source::postgres::connect::ident;
use crate::source::postgres::load::{Beside, beside, is_lent};
use crate::source::postgres::names::{is_raw, shown};
use crate::source::postgres::settings::{Databases, PostgresSettings};

/// What new databases are copied from. Every server has it, mostly with nothing of its own in it.
pub(super) const TEMPLATE: &str = "template1";

/// Databases that providers of managed servers keep for themselves, with their owners. Nobody else gets in.
const OF_PROVIDERS: [(&str, &str); 5] = [
    ("rdsadmin", "rdsadmin"),
    ("cloudsqladmin", "cloudsqladmin"),
    ("azure_maintenance", "azuresu"),
    ("azure_sys", "azuresu"),
    ("alloydbadmin", "alloydbadmin"),
];

/// Why a database is not dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Closed,
    ClosedTemplate,
    /// As initdb made it.
    BareTemplate,
    HalfDropped,
    Excluded,
    OfProvider,
    Beside(Beside),
    /// As a restore names what it loads, and no connection to it.
    Left,
}

impl Why {
    fn of(database: &Database, excluded: &Patterns) -> Option<Why> {
        match beside(&database.name) {
            _ if is_lent(database.comment.as_deref()) => return Some(Why::Beside(Beside::Loading)),
            Some((Beside::Loading, _)) if database.sessions == 0 => return Some(Why::Left),
            Some((Beside::Loading, _)) => return Some(Why::Beside(Beside::Loading)),
            Some((Beside::Kept, _)) if !database.allow_connections => return Some(Why::Beside(Beside::Kept)),
            _ => {}
        }
        if excluded.match_name(&database.name) {
            Some(Why::Excluded)
        } else if database.is_half_dropped() {
            Some(Why::HalfDropped)
        } else if !database.allow_connections && database.name == "template0" {
            Some(Why::BareTemplate)
        } else if !database.allow_connections {
            Some(if database.template { Why::ClosedTemplate } else { Why::Closed })
        } else {
            None
        }
    }

    /// For the details, and for whoever named the database.
    pub(super) fn words(self) -> &'static str {
        match self {
            Why::Closed => "it accepts no connections",
            Why::ClosedTemplate => "it is a template that accepts no connections",
            Why::BareTemplate => "it is a template with nothing of its own",
            Why::HalfDropped => "an interrupted DROP DATABASE left it, and nobody can connect to it any more",
            Why::Excluded => "it is excluded",
            Why::OfProvider => "it belongs to the provider of the server, who lets nobody in",
            Why::Beside(Beside::Loading) => "a restore is loading it",
            Why::Left => {
                "it has the name of what a restore loads and nobody is connected to it; drctl status shows whose it is, and one of yours needs another name"
            }
            Why::Beside(Beside::Kept) => "a restore keeps it aside",
        }
    }

    /// The line that mends it.
    fn way_on(self, name: &str) -> Option<String> {
        let name = ident(name);
        match self {
            Why::Closed | Why::ClosedTemplate => Some(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")),
            Why::HalfDropped => Some(format!("DROP DATABASE {name}")),
            Why::Left => Some(format!("ALTER DATABASE {name} RENAME TO …")),
            _ => None,
        }
    }
}

/// Names of databases, or patterns with `*`, `?`, `[…]` and `{…}`.
struct Patterns(Vec<(String, Option<GlobMatcher>)>);

impl Patterns {
    fn of(texts: &[String]) -> Patterns {
        let glob = |text: &String| GlobBuilder::new(text).build().ok().map(|glob| glob.compile_matcher());
        Patterns(texts.iter().map(|text| (text.clone(), glob(text))).collect())
    }

    fn match_name(&self, name: &str) -> bool {
        let shown = shown(name);
        self.0.iter().any(|(text, glob)| text == name || *text == shown || glob.as_ref().is_some_and(|glob| glob.is_match(name)))
    }
}

/// What came of choosing.
#[derive(Default)]
pub(super) struct Choice {
    pub(super) databases: Vec<Database>,
    /// Not dumped, and nothing is wrong with that, or it was asked for.
    pub(super) left: Vec<(Database, Why)>,
    /// Asked for by name, but they cannot be dumped.
    pub(super) failed: BTreeMap<String, Error>,
}

impl Choice {
    /// From all databases that the server has, those that the settings mean.
    pub(super) fn of(settings: &PostgresSettings, all: Vec<Database>) -> Choice {
        let excluded = Patterns::of(&settings.exclude);
        let mut choice = Choice::default();
        match &settings.databases {
            Databases::All => {
                for database in all {
                    match Why::of(&database, &excluded) {
                        None => choice.databases.push(database),
                        Some(why) => choice.left.push((database, why)),
                    }
                }
            }
            Databases::Named(names) => {
                for name in names.iter().filter(|name| !excluded.match_name(name)) {
                    match all.iter().find(|d| d.name == *name) {
                        None => {
                            let there = all.iter().map(|d| shown(&d.name)).collect::<Vec<_>>().join(", ");
                            let error =
                                Error::new(Kind::Preflight, format!("there is no database {} at {}", shown(name), settings.address()));
                            choice.failed.insert(name.clone(), error.hint(format!("there are: {there}")));
                        }
                        Some(database) => match Why::of(database, &Patterns(Vec::new())) {
                            // Its name is that of the live one while it is loaded.
                            Some(why) if is_lent(database.comment.as_deref()) => {
                                let what = format!("database {} cannot be dumped: {}", shown(name), why.words());
                                let hint = "wait for the restore's end; if it died: drctl restore --undo puts back what was live";
                                choice.failed.insert(name.clone(), Error::new(Kind::Preflight, what).hint(hint));
                            }
                            Some(why @ (Why::Closed | Why::ClosedTemplate | Why::BareTemplate | Why::HalfDropped)) => {
                                let error =
                                    Error::new(Kind::Preflight, format!("database {} cannot be dumped: {}", shown(name), why.words()));
                                let hint = why.way_on(name);
                                choice.failed.insert(name.clone(), hint.into_iter().fold(error, Error::hint));
                            }
                            _ => choice.databases.push(database.clone()),
                        },
                    }
                }
            }
        }
        choice
    }

    /// `exclude` leaves nothing of what is there: globals alone are no backup, and nothing would be missed.
    pub(super) fn nothing(&self, settings: &PostgresSettings) -> Option<Error> {
        let excluded = match &settings.databases {
            Databases::All => self.left.iter().any(|(_, why)| *why == Why::Excluded),
            Databases::Named(names) => !names.is_empty(),
        };
        let empty = excluded && self.databases.is_empty() && self.failed.is_empty();
        let patterns = settings.exclude.join(", ");
        empty.then(|| {
            Error::new(Kind::Preflight, format!("exclude ({patterns}) leaves none of the databases at {}", settings.address()))
                .hint("name fewer there: drctl config show")
        })
    }

    /// What to say of those that are left out although nothing of the settings says so; each with the line that mends it.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut lines = kept_aside(&self.left);
        for (database, why) in &self.left {
            if matches!(why, Why::HalfDropped | Why::ClosedTemplate | Why::Left | Why::Beside(Beside::Loading)) {
                let way_on = why.way_on(&database.name).map(|line| format!(": {line}")).unwrap_or_default();
                lines.push(format!("Database {} is not dumped: {}{way_on}.", shown(&database.name), why.words()));
            }
        }
        lines
    }

    /// Those about which a person decides, or has decided in the settings.
    pub(super) fn left_out(&self) -> Vec<LeftOut> {
        let left = |(database, why): &(Database, Why)| {
            let on_purpose = match why {
                Why::Excluded => true,
                Why::Closed => false,
                _ => return None,
            };
            let way_on = why.way_on(&database.name).map(|line| format!(" (to have it dumped: {line})")).unwrap_or_default();
            let words = format!("Database {} is not dumped: {}{way_on}.", shown(&database.name), why.words());
            Some(LeftOut { artifact: database.name.clone(), words, on_purpose })
        };
        self.left.iter().filter_map(left).collect()
    }
}

/// A line for each restore that keeps databases aside, with the one that lets go of them.
fn kept_aside(left: &[(Database, Why)]) -> Vec<String> {
    let mut restores: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (database, why) in left {
        if let (Why::Beside(Beside::Kept), Some((_, restore))) = (why, beside(&database.name)) {
            restores.entry(restore).or_default().push(&database.name);
        }
    }
    let line = |(restore, names): (&str, Vec<&str>)| {
        let names = shown(&names.join(", "));
        format!("Restore {restore} keeps old data aside, which is not dumped: {names}. To drop it: drctl restore --finish {restore}")
    };
    restores.into_iter().map(line).collect()
}

/// Whether a database that cannot be entered is one of those that a provider keeps for itself.
pub(super) fn is_of_provider(database: &Database) -> bool {
    OF_PROVIDERS.contains(&(database.name.as_str(), database.owner.as_str()))
}

/// Why a database cannot be dumped although it is wanted, in words that stand in the set, too: with the line that mends it.
pub(super) fn cannot(settings: &PostgresSettings, database: &Database, kind: Kind, why: &str, mend: &str) -> Error {
    let name = shown(&database.name);
    let error = Error::new(kind, format!("database {name} cannot be dumped: {why}; to mend it: {mend}"));
    match settings.databases {
        Databases::Named(_) => error.hint(mend),
        Databases::All => error.hint(format!("mend it, or leave the database out for good: exclude: [{name}] at this source")),
    }
}

/// The same for one that could not be entered. `converted`: names come from the server in another encoding than its own.
pub(super) fn cannot_enter(settings: &PostgresSettings, database: &Database, error: Error, converted: bool) -> Error {
    let (name, role) = (ident(&database.name), ident(&settings.user));
    let kind = error.kind();
    if database.may_connect == Some(false) {
        let mend = format!("GRANT CONNECT ON DATABASE {name} TO {role}");
        return cannot(settings, database, Kind::Preflight, &format!("role {} may not connect to it", shown(&settings.user)), &mend);
    }
    if !database.name.is_ascii() && kind == Kind::Preflight && (converted || is_raw(&database.name)) {
        return cannot(settings, database, kind, "nobody can connect to it by its name in UTF-8", &rename_line(database));
    }
    if kind == Kind::Unreachable && database.connection_limit >= 0 {
        let mend = format!("ALTER DATABASE {name} CONNECTION LIMIT {}", database.connection_limit.saturating_add(4));
        return cannot(settings, database, kind, &format!("{error}, and its limit is {}", database.connection_limit), &mend);
    }
    error
}

/// Gives a database a name of ASCII letters.
fn rename_line(database: &Database) -> String {
    format!(
        "DO $$ BEGIN EXECUTE (SELECT format('ALTER DATABASE %I RENAME TO new_name', datname) FROM pg_database \
         WHERE oid = {}); END $$",
        database.oid
    )
}
