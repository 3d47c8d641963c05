//! What a role needs on a server to back it up, and to restore to it, without being a superuser.

use std::fmt::Write as _;

use crate::source::postgres::connect::{ident, literal};

/// What the role shall be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Read all of every database.
    Backup,
    /// Make databases, too, and own what is in them.
    Restore,
}

/// A script for `psql`, to be run by a superuser or the administrator of a managed server. `databases`: where the rights on large
/// objects are given, which PostgreSQL keeps for each object; empty: the script says how to.
///
/// `pg_read_all_data` (PostgreSQL 14 and later) reads tables, views and sequences of all databases, but neither large objects nor
/// past row security: <https://www.postgresql.org/docs/current/predefined-roles.html>.
pub fn script(role: &str, databases: &[String], purpose: Purpose) -> String {
    let name = ident(role);
    let mut out = format!(
        "-- What role {role} needs {}. Run it with psql, once, as a superuser or a managed server's administrator.\n\
         -- Then give the role a password that nobody sees: \\password {name}\n\n\
         DO $$ BEGIN CREATE ROLE {name} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;\n\
         -- Every table, view and sequence of every database, those to come included (PostgreSQL 14 and later).\n\
         GRANT pg_read_all_data TO {name};\n\
         -- Sizes of databases that it may not connect to.\n\
         GRANT pg_read_all_stats TO {name};\n\
         -- Rows behind row security; without it a dump of such a table is refused. Not every managed server grants this.\n\
         ALTER ROLE {name} BYPASSRLS;\n\
         -- Not granted: the passwords of other roles, which only a superuser reads. The globals are dumped without them, and drctl says so.\n",
        match purpose {
            Purpose::Backup => "for backups",
            Purpose::Restore => "for backups and restores",
        }
    );
    if purpose == Purpose::Restore {
        let _ = write!(
            out,
            "\n-- New databases, their renaming, and roles that are missing.\n\
             ALTER ROLE {name} CREATEDB CREATEROLE;\n\
             -- Ending the connections of others when databases are switched.\n\
             GRANT pg_signal_backend TO {name};\n\
             -- What is restored keeps its owners: the role must be a member of each. Who owns a database or anything in it:\n\
             --   SELECT DISTINCT pg_get_userbyid(datdba) FROM pg_database;\n\
             -- then, for each: GRANT \"owner\" TO {name};\n\
             -- Extensions that are not trusted, subscriptions and event triggers need a superuser all the same.\n"
        );
    }
    out.push_str(
        "\n-- Connecting, where that was taken from everyone (REVOKE CONNECT … FROM PUBLIC). Again after a new database was made so.\n",
    );
    if databases.is_empty() {
        let _ = write!(
            out,
            "DO $$ DECLARE d name; BEGIN\n  FOR d IN SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2 LOOP\n    \
             BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', d, {});\n    \
             EXCEPTION WHEN insufficient_privilege THEN RAISE WARNING 'may not be granted, leave it out with exclude: %', d; END;\n  END LOOP;\n\
             END $$;\n",
            literal(role)
        );
    }
    for database in databases {
        let _ = writeln!(out, "GRANT CONNECT ON DATABASE {} TO {name};", ident(database));
    }
    out.push_str("\n-- Large objects: each has rights of its own. Again after new ones were made, or let their maker grant it.\n");
    let block = format!(
        "DO $$ DECLARE l oid; BEGIN\n  FOR l IN SELECT oid FROM pg_largeobject_metadata LOOP EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO %I', l, {}); END LOOP;\n\
         END $$;\n",
        literal(role)
    );
    if databases.is_empty() {
        let _ = write!(out, "-- In each database that has any (SELECT count(*) FROM pg_largeobject_metadata): \\connect it, then\n{block}");
    }
    for database in databases {
        let _ = write!(out, "\\connect {}\n{block}", ident(database));
    }
    out
}
