//! Where a PostgreSQL server is and what of it is backed up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::config::postgres::SYSTEM_ROOTS;
pub use crate::config::typed::{ChannelBinding, Tools};
use crate::error::{Error, Kind, Result};
use crate::model::Secret;
use crate::process::Limits;
use crate::reach::Reach;

/// Which databases are dumped. Asked anew in every run (FAULTS 45).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Databases {
    /// All that accept connections, `template1` only where it has something of its own.
    All,
    /// These. One that does not exist is an error.
    Named(Vec<String>),
}

/// libpq's `sslmode`, for drctl's own connections and for pg_dump and pg_restore. `allow` counts as `prefer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Where the server offers it.
    #[default]
    Prefer,
    /// Always, whoever answers.
    Require,
    /// Always, with a known authority.
    VerifyCa,
    /// Always, with a known authority and the right name.
    VerifyFull,
}

impl SslMode {
    /// As libpq spells it.
    pub fn name(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        use SslMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
        // `allow` differs from `prefer` in the order of its tries only.
        if name == "allow" {
            return Some(Prefer);
        }
        [Disable, Prefer, Require, VerifyCa, VerifyFull].into_iter().find(|mode| mode.name() == name)
    }
}

/// Everything drctl needs to know of one server.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// What stands between drctl and the server; `None`: nothing.
    pub reach: Option<Arc<dyn Reach>>,
    /// With a reach: whose pg_dump and pg_restore are run.
    pub tools: Tools,
    /// Name, address, or the absolute path of the folder of its Unix socket. With a reach: the name as it is seen from there, also the
    /// one that the server's certificate must have; never a folder.
    pub host: String,
    /// TCP port, also part of the socket's name.
    pub port: u16,
    /// Role that connects.
    pub user: String,
    /// Its password; else `PGPASSWORD` and the password file (`PGPASSFILE`, `~/.pgpass`) are asked.
    pub password: Option<Secret>,
    /// What is dumped.
    pub databases: Databases,
    /// Of those, what is left out: names, or patterns with `*`, `?`, `[…]` and `{…}`.
    pub exclude: Vec<String>,
    /// Whether roles, tablespaces and the settings of roles are dumped.
    pub globals: bool,
    /// Whether these have the roles' password hashes; only a superuser reads those.
    pub role_passwords: bool,
    /// Database for questions about the whole server.
    pub maintenance_database: String,
    /// How long pg_dump waits for a table that someone has locked.
    pub lock_wait_timeout: Duration,
    /// See [`SslMode`].
    pub sslmode: SslMode,
    /// PEM file with the authorities that the server's certificate is checked against; `system` for those of the operating system. Else
    /// `PGSSLROOTCERT` and `~/.postgresql/root.crt` are asked, and for `verify-full` the operating system.
    pub sslrootcert: Option<PathBuf>,
    /// PEM file with the client's certificate; else `PGSSLCERT` and `~/.postgresql/postgresql.crt`.
    pub sslcert: Option<PathBuf>,
    /// PEM file with its key, not encrypted; else `PGSSLKEY` and `~/.postgresql/postgresql.key`.
    pub sslkey: Option<PathBuf>,
    /// See [`ChannelBinding`].
    pub channel_binding: ChannelBinding,
    /// Where to look for pg_dump, pg_dumpall and pg_restore, in this order and nowhere else; empty: the folders in which packages
    /// put them, then `PATH`.
    pub client_folders: Vec<PathBuf>,
    /// Patterns of tables (as pg_dump's `--exclude-table-data` takes them) whose rows are left out.
    pub exclude_table_data: Vec<String>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Longest silence of a dump. pg_dump is silent while it reads the catalog and waits for locks.
    pub idle_timeout: Option<Duration>,
    /// Longest time for one dump.
    pub total_timeout: Option<Duration>,
    /// Longest time in which a load takes no bytes: pg_restore takes none while it builds indexes and checks foreign keys.
    pub load_idle_timeout: Option<Duration>,
    /// Longest time for one load.
    pub load_total_timeout: Option<Duration>,
}

impl PostgresSettings {
    /// When to give up on pg_restore.
    pub(super) fn load_limits(&self) -> Limits {
        Limits { idle: self.load_idle_timeout, total: self.load_total_timeout, ..Limits::default() }
    }
}

impl Default for PostgresSettings {
    /// All databases of the server at 127.0.0.1:5432 as `postgres`.
    fn default() -> Self {
        PostgresSettings {
            reach: None,
            tools: Tools::default(),
            host: "127.0.0.1".into(),
            port: 5432,
            user: "postgres".into(),
            password: None,
            databases: Databases::All,
            exclude: Vec::new(),
            globals: true,
            role_passwords: true,
            maintenance_database: "postgres".into(),
            lock_wait_timeout: Duration::from_secs(60),
            sslmode: SslMode::default(),
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
            channel_binding: ChannelBinding::default(),
            client_folders: Vec::new(),
            exclude_table_data: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Some(Duration::from_secs(30 * 60)),
            total_timeout: None,
            load_idle_timeout: Some(Duration::from_secs(24 * 60 * 60)),
            load_total_timeout: None,
        }
    }
}

impl PostgresSettings {
    /// Host and port for people, and what stands in between.
    pub fn address(&self) -> String {
        let place = self.place();
        match &self.reach {
            None => place,
            Some(reach) => format!("{place} by {}", reach.name()),
        }
    }

    fn place(&self) -> String {
        if self.host.starts_with('/') {
            format!("{}/.s.PGSQL.{}", self.host, self.port)
        } else if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether the server runs on this machine, as far as the address tells.
    pub fn is_local(&self) -> bool {
        self.reach.is_none() && (self.host.starts_with('/') || ["localhost", "127.0.0.1", "::1"].contains(&self.host.as_str()))
    }

    /// These settings for the server of a URL `postgres://user:password@host:port/database?sslmode=…&host=/socket`; what the URL
    /// leaves out stays, but for the password when host, port or user change. Also gives the URL's database.
    ///
    /// A URL that names a host names it as it is seen from here: nothing stands in between any more, unless it says `reach=configured`.
    pub fn at_url(&self, text: &str) -> Result<(PostgresSettings, Option<String>)> {
        let bad = |why: &str| {
            Error::new(Kind::Usage, format!("the target is no PostgreSQL URL: {why}")).hint("write postgres://user@host:5432/database")
        };
        let url = Url::parse(&with_host(text)).map_err(|e| bad(&e.to_string()))?;
        let scheme = url.scheme().split('+').next().unwrap_or_default();
        if !matches!(scheme, "postgres" | "postgresql") {
            return Err(bad(&format!("its scheme is {}", url.scheme())));
        }
        let decode = |part: &str| -> Result<String> {
            let pairs: Vec<_> = url::form_urlencoded::parse(format!("x={}", part.replace('+', "%2B")).as_bytes()).into_owned().collect();
            pairs.into_iter().next().map(|(_, value)| value).ok_or_else(|| bad("it cannot be decoded"))
        };
        let mut settings = self.clone();
        let names_host = url.query_pairs().any(|(key, _)| key == "host") || url.host_str().is_some_and(|h| !h.is_empty());
        if names_host && !url.query_pairs().any(|(key, value)| key == "reach" && value == CONFIGURED) {
            settings.reach = None;
        }
        if let Some(host) = url.host_str().filter(|h| !h.is_empty()) {
            settings.host = decode(host.trim_start_matches('[').trim_end_matches(']'))?;
            settings.port = url.port().unwrap_or(5432);
        }
        if !url.username().is_empty() {
            settings.user = decode(url.username())?;
        }
        let mut mode = None;
        let file = |value: &str| Some(PathBuf::from(value)).filter(|path| !path.as_os_str().is_empty());
        for (key, value) in url.query_pairs() {
            match key.as_ref() {
                "host" => settings.host = value.into_owned(),
                "port" => settings.port = value.parse().map_err(|_| bad("its port is no number"))?,
                "user" => settings.user = value.into_owned(),
                "sslmode" => mode = Some(SslMode::parse(&value).ok_or_else(|| bad("its sslmode is unknown"))?),
                "reach" if value == CONFIGURED => {}
                "reach" => return Err(bad("its reach is not 'configured'")),
                "sslrootcert" => settings.sslrootcert = file(&value),
                "sslcert" => settings.sslcert = file(&value),
                "sslkey" => settings.sslkey = file(&value),
                "channel_binding" => {
                    settings.channel_binding = ChannelBinding::of(&value).ok_or_else(|| bad("its channel_binding is unknown"))?;
                }
                other => return Err(bad(&format!("drctl knows no parameter '{}'", other.escape_debug()))),
            }
        }
        // As libpq: whoever names the system's authorities and no mode means the one that goes with them.
        let system = mode.is_none() && url.query_pairs().any(|(key, value)| key == "sslrootcert" && value == SYSTEM_ROOTS);
        settings.sslmode = mode.unwrap_or(if system { SslMode::VerifyFull } else { settings.sslmode });
        let same = (&settings.host, settings.port, &settings.user) == (&self.host, self.port, &self.user)
            && settings.reach.is_some() == self.reach.is_some();
        match url.password() {
            Some(password) => settings.password = Some(Secret::new(decode(password)?)),
            None if !same => settings.password = None,
            None => {}
        }
        let database = Some(decode(url.path().trim_start_matches('/'))?).filter(|d| !d.is_empty());
        Ok((settings, database))
    }

    /// The server as a URL without a password.
    pub fn url(&self, database: Option<&str>) -> String {
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
        let database = database.map(&encode).unwrap_or_default();
        let user = encode(&self.user);
        let (port, mode) = (self.port, self.sslmode.name());
        // libpq takes the folder of a socket in this form too.
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { encode(&self.host) };
        let mut url = format!("postgres://{user}@{host}:{port}/{database}?sslmode={mode}");
        for (key, path) in [("sslrootcert", &self.sslrootcert), ("sslcert", &self.sslcert), ("sslkey", &self.sslkey)] {
            if let Some(path) = path {
                url.push_str(&format!("&{key}={}", encode(&path.to_string_lossy())));
            }
        }
        if self.reach.is_some() {
            url.push_str(&format!("&reach={CONFIGURED}"));
        }
        if self.channel_binding != ChannelBinding::default() {
            url.push_str(&format!("&channel_binding={}", self.channel_binding.name()));
        }
        url
    }
}

/// In a URL: what is configured stands between drctl and the server.
const CONFIGURED: &str = "configured";

/// libpq allows `postgres://user@/database?host=/folder`, the general syntax of URLs does not: a host goes in between.
fn with_host(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.ends_with('@') { format!("{scheme}://{authority}localhost{path}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> PostgresSettings {
        PostgresSettings { password: Some(Secret::new("pw")), ..PostgresSettings::default() }
    }

    #[test]
    fn urls_are_taken_apart() {
        let (settings, database) = base().at_url("postgresql+asyncpg://u%40x:p%2Fw+1@db.example:5433/my%20db?sslmode=require").unwrap();
        assert_eq!((settings.host.as_str(), settings.port, settings.user.as_str()), ("db.example", 5433, "u@x"));
        assert_eq!(settings.password, Some(Secret::new("p/w+1")));
        assert_eq!((settings.sslmode, database.as_deref()), (SslMode::Require, Some("my db")));
        let (settings, database) = base().at_url("postgres://[::1]/").unwrap();
        assert_eq!((settings.address().as_str(), database), ("[::1]:5432", None));
        let (settings, database) = base().at_url("postgres://app@/shop?host=/run/pg&port=7").unwrap();
        assert_eq!((settings.host.as_str(), settings.port, settings.user.as_str()), ("/run/pg", 7, "app"));
        assert_eq!(database.as_deref(), Some("shop"));
    }

    #[test]
    fn the_systems_authorities_mean_verify_full_unless_a_mode_is_given() {
        let mode = |query: &str| base().at_url(&format!("postgres://h/x?{query}")).unwrap().0.sslmode;
        assert_eq!(mode("sslrootcert=system"), SslMode::VerifyFull);
        assert_eq!(mode("sslrootcert=system&sslmode=require"), SslMode::Require);
        assert_eq!(mode("sslrootcert=/ca"), SslMode::Prefer);
        assert_eq!(mode("sslmode=allow"), SslMode::Prefer);
    }

    #[test]
    fn a_password_never_goes_to_another_server() {
        assert_eq!(base().at_url("postgres://127.0.0.1:5432/x").unwrap().0.password, Some(Secret::new("pw")));
        for other in ["postgres://elsewhere/x", "postgres://127.0.0.1:5433/x", "postgres://app@127.0.0.1:5432/x"] {
            assert_eq!(base().at_url(other).unwrap().0.password, None, "{other}");
        }
    }

    #[test]
    fn a_url_that_names_a_host_means_it_as_seen_from_here() {
        let docker: Arc<dyn Reach> = Arc::new(crate::reach::Docker::new("db"));
        let base = PostgresSettings { host: "db".into(), reach: Some(docker), ..base() };
        assert_eq!((base.address().as_str(), base.is_local()), ("db:5432 by docker db", false));
        for (url, by, password) in [
            ("postgres:///shop", true, true),
            ("postgres://db/shop", false, false),
            ("postgres://localhost:5432/shop", false, false),
            ("postgres:///shop?host=/run", false, false),
            (base.url(Some("shop")).as_str(), true, true),
        ] {
            let (settings, database) = base.at_url(url).unwrap();
            assert_eq!((settings.reach.is_some(), settings.password.is_some()), (by, password), "{url}");
            assert_eq!(database.as_deref(), Some("shop"));
        }
        assert!(base.at_url("postgres://db/x?reach=docker").is_err());
    }

    #[test]
    fn a_url_without_password_round_trips() {
        for (host, database) in [("db", Some("a/b ü?#%")), ("::1", None), ("/run/post gres", Some("x"))] {
            let settings = PostgresSettings {
                host: host.into(),
                user: "a b@".into(),
                port: 77,
                sslrootcert: Some("/etc/a b&c.crt".into()),
                sslcert: database.map(|_| "/c".into()),
                sslkey: database.map(|_| "/k".into()),
                channel_binding: ChannelBinding::Require,
                ..base()
            };
            let url = settings.url(database);
            assert!(!url.contains("pw"));
            let (back, name) = PostgresSettings::default().at_url(&url).unwrap();
            assert_eq!(
                (&back.sslrootcert, &back.sslcert, &back.sslkey, back.channel_binding),
                (&settings.sslrootcert, &settings.sslcert, &settings.sslkey, settings.channel_binding)
            );
            assert_eq!((back.host, back.port, back.user, name.as_deref()), (settings.host, 77, settings.user, database), "{url}");
        }
    }

    #[test]
    fn other_urls_are_refused_without_showing_them() {
        for bad in ["mysql://x:secret@h/y", "shop", "postgres://h:99999/x", "postgres://u:secret@h/x?sslcrl=a"] {
            let error = base().at_url(bad).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
