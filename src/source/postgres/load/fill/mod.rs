//! Filling a new database from an archive: all that pg_restore brings back, and what it cannot for want of a search_path or of an order.
//!
//! ```text
//! pre-data    pg_restore --section=pre-data   ─ what failed ─▶ again, entry by entry
//! data        pg_restore --section=data       ─ what failed ─▶ again, out of the set's stream, by our own COPY
//! post-data   pg_restore --section=post-data  ─ what failed ─▶ again, entry by entry
//! rights      GRANT and REVOKE, default privileges last        ─▶ what failed before, once more
//! ```
//! pg_restore goes on past errors; which entries they are about is read from what it says ([`complaints`]). Sections are loaded one after the
//! other, so that rows that are tried again meet no trigger and no foreign key. What still fails is returned, object by object.

mod acting;
mod complaints;
mod entry;
mod functions;
mod retry;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Kind, Result};
use crate::format::pgdump::{Head, TocEntry};
use crate::pipeline::plain::{Plain, PlainReceiver, Reader};
use crate::process::{Input, Reason};
use crate::source::RunContext;
use crate::source::load::{LoadProblem, Rereads};
use crate::source::postgres::application;
use crate::source::postgres::catalog::{ANY_BYTES, Database};
use crate::source::postgres::client::{Call, Client, Private, database_argument};
use crate::source::postgres::connect::connect;
use crate::source::postgres::session;
use crate::source::postgres::settings::PostgresSettings;
use complaints::{Complaint, Complaints, Listener};
use entry::Entry;
use retry::{Pending, Retry};

/// Bytes of the head that pg_restore is given at a time.
const BLOCK: usize = 256 * 1024;

/// The role that acts for superusers in a load of this restore; see [`acting`].
pub(super) fn stand_in(restore: &str) -> String {
    format!("drctl_load_{restore}")
}

/// A database that is filled, and with what.
pub(super) struct Filling<'a> {
    pub(super) settings: &'a PostgresSettings,
    pub(super) pg_restore: &'a Client,
    pub(super) private: &'a Private,
    pub(super) context: &'a RunContext,
    /// Id of the restore, part of the name of a role that it may make.
    pub(super) restore: &'a str,
    /// The dumped database's true name, for problems.
    pub(super) source: &'a str,
    /// Its recorded properties.
    pub(super) database: &'a Database,
    /// The database that is filled.
    pub(super) into: &'a str,
    /// Further arguments for pg_restore.
    pub(super) args: Vec<String>,
    /// Its `PGOPTIONS`.
    pub(super) options: String,
    /// The locale by which money is read; `None` where nobody knows by which it was written.
    pub(super) money: Option<&'a str>,
    /// Why money cannot be read as it was written, with the way on: it would be another amount.
    pub(super) other_money: Option<&'a str>,
}

/// What pg_restore is given to read.
enum Feed {
    Head(Arc<Head>),
    All(Arc<Head>, Reader),
}

impl Filling<'_> {
    /// Loads all of the archive. What it returns could not be loaded; the rest is there.
    pub(super) async fn fill(&self, input: PlainReceiver, rereads: &Rereads) -> Result<Vec<LoadProblem>> {
        let (head, rest) = self.head(input).await?;
        let mut work = Work::new(self, head.clone());
        work.section("pre-data", Feed::Head(head.clone())).await?;
        work.settle(false).await?;
        work.section("data", Feed::All(head.clone(), rest)).await?;
        work.rows(rereads).await?;
        work.section("post-data", Feed::Head(head)).await?;
        work.settle(false).await?;
        work.end(rereads).await
    }

    /// Loads everything but the rows, to see what would be missing. Reads the stream to its end.
    pub(super) async fn rehearse(&self, input: PlainReceiver) -> Result<Vec<LoadProblem>> {
        let (head, mut rest) = self.head(input).await?;
        let mut work = Work::new(self, head.clone());
        work.section("pre-data", Feed::Head(head.clone())).await?;
        work.settle(false).await?;
        work.section("post-data", Feed::Head(head)).await?;
        let problems = work.end(&Rereads::default()).await?;
        let drained = tokio::task::spawn_blocking(move || {
            loop {
                match rest.piece() {
                    Some(Plain::End) => return Ok(()),
                    Some(_) => {}
                    None => return Err(super::broke_off()),
                }
            }
        });
        drained.await.map_err(|e| Error::failed("a thread that read an archive broke down").because(e))??;
        Ok(problems)
    }

    async fn head(&self, input: PlainReceiver) -> Result<(Arc<Head>, Reader)> {
        let reading = tokio::task::spawn_blocking(move || Head::read(Reader::new(input)));
        let (head, rest) = reading.await.map_err(|e| Error::failed("a thread that read an archive broke down").because(e))??;
        if let Some(why) = self.other_money
            && names_money(&head)?
        {
            return Err(Error::new(Kind::Preflight, format!("database {} has values of type money: {why}", self.source)));
        }
        Ok((Arc::new(head), rest))
    }

    /// Runs pg_restore for one section.
    async fn pg_restore(&self, section: &str, input: Feed) -> Result<Complaints> {
        let into = self.into;
        let mut args = vec!["--verbose".to_owned(), format!("--section={section}"), "--no-privileges".to_owned()];
        args.extend(self.args.iter().cloned());
        args.push(database_argument(into));
        let call = Call { what: format!("pg_restore ({section}) into {into}"), args, options: self.options.clone(), reads: true };
        let stop = self.context.cancel.child_token();
        let listener = Listener::new(stop.clone());
        let hears = listener.clone();
        let command = self.private.command(self.settings, self.pg_restore, &application(self.context), call).await?;
        let command = command.keep_stderr(super::tells_no_content).limits(self.settings.load_limits());
        let command = command.watch_stderr(move |bytes| hears.hear(bytes));
        let ended = Arc::new(AtomicBool::new(false));
        let seen = ended.clone();
        let result = command.feed(&stop, move |child| feed(input, child, &seen)).await;
        let found = listener.found();
        let failure = match result {
            Ok(_) if !ended.load(Ordering::SeqCst) => {
                return Err(Error::corrupt(format!("pg_restore into {into} stopped before the archive's end")));
            }
            Ok(_) => return Ok(found),
            Err(failure) => failure,
        };
        if let Some(why) = found.hopeless {
            let full = why.contains("No space left") || why.contains("Disk quota");
            let kind = if full { Kind::Full } else { Kind::Unreachable };
            let hint =
                if full { "the disk of the database server is full" } else { "the server was stopped, restarted or crashed: see its log" };
            return Err(Error::new(kind, format!("pg_restore into {into} was stopped: {why}")).hint(hint));
        }
        // It got to its end, past errors.
        if matches!(failure.reason, Reason::Exit(1)) && found.ignored.is_some() && ended.load(Ordering::SeqCst) {
            return Ok(found);
        }
        let error = Error::from(failure);
        Err(match self.private.trouble() {
            Some(trouble) => Error::new(error.kind(), format!("{error} ({trouble})")).hint_of(&trouble),
            None => error,
        })
    }
}

/// Whether anything in the archive may be of type money. What only looks like it costs no more than a question too many.
fn names_money(head: &Head) -> Result<bool> {
    let mut found = false;
    head.each(|entry| found |= memchr::memmem::find(&entry.definition, b"money").is_some())?;
    Ok(found)
}

/// Gives the archive to pg_restore; on a blocking thread.
fn feed(input: Feed, child: &mut Input<'_>, ended: &AtomicBool) -> Result<()> {
    let (head, rest) = match input {
        Feed::Head(head) => (head, None),
        Feed::All(head, rest) => (head, Some(rest)),
    };
    let mut bytes = head.bytes()?;
    loop {
        let mut block = vec![0u8; BLOCK];
        let read = bytes.read(&mut block).map_err(|e| Error::failed("read an archive's table of contents").because(e))?;
        if read == 0 {
            break;
        }
        // Without rows to come it may be done before it has read all of what it was given.
        if !child.write(&block[..read])? {
            ended.store(rest.is_none(), Ordering::SeqCst);
            return Ok(());
        }
    }
    let Some(mut rest) = rest else {
        ended.store(true, Ordering::SeqCst);
        return Ok(());
    };
    loop {
        fail::fail_point!("postgres::feeding");
        match child.wait(|| rest.piece()) {
            // When pg_restore stops reading its exit status says why.
            Some(Plain::Data(bytes)) if !child.write(&bytes)? => return Ok(()),
            Some(Plain::Data(_) | Plain::Cut) => {}
            Some(Plain::End) => {
                ended.store(true, Ordering::SeqCst);
                return Ok(());
            }
            None => return Err(super::broke_off()),
        }
    }
}

/// What is still to be done about what failed.
struct Work<'a> {
    filling: &'a Filling<'a>,
    head: Arc<Head>,
    retry: Option<Retry<'a>>,
    pending: Vec<Pending>,
    loose: Vec<String>,
    /// Names of what failed at first.
    failed: u64,
    granted: bool,
}

impl<'a> Work<'a> {
    fn new(filling: &'a Filling<'a>, head: Arc<Head>) -> Work<'a> {
        Work { filling, head, retry: None, pending: Vec::new(), loose: Vec::new(), failed: 0, granted: false }
    }

    /// Runs pg_restore for a section and takes up what it complained of.
    async fn section(&mut self, section: &str, input: Feed) -> Result<()> {
        let found = self.filling.pg_restore(section, input).await?;
        self.failed += found.entries.len() as u64;
        for loose in found.loose {
            if !self.loose.contains(&loose) {
                self.loose.push(loose);
            }
        }
        self.take_up(found.entries).await
    }

    /// Entries of the archive, as text. What is in another encoding than UTF-8 is converted by the server, which knows them all.
    async fn entries(&mut self, wanted: impl Fn(&TocEntry) -> bool) -> Result<Vec<Entry>> {
        let anywhere = self.filling.args.iter().any(|arg| arg == super::tablespaces::WITHOUT);
        let (mut found, mut encoding) = (Vec::new(), None);
        self.head.each(|entry| {
            if entry.description == "ENCODING" {
                encoding = encoding_of(&entry);
            }
            if wanted(&entry) {
                found.push(entry);
            }
        })?;
        let converts = |name: &str| name != "UTF8" && name != ANY_BYTES;
        let mut entries = match encoding.filter(|name| converts(name) && !found.is_empty()) {
            Some(encoding) => self.hands().await?.converted(&found, &encoding).await?,
            None => found.iter().map(Entry::of).collect(),
        };
        if anywhere {
            entries.iter_mut().for_each(|entry| entry.tablespace.clear());
        }
        Ok(entries)
    }

    async fn take_up(&mut self, complaints: BTreeMap<i64, Complaint>) -> Result<()> {
        if complaints.is_empty() {
            return Ok(());
        }
        let mut entries = self.entries(|entry| complaints.contains_key(&entry.id)).await?;
        let relations = self.needed_by(&mut entries).await?;
        let known: BTreeSet<i64> = entries.iter().map(|entry| entry.id).collect();
        for (id, complaint) in complaints.iter().filter(|(id, _)| !known.contains(id)) {
            self.loose.push(format!("entry {id} of the archive: {}", complaint.reason));
        }
        for entry in entries {
            if let Some(complaint) = complaints.get(&entry.id) {
                self.pending.push(Pending::new(entry, complaint.clone()));
            }
        }
        self.hands().await?.know(relations.into_iter().filter(Entry::is_relation));
        Ok(())
    }

    /// What these depend on. Those that depend on relations through their indexes get them as dependencies of their own.
    async fn needed_by(&mut self, entries: &mut [Entry]) -> Result<Vec<Entry>> {
        let needed: BTreeSet<i64> = entries.iter().flat_map(|entry| entry.dependencies.iter().copied()).collect();
        let near = self.entries(|entry| needed.contains(&entry.id)).await?;
        let indexes: BTreeMap<i64, Vec<i64>> = near
            .iter()
            .filter(|entry| matches!(entry.description.as_str(), "INDEX" | "CONSTRAINT"))
            .map(|entry| (entry.id, entry.dependencies.clone()))
            .collect();
        let mut further = BTreeSet::new();
        for entry in entries.iter_mut().filter(|entry| entry.depends_through_indexes()) {
            let through: Vec<i64> = entry.dependencies.iter().filter_map(|id| indexes.get(id)).flatten().copied().collect();
            entry.dependencies.extend(through.iter().filter(|id| !needed.contains(id)));
            entry.dependencies.sort_unstable();
            entry.dependencies.dedup();
            further.extend(through);
        }
        self.entries(|entry| needed.contains(&entry.id) || further.contains(&entry.id)).await
    }

    /// Our own connection to the database, made when it is first needed.
    async fn hands(&mut self) -> Result<&mut Retry<'a>> {
        if self.retry.is_none() {
            let Filling { settings, context, into, database, restore, money, .. } = self.filling;
            let connection = connect(settings, into, &application(context)).await?;
            if let Some(money) = money {
                session::read_money(&connection, money).await?;
            }
            self.retry = Some(Retry::new(connection, database, into, restore).await?);
        }
        self.retry.as_mut().ok_or_else(|| Error::failed("no connection"))
    }

    /// Tries again what is pending but rows. Returns whether something was made.
    async fn settle(&mut self, again: bool) -> Result<bool> {
        if self.pending.iter().all(|one| one.entry.is_rows()) {
            return Ok(false);
        }
        if !again {
            self.filling.context.bus.step(format!("trying again what failed in database {}", self.filling.into));
        }
        let cancel = self.filling.context.cancel.clone();
        let mut pending = std::mem::take(&mut self.pending);
        let retry = self.hands().await?;
        let settled = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(interrupted()),
            settled = retry.settle(&mut pending) => settled,
        };
        self.pending = pending;
        settled
    }

    fn rows_pending(&self) -> usize {
        self.pending.iter().filter(|one| one.entry.is_rows()).count()
    }

    /// Copies again the rows that are pending, reading the set once more for each way of trying.
    async fn rows(&mut self, rereads: &Rereads) -> Result<()> {
        let mut at: BTreeMap<i64, usize> = BTreeMap::new();
        while self.rows_pending() > 0 {
            let waiting = self.pending.iter().filter(|one| one.entry.is_rows() && !one.entry.copy.is_empty());
            let waiting: Vec<i64> = waiting.map(|one| one.entry.id).collect();
            let ways = |work: &Work<'_>, one: &Pending| work.retry.as_ref().map_or(0, |retry| rows::ways(retry, one));
            let open = self
                .pending
                .iter()
                .any(|one| waiting.contains(&one.entry.id) && at.get(&one.entry.id).copied().unwrap_or(0) < ways(self, one));
            if !open {
                return Ok(());
            }
            let Some(input) = rereads.open().await else { return Ok(()) };
            self.filling.context.bus.step(format!("reading the set again for rows that failed in database {}", self.filling.into));
            let cancel = self.filling.context.cancel.clone();
            let mut pending = std::mem::take(&mut self.pending);
            let retry = self.hands().await?;
            let copied = tokio::select! {
                biased;
                () = cancel.cancelled() => Err(interrupted()),
                copied = rows::pass(retry, input, &mut pending, &at) => copied,
            };
            self.pending = pending;
            // What was copied may be what the rest waited for; else the next way is due. Rights may be what is missing.
            if !copied? {
                if !self.granted && self.pending.iter().any(|one| one.entry.is_rows() && one.reason.contains("permission denied")) {
                    self.grant().await?;
                    continue;
                }
                for id in waiting {
                    *at.entry(id).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    /// Applies access rights, but those that only later objects would get.
    async fn grant(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.granted, true) {
            return Ok(());
        }
        let rights = self.rights(false).await?;
        self.apply(rights).await
    }

    async fn apply(&mut self, rights: Vec<Entry>) -> Result<()> {
        if rights.is_empty() {
            return Ok(());
        }
        let cancel = self.filling.context.cancel.clone();
        let mut pending = std::mem::take(&mut self.pending);
        let retry = self.hands().await?;
        let granted = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(interrupted()),
            granted = retry.grant(rights, &mut pending) => granted,
        };
        self.pending = pending;
        granted
    }

    /// Access rights of the archive. Since PostgreSQL 17 one entry stands for many large objects, and its statement names the first.
    async fn rights(&mut self, defaults: bool) -> Result<Vec<Entry>> {
        // Rights to the database itself name the live one; the new one is given them with its other properties.
        let wanted = if defaults { "DEFAULT ACL" } else { "ACL" };
        let rights = self.entries(|entry| entry.description == wanted && !entry.tag.starts_with(b"DATABASE ")).await?;
        let many: BTreeSet<i64> =
            rights.iter().filter(|e| e.tag.starts_with("LARGE OBJECTS ")).flat_map(|e| e.dependencies.iter().copied()).collect();
        if many.is_empty() {
            return Ok(rights);
        }
        let objects = self.entries(|entry| many.contains(&entry.id) && entry.description == "BLOB METADATA").await?;
        let objects: BTreeMap<i64, Vec<String>> =
            objects.into_iter().map(|entry| (entry.id, entry.definition.split_whitespace().map(str::to_owned).collect())).collect();
        Ok(rights.into_iter().map(|entry| for_each_object(entry, &objects)).collect())
    }

    /// Rights, what failed once more, default rights; then what is left.
    async fn end(mut self, rereads: &Rereads) -> Result<Vec<LoadProblem>> {
        self.grant().await?;
        if self.settle(true).await? && self.rows_pending() > 0 {
            self.rows(rereads).await?;
            self.settle(true).await?;
        }
        let defaults = self.rights(true).await?;
        self.apply(defaults).await?;
        if let Some(retry) = &mut self.retry {
            retry.check_new_rows(&mut self.pending).await?;
        }
        let bus = &self.filling.context.bus;
        if let Some(retry) = &mut self.retry {
            retry.close().await?;
            if !retry.guessed.is_empty() {
                bus.warn(format!(
                    "Database {}: made by a search_path that is not set in it, over all of its schemas: {}. Applications that set their own path should be \
                     tried before this data is relied on.",
                    self.filling.source,
                    retry.guessed.join(", ")
                ));
            }
            if let Some(why) = by_path(self.filling, retry) {
                bus.warn(why);
            }
        }
        let left = self.pending.len() as u64;
        if self.failed > left {
            bus.step(format!(
                "of {} objects that pg_restore could not load into {}, {} were made after all",
                self.failed,
                self.filling.into,
                self.failed - left
            ));
        }
        let artifact = || self.filling.source.to_owned();
        let loose = self.loose.iter().map(|reason| LoadProblem {
            artifact: artifact(),
            object: "the session of pg_restore".into(),
            statement: String::new(),
            reason: reason.clone(),
        });
        let pending = self.pending.iter().map(|one| LoadProblem {
            artifact: artifact(),
            object: one.entry.name(),
            statement: one.entry.statement(),
            reason: one.reason.clone(),
        });
        Ok(pending.chain(loose).collect())
    }
}

/// `LATIN1` of `SET client_encoding = 'LATIN1';`.
fn encoding_of(entry: &TocEntry) -> Option<String> {
    let text = std::str::from_utf8(&entry.definition).ok()?;
    text.split('\'').nth(1).map(str::to_owned)
}

/// What was made by a path will want it again; `None` where nothing was.
fn by_path(filling: &Filling<'_>, retry: &Retry<'_>) -> Option<String> {
    let first = retry.by_path.first()?;
    let more = if retry.by_path.len() > 1 { format!(" and {} more", retry.by_path.len() - 1) } else { String::new() };
    let source = filling.source;
    Some(match retry.empties_path() {
        true => format!(
            "Database {source}: {first}{more} rest on functions that find others by the search_path, which PostgreSQL 17 and later empty for \
             REINDEX, REFRESH and ANALYZE. They were made all the same. So that they can be kept up: ALTER FUNCTION … SET search_path = …, for each function \
             that names others without their schema."
        ),
        false => format!(
            "Database {source}: {first}{more} rest on functions that find others by the search_path, which vacuumdb empties: where it stops at them, \
             ANALYZE in psql does it. ALTER FUNCTION … SET search_path = … is the cure, and what PostgreSQL 17 and later ask for."
        ),
    })
}

/// `GRANT … ON LARGE OBJECT 16401 …` for each object of the entry that it depends on.
fn for_each_object(mut entry: Entry, objects: &BTreeMap<i64, Vec<String>>) -> Entry {
    let all: Vec<&String> = entry.dependencies.iter().filter_map(|id| objects.get(id)).flatten().collect();
    if let (true, Some(first)) = (entry.tag.starts_with("LARGE OBJECTS "), all.first()) {
        let named = format!("LARGE OBJECT {first} ");
        let each = all.iter().map(|oid| entry.definition.replace(&named, &format!("LARGE OBJECT {oid} ")));
        entry.definition = each.collect::<Vec<_>>().join("\n");
    }
    entry
}

fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "the run was cancelled")
}
