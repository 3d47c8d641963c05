//! What drctl asks a server: who it is, which databases it has, and what of them neither pg_dump nor pg_dumpall holds.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::format::pgdump::table_key;
use crate::source::postgres::client::major_of;
use crate::source::postgres::connect::{Connection, pg_error};
use crate::source::postgres::names::{Text, is_raw, shown};
use crate::source::postgres::session;

/// A server, as recorded in the details.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Server {
    /// `15.18 (Debian 15.18-0+deb12u1)`.
    pub(super) version: String,
    /// Made by initdb once in the life of a cluster, kept by its replicas; absent where the server does not tell.
    pub(super) system_identifier: Option<String>,
    /// A replica.
    pub(super) in_recovery: bool,
    /// How far a replica had come when it was asked: the last position of the primary's log that it had replayed, as `0/3000148`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replay_lsn: Option<String>,
    /// Encoding of the database that was asked, in which it takes the names of roles and databases to be; absent in sets of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) encoding: Option<String>,
}

/// The encoding of a server that knows none: it takes any bytes and converts nothing.
pub(super) const ANY_BYTES: &str = "SQL_ASCII";

/// Key of a server's identity in the manifest.
pub(super) const SYSTEM_IDENTIFIER: &str = "system_identifier";

impl Server {
    /// As the manifest has it; empty where the server does not tell.
    pub(super) fn identity(&self) -> BTreeMap<String, String> {
        self.system_identifier.iter().map(|id| (SYSTEM_IDENTIFIER.to_owned(), id.clone())).collect()
    }

    pub(super) fn major(&self) -> u32 {
        major_of(&self.version).unwrap_or(0)
    }

    /// Whether names come from it converted: then a name that is no ASCII is there in other bytes than those that a connection sends.
    pub(super) fn converts_names(&self) -> bool {
        !matches!(self.encoding.as_deref(), Some("UTF8" | ANY_BYTES) | None)
    }
}

/// One privilege on a database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) grantor: String,
    /// Absent: PUBLIC.
    pub(super) grantee: Option<String>,
    pub(super) privilege: String,
    pub(super) grantable: bool,
}

/// An extension of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extension {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) schema: String,
}

/// A database, as recorded in the details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Database {
    pub(super) name: String,
    pub(super) oid: u32,
    pub(super) owner: String,
    pub(super) encoding: String,
    pub(super) collate: String,
    pub(super) ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub(super) provider: String,
    /// The provider's locale, unless libc.
    pub(super) locale: Option<String>,
    pub(super) icu_rules: Option<String>,
    pub(super) collation_version: Option<String>,
    pub(super) connection_limit: i32,
    pub(super) allow_connections: bool,
    pub(super) template: bool,
    pub(super) tablespace: String,
    /// Absent: the default privileges.
    pub(super) acl: Option<Vec<Grant>>,
    pub(super) comment: Option<String>,
    /// `ALTER DATABASE … SET`, each `name=value`.
    #[serde(default)]
    pub(super) settings: Vec<String>,
    /// `ALTER ROLE … IN DATABASE … SET`, by role.
    #[serde(default)]
    pub(super) role_settings: BTreeMap<String, Vec<String>>,
    pub(super) size_bytes: Option<u64>,
    /// Whether this role has been granted to; not recorded.
    #[serde(default, skip_serializing)]
    pub(super) may_connect: Option<bool>,
    /// What stands below is known only where drctl connected to the database itself.
    #[serde(default)]
    pub(super) tables: Option<u64>,
    /// Things of its own that a dump could hold, whatever they are; absent in sets of older versions.
    #[serde(default)]
    pub(super) objects: Option<u64>,
    #[serde(default)]
    pub(super) extensions: Vec<Extension>,
    #[serde(default)]
    pub(super) publications: Vec<String>,
    #[serde(default)]
    pub(super) subscriptions: Vec<String>,
    /// A restore needs these roles for ownership.
    #[serde(default)]
    pub(super) owners: BTreeSet<String>,
    /// Tablespaces that tables, indexes or materialized views lie in, by their own word and not the database's; absent in sets of older
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) object_tablespaces: Option<BTreeSet<String>>,
    /// The `lc_monetary` by which its dump writes values of type money; absent in sets of older versions, which wrote them by that of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) money_locale: Option<String>,
    /// Rows of some partitions lie elsewhere after a restore and pg_dump does not see it; not recorded, the dump says so of each table.
    #[serde(default, skip_serializing)]
    pub(super) moving_partitions: bool,
    /// Connections to it, of whomever; not recorded.
    #[serde(default, skip_serializing)]
    pub(super) sessions: u64,
}

impl Database {
    /// Nothing is in it and nothing is set on it: exchanging it for another such one would do no good.
    pub(super) fn is_bare(&self) -> bool {
        self.has_no_objects()
            && self.settings.is_empty()
            && self.role_settings.is_empty()
            && self.acl.is_none()
            && self.subscriptions.is_empty()
    }

    /// By which `lc_monetary` the values in its dump are to be read, as far as is known: in older sets what the database itself was set to.
    pub(super) fn money(&self) -> Option<&str> {
        let set = || self.settings.iter().find_map(|setting| setting.strip_prefix("lc_monetary="));
        self.money_locale.as_deref().or_else(set)
    }

    /// What initdb made is all that is in it.
    pub(super) fn has_no_objects(&self) -> bool {
        self.objects == Some(0)
    }

    /// `DROP DATABASE` was interrupted: nobody can connect to it any more.
    pub(super) fn is_half_dropped(&self) -> bool {
        self.connection_limit == HALF_DROPPED
    }
}

/// The connection limit by which PostgreSQL marks what an interrupted `DROP DATABASE` left (`DATCONNLIMIT_INVALID_DB`).
const HALF_DROPPED: i32 = -2;

const DATABASES: &str = "
select jsonb_build_object(
  'name', d.datname, 'oid', d.oid::bigint, 'owner', pg_get_userbyid(d.datdba), 'encoding', pg_encoding_to_char(d.encoding),
  'collate', d.datcollate, 'ctype', d.datctype,
  'provider', case to_jsonb(d)->>'datlocprovider' when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end,
  'locale', coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'),
  'icu_rules', to_jsonb(d)->>'daticurules',
  'collation_version', to_jsonb(d)->>'datcollversion',
  'connection_limit', d.datconnlimit, 'allow_connections', d.datallowconn, 'template', d.datistemplate, 'tablespace', t.spcname,
  'acl', case when d.datacl is not null then (
      select coalesce(jsonb_agg(jsonb_build_object('grantor', pg_get_userbyid(a.grantor),
        'grantee', case when a.grantee <> 0 then pg_get_userbyid(a.grantee) end,
        'privilege', a.privilege_type, 'grantable', a.is_grantable)), '[]')
      from aclexplode(d.datacl) a) end,
  'comment', shobj_description(d.oid, 'pg_database'),
  'settings', coalesce((select to_jsonb(s.setconfig) from pg_db_role_setting s where s.setdatabase = d.oid and s.setrole = 0), '[]'),
  'role_settings', coalesce((select jsonb_object_agg(pg_get_userbyid(s.setrole), s.setconfig)
      from pg_db_role_setting s where s.setdatabase = d.oid and s.setrole <> 0), '{}'),
  'sessions', (select count(*) from pg_stat_activity a where a.datid = d.oid),
  'may_connect', has_database_privilege(d.oid, 'CONNECT'),
  'size_bytes', case when has_database_privilege(d.oid, 'CONNECT') or pg_has_role('pg_read_all_stats', 'USAGE') then pg_database_size(d.oid) end
)::text
from pg_database d join pg_tablespace t on t.oid = d.dattablespace order by d.datname";

/// Tables whose rows pg_dump writes, without those of extensions (of which it writes some); what users have in an extension's schema, such as
/// the chunks of TimescaleDB, is theirs. A replica has nothing of unlogged tables. Alias `c` is the table, `n` its schema.
const TABLES: &str = "
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence <> 't' and not (c.relpersistence = 'u' and pg_is_in_recovery()) and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and not exists (select from pg_depend x where x.deptype = 'e' and x.classid = 'pg_class'::regclass and x.objid = c.oid)";

const INSIDE: &str = "
select jsonb_build_object(
  'extensions', (select coalesce(jsonb_agg(jsonb_build_object('name', e.extname, 'version', e.extversion, 'schema', n.nspname)
      order by e.extname), '[]') from pg_extension e join pg_namespace n on n.oid = e.extnamespace),
  'publications', (select coalesce(jsonb_agg(pubname order by pubname), '[]') from pg_publication),
  'subscriptions', (select coalesce(jsonb_agg(subname order by subname), '[]') from pg_subscription s
      where s.subdbid = (select oid from pg_database where datname = current_database())),
  'owners', (select coalesce(jsonb_agg(distinct pg_get_userbyid(o.refobjid)), '[]') from pg_shdepend o
      where o.dbid = (select oid from pg_database where datname = current_database())
        and o.refclassid = 'pg_authid'::regclass and o.deptype in ('o', 'a')),
  'object_tablespaces', (select coalesce(jsonb_agg(distinct t.spcname), '[]') from pg_class c
      join pg_tablespace t on t.oid = c.reltablespace where not c.relisshared and c.relpersistence <> 't'),
  'large_objects', (select count(*) from pg_largeobject_metadata),
  'moving_partitions', exists (select from pg_partitioned_table p join pg_opclass c on c.oid = any (p.partclass)
      where p.partstrat = 'h' and c.opcintype in ('anyarray'::regtype, 'record'::regtype, 'anyrange'::regtype)),
  'objects', (select count(*) from (
      select oid from pg_class union all select oid from pg_proc union all select oid from pg_type union all select oid from pg_operator
      union all select oid from pg_namespace where nspname !~ '^pg_(toast_)?temp_'
      union all select oid from pg_extension union all select oid from pg_largeobject_metadata union all select oid from pg_language
      union all select oid from pg_collation union all select oid from pg_conversion union all select oid from pg_cast
      union all select oid from pg_am union all select oid from pg_opclass union all select oid from pg_opfamily
      union all select oid from pg_ts_config union all select oid from pg_ts_dict union all select oid from pg_ts_parser
      union all select oid from pg_ts_template union all select oid from pg_foreign_data_wrapper union all select oid from pg_foreign_server
      union all select oid from pg_event_trigger union all select oid from pg_publication union all select oid from pg_default_acl
      union all select oid from pg_transform union all select oid from pg_policy union all select oid from pg_statistic_ext) as made
      where oid::bigint >= 16384),
  'unlogged', (select coalesce(jsonb_agg(format('%I.%I', n.nspname, c.relname) order by 1), '[]') from pg_class c
      join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r' and c.relpersistence = 'u' and pg_is_in_recovery()),
  'members', (select coalesce(jsonb_agg(jsonb_build_object('table', format('%I.%I', n.nspname, c.relname), 'extension', e.extname,
        'readable', has_schema_privilege(n.oid, 'USAGE') and has_table_privilege(c.oid, 'SELECT'),
        'added', exists (select from pg_depend o where o.deptype = 'e' and o.refclassid = d.refclassid and o.refobjid = e.oid
              and o.classid not in (d.classid, 'pg_type'::regclass) group by o.xmin::text having count(*) > 1)
          and case when current_setting('server_version_num')::int < 170000 then not exists (select from pg_depend t where t.deptype = 'e'
              and t.classid = 'pg_type'::regclass and t.objid = c.reltype)
            else not exists (select from pg_depend o where o.deptype = 'e' and o.refclassid = d.refclassid and o.refobjid = e.oid
              and o.classid not in (d.classid, 'pg_type'::regclass) and o.xmin = d.xmin) end) order by 1), '[]')
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      join pg_depend d on d.deptype = 'e' and d.classid = 'pg_class'::regclass and d.objid = c.oid and d.refclassid = 'pg_extension'::regclass
      join pg_extension e on e.oid = d.refobjid
      where c.relkind = 'r' and c.relpersistence <> 't' and not c.oid = any (coalesce(e.extconfig, '{}')) and pg_relation_size(c.oid) > 0)
)::text";

/// What only a connection to the database itself can tell.
#[derive(Deserialize)]
pub(super) struct Inside {
    extensions: Vec<Extension>,
    publications: Vec<String>,
    subscriptions: Vec<String>,
    owners: BTreeSet<String>,
    object_tablespaces: BTreeSet<String>,
    pub(super) large_objects: u64,
    /// What initdb makes has lower oids than 16384 (FirstNormalObjectId).
    objects: u64,
    /// Unlogged tables of a replica, whose rows it does not have.
    pub(super) unlogged: Vec<String>,
    members: Vec<Member>,
    moving_partitions: bool,
}

/// A table of an extension that is not empty and of which pg_dump writes neither definition nor rows: its extension brings it back, as it
/// was made by `CREATE EXTENSION`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Member {
    /// As SQL takes it, schema included.
    pub(super) table: String,
    pub(super) extension: String,
    readable: bool,
    /// Someone gave it to the extension (`ALTER EXTENSION … ADD TABLE`), as far as that can be told: before PostgreSQL 17 it came without its
    /// row type, which `CREATE TABLE` in a script brings with it; later in a transaction that gave the extension nothing but tables. Never
    /// where no transaction gave the extension several members, as a script does: pg_upgrade makes each anew.
    pub(super) added: bool,
}

/// A table.
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    /// Its name in the facts of a dump, which is in the database's own encoding.
    pub(super) key: String,
}

fn asked(what: &str) -> impl Fn(tokio_postgres::Error) -> Error + '_ {
    move |e| pg_error(what.to_owned(), &e)
}

fn decoded<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::failed(format!("{what}: the server's answer is not understood")).because(e))
}

const WHO: &str = "select current_setting('server_version'), pg_is_in_recovery(),
    case when pg_is_in_recovery() then pg_last_wal_replay_lsn()::text end, getdatabaseencoding()::text";

pub(super) async fn server(connection: &Connection) -> Result<Server> {
    let what = "ask the server who it is";
    let row = connection.query_one(WHO, &[]).await.map_err(asked(what))?;
    // Refused to unprivileged users on some managed servers.
    let identifier = connection.query_one("select system_identifier::text from pg_control_system()", &[]).await;
    if connection.is_closed() {
        identifier.as_ref().map_err(|e| pg_error(what, e))?;
    }
    Ok(Server {
        version: row.get(0),
        in_recovery: row.get(1),
        replay_lsn: row.get(2),
        system_identifier: identifier.ok().map(|row| row.get(0)),
        encoding: row.get(3),
    })
}

/// How often the databases are listed when one of them goes away meanwhile.
const LISTINGS: u32 = 5;

/// Every database of the server.
pub(super) async fn databases(connection: &Connection) -> Result<Vec<Database>> {
    let what = "list the databases";
    let mut tries = 1;
    let rows = loop {
        match connection.query(DATABASES, &[]).await {
            Err(error) if tries < LISTINGS && error.code() == Some(&SqlState::UNDEFINED_DATABASE) => tries += 1,
            rows => break rows.map_err(asked(what))?,
        }
    };
    rows.iter().map(|row| decoded(what, &row.get::<_, Text>(0).0)).collect()
}

/// What a database is by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    There,
    HalfDropped,
    Gone,
}

/// Asks whether a database is still there.
pub(super) async fn standing(connection: &Connection, oid: u32) -> Result<Standing> {
    let row = connection.query_opt("select datconnlimit from pg_database where oid = $1", &[&oid]).await;
    Ok(match row.map_err(asked("ask whether a database is still there"))?.map(|row| row.get::<_, i32>(0)) {
        None => Standing::Gone,
        Some(HALF_DROPPED) => Standing::HalfDropped,
        Some(_) => Standing::There,
    })
}

/// Adds what a connection to the database itself tells.
pub(super) async fn look_inside(connection: &Connection, database: &mut Database) -> Result<Inside> {
    let what = format!("look into database {}", shown(&database.name));
    if !database.name.is_ascii() {
        let row =
            connection.query_one("select oid from pg_database where datname = current_database()", &[]).await.map_err(asked(&what))?;
        if row.get::<_, u32>(0) != database.oid {
            return Err(Error::failed(format!("{what}: a connection to that name leads to another database")));
        }
    }
    let row = connection.query_one(INSIDE, &[]).await.map_err(asked(&what))?;
    let inside: Inside = decoded(&what, &row.get::<_, Text>(0).0)?;
    database.tables = Some(tables(connection).await?.len() as u64);
    database.objects = Some(inside.objects);
    database.moving_partitions = inside.moving_partitions;
    database.extensions = inside.extensions.clone();
    database.publications = inside.publications.clone();
    database.subscriptions = inside.subscriptions.clone();
    database.owners = inside.owners.clone();
    database.object_tablespaces = Some(inside.object_tablespaces.clone());
    database.money_locale = Some(session::money_of_dumps(connection).await?);
    Ok(inside)
}

/// Tables of extensions that have rows which a dump leaves out. What may not be read counts as having rows.
pub(super) async fn members_with_rows(connection: &Connection, inside: &Inside) -> Result<Vec<Member>> {
    let mut found = Vec::new();
    for member in &inside.members {
        let any = match member.readable && !is_raw(&member.table) {
            true => {
                let query = format!("select exists (select from only {})", member.table);
                connection.query_one(&query, &[]).await.map_err(asked("look into the tables of extensions"))?.get(0)
            }
            false => true,
        };
        if any {
            found.push(member.clone());
        }
    }
    Ok(found)
}

/// `schema` and `table` as [`tables`] and others ask for them: the names, and their bytes in the database's own encoding.
const NAMES: &str = "n.nspname::text, c.relname::text, convert_to(n.nspname::text, getdatabaseencoding()), \
                     convert_to(c.relname::text, getdatabaseencoding())";

/// The name of a table in the facts of a dump. `at`: where the bytes of [`NAMES`] begin.
fn key(row: &tokio_postgres::Row, at: usize) -> String {
    let part = |at: usize| String::from_utf8_lossy(row.get(at)).into_owned();
    table_key(&part(at), &part(at + 1))
}

/// The tables whose rows a dump holds.
pub(super) async fn tables(connection: &Connection) -> Result<Vec<Table>> {
    let query = format!("select c.oid, {NAMES} {TABLES} order by 2, 3");
    let rows = connection.query(&query, &[]).await.map_err(asked("list the tables"))?;
    let table = |row: &tokio_postgres::Row| Table {
        oid: row.get(0),
        schema: row.get::<_, Text>(1).0,
        name: row.get::<_, Text>(2).0,
        key: key(row, 3),
    };
    Ok(rows.iter().map(table).collect())
}

/// Names, as in the facts of a dump, of the tables that belong to extensions.
pub(super) async fn tables_of_extensions(connection: &Connection) -> Result<BTreeSet<String>> {
    let query = format!(
        "select {NAMES} from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'"
    );
    let rows = connection.query(&query, &[]).await.map_err(asked("list the tables of extensions"))?;
    Ok(rows.iter().map(|row| key(row, 2)).collect())
}

/// What this role may not dump: a line each, with the line that mends it.
pub(super) async fn unreadable(connection: &Connection) -> Result<Option<String>> {
    let what = "look for tables that may not be read";
    let query = format!(
        "select count(*), min(format('%I.%I', n.nspname, c.relname)) {TABLES} \
         and not (has_schema_privilege(n.oid, 'USAGE') and has_table_privilege(c.oid, 'SELECT'))"
    );
    let row = connection.query_one(&query, &[]).await.map_err(asked(what))?;
    if let (count @ 1.., Some(first)) = (row.get::<_, i64>(0), row.get::<_, Option<Text>>(1)) {
        return Ok(Some(format!("may not read {count} tables, {} the first of them", shown(&first.0))));
    }
    let query =
        format!("select count(*), min(format('%I.%I', n.nspname, c.relname)) {TABLES} and c.relrowsecurity and row_security_active(c.oid)");
    let row = connection.query_one(&query, &[]).await.map_err(asked(what))?;
    if let (count @ 1.., Some(first)) = (row.get::<_, i64>(0), row.get::<_, Option<Text>>(1)) {
        return Ok(Some(format!("is subject to row security on {count} tables, {} the first of them", shown(&first.0))));
    }
    Ok(None)
}

/// Things of the whole server that a restore cannot bring back by itself, for the reader of the details.
pub(super) async fn surroundings(connection: &Connection) -> Result<serde_json::Value> {
    let query = "select jsonb_build_object(
      'replication_slots', (select coalesce(jsonb_agg(jsonb_build_object('name', slot_name, 'type', slot_type, 'plugin', plugin,
          'database', database)), '[]') from pg_replication_slots),
      'tablespaces', (select coalesce(jsonb_agg(jsonb_build_object('name', spcname, 'owner', pg_get_userbyid(spcowner),
          'location', pg_tablespace_location(oid))), '[]') from pg_tablespace where spcname !~ '^pg_'),
      'roles', (select coalesce(jsonb_agg(rolname order by rolname), '[]') from pg_roles where rolname !~ '^pg_'))::text";
    let what = "list roles, tablespaces and replication slots";
    let row = connection.query_one(query, &[]).await.map_err(asked(what))?;
    decoded(what, &row.get::<_, Text>(0).0)
}

/// Roles of the server.
pub(super) async fn roles(connection: &Connection) -> Result<BTreeSet<String>> {
    let rows = connection.query("select rolname::text from pg_roles", &[]).await.map_err(asked("list the roles"))?;
    Ok(rows.iter().map(|row| row.get::<_, Text>(0).0).collect())
}

/// Whether we are a superuser there.
pub(super) async fn is_superuser(connection: &Connection) -> Result<bool> {
    let row = connection.query_one("select rolsuper from pg_roles where rolname = current_user", &[]).await;
    Ok(row.map_err(asked("ask for privileges"))?.get(0))
}
