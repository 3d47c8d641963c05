//! What a restore would do and why it cannot work; changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tokio_postgres::error::SqlState;

use crate::error::Result;
use crate::model::ArtifactFormat;
use crate::process::{human_bytes, shell_word};
use crate::source::RunContext;
use crate::source::load::{Growth, LoadPlan, LoadRequest};
use crate::source::postgres::catalog::{self, Database, Server};
use crate::source::postgres::client;
use crate::source::postgres::connect::{Connection, pg_error};
use crate::source::postgres::load::properties::DEFAULT_TABLESPACE;
use crate::source::postgres::load::room::{self, Takes};
use crate::source::postgres::load::tablespaces::Tablespaces;
use crate::source::postgres::load::{Place, Recorded, bound, roles, state, timescale};
use crate::source::postgres::names::{is_raw, shown};
use crate::source::postgres::session;
use crate::source::postgres::settings::Databases;

/// Why a database cannot be loaded under this name, whatever the server.
pub(super) fn cannot_load(live: &str) -> Option<String> {
    if live.len() > state::NAME_BYTES {
        // PostgreSQL would cut it and take another name than was asked for.
        return Some(format!("the name of database {live} has {} bytes: PostgreSQL takes {}", live.len(), state::NAME_BYTES));
    }
    if live == "template0" {
        return Some("template0 is what databases are made from and is never restored: name another database".into());
    }
    None
}

/// Made by initdb in every server, for connections of those who administer it.
const MAINTENANCE: &str = "postgres";

/// Made by initdb in every server: what new databases are copied from.
const TEMPLATE: &str = "template1";

pub(super) struct Planner<'a> {
    pub(super) request: &'a LoadRequest,
    pub(super) place: &'a Place,
    pub(super) recorded: &'a Recorded,
    pub(super) connection: &'a Connection,
    pub(super) server: Server,
    pub(super) plan: LoadPlan,
    /// The database that is looked at: a refusal meanwhile is for it alone, and the others can be had without it.
    pub(super) about: Option<String>,
}

struct Live {
    size_bytes: Option<u64>,
    connections: i64,
    slots: Vec<String>,
    subscriptions: Vec<String>,
}

impl Planner<'_> {
    pub(super) async fn run(mut self, context: &RunContext) -> Result<LoadPlan> {
        let version = self.server.version.split(' ').next().unwrap_or_default().to_owned();
        self.plan.target = format!("PostgreSQL {version} at {}", self.place.settings.address());
        self.versions(context).await;
        self.rights().await?;
        self.plan.identity = self.server.identity();
        let existing = catalog::databases(self.connection).await?;
        // Without knowing what goes where there is nothing more to say.
        let Some(databases) = self.databases(&existing) else { return Ok(self.plan) };
        self.identity(&databases, &existing);
        self.roles(&databases).await?;
        self.extensions(&databases).await?;
        let mut takes = Vec::new();
        for (source, live) in &databases {
            let needs = self.recorded.database(source).and_then(|d| d.size_bytes).unwrap_or(0);
            self.about = Some(source.clone());
            let live_bytes = self.database(source, live, &existing).await?;
            takes.push(Takes { needs, live: live_bytes });
        }
        self.about = None;
        self.room(&takes).await;
        self.statistics(&databases);
        if self.request.artifacts.iter().any(|a| a.artifact.format == ArtifactFormat::Sql) {
            self.plan.touches.push("roles that are missing are created; roles that exist stay as they are".into());
        }
        Ok(self.plan)
    }

    fn refuse(&mut self, why: impl Into<String>) {
        let mut why = why.into();
        if let Some(database) = self.about.as_ref().filter(|_| self.request.artifacts.len() > 1) {
            why.push_str(&format!("; or leave it out: --without {}", shell_word(&format!("{}.{database}", self.request.source))));
        }
        self.plan.refusals.push(why);
    }

    /// Databases to load, each with the name it is to have. `None` when several would have one name, which is refused.
    fn databases(&mut self, existing: &[Database]) -> Option<Vec<(String, String)>> {
        let mut wanted: Vec<_> = self.request.artifacts.iter().filter(|a| a.artifact.format == ArtifactFormat::PgCustom).collect();
        if self.place.database.is_some() && wanted.len() > 1 {
            let names: Vec<&str> = wanted.iter().map(|a| a.name.as_str()).collect();
            self.refuse(format!(
                "the target names one database, but {} are to be restored ({}): leave its name out, and each keeps its own",
                wanted.len(),
                names.join(", ")
            ));
            return None;
        }
        wanted.retain(|artifact| {
            let Some(why) = self.is_left(&artifact.name, existing) else { return true };
            self.plan.touches.push(format!("database {}: {why}", artifact.name));
            self.plan.leaves.push(artifact.name.clone());
            false
        });
        Some(wanted.iter().map(|a| (a.name.clone(), self.place.live_name(&a.name))).collect())
    }

    /// Why a database is left as it is. `postgres` is in every server and mostly empty: exchanging it would only end the connections of whoever
    /// administers the server. `template1` must never be missing, not even while a load runs: without it nobody makes a database, the load
    /// included; beside and by name it is exchanged like another. Whoever names one of them as target gets it.
    fn is_left(&self, name: &str, existing: &[Database]) -> Option<&'static str> {
        if self.place.database.is_some() || !existing.iter().any(|e| e.name == name) {
            return None;
        }
        let named = match &self.place.settings.databases {
            Databases::Named(names) => names.iter().any(|n| n == name),
            Databases::All => false,
        };
        let bare = || self.recorded.database(name).is_some_and(Database::is_bare);
        match name {
            MAINTENANCE if !named && bare() => Some("empty in the set, stays as it is"),
            TEMPLATE if self.request.in_place => Some(
                "stays as it is: in place there would be none for a time, and no database could be made; without --in-place it is restored, too",
            ),
            _ => None,
        }
    }

    /// pg_restore brings no statistics of the planner: until they are made anew, queries may be slow.
    fn statistics(&mut self, databases: &[(String, String)]) {
        let settings = &self.place.settings;
        let which = match databases {
            [] => return,
            [(_, only)] => format!("--dbname={}", shell_word(only)),
            _ => "--all".to_owned(),
        };
        let (host, port, user) = (shell_word(&settings.host), settings.port, shell_word(&settings.user));
        self.plan.afterwards.push(format!(
            "vacuumdb --host={host} --port={port} --username={user} --analyze-in-stages {which}    # a restored database has no statistics for its planner yet"
        ));
    }

    async fn versions(&mut self, context: &RunContext) {
        let (have, want) = (self.server.major(), self.recorded.server.major());
        if have < want {
            let (old, new) = (self.server.version.clone(), self.recorded.server.version.clone());
            self.refuse(format!("the dump comes from PostgreSQL {new}, the target is PostgreSQL {old}: install {want} or later there"));
        } else if have > want {
            self.plan.warnings.push(format!("The dump comes from PostgreSQL {want}, the target is {have}."));
        }
        if self.server.in_recovery {
            self.refuse("the target is a replica and takes no writes: name its primary as target");
        }
        if let Err(error) =
            client::find(&self.place.settings, "pg_restore", self.recorded.tool_major(self.request), "the dump", &context.cancel).await
        {
            let hint = error.hint_text().map(|hint| format!(": {hint}")).unwrap_or_default();
            self.refuse(format!("{error}{hint}"));
        }
    }

    async fn rights(&mut self) -> Result<()> {
        self.plan.refusals.extend(session::read_only(self.connection).await?);
        self.plan.refusals.extend(session::inherited(self.connection).await?);
        let row = self
            .connection
            .query_one("select rolsuper, rolcreatedb, rolname::text from pg_roles where rolname = current_user", &[])
            .await
            .map_err(|e| pg_error("ask for privileges", &e))?;
        let (superuser, createdb, name): (bool, bool, String) = (row.get(0), row.get(1), row.get(2));
        if !superuser && !createdb {
            self.refuse(format!("role {name} may not create databases: ALTER ROLE \"{name}\" CREATEDB"));
        } else if !superuser {
            self.plan
                .warnings
                .push(format!("Role {name} is no superuser: what only a superuser may set or own makes the load fail, before the switch."));
        }
        Ok(())
    }

    /// FAULTS 83, I11: the server may be another one under the same address.
    fn identity(&mut self, databases: &[(String, String)], existing: &[Database]) {
        let (Some(was), Some(is)) = (&self.recorded.server.system_identifier, &self.server.system_identifier) else {
            self.plan
                .warnings
                .push("The server does not tell its system identifier: whether it is the one that was dumped is not known.".into());
            return;
        };
        if was == is {
            return;
        }
        let said = format!("the set comes from server {was}, {} is server {is}", self.place.settings.address());
        let taken: Vec<&str> =
            databases.iter().map(|(_, live)| live.as_str()).filter(|live| existing.iter().any(|e| e.name == *live)).collect();
        // These are in every cluster; alone they say nothing of what lives there.
        let taken: Vec<&str> = taken.into_iter().filter(|live| ![MAINTENANCE, TEMPLATE].contains(live)).collect();
        if self.request.target.is_none() && !taken.is_empty() {
            let url = self.place.settings.url(None);
            self.refuse(format!("{said}, and it has {} already: if it is the right one, say --target {url}", taken.join(", ")));
        } else {
            self.plan.warnings.push(format!("Another server: {said}."));
        }
    }

    async fn roles(&mut self, databases: &[(String, String)]) -> Result<()> {
        let have = catalog::roles(self.connection).await?;
        let globals = self.request.artifacts.iter().any(|a| a.artifact.format == ArtifactFormat::Sql);
        let mut missing = BTreeSet::new();
        for (source, _) in databases {
            if let Some(database) = self.recorded.database(source) {
                missing.extend(database.owners.iter().chain([&database.owner]).filter(|role| !have.contains(*role)).cloned());
            }
        }
        for (source, live) in databases {
            let Some(database) = self.recorded.database(source) else { continue };
            let lost = roles::not_found(self.connection, &self.server, database, self.request, globals).await?;
            if !lost.is_empty() {
                let (names, encoding) = (lost.join(", "), database.encoding.clone());
                let here = self.server.encoding.clone().unwrap_or_default();
                self.refuse(format!(
                    "database {live} is of encoding {encoding} and what is in it belongs to roles ({names}) whose names this server, of encoding \
                     {here}, keeps in other bytes: PostgreSQL would not find them. Name a server as --target that was made with initdb \
                     --encoding={encoding}, or load it by hand without its owners: drctl cat SET {source} | PGOPTIONS='-c lc_monetary=C' \
                     pg_restore --no-owner --dbname=NAME"
                ));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.iter().map(|role| shown(role)).collect::<Vec<_>>().join(", ");
        if globals {
            self.plan.touches.push(format!("roles that are missing and own something: {names}"));
        } else {
            self.refuse(format!(
                "roles {names} are missing and the globals are not part of this restore: restore them too, or create the roles"
            ));
        }
        Ok(())
    }

    async fn extensions(&mut self, databases: &[(String, String)]) -> Result<()> {
        let query = "select name::text, default_version from pg_available_extensions";
        let rows = self.connection.query(query, &[]).await.map_err(|e| pg_error("list the available extensions", &e))?;
        let available: BTreeMap<String, Option<String>> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        for (source, live) in databases {
            let Some(database) = self.recorded.database(source).cloned() else { continue };
            self.about = Some(source.clone());
            if let Some(extension) = timescale::of(&database)
                && let Some(why) = timescale::cannot_take(self.connection, source, extension).await?
            {
                self.refuse(why);
            }
            if let Some(why) = bound::cannot_take(self.connection, source, live, &database).await? {
                self.refuse(why);
            }
            for extension in database.extensions {
                match available.get(&extension.name) {
                    None => self.refuse(format!(
                        "database {source} needs extension {} {}, which the target's server does not have: install its package there",
                        extension.name, extension.version
                    )),
                    Some(Some(version)) if *version != extension.version && extension.name != timescale::NAME => self
                        .plan
                        .warnings
                        .push(format!("Extension {} of {source} was {}, the target has {version}.", extension.name, extension.version)),
                    Some(_) => {}
                }
            }
        }
        self.about = None;
        Ok(())
    }

    async fn live(&self, name: &str) -> Result<Live> {
        let query = "select (select count(*) from pg_stat_activity where datname = $1 and usesysid is not null),
            (select coalesce(array_agg(slot_name::text), '{}') from pg_replication_slots where database = $1),
            (select coalesce(array_agg(subname::text order by 1), '{}') from pg_subscription
               where subdbid = (select oid from pg_database where datname = $1))";
        let row = self.connection.query_one(query, &[&name]).await.map_err(|e| pg_error(format!("look at database {name}"), &e))?;
        let size_bytes = super::server::size(self.connection, name).await;
        Ok(Live { size_bytes, connections: row.get(0), slots: row.get(1), subscriptions: row.get(2) })
    }

    /// Asked as CREATE DATABASE asks, by a setting that only this connection has: the list of collations knows what initdb saw only.
    async fn locales(&mut self, source: &str, recorded: &Database) -> Result<()> {
        for locale in BTreeSet::from([&recorded.collate, &recorded.ctype]) {
            match self.connection.query("select set_config('lc_time', $1, false)", &[locale]).await {
                Ok(_) => {}
                Err(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => self.refuse(format!(
                    "database {source} needs locale {locale}, which the target's server does not have: install it there (locale-gen) and restart the server"
                )),
                Err(error) => return Err(pg_error(format!("ask whether the server has locale {locale}"), &error)),
            }
        }
        self.connection.batch_execute("RESET lc_time").await.map_err(|e| pg_error("reset lc_time", &e))
    }

    async fn tablespace(&mut self, name: &str, live: &str) -> Result<()> {
        if name == DEFAULT_TABLESPACE {
            return Ok(());
        }
        let query = "select has_tablespace_privilege(oid, 'CREATE') from pg_tablespace where spcname = $1";
        let row = self.connection.query_opt(query, &[&name]).await.map_err(|e| pg_error("look for the tablespace", &e))?;
        match row.map(|row| row.get::<_, bool>(0)) {
            Some(true) => {}
            Some(false) => self.refuse(format!(
                "role {user} may not make database {live} in tablespace {name}: GRANT CREATE ON TABLESPACE \"{name}\" TO \"{user}\"",
                user = self.place.settings.user
            )),
            None => self.plan.warnings.push(format!("Tablespace {name} is missing: database {live} is made in the default one.")),
        }
        Ok(())
    }

    /// Looks at one database. Returns the bytes of the one that is live.
    async fn database(&mut self, source: &str, live: &str, existing: &[Database]) -> Result<u64> {
        let Some(recorded) = self.recorded.database(source).cloned() else {
            self.refuse(format!("the set's details hold no properties of database {source}"));
            return Ok(0);
        };
        let mut live_bytes = 0;
        if let Some(why) = cannot_load(live) {
            self.refuse(why);
        }
        if !live.is_ascii() && (is_raw(live) || self.server.converts_names()) {
            let (name, encoding) = (shown(live), self.server.encoding.clone().unwrap_or_default());
            self.refuse(format!(
                "database {name}: the target keeps names in {encoding}, where nobody can connect to this one by its name in UTF-8; restore the \
                 rest with --without, and load this one by hand under a name of ASCII letters: drctl cat SET {name} | PGOPTIONS='-c lc_monetary=C' \
                 pg_restore --dbname=NAME"
            ));
        }
        if live == "template1" && source != live {
            self.refuse(format!("every new database would begin with what is in {source}: name another database than template1"));
        }
        self.locales(source, &recorded).await?;
        let restore = &self.request.restore;
        let made = [restore.clone(), format!("old_{restore}"), format!("undone_{restore}")];
        for name in made.map(|suffix| state::name_beside(live, &suffix)) {
            if existing.iter().any(|e| e.name == name) {
                self.refuse(format!("database {name} exists already: an earlier restore left it"));
            }
        }
        self.tablespace(&recorded.tablespace, live).await?;
        let surroundings = &self.recorded.surroundings;
        let tablespaces = Tablespaces::look(self.connection, &recorded, surroundings).await?;
        self.plan.warnings.extend(tablespaces.warning(source, live, &self.place.settings.user, surroundings));
        if let Some(old) = existing.iter().find(|e| e.name == live) {
            let found = self.live(live).await?;
            let bytes = found.size_bytes.or(old.size_bytes);
            live_bytes = bytes.unwrap_or(0);
            let size = bytes.map_or("size unknown".to_owned(), human_bytes);
            let connections = match found.connections {
                0 => String::new(),
                n => format!(", {n} connections will be ended"),
            };
            if let Some((extension, _)) = bound::by(&recorded) {
                let line = format!("Jobs of {extension} in {source} may run as soon as they are loaded, before the restore is done.");
                self.plan.warnings.push(line);
            }
            let bound = bound::by(&recorded).map(|(extension, _)| format!("its extension {extension} is bound to that name"));
            match (&bound, self.request.exchange_first, self.request.in_place) {
                (Some(why), false, false) => self.refuse(format!(
                    "database {live} can only be loaded under its own name, which is taken: {why}; add --exchange-first, and what is live is put aside \
                     first: it is out of use while the restore loads"
                )),
                (Some(why), _, true) => self.refuse(format!(
                    "database {live} can only be loaded under its own name ({why}), so that nothing of it could be tried out before it is dropped: restore \
                     with --exchange-first instead of --in-place"
                )),
                (_, true, _) => self.plan.warnings.push(format!(
                    "Database {live} is OUT OF USE from the start of the load on: it is put aside first, and comes back by itself if the load fails."
                )),
                (None, false, _) => {}
            }
            self.plan.touches.push(match self.request.in_place {
                true => format!("database {live}: {size} live, dropped before the load{connections}"),
                false => {
                    format!("database {live}: {size} live, kept as {}{connections}", state::name_beside(live, &format!("old_{restore}")))
                }
            });
            match self.request.in_place {
                true => self.plan.drops.push(source.to_owned()),
                false => self.plan.exchanges = true,
            }
            if self.request.in_place && !found.subscriptions.is_empty() {
                let names = found.subscriptions.join(", ");
                self.refuse(format!("database {live} has subscriptions ({names}), which in place would be lost: drop them first"));
            }
            if !found.slots.is_empty() {
                let slots = found.slots.join(", ");
                match self.request.in_place {
                    true => self.refuse(format!("replication slots {slots} hold database {live}: drop them first")),
                    false => self
                        .plan
                        .warnings
                        .push(format!("Replication slots {slots} stay with the old database {live}: their consumers need a new start.")),
                }
            }
        } else {
            self.plan.touches.push(format!("database {live}: does not exist, will be made"));
        }
        for (kind, names) in [("Subscriptions", &recorded.subscriptions), ("Publications", &recorded.publications)] {
            if !names.is_empty() {
                self.plan.warnings.push(format!("{kind} of {source} come back without their replication slots: {}.", names.join(", ")));
            }
        }
        Ok(live_bytes)
    }

    /// Only where the server's folder is one of this machine.
    async fn room(&mut self, takes: &[Takes]) {
        if !self.place.settings.is_local() {
            return;
        }
        let Ok(row) = self.connection.query_one("select current_setting('data_directory', true)", &[]).await else { return };
        let Some(folder) = row.get::<_, Option<String>>(0) else { return };
        let version = std::fs::read_to_string(Path::new(&folder).join("PG_VERSION")).ok().and_then(|v| client::major_of(&v));
        // Another folder of the same name, seen from inside a container, would not hold the same version's file, or none at all.
        if version.is_some_and(|v| v != self.server.major()) {
            return;
        }
        let Ok(stat) = rustix::fs::statvfs(&folder) else { return };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let grows = Growth::beside(&self.request.grows, Path::new(&folder));
        let refusal = match self.request.in_place {
            true => room::in_place(&folder, free, grows, takes),
            false => room::beside(&folder, free, takes),
        };
        self.plan.refusals.extend(refusal);
    }
}
