//! Where to connect to PostgreSQL: the configuration's fields, then its URL, then what libpq itself would look at (PGSERVICE, PG*
//! variables, the password file), then defaults. Done by drctl itself so that its own connections and the tools it runs agree.
//!
//! Sources of the rules: PostgreSQL manual, "Connection Strings", "Environment Variables", "The Connection Service File", "The
//! Password File".

use std::path::{Path, PathBuf};

use url::Url;

use crate::config::environment::Environment;
use crate::config::secret::{SecretRef, exposed};
use crate::config::typed::{ChannelBinding, DatabaseChoice, PostgresConfig, ReachConfig, SslMode};
use crate::error::{Context, Error, Kind, Result};
use crate::model::Secret;

/// Largest service or password file that is read, in bytes.
const FILE_LIMIT: u64 = 1 << 20;
/// As libpq 16 spells the authorities of the operating system.
pub const SYSTEM_ROOTS: &str = "system";
/// Where Debian's servers put their sockets.
const SOCKET_FOLDER: &str = "/var/run/postgresql";

/// Everything needed to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresConnection {
    /// Name or address; the folder of the socket when it begins with `/`.
    pub host: String,
    /// Port; part of the socket's name too.
    pub port: u16,
    /// User.
    pub user: String,
    /// TLS.
    pub sslmode: SslMode,
    /// File of authorities, or [`SYSTEM_ROOTS`].
    pub sslrootcert: Option<PathBuf>,
    /// File of the client's certificate.
    pub sslcert: Option<PathBuf>,
    /// File of its key.
    pub sslkey: Option<PathBuf>,
    /// Whether passwords are tied to the server's certificate.
    pub channel_binding: ChannelBinding,
    /// Which databases.
    pub databases: DatabaseChoice,
    /// The database to connect to for questions about the server.
    pub maintenance_database: String,
    password: Option<Secret>,
    lines: Vec<PassLine>,
}

impl PostgresConnection {
    /// The password for a database: the configured one, else that of the password file's first line that fits.
    pub fn password_for(&self, database: &str) -> Option<Secret> {
        if self.password.is_some() {
            return self.password.clone();
        }
        // libpq looks for `localhost` when the socket lies in the default folder.
        let host = if self.host == SOCKET_FOLDER || self.host == "/tmp" { "localhost" } else { &self.host };
        let want = [host, &self.port.to_string(), database, &self.user];
        self.lines.iter().find(|line| line.fields.iter().zip(want).all(|(f, w)| f == "*" || f == w)).map(|line| line.password.clone())
    }

    /// The place as people know it, without secrets: `127.0.0.1:5432`.
    pub fn place(&self) -> String {
        if self.host.starts_with('/') { format!("{}/.s.PGSQL.{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

impl PostgresConfig {
    /// Finds out where to connect. Reads secrets, so it may block; errors name what could not be read.
    pub fn connection(&self, environment: &Environment) -> Result<PostgresConnection> {
        let what = || format!("find the connection of source '{}'", self.name);
        let fetch = |text: &Option<crate::config::secret::TextRef>| text.as_ref().map(|t| t.resolve_in(environment)).transpose();
        let url = match &self.url {
            Some(secret) => url_of(secret, environment).map_err(|e| e.context(what()))?,
            None => PostgresUrl::default(),
        };
        let direct = self.reach == ReachConfig::Direct;
        let mut service = service(environment).map_err(|e| e.context(what()))?;
        let variable = |name: &str| environment.get(name).map(str::to_owned);
        // The surroundings name a server as it is seen from this machine.
        let place = |name: &str| variable(name).filter(|_| direct);
        if !direct {
            (service.host, service.port) = (None, None);
        }
        let port: Option<u16> = match service.port.clone().or_else(|| place("PGPORT")) {
            Some(text) => Some(text.parse().map_err(|_| Error::new(Kind::Config, "PGPORT or the service's port is not a port"))?),
            None => None,
        };
        let host = fetch(&self.host).map_err(|e| e.context(what()))?;
        let host = host.or(url.host).or(service.host).or_else(|| place("PGHOST")).unwrap_or_else(|| match &self.reach {
            ReachConfig::Direct => default_host(),
            ReachConfig::Docker(name) => name.clone(),
            ReachConfig::Ssh { .. } => "localhost".to_owned(),
        });
        if !direct && host.starts_with('/') {
            return Err(Error::new(Kind::Config, format!("{}: a socket's folder cannot be got at by docker or ssh", what()))
                .hint("leave host out, or write localhost"));
        }
        let port = self.port.or(url.port).or(port).unwrap_or(5432);
        let user = fetch(&self.user).map_err(|e| e.context(what()))?;
        let user = user.or(url.user).or(service.user).or_else(|| variable("PGUSER")).or_else(|| environment.user.clone());
        let named = match (&self.databases, fetch(&self.database_ref).map_err(|e| e.context(what()))?) {
            (_, Some(name)) if name == "all" => Some(DatabaseChoice::All),
            (_, Some(name)) => Some(DatabaseChoice::Named(vec![name])),
            (choice, None) => choice.clone(),
        };
        let one = |name: String| DatabaseChoice::Named(vec![name]);
        let databases = named
            .or_else(|| url.database.map(one))
            .or_else(|| service.database.map(one))
            .or_else(|| variable("PGDATABASE").map(one))
            .unwrap_or(DatabaseChoice::All);
        let file = |own: &Option<PathBuf>, url: Option<String>, service: Option<String>, name: &str| {
            let text = url.or(service).filter(|text| !text.is_empty()).or_else(|| variable(name));
            let other =
                text.map(|t| if t == SYSTEM_ROOTS && name == "PGSSLROOTCERT" { t.into() } else { environment.absolute(Path::new(&t)) });
            own.clone().or(other)
        };
        let sslrootcert = file(&self.sslrootcert, url.sslrootcert, service.sslrootcert, "PGSSLROOTCERT");
        let sslcert = file(&self.sslcert, url.sslcert, service.sslcert, "PGSSLCERT");
        let sslkey = file(&self.sslkey, url.sslkey, service.sslkey, "PGSSLKEY");
        let sslmode = match (self.sslmode.or(url.sslmode), service.sslmode.or_else(|| variable("PGSSLMODE"))) {
            (Some(mode), _) => mode,
            (None, Some(text)) => SslMode::of(&text).ok_or_else(|| Error::new(Kind::Config, "PGSSLMODE is not one of libpq's modes"))?,
            // Public authorities vouch for everyone, so only the name tells who it is.
            (None, None) if sslrootcert.as_deref() == Some(Path::new(SYSTEM_ROOTS)) => SslMode::VerifyFull,
            (None, None) => SslMode::Prefer,
        };
        let channel_binding = match (url.channel_binding, service.channel_binding.or_else(|| variable("PGCHANNELBINDING"))) {
            (Some(binding), _) => binding,
            (None, Some(text)) => ChannelBinding::of(&text)
                .ok_or_else(|| Error::new(Kind::Config, "PGCHANNELBINDING is not one of disable, prefer, require"))?,
            (None, None) => ChannelBinding::default(),
        };
        let password = match &self.password {
            Some(secret) => Some(secret.resolve_in(environment).map_err(|e| e.context(what()))?),
            None => url.password.or(service.password),
        };
        let password = match password {
            None if environment.has_secret("PGPASSWORD") => Some(environment.secret("PGPASSWORD").map_err(|e| e.context(what()))?),
            found => found,
        };
        let lines = if password.is_none() { password_file(environment).map_err(|e| e.context(what()))? } else { Vec::new() };
        Ok(PostgresConnection {
            host,
            port,
            user: user.unwrap_or_else(|| "postgres".to_owned()),
            sslmode,
            sslrootcert,
            sslcert,
            sslkey,
            channel_binding,
            databases,
            maintenance_database: self.maintenance_database.clone(),
            password,
            lines,
        })
    }
}

fn url_of(secret: &SecretRef, environment: &Environment) -> Result<PostgresUrl> {
    let text = secret.resolve_in(environment)?;
    PostgresUrl::parse(text.expose()).map_err(|what| Error::new(Kind::Config, format!("the connection URL {what}")))
}

fn default_host() -> String {
    if Path::new(SOCKET_FOLDER).is_dir() { SOCKET_FOLDER.to_owned() } else { "localhost".to_owned() }
}

/// The parts of a connection URL that drctl knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostgresUrl {
    /// Host or socket folder.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// User.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Database.
    pub database: Option<String>,
    /// `sslmode` of the query.
    pub sslmode: Option<SslMode>,
    /// `sslrootcert` of the query.
    pub sslrootcert: Option<String>,
    /// `sslcert` of the query.
    pub sslcert: Option<String>,
    /// `sslkey` of the query.
    pub sslkey: Option<String>,
    /// `channel_binding` of the query.
    pub channel_binding: Option<ChannelBinding>,
}

fn scheme_fits(scheme: &str) -> bool {
    matches!(scheme.split('+').next(), Some("postgres" | "postgresql"))
}

impl PostgresUrl {
    /// Reads `postgres://`, `postgresql://` and `postgresql+driver://`. Parameters of the query that are meant for other programs are
    /// passed over. Errors are whole messages and never repeat the text: it may hold a password.
    pub fn parse(text: &str) -> Result<PostgresUrl, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err("is not a URL; write postgres://user@host:5432/database".to_owned());
        };
        if !scheme_fits(&scheme.to_ascii_lowercase()) {
            return Err("does not begin with postgres://, postgresql:// or postgresql+driver://".to_owned());
        }
        let hosts = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if hosts.rsplit('@').next().unwrap_or_default().contains(',') {
            return Err("names several hosts; name the one to back up from".to_owned());
        }
        let url =
            Url::parse(text).map_err(|e| format!("cannot be read ({e}); write '@', ':', '/' and '#' of a password as %40 %3A %2F %23"))?;
        if url.fragment().is_some() {
            return Err("holds a '#'; write it as %23 when it belongs to the password".to_owned());
        }
        let part = |text: &str| -> Result<Option<String>, String> {
            let decoded = decode(text).ok_or("holds a %-code that is not text (UTF-8)")?;
            Ok((!decoded.is_empty()).then_some(decoded))
        };
        let mut found = PostgresUrl {
            host: url.host_str().map(|h| part(h.trim_matches(['[', ']']))).transpose()?.flatten(),
            port: url.port(),
            user: part(url.username())?,
            password: url.password().map(part).transpose()?.flatten().map(Secret::new),
            database: part(url.path().trim_start_matches('/'))?,
            ..PostgresUrl::default()
        };
        for (key, value) in url.query_pairs() {
            let value = value.into_owned();
            match &*key {
                "sslmode" => found.sslmode = Some(SslMode::of(&value).ok_or("has an sslmode that libpq does not know")?),
                "channel_binding" => {
                    found.channel_binding = Some(ChannelBinding::of(&value).ok_or("has a channel_binding that libpq does not know")?);
                }
                "sslrootcert" => found.sslrootcert = Some(value),
                "sslcert" => found.sslcert = Some(value),
                "sslkey" => found.sslkey = Some(value),
                "host" => found.host = Some(value),
                "port" => found.port = Some(value.parse().map_err(|_| "has a port that is none")?),
                "user" => found.user = Some(value),
                "password" => found.password = Some(Secret::new(value)),
                "dbname" => found.database = Some(value),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The URL with its password as `***`; `None` when it cannot be read.
pub fn masked_url(text: &str) -> Option<String> {
    let mut url = Url::parse(text).ok()?;
    if url.password().is_some() {
        url.set_password(Some("***")).ok()?;
    }
    if url.query_pairs().any(|(key, _)| key.contains("password")) {
        let kept: Vec<(String, String)> = url
            .query_pairs()
            .map(|(k, v)| (k.to_string(), if k.contains("password") { "***".to_owned() } else { v.to_string() }))
            .collect();
        url.query_pairs_mut().clear().extend_pairs(kept);
    }
    Some(url.to_string())
}

fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let code = (bytes[i] == b'%').then(|| text.get(i + 1..i + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok())).flatten();
        match code {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PassLine {
    /// Host, port, database, user; `*` fits all.
    fields: [String; 4],
    password: Secret,
}

fn read_small(path: &Path) -> Result<Option<String>> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).context(|| format!("read {}", path.display())),
    };
    if meta.len() > FILE_LIMIT {
        return Err(Error::new(Kind::Config, format!("{} has more than {FILE_LIMIT} bytes", path.display())));
    }
    std::fs::read_to_string(path).map(Some).context(|| format!("read {}", path.display()))
}

fn password_file(environment: &Environment) -> Result<Vec<PassLine>> {
    use std::os::unix::fs::PermissionsExt;
    let named = environment.get("PGPASSFILE").map(|p| environment.absolute(Path::new(p)));
    let Some(path) = named.or_else(|| environment.home().map(|h| h.join(".pgpass"))) else { return Ok(Vec::new()) };
    // libpq, too, passes over one that is no plain file.
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let meta = std::fs::metadata(&path).context(|| format!("read {}", path.display()))?;
    if let Some(why) = exposed(&path, meta.permissions().mode()) {
        return Err(Error::new(Kind::Config, why).hint(format!("chmod 600 {}", path.display())));
    }
    Ok(read_small(&path)?.map(|text| text.lines().filter_map(pass_line).collect()).unwrap_or_default())
}

/// `host:port:database:user:password`; a backslash takes the next character as it is.
fn pass_line(line: &str) -> Option<PassLine> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let count = fields.len();
        let last = fields.last_mut()?;
        match c {
            '\\' => last.extend(chars.next()),
            ':' if count < 5 => fields.push(String::new()),
            c => last.push(c),
        }
    }
    let [host, port, database, user, password] = <[String; 5]>::try_from(fields).ok()?;
    Some(PassLine { fields: [host, port, database, user], password: Secret::new(password) })
}

#[derive(Default)]
struct Service {
    host: Option<String>,
    port: Option<String>,
    user: Option<String>,
    password: Option<Secret>,
    database: Option<String>,
    sslmode: Option<String>,
    sslrootcert: Option<String>,
    sslcert: Option<String>,
    sslkey: Option<String>,
    channel_binding: Option<String>,
}

/// The service that PGSERVICE names, from PGSERVICEFILE or ~/.pg_service.conf, then PGSYSCONFDIR.
fn service(environment: &Environment) -> Result<Service> {
    let Some(name) = environment.get("PGSERVICE") else { return Ok(Service::default()) };
    let own = environment.get("PGSERVICEFILE").map(|p| environment.absolute(Path::new(p)));
    let own = own.or_else(|| environment.home().map(|h| h.join(".pg_service.conf")));
    let system = PathBuf::from(environment.get("PGSYSCONFDIR").unwrap_or("/etc/postgresql-common")).join("pg_service.conf");
    for path in own.into_iter().chain([system]) {
        if let Some(found) = read_small(&path)?.and_then(|text| service_of(&text, name)) {
            return Ok(found);
        }
    }
    Err(Error::new(Kind::Config, format!("PGSERVICE names the service '{}', which no service file has", name.escape_debug()))
        .hint("look at ~/.pg_service.conf, or unset PGSERVICE"))
}

fn service_of(text: &str, name: &str) -> Option<Service> {
    let mut found: Option<Service> = None;
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            found = (section == name).then(Service::default);
        } else if let (Some(service), Some((key, value))) = (&mut found, line.split_once('=')) {
            let value = Some(value.trim().to_owned());
            match key.trim() {
                "host" | "hostaddr" => service.host = value,
                "port" => service.port = value,
                "user" => service.user = value,
                "password" => service.password = value.map(Secret::new),
                "dbname" => service.database = value,
                "sslmode" => service.sslmode = value,
                "sslrootcert" => service.sslrootcert = value,
                "sslcert" => service.sslcert = value,
                "sslkey" => service.sslkey = value,
                "channel_binding" => service.channel_binding = value,
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::config::secret::{Reference, TextRef};

    fn bare() -> PostgresConfig {
        PostgresConfig {
            reach: ReachConfig::Direct,
            tools: crate::config::typed::Tools::Auto,
            name: "postgres".into(),
            url: None,
            host: None,
            port: None,
            user: None,
            password: None,
            sslmode: None,
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
            databases: None,
            database_ref: None,
            exclude: vec![],
            maintenance_database: "postgres".into(),
            globals: true,
            role_passwords: true,
            allow_empty: false,
            lock_wait_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            client_folders: vec![],
        }
    }

    fn plain(text: &str) -> Option<SecretRef> {
        Some(SecretRef::Plain { value: Secret::new(text), shown: None })
    }

    #[test]
    fn urls() {
        let url = PostgresUrl::parse("postgresql+asyncpg://us%40er:p%3Aw@db.example:6432/shop?sslmode=require&server_settings=x").unwrap();
        assert_eq!((url.host.as_deref(), url.port, url.user.as_deref()), (Some("db.example"), Some(6432), Some("us@er")));
        assert_eq!(url.password.unwrap().expose(), "p:w");
        assert_eq!((url.database.as_deref(), url.sslmode), (Some("shop"), Some(SslMode::Require)));
        let url = PostgresUrl::parse("postgres:///shop?host=/run/pg").unwrap();
        assert_eq!((url.host.as_deref(), url.user, url.database.as_deref()), (Some("/run/pg"), None, Some("shop")));
        let url = PostgresUrl::parse("postgres://%2Frun%2Fpg/shop").unwrap();
        assert_eq!(url.host.as_deref(), Some("/run/pg"));
        let url = PostgresUrl::parse("postgres://u@[::1]:5433").unwrap();
        assert_eq!((url.host.as_deref(), url.port, url.database), (Some("::1"), Some(5433), None));
        for (bad, part) in [
            ("shop", "is not a URL"),
            ("mysql://h/d", "does not begin with"),
            ("postgres://a:1,b:2/d", "several hosts"),
            ("postgres://u:hunter2#x@h/d", "%23"),
            ("postgres://u:hunter2@h:port/d", "cannot be read"),
            ("postgres://u@h/d?sslmode=maybe", "sslmode"),
            ("postgres://u@h/d?channel_binding=1", "channel_binding"),
        ] {
            let error = PostgresUrl::parse(bad).unwrap_err();
            assert!(error.contains(part) && !error.contains("hunter2"), "{bad}: {error}");
        }
    }

    #[test]
    fn masked_urls_have_no_password() {
        for url in
            ["postgres://u:hunter2@h/d", "postgres://u@h/d?password=hunter2&sslmode=require", "postgres://u:hunter2@h?sslpassword=hunter2"]
        {
            let masked = masked_url(url).unwrap();
            assert!(!masked.contains("hunter2"), "{masked}");
            assert!(PostgresUrl::parse(&masked).is_ok());
        }
        assert_eq!(masked_url("postgres://u@h:1/d").as_deref(), Some("postgres://u@h:1/d"));
    }

    #[test]
    fn fields_win_over_url_over_service_over_variables() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("service"), "# c\n[other]\nhost=no\n[main]\nhost = svc\nport=7000\nuser=svcuser\n[x]\nhost=no\n")
            .unwrap();
        let vars = [("PGHOST", "envhost"), ("PGPORT", "6000"), ("PGUSER", "envuser"), ("PGDATABASE", "envdb"), ("PGPASSWORD", "envpw")];
        let env = Environment::of(dir.path(), vars);
        let found = bare().connection(&env).unwrap();
        assert_eq!((found.place().as_str(), found.user.as_str()), ("envhost:6000", "envuser"));
        assert_eq!(found.databases, DatabaseChoice::Named(vec!["envdb".into()]));
        assert_eq!(found.password_for("x").unwrap().expose(), "envpw");

        let with_service = Environment::of(dir.path(), vars.into_iter().chain([("PGSERVICE", "main"), ("PGSERVICEFILE", "service")]));
        let found = bare().connection(&with_service).unwrap();
        assert_eq!((found.place().as_str(), found.user.as_str()), ("svc:7000", "svcuser"));

        let mut config = bare();
        config.url = plain("postgres://urluser:urlpw@urlhost:5000/urldb");
        let found = config.connection(&with_service).unwrap();
        assert_eq!((found.place().as_str(), found.user.as_str()), ("urlhost:5000", "urluser"));
        assert_eq!(found.databases, DatabaseChoice::Named(vec!["urldb".into()]));
        assert_eq!(found.password_for("x").unwrap().expose(), "urlpw");

        config.host = Some(TextRef::Plain("fieldhost".into()));
        config.port = Some(1);
        config.databases = Some(DatabaseChoice::All);
        config.password = plain("fieldpw");
        config.user = Some(TextRef::By(Reference::Env("PGHOST".into())));
        let found = config.connection(&with_service).unwrap();
        assert_eq!((found.place().as_str(), found.user.as_str()), ("fieldhost:1", "envhost"));
        assert_eq!(found.databases, DatabaseChoice::All);
        assert_eq!(found.password_for("x").unwrap().expose(), "fieldpw");
        assert!(!format!("{found:?}").contains("fieldpw"));
    }

    #[test]
    fn files_for_tls_come_from_the_same_places() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("service"), "[main]\nsslrootcert=/svc\nsslcert=\n").unwrap();
        let vars = [("PGSSLROOTCERT", "env"), ("PGSSLCERT", "/envcert"), ("PGSSLKEY", "/envkey"), ("PGCHANNELBINDING", "require")];
        let env = Environment::of(dir.path(), vars);
        let files = |found: &PostgresConnection| {
            let text = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
            [text(&found.sslrootcert), text(&found.sslcert), text(&found.sslkey)]
        };
        let found = bare().connection(&env).unwrap();
        assert_eq!(files(&found), [dir.path().join("env").to_str().unwrap(), "/envcert", "/envkey"]);
        assert_eq!((found.sslmode, found.channel_binding), (SslMode::Prefer, ChannelBinding::Require));
        let env = Environment::of(dir.path(), vars.into_iter().chain([("PGSERVICE", "main"), ("PGSERVICEFILE", "service")]));
        assert_eq!(files(&bare().connection(&env).unwrap()), ["/svc", "/envcert", "/envkey"]);
        let mut config = bare();
        config.url = plain("postgres://h/d?sslrootcert=system&sslcert=/u&sslkey=/uk&channel_binding=disable");
        let found = config.connection(&env).unwrap();
        assert_eq!(files(&found), ["system", "/u", "/uk"]);
        assert_eq!((found.sslmode, found.channel_binding), (SslMode::VerifyFull, ChannelBinding::Disable));
        config.sslrootcert = Some("/own".into());
        config.sslmode = Some(SslMode::Require);
        let found = config.connection(&env).unwrap();
        assert_eq!((files(&found)[0].as_str(), found.sslmode), ("/own", SslMode::Require));
        let bad = Environment::of("/", [("PGCHANNELBINDING", "maybe")]);
        assert!(bare().connection(&bad).unwrap_err().to_string().contains("PGCHANNELBINDING"));
    }

    #[test]
    fn nothing_given_means_all_databases() {
        let found = bare().connection(&Environment::of("/", [("USER", "me")])).unwrap();
        assert_eq!((found.port, found.user.as_str(), found.databases), (5432, "me", DatabaseChoice::All));
        let env = Environment::of("/", [("PGSERVICE", "gone"), ("PGSYSCONFDIR", "/nonexistent")]);
        assert!(bare().connection(&env).unwrap_err().to_string().contains("service 'gone'"));
    }

    #[test]
    fn the_password_file_is_read_as_libpq_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pass");
        let text = "# c\nbad line\nh:5432:shop:u:for\\:shop\\\\x\nh:*:*:u:any\nlocalhost:*:*:u:socket\n";
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        let env = Environment::of(dir.path(), [("PGPASSFILE", "pass"), ("PGUSER", "u")]);
        let at = |host: &str| {
            let mut config = bare();
            config.host = Some(TextRef::Plain(host.into()));
            config.connection(&env)
        };
        let of = |host: &str, database: &str| at(host).unwrap().password_for(database).map(|p| p.expose().to_owned());
        assert_eq!(of("h", "shop").as_deref(), Some("for:shop\\x"));
        assert_eq!(of("h", "other").as_deref(), Some("any"));
        assert_eq!(of("/var/run/postgresql", "x").as_deref(), Some("socket"));
        assert_eq!(of("z", "x"), None);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(at("h").unwrap_err().to_string().contains("chmod 600"), "FAULTS 62");
    }
}
