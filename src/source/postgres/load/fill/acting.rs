//! As whom, and by which search_path, something is tried again.
//!
//! pg_restore loads with an empty search_path, since whoever may create something in a schema of the path could otherwise lead a superuser's
//! unqualified names elsewhere (CVE-2018-1058). Functions whose bodies rely on a path then fail. So what failed is tried again by the database's
//! own path, but as the owner of the object; where that is a superuser, as a role made for this load, which may read and owns for the moment what
//! is worked on, and nothing else.

use std::collections::BTreeMap;

use crate::source::postgres::catalog::Database;
use crate::source::postgres::connect::{Connection, ident};
use crate::source::postgres::names::{Text, is_raw};

type PgResult<T> = Result<T, tokio_postgres::Error>;

/// A role of the target.
#[derive(Clone, Debug, Default)]
pub(super) struct Role {
    superuser: bool,
    /// `ALTER ROLE … SET`, each `name=value`.
    settings: Vec<String>,
}

/// What is known of roles and paths.
pub(super) struct Actors {
    roles: BTreeMap<String, Role>,
    /// Ourselves, a superuser.
    pub(super) superuser: bool,
    /// The server's own search_path.
    server_path: String,
    /// The database's settings.
    database: Vec<String>,
    /// Settings of roles in this database.
    in_database: BTreeMap<String, Vec<String>>,
    /// Version of the server, as `150018`.
    pub(super) server_version: i32,
    /// Every schema that holds something of users: those of extensions first.
    schemas: Vec<String>,
}

/// One way to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As pg_restore does it: as ourselves, by an empty path.
    Plain,
    /// As `role`, by the path.
    As {
        role: String,
        path: String,
        /// Made for this load: what is worked on is given to it meanwhile.
        stand_in: bool,
    },
}

fn path_of(settings: &[String]) -> Option<String> {
    settings.iter().find_map(|s| s.strip_prefix("search_path=").map(str::to_owned))
}

/// Settings by which functions read and write values. Others (time limits, read-only …) would hinder a load, or change what its rows mean.
const MEANING: [&str; 10] = [
    "datestyle",
    "intervalstyle",
    "timezone",
    "timezone_abbreviations",
    "default_text_search_config",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "extra_float_digits",
    "xmlbinary",
];

/// A setting of extensions and applications (`app.salt`), which functions ask for, or one by which they read and write values.
fn of_functions(setting: &str) -> Option<(String, String)> {
    let (name, value) = setting.split_once('=')?;
    let wanted = name.contains('.') || MEANING.contains(&name.to_ascii_lowercase().as_str());
    wanted.then(|| (name.to_owned(), value.to_owned()))
}

impl Actors {
    /// Asks over a connection to the database that is loaded.
    pub(super) async fn ask(connection: &Connection, database: &Database) -> PgResult<Actors> {
        let rows = connection
            .query(
                "select r.rolname::text, r.rolsuper, (select s.setconfig from pg_catalog.pg_db_role_setting s where s.setdatabase = 0 and s.setrole = r.oid)
                 from pg_catalog.pg_roles r",
                &[],
            )
            .await?;
        let roles = rows.iter().map(|row| {
            (row.get::<_, Text>(0).0, Role { superuser: row.get(1), settings: row.get::<_, Option<Vec<String>>>(2).unwrap_or_default() })
        });
        let roles: BTreeMap<String, Role> = roles.collect();
        let row = connection
            .query_one(
                "select current_user::text, (select reset_val from pg_catalog.pg_settings where name = 'search_path'),
                   pg_catalog.current_setting('server_version_num')::int4",
                &[],
            )
            .await?;
        let us = row.get::<_, Text>(0).0;
        let own_path = roles.get(&us).and_then(|role| path_of(&role.settings));
        let server_path = row.get::<_, Option<String>>(1).filter(|path| own_path.as_ref() != Some(path));
        Ok(Actors {
            superuser: roles.get(&us).is_some_and(|role| role.superuser),
            roles,
            server_path: server_path.unwrap_or_else(|| "\"$user\", public".to_owned()),
            database: database.settings.clone(),
            in_database: database.role_settings.clone(),
            server_version: row.get(2),
            schemas: schemas(connection).await?,
        })
    }

    /// What is in the database may have changed.
    pub(super) async fn refresh(&mut self, connection: &Connection) -> PgResult<()> {
        self.schemas = schemas(connection).await?;
        Ok(())
    }

    /// Whether an owner is a superuser, for whom another must act.
    fn is_superuser(&self, owner: &str) -> bool {
        self.roles.get(owner).is_some_and(|role| role.superuser)
    }

    /// Settings of its sessions in the database, nearest last.
    fn settings_of(&self, owner: &str) -> impl DoubleEndedIterator<Item = &Vec<String>> {
        let role = self.roles.get(owner).map(|role| &role.settings);
        [Some(&self.database), role, self.in_database.get(owner)].into_iter().flatten()
    }

    /// What functions of this owner find set in the database, beside the path.
    pub(super) fn settings(&self, owner: &str) -> BTreeMap<String, String> {
        self.settings_of(owner).flatten().filter_map(|setting| of_functions(setting)).collect()
    }

    /// The path by which this owner works in the database.
    fn path(&self, owner: &str) -> String {
        let path = self.settings_of(owner).rev().find_map(|settings| path_of(settings)).unwrap_or_else(|| self.server_path.clone());
        // It means the owner, also where another acts for it.
        path.replace("\"$user\"", &ident(owner)).replace("$user", &ident(owner))
    }

    /// Ways to try something again that `owner` owns in `namespace`, best first. `stand_in` is the role that acts for superusers.
    pub(super) fn ways(&self, owner: &str, namespace: &str, stand_in: &str) -> Vec<Way> {
        let mut ways = vec![Way::Plain];
        if !self.roles.contains_key(owner) {
            return ways;
        }
        let is_super = self.is_superuser(owner);
        if is_super && !self.superuser {
            return ways;
        }
        let role = if is_super { stand_in.to_owned() } else { owner.to_owned() };
        let path = self.path(owner);
        ways.push(Way::As { role: role.clone(), path: path.clone(), stand_in: is_super });
        // Applications that set their path when they connect leave no trace of it in the database.
        let namespace = Some(namespace.to_owned()).filter(|n| !n.is_empty());
        let more: Vec<String> = namespace.iter().chain(&self.schemas).map(|schema| ident(schema)).collect();
        let wide = std::iter::once(path).filter(|p| !p.trim().is_empty()).chain(more).collect::<Vec<_>>().join(", ");
        ways.push(Way::As { role, path: wide, stand_in: is_super });
        ways
    }
}

/// Schemas of users: first those that extensions lie in.
async fn schemas(connection: &Connection) -> PgResult<Vec<String>> {
    let query = "select n.nspname::text from pg_catalog.pg_namespace n
        where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
        order by not exists (select from pg_catalog.pg_extension e where e.extnamespace = n.oid), n.nspname limit 100";
    Ok(connection.query(query, &[]).await?.iter().map(|row| row.get::<_, Text>(0).0).filter(|name| !is_raw(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actors() -> Actors {
        let role = |superuser, path: Option<&str>| Role {
            superuser,
            settings: path.map(|path| format!("search_path={path}")).into_iter().collect(),
        };
        Actors {
            roles: BTreeMap::from([
                ("postgres".into(), role(true, None)),
                ("app".into(), role(false, None)),
                ("pathed".into(), role(false, Some("own"))),
            ]),
            superuser: true,
            server_path: "\"$user\", public".into(),
            database: Vec::new(),
            in_database: BTreeMap::new(),
            server_version: 150_018,
            schemas: vec!["ext".into(), "public".into()],
        }
    }

    fn paths(actors: &Actors, owner: &str) -> Vec<(String, String)> {
        let ways = actors.ways(owner, "app", "stand_in").into_iter();
        ways.filter_map(|way| match way {
            Way::Plain => None,
            Way::As { role, path, .. } => Some((role, path)),
        })
        .collect()
    }

    #[test]
    fn f90_the_owner_acts_by_the_path_that_is_nearest_to_it() {
        let mut actors = actors();
        assert_eq!(paths(&actors, "app")[0], ("app".into(), "\"app\", public".into()));
        actors.database = vec!["search_path=\"$user\", ext".into()];
        assert_eq!(paths(&actors, "app")[0].1, "\"app\", ext");
        assert_eq!(paths(&actors, "app")[1].1, "\"app\", ext, \"app\", \"ext\", \"public\"");
        assert_eq!(paths(&actors, "pathed")[0].1, "own");
        actors.in_database.insert("pathed".into(), vec!["search_path=nearer".into()]);
        assert_eq!(paths(&actors, "pathed")[0].1, "nearer");
    }

    #[test]
    fn f90_functions_find_what_the_database_sets_and_a_load_is_not_hindered() {
        let mut actors = actors();
        actors.database = ["app.salt=a", "DateStyle=German", "statement_timeout=1", "transform_null_equals=on"].map(Into::into).into();
        actors.in_database.insert("app".into(), vec!["app.salt=b".into()]);
        let want = [("DateStyle", "German"), ("app.salt", "b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(actors.settings("app"), BTreeMap::from(want));
    }

    #[test]
    fn f90_a_path_is_never_used_as_a_superuser() {
        let actors = actors();
        for way in actors.ways("postgres", "public", "stand_in") {
            if let Way::As { role, path, stand_in } = way {
                assert_eq!((role.as_str(), stand_in), ("stand_in", true));
                assert!(path.starts_with("\"postgres\", public"));
            }
        }
        assert_eq!(actors.ways("nobody", "public", "stand_in"), [Way::Plain]);
        let unprivileged = Actors { superuser: false, ..actors };
        assert_eq!(unprivileged.ways("postgres", "public", "stand_in"), [Way::Plain]);
    }
}
