//! The steps that change databases, each noted in the journal before it is done and repeatable.

use std::collections::BTreeSet;

use super::properties::{Target, create_sql, differences, property_sql};
use super::server::{self, Databases, administer, atomically, open_sql, rename_sql, run, set_open};
use super::state::{Entry, Phase, State, lent_mark};
use super::timescale;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::process::human_bytes;
use crate::source::RunContext;
use crate::source::load::Journal;
use crate::source::postgres::application;
use crate::source::postgres::catalog::{self, Database};
use crate::source::postgres::connect::{Connection, ident, literal, pg_error};
use crate::source::postgres::names::sendable;
use crate::source::postgres::settings::PostgresSettings;

/// A restore at work on its target.
pub(super) struct Steps<'a> {
    pub(super) settings: PostgresSettings,
    pub(super) state: State,
    pub(super) connection: Connection,
    journal: &'a dyn Journal,
    context: &'a RunContext,
    /// Ends what is under way: the run's.
    cancel: CancellationToken,
}

impl<'a> Steps<'a> {
    pub(super) async fn open(
        settings: PostgresSettings,
        mut state: State,
        journal: &'a dyn Journal,
        context: &'a RunContext,
    ) -> Result<Steps<'a>> {
        let busy: Vec<&str> = state.entries.iter().map(|e| e.live.as_str()).collect();
        let connection = administer(&settings, &application(context), &busy).await?;
        state.tie_to(&catalog::server(&connection).await?, &settings.address())?;
        Ok(Steps { settings, state, connection, journal, context, cancel: context.cancel.clone() })
    }

    /// What the target has.
    pub(super) async fn target(&self) -> Result<Target> {
        let rows = self.connection.query("select spcname::text from pg_tablespace", &[]).await;
        let tablespaces = rows.map_err(|e| pg_error("list the tablespaces", &e))?.iter().map(|row| row.get(0)).collect();
        let major = catalog::server(&self.connection).await?.major();
        Ok(Target { major, roles: catalog::roles(&self.connection).await?, tablespaces })
    }

    async fn enter(&mut self, at: usize, phase: Phase) -> Result<()> {
        self.state.enter(at, phase, self.journal).await
    }

    async fn run(&self, what: &str, sql: &str) -> Result<()> {
        server::run_until(&self.connection, what, sql, &self.cancel).await
    }

    async fn empty(&self, name: &str) -> Result<()> {
        server::empty_until(&self.connection, name, &self.cancel).await
    }

    /// Not ended by a cancel: it cleans up.
    async fn drop_database(&self, name: &str, oid: Option<u32>) -> Result<bool> {
        let dropped = server::drop_database(&self.connection, &self.settings, &application(self.context), name, oid).await?;
        if let Some(subscriptions) = dropped.as_ref().filter(|s| !s.is_empty()) {
            self.context.bus.warn(format!(
                "Subscriptions of database {name}, which was dropped, left their replication slots at their publishers: {}.",
                subscriptions.join(", ")
            ));
        }
        Ok(dropped.is_some())
    }

    fn in_phase(&self, phases: &[Phase]) -> Vec<usize> {
        (0..self.state.entries.len()).filter(|at| phases.contains(&self.state.entries[*at].phase)).collect()
    }

    /// Whether nothing has the live name.
    pub(super) async fn is_free(&self, at: usize) -> Result<bool> {
        Ok(Databases::ask(&self.connection).await?.oid_of(&self.state.entries[at].live).is_none())
    }

    /// Makes the empty database beside; in place, drops the live one once the new one is there.
    pub(super) async fn make(&mut self, at: usize, database: &Database, target: &Target) -> Result<()> {
        self.create(at, database, target).await?;
        let entry = self.state.entries[at].clone();
        // Only now: a server that cannot make the new one must not lose the live one for it.
        if let Some(old) = entry.old_oid.filter(|_| entry.in_place) {
            self.context.bus.step(format!("dropping database {}", entry.live));
            self.drop_database(&entry.live, Some(old)).await?;
        }
        Ok(())
    }

    /// Makes the empty database beside. What an earlier try of this restore left goes.
    pub(super) async fn create(&mut self, at: usize, database: &Database, target: &Target) -> Result<()> {
        if self.state.entries[at].phase == Phase::Lent {
            self.give_name_back(at).await?;
        }
        let entry = self.state.entries[at].clone();
        if matches!(entry.phase, Phase::Switching | Phase::Switched | Phase::Undoing | Phase::Undone | Phase::Finished) {
            return Err(Error::failed(format!("database {} was loaded and switched by this restore already", entry.live)));
        }
        let known = State::read(self.journal)?.is_some_and(|state| state.of_source(&entry.source).is_some());
        let before = Databases::ask(&self.connection).await?;
        if !known && before.oid_of(&entry.new).is_some() {
            return Err(Error::failed(format!("database {} exists already and is not of this restore", entry.new)));
        }
        self.state.entries[at].phase = Phase::Loading;
        let mut leftover = entry.new_oid;
        if entry.in_place && before.name_of(entry.new_oid) == Some(&entry.live) {
            // An earlier try came as far as giving the new one its name: that is the live one now.
            self.state.entries[at].old_oid = leftover.take();
        } else if entry.in_place && entry.old_oid.is_none() {
            self.state.entries[at].old_oid = before.oid_of(&entry.live);
        }
        self.state.write(self.journal).await?;
        self.drop_database(&entry.new, leftover).await?;
        if self.state.entries[at].new_oid.take().is_some() {
            self.state.write(self.journal).await?;
        }
        self.context.bus.step(format!("loading into database {}", entry.new));
        let sql = create_sql(&entry.new, database, target);
        self.run(&format!("create database {}", entry.new), &sql).await?;
        self.state.entries[at].new_oid = Databases::ask(&self.connection).await?.oid_of(&entry.new);
        self.state.write(self.journal).await
    }

    /// Gives the new, empty database the live name for as long as it is loaded; what is live is put aside meanwhile, which must have been agreed to.
    pub(super) async fn lend_name(&mut self, at: usize, agreed: bool) -> Result<()> {
        let databases = Databases::ask(&self.connection).await?;
        let (new, live, aside) = {
            let entry = &mut self.state.entries[at];
            let old = databases.oid_of(&entry.live);
            if old.is_some() && !agreed {
                return Err(Error::new(
                    Kind::Preflight,
                    format!("database {} can only be loaded under its own name, which is taken", entry.live),
                )
                .hint("add --exchange-first: what is live is put aside first, and is out of use while the restore loads"));
            }
            entry.old_oid = old;
            entry.old_open = old.is_some_and(|oid| databases.is_open(oid));
            entry.phase = Phase::Lent;
            (entry.new.clone(), entry.live.clone(), entry.old.clone())
        };
        self.state.write(self.journal).await?;
        let mut statements = Vec::new();
        let mut emptied = vec![new.clone()];
        if databases.oid_of(&live).is_some() {
            self.context.bus.step(format!("putting database {live} aside: it is out of use until the new one is loaded"));
            set_open(&self.connection, &live, false).await?;
            self.empty(&live).await?;
            statements.push(rename_sql(&live, &aside));
            emptied.push(live.clone());
        }
        statements.push(rename_sql(&new, &live));
        // Whoever waits for the database to come back must not write into one that is half there; superusers get in all the same.
        if catalog::is_superuser(&self.connection).await? {
            statements.push(format!("ALTER DATABASE {} CONNECTION LIMIT 0", ident(&live)));
        }
        // Nor may a backup take it for what it is named after. The recorded comment comes back with the other properties.
        statements.push(format!("COMMENT ON DATABASE {} IS {}", ident(&live), literal(&lent_mark(&self.state.restore))));
        fail::fail_point!("postgres::lending");
        atomically(&self.connection, &format!("give the new database the name {live}"), &statements, &emptied).await?;
        fail::fail_point!("postgres::lent");
        Ok(())
    }

    /// Takes the live name from the new database again and gives it back to what had it. May be repeated.
    pub(super) async fn give_name_back(&mut self, at: usize) -> Result<()> {
        let entry = self.state.entries[at].clone();
        let databases = Databases::ask(&self.connection).await?;
        let (mut statements, mut emptied) = (Vec::new(), Vec::new());
        if Self::is_live(&entry, &databases) {
            set_open(&self.connection, &entry.live, false).await?;
            // Not ended by a cancel: the service must come back.
            server::empty(&self.connection, &entry.live).await?;
            emptied.push(entry.live.clone());
            statements.push(rename_sql(&entry.live, &entry.new));
            statements.push(open_sql(&entry.new, true));
        }
        // By its number: what has the name by now may be another's, which is neither closed nor opened.
        match databases.name_of(entry.old_oid) {
            Some(name) if *name == entry.old => {
                statements.extend([rename_sql(&entry.old, &entry.live), open_sql(&entry.live, entry.old_open)]);
            }
            Some(name) if *name == entry.live => statements.push(open_sql(&entry.live, entry.old_open)),
            _ => {}
        }
        atomically(&self.connection, &format!("give the name {} back", entry.live), &statements, &emptied).await?;
        self.state.entries[at].old_oid = None;
        self.enter(at, Phase::Loading).await
    }

    /// The load ended well. In place a database that is whole takes its name here; one that lacks something waits for a person's word.
    pub(super) async fn loaded(&mut self, at: usize, database: &Database, target: &Target, whole: bool) -> Result<()> {
        if self.state.entries[at].in_place && whole {
            self.take_name(at, database, target).await?;
        }
        self.enter(at, Phase::Loaded).await
    }

    /// Gives a database that was loaded in place the name of the one that was dropped for it.
    async fn take_name(&mut self, at: usize, database: &Database, target: &Target) -> Result<()> {
        // Nothing else is left under that name: a signal comes too late to keep it away.
        self.cancel = CancellationToken::new();
        self.dress(at, database, target).await?;
        let (new, live) = (self.state.entries[at].new.clone(), self.state.entries[at].live.clone());
        let mut statements = vec![rename_sql(&new, &live)];
        if timescale::of(database).is_some() {
            // Its workers come back by themselves.
            set_open(&self.connection, &new, false).await?;
            statements.push(open_sql(&live, true));
        }
        self.empty(&new).await?;
        atomically(&self.connection, &format!("rename database {new}"), &statements, &[new]).await
    }

    /// Gives its name to a database of the source that was loaded in place and lacks something, which was accepted.
    pub(super) async fn take(&mut self, source: &str, recorded: &[Database]) -> Result<()> {
        let Some(at) = self.state.of_source(source).filter(|at| self.state.entries[*at].in_place) else { return Ok(()) };
        if Self::is_live(&self.state.entries[at], &Databases::ask(&self.connection).await?) {
            return Ok(());
        }
        let target = self.target().await?;
        self.take_name(at, recorded_of(source, recorded)?, &target).await
    }

    /// Puts the recorded properties on the new database and compares.
    async fn dress(&self, at: usize, database: &Database, target: &Target) -> Result<()> {
        let new = &self.state.entries[at].new;
        let mut wanted = database.clone();
        for property in property_sql(new, database, target) {
            // Values of settings may be secrets: only the first words are told.
            let what = property.sql.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            let what = format!("put the recorded properties on database {new} ({what})");
            let Some(setting) = &property.setting else {
                self.run(&what, &property.sql).await?;
                continue;
            };
            if let Some(why) = server::set_until(&self.connection, &what, &property.sql, &self.cancel).await? {
                setting.leave_out_of(&mut wanted);
                self.context.bus.warn(format!("Database {}: its {} is left out, as the server {why}.", database.name, setting.words()));
            }
        }
        let all = catalog::databases(&self.connection).await?;
        let found = all.iter().find(|d| d.name == *new).ok_or_else(|| Error::failed(format!("database {new} is gone")))?;
        let differ = differences(&wanted, found, target);
        if !differ.is_empty() {
            return Err(Error::failed(format!("database {new} is not as it was recorded: {}", differ.join("; "))));
        }
        let left_out = database.role_settings.keys().chain(database.acl.iter().flatten().filter_map(|g| g.grantee.as_ref()));
        let left_out: BTreeSet<&String> = left_out.filter(|role| !target.roles.contains(*role)).collect();
        for role in left_out {
            self.context
                .bus
                .warn(format!("Role {role} does not exist: its privileges and settings on database {} are left out.", database.name));
        }
        Ok(())
    }

    /// Puts every loaded database in its live one's place, all in one transaction.
    pub(super) async fn switch(&mut self, recorded: &[Database]) -> Result<()> {
        let waiting = self.in_phase(&[Phase::Loaded, Phase::Switching]);
        let (in_place, waiting): (Vec<usize>, Vec<usize>) = waiting.into_iter().partition(|at| self.state.entries[*at].in_place);
        let databases = Databases::ask(&self.connection).await?;
        let target = self.target().await?;
        for at in in_place {
            let source = self.state.entries[at].source.clone();
            self.take(&source, recorded).await?;
        }
        let mut open = Vec::new();
        for at in waiting {
            let entry = self.state.entries[at].clone();
            match databases.name_of(entry.new_oid) {
                Some(name) if name == entry.live => self.enter(at, Phase::Switched).await?,
                Some(name) if name == entry.new => {
                    let database = recorded_of(&entry.source, recorded)?;
                    self.dress(at, database, &target).await?;
                    if timescale::of(database).is_some() {
                        // Its workers come back by themselves; the switch lets everyone in again.
                        set_open(&self.connection, &entry.new, false).await?;
                    }
                    open.push(at);
                }
                Some(name) => return Err(Error::failed(format!("database {} is now called {name}", entry.new))),
                None => return Err(Error::failed(format!("database {} is gone: load it again", entry.new))),
            }
        }
        if let Err(error) = self.replace(&open, &databases).await {
            // The service must not stay down for a switch that did not happen.
            if let Err(also) = self.reopen(&open).await {
                self.context.bus.warn(format!("A database may still be closed: {also}."));
            }
            return Err(error);
        }
        fail::fail_point!("postgres::renamed");
        for at in self.in_phase(&[Phase::Switching]) {
            self.enter(at, Phase::Switched).await?;
        }
        Ok(())
    }

    async fn replace(&mut self, which: &[usize], databases: &Databases) -> Result<()> {
        let (mut statements, mut closed) = (Vec::new(), Vec::new());
        for &at in which {
            let entry = &mut self.state.entries[at];
            let old = databases.oid_of(&entry.live);
            // Tried before: what was noted then of the live database holds, it may be closed by now.
            if entry.phase != Phase::Switching || entry.old_oid != old {
                entry.old_oid = old;
                entry.old_open = old.is_some_and(|oid| databases.is_open(oid));
                entry.phase = Phase::Switching;
                self.state.write(self.journal).await?;
            }
            let entry = self.state.entries[at].clone();
            if old.is_some() {
                self.context.bus.step(format!("closing database {}", entry.live));
                set_open(&self.connection, &entry.live, false).await?;
                self.empty(&entry.live).await?;
                statements.push(rename_sql(&entry.live, &entry.old));
                closed.push(entry.live.clone());
            }
            self.empty(&entry.new).await?;
            closed.push(entry.new.clone());
            statements.push(rename_sql(&entry.new, &entry.live));
            statements.push(open_sql(&entry.live, true));
        }
        // Everything loaded must be on disk before it is live: this commit waits for the disk, and with it for all before it.
        fail::fail_point!("postgres::closed");
        run(&self.connection, "prepare the switch", "SET synchronous_commit = on").await?;
        atomically(&self.connection, "switch the databases", &statements, &closed).await
    }

    /// Lets connections back into live databases that were closed for a switch that did not happen.
    async fn reopen(&mut self, which: &[usize]) -> Result<()> {
        let databases = Databases::ask(&self.connection).await?;
        let mut result = Ok(());
        for &at in which {
            let entry = &self.state.entries[at];
            let Some(old) = entry.old_oid.filter(|_| entry.phase == Phase::Switching && entry.old_open) else { continue };
            if databases.name_of(Some(old)) == Some(&entry.live) && !databases.is_open(old) {
                // One that fails must not keep the others closed.
                result = result.and(set_open(&self.connection, &entry.live, true).await);
            }
        }
        result
    }

    /// Whether the new database has the live name, whatever the journal says.
    fn is_live(entry: &Entry, databases: &Databases) -> bool {
        databases.name_of(entry.new_oid) == Some(&entry.live)
    }

    pub(super) async fn discard_one(&mut self, at: usize) -> Result<()> {
        if self.state.entries[at].phase == Phase::Lent {
            self.give_name_back(at).await?;
        }
        let entry = self.state.entries[at].clone();
        self.reopen(&[at]).await?;
        let databases = Databases::ask(&self.connection).await?;
        if entry.in_place {
            let last = databases.oid_of(&entry.live).is_none() && databases.name_of(entry.new_oid) == Some(&entry.new);
            if last {
                self.context.bus.warn(format!(
                    "Database {live} is not there any more: what was loaded of it is kept as {new}. To take it as it is: ALTER DATABASE {from} RENAME TO {to}",
                    live = entry.live,
                    new = entry.new,
                    from = ident(&entry.new),
                    to = ident(&entry.live),
                ));
                return Ok(());
            }
        }
        match databases.name_of(entry.new_oid) {
            Some(name) if name != entry.new => {
                self.context.bus.warn(format!("Database {}, which a restore was loading, is called {name} by now: it stays.", entry.new));
            }
            // Dropped by someone else; what has its name by now is another's.
            None if entry.new_oid.is_some() => {}
            _ => drop(self.drop_database(&entry.new, entry.new_oid).await?),
        }
        self.enter(at, Phase::Discarded).await
    }

    /// Drops what was never switched in, roles that only it needed included. One database that cannot be dropped keeps no other.
    pub(super) async fn discard(&mut self) -> Result<()> {
        let mut result = Ok(());
        for at in self.in_phase(&[Phase::Loading, Phase::Lent, Phase::Loaded, Phase::Switching]) {
            let databases = Databases::ask(&self.connection).await?;
            let lent = self.state.entries[at].phase == Phase::Lent;
            if !lent && Self::is_live(&self.state.entries[at], &databases) {
                let phase = if self.state.entries[at].in_place { Phase::Finished } else { Phase::Switched };
                self.enter(at, phase).await?;
            } else {
                let discarded = self.discard_one(at).await;
                result = result.and(discarded);
            }
        }
        result?;
        if self.state.entries.iter().all(|entry| entry.phase == Phase::Discarded) {
            let roles = self.state.roles.clone();
            for role in roles {
                // Refused where something depends on it by now: then it stays.
                if self.connection.batch_execute(&sendable(&format!("DROP ROLE IF EXISTS {}", ident(&role)))).await.is_ok() {
                    self.state.roles.remove(&role);
                }
            }
            self.state.write(self.journal).await?;
        }
        Ok(())
    }

    /// Puts the old databases back, all in one transaction.
    pub(super) async fn undo(&mut self) -> Result<Vec<String>> {
        if let Some(entry) = self.state.entries.iter().find(|e| e.in_place) {
            return Err(Error::failed(format!("database {} was restored in place: nothing was kept aside", entry.live))
                .hint("restore the safety set that was made before"));
        }
        if let Some(entry) = self.state.entries.iter().find(|e| e.phase == Phase::Finished) {
            return Err(Error::failed(format!("the restore of database {} is finished: what was kept aside is dropped", entry.live)));
        }
        let databases = Databases::ask(&self.connection).await?;
        let waiting = self.in_phase(&[Phase::Switching, Phase::Switched, Phase::Undoing]);
        // All are looked at before one is touched.
        let ways = waiting.iter().map(|&at| way_back(&self.state.entries[at], &databases).map(|way| (at, way)));
        let ways = ways.collect::<Result<Vec<_>>>()?;
        let mut closed = Vec::new();
        let lines = match self.put_back(&ways, &mut closed).await {
            Ok(lines) => lines,
            Err(error) => {
                // The service must not stay down for an undo that did not happen.
                if let Err(also) = self.reopen_new(&closed).await {
                    self.context.bus.warn(format!("A database may still be closed: {also}."));
                }
                return Err(error);
            }
        };
        for at in self.in_phase(&[Phase::Undoing]) {
            self.enter(at, Phase::Undone).await?;
        }
        Ok(lines)
    }

    async fn put_back(&mut self, ways: &[(usize, WayBack)], closed: &mut Vec<usize>) -> Result<Vec<String>> {
        let (mut statements, mut emptied, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for &(at, way) in ways {
            let entry = self.state.entries[at].clone();
            match way {
                WayBack::NeverSwitched => {
                    self.reopen(&[at]).await?;
                    self.enter(at, Phase::Loaded).await?;
                    continue;
                }
                WayBack::Done { kept } => {
                    self.enter(at, Phase::Undone).await?;
                    lines.push(match kept {
                        true => undone_line(&entry),
                        false => format!("database {} is what it was before the restore already", entry.live),
                    });
                    continue;
                }
                WayBack::Exchange => {
                    self.enter(at, Phase::Undoing).await?;
                    self.context.bus.step(format!("closing database {}", entry.live));
                    closed.push(at);
                    set_open(&self.connection, &entry.live, false).await?;
                    self.empty(&entry.live).await?;
                    emptied.push(entry.live.clone());
                    statements.push(rename_sql(&entry.live, &entry.undone));
                }
                WayBack::OldAlone => {
                    self.enter(at, Phase::Undoing).await?;
                    self.empty(&entry.old).await?;
                    emptied.push(entry.old.clone());
                }
            }
            if entry.old_oid.is_some() {
                statements.push(rename_sql(&entry.old, &entry.live));
                statements.push(open_sql(&entry.live, entry.old_open));
            }
            lines.push(match way {
                WayBack::OldAlone => format!("database {} is again what it was before the restore; nothing had its name", entry.live),
                _ => undone_line(&entry),
            });
        }
        atomically(&self.connection, "put the old databases back", &statements, &emptied).await?;
        Ok(lines)
    }

    /// Lets connections back into databases that were closed for an undo that did not happen.
    async fn reopen_new(&mut self, closed: &[usize]) -> Result<()> {
        let databases = Databases::ask(&self.connection).await?;
        let closed: Vec<usize> = closed.iter().copied().filter(|at| Self::is_live(&self.state.entries[*at], &databases)).collect();
        let mut result = Ok(());
        for &at in &closed {
            result = result.and(set_open(&self.connection, &self.state.entries[at].live, true).await);
        }
        for at in closed {
            self.enter(at, Phase::Switched).await?;
        }
        result
    }

    /// Name and oid of what an entry keeps aside.
    fn aside(entry: &Entry) -> Option<(&str, u32)> {
        match entry.phase {
            Phase::Switched => entry.old_oid.map(|oid| (entry.old.as_str(), oid)),
            Phase::Undone => entry.new_oid.map(|oid| (entry.undone.as_str(), oid)),
            // Loaded in part, with nothing live left.
            Phase::Loading | Phase::Loaded if entry.in_place => entry.new_oid.map(|oid| (entry.new.as_str(), oid)),
            _ => None,
        }
    }

    /// Drops what is kept aside.
    pub(super) async fn finish(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let unclear = self.in_phase(&[Phase::Switching, Phase::Undoing]);
        if let Some(at) = unclear.first() {
            return Err(Error::failed(format!("the switch of database {} is not done", self.state.entries[*at].live))
                .hint("repeat the switch or undo it first"));
        }
        let ending = self.in_phase(&[Phase::Switched, Phase::Undone]);
        let databases = Databases::ask(&self.connection).await?;
        // All are looked at before one is dropped.
        for &at in &ending {
            self.check_finish(&self.state.entries[at], &databases)?;
        }
        let mut result = Ok(());
        for at in ending {
            // One that cannot be dropped keeps no other.
            let dropped = self.finish_one(at, &databases).await;
            result = result.and(dropped.map(|line| lines.extend(line)));
        }
        match result {
            Ok(()) => Ok(lines),
            Err(error) => {
                lines.into_iter().for_each(|line| self.context.bus.step(line));
                Err(error)
            }
        }
    }

    /// Refused where nothing else is left of a database: what is kept aside may be its last copy.
    fn check_finish(&self, entry: &Entry, databases: &Databases) -> Result<()> {
        let Some((name, oid)) = Self::aside(entry) else { return Ok(()) };
        if databases.name_of(Some(oid)) != Some(name) || databases.oid_of(&entry.live).is_some() {
            return Ok(());
        }
        let by_hand = rename_sql(name, &entry.live);
        let ways = match entry.phase {
            Phase::Switched => format!("put it back: drctl restore --undo {}; or by hand: {by_hand}", self.state.restore),
            _ => format!(
                "restore it again, or give it the name by hand: {by_hand}; {}; if nobody needs it: DROP DATABASE {}; then finish again",
                open_sql(&entry.live, true),
                ident(name)
            ),
        };
        Err(Error::new(
            Kind::Preflight,
            format!("no database is called {} now, and {name} would be dropped: it may be the last copy", entry.live),
        )
        .hint(ways))
    }

    async fn finish_one(&mut self, at: usize, databases: &Databases) -> Result<Option<String>> {
        let entry = self.state.entries[at].clone();
        let mut line = None;
        if let Some((name, oid)) = Self::aside(&entry) {
            match databases.name_of(Some(oid)) {
                Some(now) if now == name => {
                    let size = server::size(&self.connection, name).await.map_or(String::new(), |b| format!(", {}", human_bytes(b)));
                    if self.drop_database(name, Some(oid)).await? {
                        line = Some(format!("dropped database {name}{size}"));
                    }
                }
                Some(now) => line = Some(format!("database {name} is called {now} by now: it stays")),
                None => {}
            }
        }
        self.enter(at, Phase::Finished).await?;
        Ok(line)
    }

    /// What is kept aside, with its size.
    pub(super) async fn kept(&self) -> Result<Vec<String>> {
        let databases = Databases::ask(&self.connection).await?;
        let mut lines = Vec::new();
        for entry in &self.state.entries {
            let Some((name, oid)) = Self::aside(entry) else { continue };
            if databases.name_of(Some(oid)) == Some(name) {
                let size = server::size(&self.connection, name).await.map_or("size unknown".to_owned(), human_bytes);
                let odd = match databases.oid_of(&entry.live) {
                    None => format!("; NOTHING is called {} now", entry.live),
                    Some(live) if entry.phase == Phase::Switched && Some(live) != entry.new_oid => {
                        format!("; what is called {} now is not what this restore made", entry.live)
                    }
                    _ => String::new(),
                };
                lines.push(format!("database {name}: {size}{odd}"));
            }
        }
        Ok(lines)
    }
}

fn recorded_of<'d>(source: &str, recorded: &'d [Database]) -> Result<&'d Database> {
    let unknown = || Error::failed(format!("the set's details hold no properties of database {source}"));
    recorded.iter().find(|d| d.name == source).ok_or_else(unknown)
}

/// What an undo has to do for one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WayBack {
    /// What was restored makes place for the old one.
    Exchange,
    /// Nothing has the live name: the old one takes it again.
    OldAlone,
    /// The old one is live; whether what was restored has the name of what is kept.
    Done { kept: bool },
    /// The new one never was.
    NeverSwitched,
}

/// What is called what decides. An undo that would do nothing or the wrong thing is refused; its entry stays as it is.
fn way_back(entry: &Entry, databases: &Databases) -> Result<WayBack> {
    let (live, old) = (&entry.live, &entry.old);
    let kept = entry.old_oid.is_some() && databases.name_of(entry.old_oid) == Some(old);
    let made = format!("what this restore made of database {live}");
    match databases.name_of(entry.new_oid) {
        Some(name) if name == live && (kept || entry.old_oid.is_none()) => Ok(WayBack::Exchange),
        Some(name) if name == live => Err(Error::failed(format!("database {old} is not there any more: nothing to put back"))),
        Some(name) if name == entry.new && entry.phase == Phase::Switching => Ok(WayBack::NeverSwitched),
        Some(name) if name == entry.undone => Ok(WayBack::Done { kept: true }),
        _ if entry.old_oid.is_some() && databases.name_of(entry.old_oid) == Some(live) => match entry.phase {
            Phase::Switching => Ok(WayBack::NeverSwitched),
            _ => Ok(WayBack::Done { kept: false }),
        },
        Some(name) if ["_drctl_old_", "_drctl_undone_"].iter().any(|kept| name.contains(kept)) => {
            Err(Error::failed(format!("{made} is now called {name}")).hint("a later restore replaced it: undo that one first"))
        }
        // Someone dropped or renamed it.
        _ if kept && databases.oid_of(live).is_none() => Ok(WayBack::OldAlone),
        now => {
            let what = match now {
                Some(name) => format!("{made} is now called {name}"),
                None => format!("{made} is not on this server any more"),
            };
            Err(Error::failed(what).hint(match (kept, entry.old_oid) {
                (true, _) => format!("rename away what is called {live} now, and repeat: then {old} takes the name again"),
                (false, Some(_)) => format!("nothing was changed; {old}, which was kept, is not there either"),
                (false, None) => "nothing was changed, and nothing was there before the restore that could be put back".to_owned(),
            }))
        }
    }
}

fn undone_line(entry: &Entry) -> String {
    match entry.old_oid {
        Some(_) => {
            format!("database {} is again what it was before the restore; what was written since is kept as {}", entry.live, entry.undone)
        }
        None => format!("database {} did not exist before the restore; it is kept as {}", entry.live, entry.undone),
    }
}
