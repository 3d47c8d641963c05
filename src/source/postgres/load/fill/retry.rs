//! Trying again what pg_restore could not make, entry by entry, over a connection of our own.

use std::collections::BTreeMap;

use tokio_postgres::error::SqlState;

use super::acting::{Actors, Way};
use super::complaints::Complaint;
use super::entry::Entry;
use super::functions;
use crate::error::{Error, Result};
use crate::format::pgdump::TocEntry;
use crate::source::postgres::catalog::Database;
use crate::source::postgres::connect::{Connection, ident, pg_error};
use crate::source::postgres::names::{Text, sendable};

type PgResult<T> = Result<T, tokio_postgres::Error>;

/// How a session of pg_restore is set up, beyond what every connection of ours is: nothing may run out of time, bodies of functions are not
/// looked at before what they name is there, and nothing waits for the disk before the switch does.
const SETUP: &str = "SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET check_function_bodies = false; SET xmloption = content; \
                     SET synchronous_commit = off";

/// Most rounds over what failed: each can make what the next one needs.
const ROUNDS: usize = 8;

/// Why a CHECK constraint is to be made that was there before.
const TAKEN_AWAY: &str = "taken away to load the rows";

/// Entries of access rights in one transaction; where one fails each of them has its own.
const RIGHTS_AT_ONCE: usize = 200;

/// One entry that failed.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) entry: Entry,
    complaint: Complaint,
    /// Why it failed the last time.
    pub(super) reason: String,
    /// Another try will do no good as long as the rows stay what they are.
    by_rows: bool,
}

impl Pending {
    pub(super) fn new(entry: Entry, complaint: Complaint) -> Pending {
        Pending { entry, reason: complaint.reason.clone(), complaint, by_rows: false }
    }

    /// A CHECK constraint that was taken away for these rows.
    fn check(rows: &Entry, namespace: String, tag: String, definition: String) -> Pending {
        let entry = Entry {
            description: "CHECK CONSTRAINT".into(),
            tag,
            namespace,
            definition,
            drop: String::new(),
            copy: String::new(),
            ..rows.clone()
        };
        Pending::new(entry, Complaint { not_made: true, reason: TAKEN_AWAY.into() })
    }
}

/// How a try of ours went.
pub(super) enum Tried {
    Made,
    /// In the way of the whole load: the connection is gone, the disk full.
    Hopeless(Error),
    Failed(tokio_postgres::Error),
}

/// Our own hands in a database that is being loaded.
pub(super) struct Retry<'a> {
    pub(super) connection: Connection,
    name: &'a str,
    actors: Actors,
    /// The role that acts for superusers, and whether it is there.
    stand_in: String,
    stand_in_made: bool,
    /// Relations by their entries, for what depends on them.
    relations: BTreeMap<i64, Entry>,
    /// Event triggers that are switched off meanwhile, with how they fire.
    silenced: BTreeMap<String, String>,
    /// Statements that take back what was lent to a role for the try under way.
    lent: Vec<String>,
    /// What was made by a path that is not the database's own.
    pub(super) guessed: Vec<String>,
    /// What a server empties the path for, and was made by one.
    pub(super) by_path: Vec<String>,
}

impl<'a> Retry<'a> {
    pub(super) async fn new(connection: Connection, database: &'a Database, name: &'a str, restore: &str) -> Result<Retry<'a>> {
        let asked = |e: tokio_postgres::Error| pg_error(format!("look into database {name}"), &e);
        connection.batch_execute(SETUP).await.map_err(asked)?;
        let actors = Actors::ask(&connection, database).await.map_err(asked)?;
        let stand_in = super::stand_in(restore);
        Ok(Retry {
            connection,
            name,
            actors,
            stand_in,
            stand_in_made: false,
            relations: BTreeMap::new(),
            silenced: BTreeMap::new(),
            lent: Vec::new(),
            guessed: Vec::new(),
            by_path: Vec::new(),
        })
    }

    /// Entries whose texts are in an encoding that the server converts; where it cannot, they are what [`Entry::of`] makes of them, and whatever
    /// is wrong with that is found when they are used.
    pub(super) async fn converted(&self, found: &[TocEntry], encoding: &str) -> Result<Vec<Entry>> {
        let texts: Vec<&[u8]> = found.iter().flat_map(Entry::texts).collect();
        let query = "select pg_catalog.convert_from(x, $2::text::name) from unnest($1::bytea[]) with ordinality as t(x, at) order by at";
        let rows = match self.connection.query(query, &[&texts, &encoding]).await {
            Ok(rows) if rows.len() == texts.len() => rows,
            other => {
                tracing::debug!(?other, encoding, "the server cannot convert the archive's texts");
                return Ok(found.iter().map(Entry::of).collect());
            }
        };
        let mut texts = rows.iter().map(|row| row.get::<_, Text>(0).0);
        let of = |entry: &TocEntry| Entry::with(entry, std::array::from_fn(|_| texts.next().unwrap_or_default()));
        let mut entries: Vec<Entry> = found.iter().map(of).collect();
        // Its rows stay in the archive's encoding.
        for entry in entries.iter_mut().filter(|entry| entry.is_rows()) {
            entry.copy = entry.copy.replace(" FROM stdin;", &format!(" FROM stdin WITH (ENCODING '{}');", encoding.replace('\'', "")));
        }
        Ok(entries)
    }

    /// Learns of relations that entries depend on.
    pub(super) fn know(&mut self, relations: impl IntoIterator<Item = Entry>) {
        self.relations.extend(relations.into_iter().map(|entry| (entry.id, entry)));
    }

    fn error(&self, what: &str, error: &tokio_postgres::Error) -> Error {
        pg_error(format!("{what} in database {}", self.name), error)
    }

    /// Tries again, round after round, until a round makes nothing more. What was made leaves the list. Returns whether anything did.
    pub(super) async fn settle(&mut self, pending: &mut Vec<Pending>) -> Result<bool> {
        let before = pending.len();
        for one in pending.iter_mut() {
            one.by_rows = false;
        }
        for _ in 0..ROUNDS {
            self.silence().await?;
            self.actors.refresh(&self.connection).await.map_err(|e| self.error("list the schemas", &e))?;
            let waiting = pending.len();
            let mut left = Vec::new();
            // An event trigger that forbids statements comes after all of them.
            pending.sort_by_key(|one| one.entry.description == "EVENT TRIGGER");
            for mut one in std::mem::take(pending) {
                if one.entry.is_rows() || one.by_rows || !self.make(&mut one).await? {
                    left.push(one);
                }
            }
            *pending = left;
            if pending.is_empty() || pending.len() == waiting {
                break;
            }
        }
        pending.sort_by_key(|one| one.entry.description == "EVENT TRIGGER");
        Ok(pending.len() < before)
    }

    /// Tries one entry in every way.
    async fn make(&mut self, one: &mut Pending) -> Result<bool> {
        let ways = match one.entry.follows_path() {
            true => self.actors.ways(&one.entry.owner, &one.entry.namespace, &self.stand_in),
            false => vec![Way::Plain],
        };
        for (n, way) in ways.iter().enumerate() {
            let error = match self.try_entry(&one.entry, one.complaint.not_made, way).await {
                Tried::Made => {
                    if n > 1 {
                        self.guessed.push(one.entry.name());
                    }
                    if n > 0 && functions::are_asked_by(&one.entry) {
                        self.by_path.push(one.entry.name());
                    }
                    return Ok(true);
                }
                Tried::Hopeless(error) => return Err(error),
                Tried::Failed(error) => error,
            };
            // It was made after all: the complaint was not its own. Where a role is taken on, something else may be what is there.
            if n == 0 && is_there_already(&error) && !one.complaint.reason.contains("already exists") {
                return Ok(true);
            }
            let denied = error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
            if n == 0 || (n == 1 && !denied) {
                one.reason = reason(&error);
            }
            one.by_rows = error.code().is_some_and(|code| code.code().starts_with("23"));
            if one.by_rows || is_there_already(&error) {
                break;
            }
        }
        Ok(false)
    }

    async fn try_entry(&mut self, entry: &Entry, not_made: bool, way: &Way) -> Tried {
        let work = async {
            self.begin(entry, way).await?;
            if not_made && !entry.definition.trim().is_empty() {
                self.connection.batch_execute(&sendable(&self.understood(entry))).await?;
            }
            self.end(entry, way).await
        };
        let result = work.await;
        self.outcome(result).await
    }

    /// The statement as this server takes it. `run_as_owner` came with PostgreSQL 16; newer clients write it for older servers, which know no other
    /// way than that.
    fn understood<'e>(&self, entry: &'e Entry) -> std::borrow::Cow<'e, str> {
        const OWNER: &str = ", run_as_owner = true";
        let old = self.actors.server_version < 160_000;
        match entry.description == "SUBSCRIPTION" && old && entry.definition.contains(OWNER) {
            true => entry.definition.replace(OWNER, "").into(),
            false => entry.definition.as_str().into(),
        }
    }

    /// Ends the transaction of a try, and judges it.
    pub(super) async fn outcome(&self, result: PgResult<()>) -> Tried {
        let error = match result {
            Ok(()) => match self.connection.batch_execute("COMMIT").await {
                Ok(()) => return Tried::Made,
                Err(error) => error,
            },
            Err(error) => error,
        };
        if self.connection.is_closed() || is_hopeless(&error) {
            return Tried::Hopeless(self.error("try again what failed", &error));
        }
        match self.connection.batch_execute("ROLLBACK").await {
            Ok(()) => Tried::Failed(error),
            Err(also) => Tried::Hopeless(self.error("try again what failed", &also)),
        }
    }

    /// Opens the transaction of a try and takes on its role and path.
    pub(super) async fn begin(&mut self, entry: &Entry, way: &Way) -> PgResult<()> {
        if matches!(way, Way::As { stand_in: true, .. }) {
            self.make_stand_in().await?;
        }
        let mut sql = "BEGIN".to_owned();
        if !entry.tablespace.is_empty() {
            sql.push_str(&format!("; SET LOCAL default_tablespace = {}", ident(&entry.tablespace)));
        }
        if !entry.access_method.is_empty() {
            sql.push_str(&format!("; SET LOCAL default_table_access_method = {}", ident(&entry.access_method)));
        }
        self.connection.batch_execute(&sql).await?;
        let Way::As { role, path, stand_in } = way else { return Ok(()) };
        if *stand_in {
            for relation in self.relations_of(entry) {
                self.connection.batch_execute(&sendable(&relation.give_to(role))).await?;
            }
        }
        let functions = match self.empties_path() && functions::are_asked_by(entry) {
            true => functions::without_path(&self.connection).await?,
            false => Vec::new(),
        };
        self.connection.query_one("select pg_catalog.set_config('search_path', $1, true)", &[path]).await?;
        self.connection.batch_execute(&functions::lend_path(&functions)).await?;
        // Of a newer server there may be some that this one does not know.
        let set = "select pg_catalog.set_config($1, $2, true)
            where $1 like '%.%' or exists (select from pg_catalog.pg_settings where pg_catalog.lower(name) = pg_catalog.lower($1))";
        // Values of money are read as the dump wrote them, whatever functions would find set.
        let money = |name: &str| name.eq_ignore_ascii_case("lc_monetary") && (entry.is_rows() || entry.definition.contains("money"));
        for (name, value) in self.actors.settings(&entry.owner).into_iter().filter(|(name, _)| !money(name)) {
            self.connection.query_opt(set, &[&name, &value]).await?;
        }
        self.lend(role, &entry.namespace).await?;
        self.lent.extend(functions.iter().map(|function| functions::take_path_back(function)));
        // A materialized view holds what its owner sees; pg_restore would rather fail than have policies hide rows.
        if entry.description == "MATERIALIZED VIEW DATA" {
            self.connection.batch_execute("SET LOCAL row_security = on").await?;
        }
        self.connection.batch_execute(&format!("SET LOCAL ROLE {}", ident(role))).await
    }

    /// Whether the server lets no path of a session reach what makes indexes and fills materialized views.
    pub(super) fn empties_path(&self) -> bool {
        self.actors.server_version >= functions::EMPTIES_PATH
    }

    /// Lays role, path and rights down again, and gives what was made to its owner.
    pub(super) async fn end(&mut self, entry: &Entry, way: &Way) -> PgResult<()> {
        if let Way::As { stand_in, .. } = way {
            self.connection.batch_execute("SET LOCAL ROLE NONE; SELECT pg_catalog.set_config('search_path', '', true)").await?;
            if *stand_in {
                for relation in self.relations_of(entry) {
                    self.connection.batch_execute(&sendable(&relation.give_to(&relation.owner))).await?;
                }
            }
        }
        if let Some(sql) = entry.owner_sql() {
            self.connection.batch_execute(&sendable(&sql)).await?;
        }
        for sql in std::mem::take(&mut self.lent) {
            self.connection.batch_execute(&sql).await?;
        }
        Ok(())
    }

    /// Access rights are loaded last: until then a role may not yet enter the schemas of its own path, nor make something in them.
    async fn lend(&mut self, role: &str, namespace: &str) -> PgResult<()> {
        self.lent.clear();
        let query = "select n.nspname::text, pg_catalog.has_schema_privilege($1, n.oid, 'USAGE'),
              n.nspname <> $2 or pg_catalog.has_schema_privilege($1, n.oid, 'CREATE')
            from pg_catalog.pg_namespace n
            where (n.nspname = any (pg_catalog.current_schemas(false)) or n.nspname = $2) and n.nspname !~ '^pg_'";
        let rows = self.connection.query(query, &[&role, &namespace]).await?;
        for row in rows {
            let schema = ident(&row.get::<_, Text>(0).0);
            for (has, privilege) in [(row.get::<_, bool>(1), "USAGE"), (row.get::<_, bool>(2), "CREATE")] {
                if !has {
                    self.connection.batch_execute(&format!("GRANT {privilege} ON SCHEMA {schema} TO {}", ident(role))).await?;
                    self.lent.push(format!("REVOKE {privilege} ON SCHEMA {schema} FROM {}", ident(role)));
                }
            }
        }
        Ok(())
    }

    /// The role that acts for superusers: it may read everything, which functions need that read other tables, and is dropped after the load.
    async fn make_stand_in(&mut self) -> PgResult<()> {
        if self.stand_in_made {
            return Ok(());
        }
        let role = ident(&self.stand_in);
        let query = "select exists (select from pg_catalog.pg_roles where rolname = $1),
            exists (select from pg_catalog.pg_roles where rolname = 'pg_read_all_data')";
        let row = self.connection.query_one(query, &[&self.stand_in]).await?;
        let (is_there, reads_all): (bool, bool) = (row.get(0), row.get(1));
        if !is_there {
            self.connection.batch_execute(&format!("CREATE ROLE {role} NOLOGIN")).await?;
        }
        self.stand_in_made = true;
        if reads_all {
            self.connection.batch_execute(&format!("GRANT pg_read_all_data TO {role}")).await?;
        }
        Ok(())
    }

    /// Event triggers that refuse statements would refuse ours, which bring back what was there before them.
    async fn silence(&mut self) -> Result<()> {
        if !self.actors.superuser {
            return Ok(());
        }
        let query = "select evtname::text, evtenabled::text from pg_catalog.pg_event_trigger where evtenabled <> 'D'
            and not exists (select from pg_catalog.pg_depend d
                where d.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass and d.objid = pg_event_trigger.oid and d.deptype = 'e')";
        let rows = self.connection.query(query, &[]).await.map_err(|e| self.error("list the event triggers", &e))?;
        for row in rows {
            let (name, enabled): (String, String) = (row.get::<_, Text>(0).0, row.get(1));
            let sql = format!("ALTER EVENT TRIGGER {} DISABLE", ident(&name));
            self.connection.batch_execute(&sql).await.map_err(|e| self.error(&format!("hold event trigger {name}"), &e))?;
            self.silenced.insert(name, enabled);
        }
        Ok(())
    }

    /// Applies access rights; those that fail are added to what is pending.
    pub(super) async fn grant(&mut self, rights: Vec<Entry>, pending: &mut Vec<Pending>) -> Result<()> {
        self.silence().await?;
        for entries in rights.chunks(RIGHTS_AT_ONCE) {
            let all: Vec<String> = entries.iter().map(|entry| format!("{};", sendable(&entry.definition))).collect();
            let sql = format!("BEGIN; {}", all.join("\n"));
            let result = self.connection.batch_execute(&sql).await;
            match self.outcome(result).await {
                Tried::Made => {}
                Tried::Hopeless(error) => return Err(error),
                Tried::Failed(_) => self.grant_each(entries, pending).await?,
            }
        }
        Ok(())
    }

    async fn grant_each(&mut self, rights: &[Entry], pending: &mut Vec<Pending>) -> Result<()> {
        for entry in rights {
            match self.try_entry(entry, true, &Way::Plain).await {
                Tried::Made => {}
                Tried::Hopeless(error) => return Err(error),
                Tried::Failed(error) => {
                    let complaint = Complaint { not_made: true, reason: reason(&error) };
                    pending.push(Pending::new(entry.clone(), complaint));
                }
            }
        }
        Ok(())
    }

    /// Lets event triggers fire again, and drops the role that acted for superusers.
    pub(super) async fn close(&mut self) -> Result<()> {
        for (name, enabled) in std::mem::take(&mut self.silenced) {
            let how = match enabled.as_str() {
                "R" => "ENABLE REPLICA",
                "A" => "ENABLE ALWAYS",
                _ => "ENABLE",
            };
            let sql = format!("ALTER EVENT TRIGGER {} {how}", ident(&name));
            self.connection.batch_execute(&sql).await.map_err(|e| self.error(&format!("let event trigger {name} fire"), &e))?;
        }
        self.drop_stand_in().await
    }

    async fn drop_stand_in(&mut self) -> Result<()> {
        if std::mem::take(&mut self.stand_in_made) {
            let sql = format!("DROP ROLE {}", ident(&self.stand_in));
            self.connection.batch_execute(&sql).await.map_err(|e| self.error(&format!("drop role {}", self.stand_in), &e))?;
        }
        Ok(())
    }

    /// The ways in which rows are tried again, pass after pass.
    pub(super) fn ways_for_rows(&self, entry: &Entry) -> Vec<Way> {
        let mut ways = self.actors.ways(&entry.owner, &entry.namespace, &self.stand_in);
        // By the owner's path first: what needs none goes that way too, and reading the set again costs.
        if ways.len() > 1 {
            ways.swap(0, 1);
        }
        ways
    }

    /// Takes away the CHECK constraints of a table and of those that it is a part of, so that rows go in that they refuse for want of other rows,
    /// or altogether. Returns what puts each of them back, in this order.
    pub(super) async fn uncheck(&self, entry: &Entry) -> PgResult<Vec<Pending>> {
        // What is inherited goes with its parent's; what a part has of its own too can go only then.
        let query = "with recursive up (oid) as (
              select t.oid from pg_catalog.pg_class t join pg_catalog.pg_namespace n on n.oid = t.relnamespace where n.nspname = $1 and t.relname = $2
              union select i.inhparent from pg_catalog.pg_inherits i join up on i.inhrelid = up.oid)
            select n.nspname::text, t.relname::text, c.conname::text, pg_catalog.pg_get_constraintdef(c.oid)
            from pg_catalog.pg_constraint c join pg_catalog.pg_class t on t.oid = c.conrelid join pg_catalog.pg_namespace n on n.oid = t.relnamespace
            where c.contype = 'c' and c.coninhcount = 0 and t.oid in (select oid from up) order by 1, 2, 3";
        let mut back = Vec::new();
        loop {
            let rows = self.connection.query(query, &[&entry.namespace, &entry.tag]).await?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
                let (Text(namespace), Text(table), Text(name), Text(check)) = (row.get(0), row.get(1), row.get(2), row.get(3));
                let qualified = format!("{}.{}", ident(&namespace), ident(&table));
                self.connection.batch_execute(&format!("ALTER TABLE {qualified} DROP CONSTRAINT {}", ident(&name))).await?;
                back.push(Pending::check(
                    entry,
                    namespace,
                    format!("{table} {name}"),
                    format!("ALTER TABLE {qualified} ADD CONSTRAINT {} {check}", ident(&name)),
                ));
            }
        }
        back.reverse();
        Ok(back)
    }

    /// Puts back the CHECK constraints that rows break: new rows are checked by them. They stay what could not be loaded.
    pub(super) async fn check_new_rows(&mut self, pending: &mut [Pending]) -> Result<()> {
        for one in pending.iter_mut().filter(|one| one.complaint.reason == TAKEN_AWAY) {
            let entry = Entry { definition: format!("{} NOT VALID", one.entry.definition), ..one.entry.clone() };
            match self.try_entry(&entry, true, &Way::Plain).await {
                Tried::Made => one.reason.push_str("; it was put back NOT VALID, so that it checks new rows"),
                Tried::Failed(_) => {}
                Tried::Hopeless(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether a table has none of its rows: a COPY that failed left none.
    pub(super) async fn is_empty(&self, entry: &Entry) -> PgResult<bool> {
        let query = format!("select not exists (select from only {})", entry.qualified());
        Ok(self.connection.query_one(&query, &[]).await?.get(0))
    }

    fn relations_of(&self, entry: &Entry) -> Vec<Entry> {
        if !entry.needs_relations() {
            return Vec::new();
        }
        let known = entry.dependencies.iter().filter_map(|id| self.relations.get(id));
        known.filter(|relation| !relation.owner.is_empty()).cloned().collect()
    }
}

/// The server's words without rows: of details that show values all but these.
pub(super) fn reason(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else { return error.to_string() };
    // Classes 22 and 23: values that are no such values, and rows that break a constraint.
    let shows_values = ["22", "23"].iter().any(|class| db.code().code().starts_with(class));
    let detail = db.detail().and_then(|detail| if shows_values { without_values(detail) } else { Some(detail.to_owned()) });
    let more: Vec<&str> = detail.as_deref().into_iter().chain(db.hint()).collect();
    let text = if more.is_empty() { db.message().to_owned() } else { format!("{} ({})", db.message(), more.join("; ")) };
    text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

/// `Key (customer)=(…) is not present in table "customer".`; `None` of whatever else may show a row.
fn without_values(detail: &str) -> Option<String> {
    const ENDS: [&str; 3] = [") is not present in table \"", ") already exists.", ") is duplicated."];
    let begin = detail.find(")=(").filter(|_| detail.starts_with("Key ("))?;
    let end = ENDS.iter().find_map(|end| detail.rfind(end))?;
    (begin < end).then(|| format!("{}=(…{}", &detail[..=begin], &detail[end..]))
}

/// Whether something of this name is there.
fn is_there_already(error: &tokio_postgres::Error) -> bool {
    let code = error.code().map(SqlState::code);
    // duplicate_table, duplicate_object, duplicate_function, duplicate_schema, duplicate_column (PostgreSQL manual, appendix A).
    matches!(code, Some("42P07" | "42710" | "42723" | "42P06" | "42701"))
}

/// Whether every later statement would fail too: disk_full, out_of_memory, system_error, io_error. A server that goes away closes the connection;
/// codes of that kind alone may come from another one, asked by a foreign table, and one file that is not there is no broken disk.
fn is_hopeless(error: &tokio_postgres::Error) -> bool {
    matches!(error.code().map(SqlState::code), Some("53100" | "53200" | "58000" | "58030"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f92_values_of_rows_are_not_told() {
        let told = without_values("Key (customer, \"a)=(b\")=(7) is not present in table \"x\", 8) is not present in table \"customer\".");
        assert_eq!(told.as_deref(), Some("Key (customer, \"a)=(…) is not present in table \"customer\"."));
        assert_eq!(without_values("Key (a)=(secret) already exists.").as_deref(), Some("Key (a)=(…) already exists."));
        assert_eq!(without_values("Failing row contains (secret)."), None);
        assert_eq!(without_values("Schlüssel (a)=(secret) existiert bereits."), None);
        assert_eq!(without_values("Key (a)=(secret) conflicts with existing key (a)=(secret)."), None);
    }
}
