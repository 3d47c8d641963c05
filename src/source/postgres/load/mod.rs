//! Loading dumps back: into a new database beside the live one, counted, then switched by renaming; undoable until finished.
//!
//! ```text
//! load    shop_drctl_7k3q made from template0 with the recorded properties, filled from the stream (see `fill`)
//! switch  shop closed and emptied; in ONE transaction: shop → shop_drctl_old_7k3q, shop_drctl_7k3q → shop
//! undo    shop closed and emptied; in ONE transaction: shop → shop_drctl_undone_7k3q, shop_drctl_old_7k3q → shop
//! finish  what is kept aside is dropped
//! ```
//! The journal is written before each step and databases are known by oid, so every step can be repeated after a crash at any point:
//! what was really done is asked of the server.

mod bound;
mod count;
mod encoding;
mod fill;
mod globals;
mod plan;
mod properties;
mod roles;
mod room;
mod server;
mod state;
mod steps;
mod tablespaces;
mod taking;
mod through_root;
mod timescale;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;

use crate::error::{Error, Kind, Result};
use crate::model::{ArtifactFormat, Facts, Secret};
use crate::pipeline::plain::{Plain, PlainReceiver};
use crate::source::RunContext;
use crate::source::load::{Journal, LoadArtifact, LoadPlan, LoadProblem, LoadRequest, Loader, drained};
use crate::source::postgres::application;
use crate::source::postgres::catalog::{self, Database, Server};
use crate::source::postgres::client::{self, Private, major_of};
use crate::source::postgres::connect::{Connection, connect};
use crate::source::postgres::session;
use crate::source::postgres::settings::PostgresSettings;
use globals::Globals;
use state::{Entry, Phase, State, name_beside};
use steps::Steps;
use tablespaces::Tablespaces;

pub(super) use state::{Beside, beside, is_lent};

/// Largest globals artifact; a role takes some 300 bytes.
const GLOBALS_LIMIT: usize = 64 * 1024 * 1024;

/// Loads the artifacts of a [`super::PostgresSource`], one after the other: two loads of one restore at a time would write one journal.
///
/// The server is the one of the settings, or that of [`LoadRequest::target`], a URL `postgres://user@host:port/database` whose
/// password, when it holds none, comes from `PGPASSWORD` or the password file; so does the password of such a target when a restore
/// is undone or finished later. The journal never holds it.
///
/// With [`LoadRequest::in_place`] the live database is dropped before its load begins, for lack of room beside: the caller has verified the
/// whole artifact and made a safety set by then. The new database takes the live name only when it is whole.
pub struct PostgresLoader {
    settings: PostgresSettings,
    /// Passwords that stood in a target's URL, by that URL without it: the journal never holds them, this process still needs them.
    passwords: Mutex<BTreeMap<String, Secret>>,
}

/// The server a restore goes to, and the database when the target names one.
struct Place {
    settings: PostgresSettings,
    database: Option<String>,
}

impl Place {
    fn live_name(&self, source: &str) -> String {
        self.database.clone().unwrap_or_else(|| source.to_owned())
    }
}

/// What the session recorded in the details.
struct Recorded {
    server: Server,
    databases: Vec<Database>,
    /// What else the server had: its tablespaces, roles, replication slots.
    surroundings: serde_json::Value,
}

impl Recorded {
    fn of(request: &LoadRequest) -> Result<Recorded> {
        let part = |name: &str| request.details.get(name).cloned().unwrap_or_default();
        let bad = |e: serde_json::Error| {
            Error::new(Kind::Preflight, format!("the details of source {} hold no PostgreSQL properties", request.source)).because(e)
        };
        let server = serde_json::from_value(part("server")).map_err(bad)?;
        let databases = serde_json::from_value(part("databases")).map_err(bad)?;
        Ok(Recorded { server, databases, surroundings: part("surroundings") })
    }

    fn database(&self, name: &str) -> Option<&Database> {
        self.databases.iter().find(|d| d.name == name)
    }

    /// Roles that own a database of the request, or something in it.
    fn owners(&self, request: &LoadRequest) -> BTreeSet<String> {
        let databases = request.artifacts.iter().filter_map(|artifact| self.database(&artifact.name));
        databases.flat_map(|database| database.owners.iter().chain([&database.owner])).cloned().collect()
    }

    /// The major version of the pg_dump that made the archives: pg_restore must not be older.
    fn tool_major(&self, request: &LoadRequest) -> u32 {
        let tools = request.artifacts.iter().filter_map(|a| a.artifact.tool.as_ref());
        tools.filter_map(|tool| major_of(&tool.version)).max().unwrap_or_else(|| self.server.major())
    }
}

impl PostgresLoader {
    /// A loader for the server of these settings.
    pub fn new(settings: PostgresSettings) -> Self {
        PostgresLoader { settings, passwords: Mutex::default() }
    }

    fn place(&self, target: Option<&str>) -> Result<Place> {
        let Some(url) = target else { return Ok(Place { settings: self.settings.clone(), database: None }) };
        let (mut settings, database) = self.settings.at_url(url)?;
        let mut passwords = self.passwords.lock().unwrap_or_else(|p| p.into_inner());
        match &settings.password {
            Some(password) => drop(passwords.insert(settings.url(None), password.clone())),
            None => settings.password = passwords.get(&settings.url(None)).cloned(),
        }
        drop(passwords);
        Ok(Place { settings, database })
    }

    async fn steps<'a>(&self, journal: &'a dyn Journal, context: &'a RunContext) -> Result<Option<Steps<'a>>> {
        let Some(state) = State::read(journal)? else { return Ok(None) };
        let settings = self.place(state.target.as_deref())?.settings;
        Steps::open(settings, state, journal, context).await.map(Some)
    }

    /// The state of this restore, made at its first step.
    fn state(&self, request: &LoadRequest, journal: &dyn Journal) -> Result<State> {
        if let Some(state) = State::read(journal)? {
            return match state.restore == request.restore {
                true => Ok(state),
                false => Err(Error::failed(format!("the journal belongs to restore {}, not {}", state.restore, request.restore))),
            };
        }
        let target = match &request.target {
            Some(_) => Some(self.place(request.target.as_deref())?.settings.url(None)),
            None => None,
        };
        Ok(State { restore: request.restore.clone(), target, ..State::default() })
    }

    async fn load_globals(
        &self,
        request: &LoadRequest,
        mut input: PlainReceiver,
        journal: &dyn Journal,
        context: &RunContext,
    ) -> Result<()> {
        let mut text = Vec::new();
        loop {
            match input.next().await {
                Some(Plain::Data(bytes)) if text.len() + bytes.len() > GLOBALS_LIMIT => {
                    return Err(Error::corrupt(format!("the globals are larger than {GLOBALS_LIMIT} bytes")));
                }
                Some(Plain::Data(bytes)) => text.extend_from_slice(&bytes),
                Some(Plain::Cut) => {}
                Some(Plain::End) => break,
                None => return Err(broke_off()),
            }
        }
        let place = self.place(request.target.as_deref())?;
        let recorded = Recorded::of(request)?;
        let encoding = recorded.globals_encoding(&place.settings.maintenance_database).map(str::to_owned);
        let Steps { mut state, connection, .. } = Steps::open(place.settings, self.state(request, journal)?, journal, context).await?;
        let mut globals = Globals::parse(&encoding::text(text, encoding.as_deref(), &connection).await)?;
        let here = catalog::server(&connection).await?.encoding;
        let unreadable = globals.without_unreadable(here.as_deref());
        if !unreadable.is_empty() {
            context.bus.warn(format!(
                "Roles whose names are no UTF-8 are not made, since a server of encoding {} cannot have them: {}. What they own must be given \
                 to another role.",
                here.unwrap_or_default(),
                unreadable.into_iter().collect::<Vec<_>>().join(", ")
            ));
        }
        let have = catalog::roles(&connection).await?;
        // Noted before they are made: after a crash those that exist by then are known to be ours.
        state.roles.extend(globals.roles().filter(|role| !have.contains(*role) && !role.starts_with("pg_")).map(str::to_owned));
        state.write(journal).await?;
        let owners = recorded.owners(request);
        taking::make_roles(&connection, &globals, &state.roles, &have, &owners, context).await?;
        if !globals.passed_over.is_empty() {
            let names = globals.passed_over.iter().cloned().collect::<Vec<_>>().join(", ");
            context.bus.warn(format!("The globals hold statements that drctl does not load: {names}."));
        }
        Ok(())
    }

    /// What is needed to fill a new database with this artifact.
    async fn prepare(
        &self,
        request: &LoadRequest,
        artifact: &LoadArtifact,
        journal: &dyn Journal,
        context: &RunContext,
    ) -> Result<Preparation> {
        let recorded = Recorded::of(request)?;
        let missing = || Error::new(Kind::Preflight, format!("the set's details hold no properties of database {}", artifact.name));
        let database = recorded.database(&artifact.name).ok_or_else(missing)?.clone();
        let place = self.place(request.target.as_deref())?;
        if let Some(why) = plan::cannot_load(&place.live_name(&artifact.name)) {
            return Err(Error::new(Kind::Preflight, why));
        }
        // Before anything is made: what is missing here must leave nothing behind.
        let why = "the dump";
        let pg_restore = client::find(&place.settings, "pg_restore", recorded.tool_major(request), why, &context.cancel).await?;
        let private = Private::open(&place.settings, &[&pg_restore]).await?;
        let mut state = self.state(request, journal)?;
        let at = state.of_source(&artifact.name).unwrap_or_else(|| {
            state.entries.push(entry(request, artifact, &place));
            state.entries.len() - 1
        });
        // A load that dies leaves it behind; it goes with what else the restore made.
        state.roles.insert(fill::stand_in(&request.restore));
        let surroundings = recorded.surroundings;
        let (args, options) = (Vec::new(), String::new());
        Ok(Preparation {
            settings: place.settings,
            database,
            surroundings,
            pg_restore,
            private,
            args,
            options,
            money: None,
            other_money: None,
            state,
            at,
        })
    }

    /// Loads all but the rows into a database of its own, which is dropped again.
    async fn rehearse_database(
        &self,
        request: &LoadRequest,
        artifact: &LoadArtifact,
        input: PlainReceiver,
        journal: &dyn Journal,
        context: &RunContext,
    ) -> Result<Vec<LoadProblem>> {
        let mut prepared = self.prepare(request, artifact, journal, context).await?;
        let mut steps = Steps::open(prepared.settings.clone(), prepared.state.clone(), journal, context).await?;
        prepared.suit(&steps.connection).await?;
        let Preparation { database, at, .. } = &prepared;
        if bound::by(database).is_some() && steps.is_free(*at).await? {
            // It could not be made under another name, and nothing is there to be lost.
            return drained(input).await.map(|()| Vec::new());
        }
        let target = steps.target().await?;
        steps.create(*at, database, &target).await?;
        let into = steps.state.entries[*at].new.clone();
        context.bus.step(format!("trying out the tables of {} in database {into}, before anything live is touched", artifact.name));
        let rehearsed =
            prepared.within_timescale(&into, context, prepared.filling(request, artifact, &into, context).rehearse(input)).await;
        let dropped = steps.discard_one(*at).await;
        let problems = rehearsed?;
        dropped?;
        Ok(problems)
    }

    async fn load_database(
        &self,
        request: &LoadRequest,
        artifact: &LoadArtifact,
        input: PlainReceiver,
        journal: &dyn Journal,
        context: &RunContext,
    ) -> Result<Vec<LoadProblem>> {
        let mut prepared = self.prepare(request, artifact, journal, context).await?;
        let mut steps = Steps::open(prepared.settings.clone(), prepared.state.clone(), journal, context).await?;
        prepared.suit(&steps.connection).await?;
        let Preparation { database, at, .. } = &prepared;
        let target = steps.target().await?;
        steps.make(*at, database, &target).await?;
        let under_live_name = request.exchange_first || bound::by(database).is_some();
        let (into, named) = match under_live_name {
            true => (steps.state.entries[*at].live.clone(), steps.lend_name(*at, request.exchange_first).await),
            false => (steps.state.entries[*at].new.clone(), Ok(())),
        };
        let filling = prepared.filling(request, artifact, &into, context);
        let filled = match named {
            Ok(()) => prepared.within_timescale(&into, context, filling.fill(input, &artifact.rereads)).await,
            Err(error) => Err(error),
        };
        let filled = match filled {
            Ok(problems) if under_live_name => steps.give_name_back(*at).await.map(|()| problems),
            filled => filled,
        };
        match filled {
            Ok(problems) => {
                steps.loaded(*at, database, &target, problems.is_empty()).await?;
                Ok(problems)
            }
            Err(error) => {
                // Half a database helps nobody, unless nothing else is left; the first error is the one that counts.
                if let Err(also) = steps.discard_one(*at).await {
                    context.bus.warn(format!("Database {into} could not be dropped: {also}."));
                }
                Err(error)
            }
        }
    }
}

/// What a load needs before anything is made.
struct Preparation {
    settings: PostgresSettings,
    database: Database,
    /// What else the dumped server had.
    surroundings: serde_json::Value,
    pg_restore: client::Client,
    private: Private,
    /// What pg_restore is told for this target.
    args: Vec<String>,
    /// And what its session is.
    options: String,
    /// The locale by which money is read, where that is known.
    money: Option<String>,
    /// Why money cannot be read as it was written.
    other_money: Option<String>,
    state: State,
    /// Where the database stands in the state.
    at: usize,
}

impl Preparation {
    /// Suits the load to what the target has, and to what it makes of a session of this role.
    async fn suit(&mut self, connection: &Connection) -> Result<()> {
        self.args.extend(Tablespaces::look(connection, &self.database, &self.surroundings).await?.argument());
        let wanted = self.database.money().map(str::to_owned);
        if let Some(locale) = &wanted {
            if !session::knows_money(connection, locale).await {
                self.other_money = Some(format!(
                    "the server does not have the locale {locale}, by which the dump writes money: install it there (locale-gen)"
                ));
            } else if connection.pooled && session::inherited_money(connection).await? != *locale {
                self.other_money = Some(format!(
                    "the dump writes money by lc_monetary {locale}, and through a connection pooler pg_restore cannot be told so: name PostgreSQL \
                     itself as host and port"
                ));
            }
        }
        self.money = wanted.filter(|_| self.other_money.is_none());
        self.options = session::load_options(connection, self.money.as_deref()).await?;
        Ok(())
    }

    fn filling<'a>(
        &'a self,
        request: &'a LoadRequest,
        artifact: &'a LoadArtifact,
        into: &'a str,
        context: &'a RunContext,
    ) -> fill::Filling<'a> {
        fill::Filling {
            settings: &self.settings,
            pg_restore: &self.pg_restore,
            private: &self.private,
            context,
            restore: &request.restore,
            source: &artifact.name,
            database: &self.database,
            into,
            args: self.args.clone(),
            options: self.options.clone(),
            money: self.money.as_deref(),
            other_money: self.other_money.as_deref(),
        }
    }

    /// TimescaleDB must know that a restore comes, and when it is done.
    async fn within_timescale<T>(&self, into: &str, context: &RunContext, work: impl Future<Output = Result<T>>) -> Result<T> {
        let application = application(context);
        let timescale =
            timescale::of(&self.database).map(|extension| timescale::Loading::new(&self.settings, into, &application, extension));
        if let Some(timescale) = &timescale {
            timescale.begin(&context.cancel).await?;
        }
        let done = work.await?;
        if let Some(timescale) = &timescale {
            timescale.end(&context.cancel).await?;
        }
        Ok(done)
    }
}

fn entry(request: &LoadRequest, artifact: &LoadArtifact, place: &Place) -> Entry {
    let live = place.live_name(&artifact.name);
    let restore = &request.restore;
    Entry {
        source: artifact.name.clone(),
        new: name_beside(&live, restore),
        old: name_beside(&live, &format!("old_{restore}")),
        undone: name_beside(&live, &format!("undone_{restore}")),
        live,
        new_oid: None,
        old_oid: None,
        old_open: true,
        in_place: request.in_place,
        phase: Phase::Loading,
    }
}

fn broke_off() -> Error {
    Error::corrupt("the artifact broke off: what was read of it is bad or incomplete")
}

/// Which lines of pg_restore's standard error may be shown. The failed command, the line of it that is quoted and the context hold rows and
/// the passwords of subscriptions; so do details that show a row or a key. Whatever is not known to be harmless is dropped.
fn tells_no_content(line: &str, after_kept: bool) -> bool {
    let detail = line.starts_with("DETAIL:") && !line.contains("Failing row") && !line.contains("Key (");
    // What a reach has to say is no content either.
    const KEPT: [&str; 5] = ["pg_restore:", "ssh:", "Connection to ", "Error response from daemon:", "OCI runtime exec failed:"];
    KEPT.iter().any(|begin| line.starts_with(begin)) || (after_kept && (detail || line.starts_with("HINT:")))
}

#[async_trait]
impl Loader for PostgresLoader {
    async fn plan(&self, request: &LoadRequest, context: &RunContext) -> Result<LoadPlan> {
        let place = self.place(request.target.as_deref())?;
        let recorded = Recorded::of(request)?;
        let connection = server::administer(&place.settings, &application(context), &[]).await?;
        let server = catalog::server(&connection).await?;
        let planner = plan::Planner {
            request,
            place: &place,
            recorded: &recorded,
            connection: &connection,
            server,
            plan: LoadPlan::default(),
            about: None,
        };
        planner.run(context).await
    }

    async fn load(
        &self,
        request: &LoadRequest,
        artifact: &LoadArtifact,
        input: PlainReceiver,
        journal: &dyn Journal,
        context: &RunContext,
    ) -> Result<Vec<LoadProblem>> {
        match artifact.artifact.format {
            ArtifactFormat::Sql => self.load_globals(request, input, journal, context).await.map(|()| Vec::new()),
            ArtifactFormat::PgCustom => self.load_database(request, artifact, input, journal, context).await,
            other => Err(Error::failed(format!("a {} artifact is not loaded into PostgreSQL", other.extension()))),
        }
    }

    async fn rehearse(
        &self,
        request: &LoadRequest,
        artifact: &LoadArtifact,
        input: PlainReceiver,
        journal: &dyn Journal,
        context: &RunContext,
    ) -> Result<Vec<LoadProblem>> {
        match artifact.artifact.format {
            // Roles that are missing own what is tried out; they harm nobody, and go again with an in-place restore that is given up.
            ArtifactFormat::Sql => self.load_globals(request, input, journal, context).await.map(|()| Vec::new()),
            ArtifactFormat::PgCustom => self.rehearse_database(request, artifact, input, journal, context).await,
            other => Err(Error::failed(format!("a {} artifact is not loaded into PostgreSQL", other.extension()))),
        }
    }

    async fn count(&self, request: &LoadRequest, artifact: &LoadArtifact, journal: &dyn Journal, context: &RunContext) -> Result<Facts> {
        let mut facts = Facts::of(artifact.facts.format.clone());
        if artifact.artifact.format != ArtifactFormat::PgCustom {
            return Ok(facts);
        }
        let missing = || Error::failed(format!("database {} was not loaded by restore {}", artifact.name, request.restore));
        let steps = self.steps(journal, context).await?.ok_or_else(missing)?;
        let at = steps.state.of_source(&artifact.name).ok_or_else(missing)?;
        let databases = server::Databases::ask(&steps.connection).await?;
        let name = databases.name_of(steps.state.entries[at].new_oid).ok_or_else(missing)?.to_owned();
        let mut connection = connect(&steps.settings, &name, &application(context)).await?;
        count::count(&mut connection, &artifact.facts, &mut facts).await?;
        Ok(facts)
    }

    async fn switch(&self, request: &LoadRequest, journal: &dyn Journal, context: &RunContext) -> Result<()> {
        let Some(mut steps) = self.steps(journal, context).await? else { return Ok(()) };
        let recorded = Recorded::of(request)?;
        steps.switch(&recorded.databases).await
    }

    async fn take(&self, request: &LoadRequest, artifact: &LoadArtifact, journal: &dyn Journal, context: &RunContext) -> Result<()> {
        let Some(mut steps) = self.steps(journal, context).await? else { return Ok(()) };
        let recorded = Recorded::of(request)?;
        steps.take(&artifact.name, &recorded.databases).await
    }

    async fn discard(&self, journal: &dyn Journal, context: &RunContext) -> Result<()> {
        match self.steps(journal, context).await? {
            Some(mut steps) => steps.discard().await,
            None => Ok(()),
        }
    }

    async fn undo(&self, journal: &dyn Journal, context: &RunContext) -> Result<Vec<String>> {
        match self.steps(journal, context).await? {
            Some(mut steps) => steps.undo().await,
            None => Ok(Vec::new()),
        }
    }

    async fn finish(&self, journal: &dyn Journal, context: &RunContext) -> Result<Vec<String>> {
        match self.steps(journal, context).await? {
            Some(mut steps) => steps.finish().await,
            None => Ok(Vec::new()),
        }
    }

    async fn kept(&self, journal: &dyn Journal, context: &RunContext) -> Result<Vec<String>> {
        match self.steps(journal, context).await? {
            Some(steps) => steps.kept().await,
            None => Ok(Vec::new()),
        }
    }

    async fn elsewhere(&self, journal: &dyn Journal, context: &RunContext) -> Result<Option<String>> {
        let Some(state) = State::read(journal)?.filter(|state| state.system_identifier.is_some()) else { return Ok(None) };
        let settings = self.place(state.target.as_deref())?.settings;
        let connection = server::administer(&settings, &application(context), &[]).await?;
        Ok(state.elsewhere(&catalog::server(&connection).await?, &settings.address()))
    }

    fn traces(&self, journal: &dyn Journal) -> Vec<String> {
        match State::read(journal) {
            Ok(state) => state.map(|state| state.traces(&self.settings.address())).unwrap_or_default(),
            Err(error) => vec![format!("unknown: {error}")],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tells_no_content;

    #[test]
    fn what_pg_restore_says_is_shown_without_rows_and_statements() {
        let text = "pg_restore: while PROCESSING TOC:\n\
            pg_restore: from TOC entry 3360; 6100 16386 SUBSCRIPTION sub postgres\n\
            pg_restore: error: could not execute query: ERROR:  must be superuser\n\
            DETAIL:  The server says why.\nHINT:  Ask someone.\n\
            Command was: CREATE SUBSCRIPTION sub CONNECTION 'password=secret'\nHINT: secret\n\
            pg_restore: error: COPY failed for table \"t\": ERROR:  new row violates check\n\
            DETAIL:  Failing row contains (secret\n  secret).\n\
            CONTEXT:  COPY t, line 1: \"secret\"\nLINE 1: secret\n          ^\n";
        let mut kept = true;
        let shown: Vec<&str> = text
            .lines()
            .filter(|line| {
                kept = tells_no_content(line, kept);
                kept
            })
            .collect();
        assert_eq!(shown.len(), 6, "{shown:?}");
        assert!(!shown.join("").contains("secret"));
    }
}
