//! One run's dumps of one server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

use crate::error::{Error, Kind, Result};
use crate::model::ArtifactFormat;
use crate::model::artifact::Consistency;
use crate::pipeline::plain::PlainSender;
use crate::process::{Command, Failure, Finished, Limits, Reason};
use crate::source::postgres::blocker::{self, Blocker};
use crate::source::postgres::catalog::{self, ANY_BYTES, Database, SYSTEM_IDENTIFIER, Server, Standing};
use crate::source::postgres::choose::Choice;
use crate::source::postgres::client::{self, Call, Client, Private, database_argument};
use crate::source::postgres::connect::{Connection, connect};
use crate::source::postgres::names::shown;
use crate::source::postgres::session;
use crate::source::postgres::settings::{Databases, PostgresSettings};
use crate::source::postgres::vanished;
use crate::source::{ArtifactPlan, DumpEnd, LeftOut, RunContext, Session};

/// Name of the artifact with roles and tablespaces.
pub(super) const GLOBALS: &str = "globals";
/// The line with which pg_dumpall ends, before a last line of restrictions in newer versions.
const GLOBALS_END: &[u8] = b"-- PostgreSQL database cluster dump complete";
/// Bytes at the end of the globals in which that line must stand.
const GLOBALS_TAIL: usize = 1024;

/// How long ending what a dump left behind at the server may take.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// Notes when a dump broke off, also one that is dropped half way.
struct Unfinished {
    at: Arc<Mutex<Option<Instant>>>,
    done: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.done {
            *self.at.lock().unwrap_or_else(|p| p.into_inner()) = Some(Instant::now());
        }
    }
}

/// An open session; see [`super::PostgresSource`].
pub(super) struct PostgresSession {
    pub(super) settings: PostgresSettings,
    pub(super) application: String,
    pub(super) connection: Option<Connection>,
    pub(super) private: Private,
    pub(super) server: Server,
    pub(super) pg_dump: Client,
    pub(super) pg_dumpall: Client,
    pub(super) choice: Choice,
    pub(super) surroundings: serde_json::Value,
    pub(super) role_passwords: bool,
    pub(super) warnings: Vec<String>,
    pub(super) problems: Vec<String>,
    pub(super) as_of: Timestamp,
    pub(super) dumped: bool,
    /// When a program last ended otherwise than well: something of it may be left at the server.
    pub(super) broken_off: Arc<Mutex<Option<Instant>>>,
}

/// Keeps the last bytes of a stream.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&bytes[bytes.len().saturating_sub(GLOBALS_TAIL)..]);
        let excess = self.0.len().saturating_sub(GLOBALS_TAIL);
        self.0.drain(..excess);
    }
}

impl PostgresSession {
    fn limits(&self) -> Limits {
        Limits { idle: self.settings.idle_timeout, total: self.settings.total_timeout, ..Limits::default() }
    }

    /// Connects again after a restart of the server, if it is still the same.
    async fn connected(&mut self) -> Result<&Connection> {
        if self.connection.as_ref().is_none_or(|c| c.is_closed()) {
            let fresh = connect(&self.settings, &self.settings.maintenance_database, &self.application).await?;
            let server = catalog::server(&fresh).await?;
            if server.system_identifier != self.server.system_identifier {
                let told = |id: &Option<String>| id.clone().unwrap_or_else(|| "unknown".into());
                let (before, now) = (told(&self.server.system_identifier), told(&server.system_identifier));
                return Err(Error::failed(format!(
                    "another server answers at {} than when the run began: system_identifier {before} then, {now} now",
                    self.settings.address()
                )));
            }
            self.connection = Some(fresh);
        }
        self.connection.as_ref().ok_or_else(|| Error::new(Kind::Unreachable, "no connection"))
    }

    async fn lost(&self) -> bool {
        match &self.connection {
            Some(connection) => {
                let asked = tokio::time::timeout(self.settings.connect_timeout, connection.simple_query("select 1")).await;
                !matches!(asked, Ok(Ok(_)))
            }
            None => true,
        }
    }

    /// Runs the tool and sends what it writes. `watch` sees every block first.
    async fn send(
        &mut self,
        command: Command,
        out: PlainSender,
        context: &RunContext,
        mut watch: impl FnMut(&[u8]) + Send + 'static,
    ) -> Result<Finished> {
        self.connected().await?;
        // The earliest dump of the run decides what a restore of all of them would lose.
        let started = context.clock.now();
        let mut unfinished = Unfinished { at: self.broken_off.clone(), done: false };
        let seen: Arc<Mutex<Option<Blocker>>> = Arc::default();
        let sink = move |bytes: Bytes| {
            watch(&bytes);
            out.blocking_data(bytes)
        };
        let dumping = command.limits(self.limits()).stream(&context.cancel, sink);
        let result = tokio::select! {
            result = dumping => result,
            () = blocker::watch(&self.settings, &self.application, seen.clone(), &context.bus) => return Err(Error::failed("the watch for locks ended")),
        };
        match result {
            Ok(finished) => {
                unfinished.done = true;
                if !self.dumped {
                    self.as_of = started;
                    self.dumped = true;
                }
                Ok(finished)
            }
            Err(failure) => {
                let blocker = seen.lock().unwrap_or_else(|p| p.into_inner()).take();
                let lost = matches!(failure.reason, Reason::Exit(_)) && self.lost().await;
                let (reason, said) = (failure.reason, failure.stderr.join("; "));
                Err(self.in_between(reason, &said, explain(failure, blocker, lost)))
            }
        }
    }

    /// After a dump that failed or was cancelled: nothing of it stays behind at a server to which the program's own connection does not
    /// lead straight; a server process that waits for a lock does not notice that its client is gone. What another session of this run
    /// began since is left alone.
    async fn end_others(&self) {
        const SQL: &str = "select pg_terminate_backend(pid) from pg_stat_activity
            where application_name = left($1, 63) and pid <> pg_backend_pid() and usename = current_user
              and backend_start < clock_timestamp() - make_interval(secs => $2)";
        let broken_off = self.broken_off.lock().unwrap_or_else(|p| p.into_inner()).take();
        if let (Some(at), Some(_), Some(connection)) = (broken_off, &self.settings.reach, &self.connection) {
            let age = at.elapsed().as_secs_f64();
            let ended = tokio::time::timeout(AFTERWARDS, connection.query(SQL, &[&self.application, &age])).await;
            tracing::debug!(?ended, "ended what a dump left at the server");
        }
    }

    /// The error with what the reach has to say of it.
    fn in_between(&self, reason: Reason, said: &str, error: Error) -> Error {
        let (Some(reach), Reason::Exit(status)) = (&self.settings.reach, reason) else { return error };
        if self.pg_dump.there {
            let error = client::judged(reach.as_ref(), error, said);
            // What ssh itself failed at.
            return if status == 255 { error.with_kind(Kind::Unreachable) } else { error };
        }
        let Some(trouble) = self.private.trouble() else { return error };
        Error::new(trouble.kind(), format!("{error} ({trouble})")).hint_of(&trouble).hint_of(&error)
    }

    async fn dump_globals(&mut self, out: PlainSender, context: &RunContext) -> Result<DumpEnd> {
        let what = format!("pg_dumpall --globals-only of {}", self.settings.address());
        let mut args = vec!["--globals-only".to_owned(), format!("--database={}", self.settings.maintenance_database)];
        // Said in every case: a role's or a database's `client_encoding`, or PGCLIENTENCODING, would decide otherwise.
        args.push(format!("--encoding={}", if self.server.encoding.as_deref() == Some(ANY_BYTES) { ANY_BYTES } else { "UTF8" }));
        if !self.role_passwords {
            args.push("--no-role-passwords".to_owned());
        }
        let options = session::options(self.connected().await?).await?;
        let call = Call { what: what.clone(), args, options, ..Call::default() };
        let command = self.private.command(&self.settings, &self.pg_dumpall, &self.application, call).await?;
        let tail: Arc<Mutex<Tail>> = Arc::default();
        let kept = tail.clone();
        let watch = move |bytes: &[u8]| kept.lock().unwrap_or_else(|p| p.into_inner()).push(bytes);
        let finished = self.send(command, out, context, watch).await?;
        self.heed(&what, &finished.stderr);
        let ended = memchr::memmem::find(&tail.lock().unwrap_or_else(|p| p.into_inner()).0, GLOBALS_END).is_some();
        if !ended {
            return Err(Error::corrupt(format!("{what} exited 0, but its output is cut short: the line that ends it is missing")));
        }
        Ok(DumpEnd {
            exit_status: Some(0),
            tool: Some(self.pg_dumpall.tool.clone()),
            consistency: Consistency::Snapshot,
            expected_totals: BTreeMap::new(),
        })
    }

    async fn dump_database(&mut self, name: &str, out: PlainSender, context: &RunContext) -> Result<DumpEnd> {
        if let Some(error) = self.choice.failed.get(name) {
            return Err(Error::new(error.kind(), error.to_string()).hint_of(error));
        }
        let what = format!("pg_dump of {}", shown(name));
        let (before, options) = {
            let connection = connect(&self.settings, name, &self.application).await?;
            (table_oids(&connection).await?, session::options(&connection).await?)
        };
        let wait = self.settings.lock_wait_timeout.as_millis().max(1);
        let mut args = vec!["--format=custom".to_owned(), "--compress=0".to_owned(), format!("--lock-wait-timeout={wait}")];
        args.push(database_argument(name));
        // As the rows are stored: nothing is converted, whatever `client_encoding` a role or database is set to.
        args.extend(self.database(name).map(|database| format!("--encoding={}", database.encoding)));
        // pg_dump does so by itself where the key is an enum, and not where one lies within it.
        args.extend(self.database(name).filter(|database| database.moving_partitions).map(|_| "--load-via-partition-root".to_owned()));
        args.extend(self.settings.exclude_table_data.iter().map(|pattern| format!("--exclude-table-data={pattern}")));
        let call = Call { what: what.clone(), args, options, ..Call::default() };
        let command = self.private.command(&self.settings, &self.pg_dump, &self.application, call).await?;
        let finished = self.send(command, out, context, |_| {}).await?;
        self.heed(&what, &finished.stderr);
        // A table that was there before the dump began and still is must be in it; one that was dropped meanwhile need not.
        let after = async { table_oids(&connect(&self.settings, name, &self.application).await?).await };
        let after = after.await.unwrap_or_else(|_: Error| before.clone());
        let mut expected_totals = BTreeMap::new();
        if self.settings.exclude_table_data.is_empty() {
            expected_totals.insert("tables".to_owned(), before.intersection(&after).count() as u64);
        }
        Ok(DumpEnd { exit_status: Some(0), tool: Some(self.pg_dump.tool.clone()), consistency: Consistency::Snapshot, expected_totals })
    }

    fn database(&self, name: &str) -> Option<&Database> {
        self.choice.databases.iter().find(|database| database.name == name)
    }

    /// What a tool said although it ended well.
    fn heed(&mut self, what: &str, stderr: &[String]) {
        for (line, missing) in remarks(stderr) {
            let into = if missing { &mut self.problems } else { &mut self.warnings };
            let line = format!("{what}: {line}");
            // A dump that is repeated says it again.
            if !into.contains(&line) {
                into.push(line);
            }
        }
    }
}

async fn table_oids(connection: &Connection) -> Result<BTreeSet<u32>> {
    Ok(catalog::tables(connection).await?.into_iter().map(|table| table.oid).collect())
}

/// The warnings in what a tool said, each with whether something is missing for it. Details and hints follow their warning.
fn remarks(stderr: &[String]) -> Vec<(String, bool)> {
    let mut found: Vec<(String, bool)> = Vec::new();
    for line in stderr {
        // `pg_dump: warning: …`, and from the server `WARNING:  …`.
        let words = line.split_once(": ").map_or(line.as_str(), |(_, rest)| rest);
        if words.starts_with("warning:") || line.starts_with("WARNING:") || line.contains("not dumped") {
            found.push((words.trim_start_matches("warning:").trim().to_owned(), line.contains("not dumped")));
        } else if let (Some((last, _)), Some(detail)) = (found.last_mut(), words.strip_prefix("detail:")) {
            last.push_str(&format!(" ({})", detail.trim()));
        }
    }
    found
}

/// Why a dump failed, as far as its words and the server's state tell.
fn explain(failure: Failure, blocker: Option<Blocker>, lost: bool) -> Error {
    let Failure { error, reason, stderr } = failure;
    if !matches!(reason, Reason::Exit(_)) {
        return error;
    }
    let said = |words: &str| stderr.iter().any(|line| line.contains(words));
    if said("LOCK TABLE") && (said("due to lock timeout") || said("due to statement timeout")) {
        return match blocker {
            Some(blocker) => error
                .context(format!("a table is locked by {}", blocker.who))
                .hint(format!("wait until it ends, or end it: SELECT pg_terminate_backend({})", blocker.pid)),
            None => error.hint("a table was locked by someone for longer than lock_wait_timeout"),
        };
    }
    // The words of a server that goes away, and of libpq about one that went.
    const GONE: [&str; 6] = [
        "server closed the connection",
        "terminating connection",
        "could not connect to server",
        "the database system is",
        "Connection refused",
        "connection to server was lost",
    ];
    if lost || GONE.iter().any(|words| said(words)) {
        return error.with_kind(Kind::Unreachable).hint("the server was stopped, restarted or crashed during the dump: see its log");
    }
    if said("password authentication failed") || said("no password supplied") {
        return error.with_kind(Kind::Preflight).hint("check user and password of the source");
    }
    if said("No space left on device") {
        return error.with_kind(Kind::Full).hint("the disk of the database server is full");
    }
    if said("conflict with recovery") {
        return error
            .with_kind(Kind::Unreachable)
            .hint("set hot_standby_feedback = on on the replica, or raise max_standby_streaming_delay");
    }
    error
}

#[async_trait]
impl Session for PostgresSession {
    fn identity(&self) -> BTreeMap<String, String> {
        self.server.identity()
    }

    fn bound_by(&self) -> Option<&'static str> {
        Some(SYSTEM_IDENTIFIER)
    }

    fn artifacts(&self) -> Vec<ArtifactPlan> {
        let globals =
            ArtifactPlan { name: GLOBALS.into(), format: ArtifactFormat::Sql, extension: None, expected_bytes: None, secret: true };
        let plan = |name: &String, expected_bytes: Option<u64>| ArtifactPlan {
            name: name.clone(),
            format: ArtifactFormat::PgCustom,
            extension: None,
            expected_bytes,
            secret: false,
        };
        let databases = self.choice.databases.iter().map(|d| plan(&d.name, d.size_bytes));
        // What cannot be dumped is an artifact all the same: it fails by itself.
        let missing = self.choice.failed.keys().filter(|name| self.database(name).is_none()).map(|name| plan(name, None));
        // Roles first: a restore in this order has the owners before what they own.
        Some(globals).filter(|_| self.settings.globals).into_iter().chain(databases).chain(missing).collect()
    }

    async fn gone(&mut self, artifact: &ArtifactPlan) -> Option<String> {
        let oid = self.database(&artifact.name).filter(|_| artifact.format == ArtifactFormat::PgCustom)?.oid;
        // One that is named in the settings has to be there.
        if self.settings.databases != Databases::All {
            return None;
        }
        let connection = self.connected().await.ok()?;
        let standing = catalog::standing(connection, oid).await.ok()?;
        (standing != Standing::There).then(|| vanished(&shown(&artifact.name)))
    }

    fn left_out(&self) -> Vec<LeftOut> {
        self.choice.left_out()
    }

    async fn dump(&mut self, artifact: &ArtifactPlan, out: PlainSender, context: &RunContext) -> Result<DumpEnd> {
        match artifact.format {
            ArtifactFormat::Sql => self.dump_globals(out, context).await,
            _ => self.dump_database(&artifact.name, out, context).await,
        }
    }

    fn details(&self) -> serde_json::Value {
        let left = &self.choice.left;
        let skipped: Vec<_> = left.iter().map(|(database, why)| json!({ "name": database.name, "reason": why.words() })).collect();
        let databases: Vec<_> = self
            .choice
            .databases
            .iter()
            .map(|database| {
                let mut value = json!(database);
                value["empty"] = json!(database.tables == Some(0));
                value
            })
            .collect();
        json!({
            "server": self.server,
            "host": self.settings.host,
            "port": self.settings.port,
            "reach": self.settings.reach.as_ref().map(|reach| reach.name()),
            "databases": databases,
            "skipped_databases": skipped,
            "role_passwords": self.role_passwords,
            "surroundings": self.surroundings,
        })
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn problems(&self) -> Vec<String> {
        self.problems.clone()
    }

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    async fn close(&mut self) {
        // Here, and not where a dump fails: a cancelled one is dropped and never gets there.
        self.end_others().await;
        self.connection = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(stderr: &[&str]) -> Failure {
        let stderr: Vec<String> = stderr.iter().map(|s| (*s).to_owned()).collect();
        Failure { error: Error::failed("pg_dump of shop exited 1"), reason: Reason::Exit(1), stderr }
    }

    #[test]
    fn failures_are_explained_by_what_was_said() {
        let cases = [
            ("pg_dump: error: server closed the connection unexpectedly", Kind::Unreachable),
            ("pg_dump: error: query failed: FATAL:  terminating connection due to administrator command", Kind::Unreachable),
            ("FATAL:  password authentication failed for user \"x\"", Kind::Preflight),
            ("ERROR:  could not write to file \"base/pgsql_tmp/x\": No space left on device", Kind::Full),
            ("ERROR:  canceling statement due to conflict with recovery", Kind::Unreachable),
            ("ERROR:  permission denied for table x", Kind::Failed),
        ];
        for (line, kind) in cases {
            assert_eq!(explain(failed(&[line]), None, false).kind(), kind, "{line}");
        }
        assert_eq!(explain(failed(&[]), None, true).kind(), Kind::Unreachable);
    }

    #[test]
    fn warnings_of_a_dump_that_ended_well_are_kept() {
        let lines = [
            "pg_dump: last built-in OID is 16383",
            "pg_dump: warning: there are circular foreign-key constraints on this table:",
            "pg_dump: detail: a",
            "pg_dump: hint: You might want to use --disable-triggers.",
            "pg_dump: warning: subscriptions not dumped because current user is not a superuser",
        ];
        let want = [
            ("there are circular foreign-key constraints on this table: (a)".to_owned(), false),
            ("subscriptions not dumped because current user is not a superuser".to_owned(), true),
        ];
        assert_eq!(remarks(&lines.map(str::to_owned)), want);
    }

    #[test]
    fn f43_a_lock_timeout_names_who_holds_the_lock() {
        let lines =
            ["ERROR:  canceling statement due to lock timeout", "pg_dump: detail: Query was: LOCK TABLE public.t IN ACCESS SHARE MODE"];
        let blocker = Blocker { who: "process 7 (user app)".into(), pid: 7 };
        let error = explain(failed(&lines), Some(blocker), false);
        assert!(error.to_string().starts_with("a table is locked by process 7"), "{error}");
        assert!(error.hint_text().unwrap().contains("pg_terminate_backend(7)"));
    }

    #[test]
    fn the_tail_is_bounded_and_last() {
        let mut tail = Tail::default();
        for n in 0..5000u32 {
            tail.push(&n.to_le_bytes());
        }
        tail.push(&[7; 4000]);
        tail.push(b"end");
        assert_eq!(tail.0.len(), GLOBALS_TAIL);
        assert!(tail.0.ends_with(b"\x07end"));
    }
}
