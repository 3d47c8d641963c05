//! Sources.

use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::GlobBuilder;

use super::job::{masked, retention, schedule};
use super::reference::{in_the_file, reference, secret, shown, text, written};
use super::running::{program, variables};
use super::{LATER, Scope, check_name, items};
use crate::config::expand::reference_only;
use crate::config::patterns::{self, Patterns, RootPath};
use crate::config::postgres::{PostgresUrl, SYSTEM_ROOTS, masked_url};
use crate::config::problem::shorten;
use crate::config::raw::*;
use crate::config::secret::{SecretRef, TextRef};
use crate::config::typed::*;
use crate::model::Secret;

/// Names that a set uses itself.
const RESERVED: [&str; 2] = ["drctl", "details"];

const COMES_LATER: &str = "comes with a later version of drctl";
const MARK_IT: &str = "mark the entry as 'later:' to go on without it";

/// Place of its settings, name, and the source itself unless a finding stands in the way; `None` when not even a name is known.
type Found<'a> = (Scope<'a>, String, Option<SourceConfig>);

/// One entry of `sources`.
pub fn source<'a>(scope: &Scope<'a>, raw: &RawSource) -> Option<Found<'a>> {
    for (kind, later) in [("redis", &raw.redis), ("mongodb", &raw.mongodb), ("kubernetes", &raw.kubernetes)] {
        if later.is_some() {
            scope.key(kind).error(format!("{kind} {COMES_LATER}; {MARK_IT}, or take it out"));
            return None;
        }
    }
    if let Some(raw) = &raw.postgres {
        let common = Common::of(&raw.name, &raw.schedule, &raw.retention, raw.allow_plaintext);
        return Some(common.finish(scope, "postgres", |scope, name| postgres(scope, name, raw).map(|c| SourceKind::Postgres(Box::new(c)))));
    }
    if let Some(raw) = &raw.files {
        let common = Common::of(&raw.name, &raw.schedule, &raw.retention, raw.allow_plaintext);
        return Some(common.finish(scope, "files", |scope, name| files(scope, name, raw).map(SourceKind::Files)));
    }
    if let Some(raw) = &raw.environment {
        let common = Common::of(&raw.name, &raw.schedule, &raw.retention, raw.allow_plaintext);
        return Some(common.finish(scope, "environment", |scope, name| environment(scope, name, raw).map(SourceKind::Environment)));
    }
    if let Some(raw) = &raw.compose {
        let common = Common::of(&raw.name, &raw.schedule, &raw.retention, raw.allow_plaintext);
        return Some(common.finish(scope, "compose", |scope, name| compose(scope, name, raw).map(SourceKind::Compose)));
    }
    let raw = raw.command.as_ref()?;
    let common = Common::of(&raw.name, &raw.schedule, &raw.retention, raw.allow_plaintext);
    Some(common.finish(scope, "command", |scope, name| command(scope, name, raw).map(SourceKind::Command)))
}

/// One entry of `sources` that is marked `later:`; `None` with its finding told.
pub fn later_source(scope: &Scope<'_>, raw: &RawLaterSource) -> Option<LaterSource> {
    let (kind, what) = match raw {
        RawLaterSource { redis: Some(_), .. } => ("redis", "redis".to_owned()),
        RawLaterSource { mongodb: Some(_), .. } => ("mongodb", "mongodb".to_owned()),
        RawLaterSource { kubernetes: Some(_), .. } => ("kubernetes", "kubernetes".to_owned()),
        RawLaterSource { environment: Some(_), .. } => {
            let from = scope.root.at(&scope.key("environment").key("from").path);
            let place = FROM_LATER.into_iter().find(|place| from.is_some_and(|from| from.get(place).is_some()));
            let Some(place) = place else {
                let places = FROM_LATER.join(", ");
                scope
                    .key("environment")
                    .error(format!("this version backs it up, unless it is 'from' one of {places}; take 'later:' away"));
                return None;
            };
            ("environment", environment_of(place))
        }
        // What the schema refused has been told.
        _ => return None,
    };
    let scope = scope.key(kind);
    let settings = scope.root.at(&scope.path).map(|node| masked(&node.to_json())).unwrap_or_default();
    let later = LaterSource { kind, what, settings };
    scope.warn(later.warning());
    Some(later)
}

/// Where an environment cannot be read from yet.
const FROM_LATER: [&str; 3] = ["container", "unit", "pod"];

fn environment_of(place: &str) -> String {
    format!("the environment of a {place}")
}

/// What every source has.
struct Common<'r> {
    name: &'r Option<String>,
    schedule: &'r Option<RawSchedule>,
    retention: &'r Option<RawRetention>,
    allow_plaintext: bool,
}

impl<'r> Common<'r> {
    fn of(
        name: &'r Option<String>,
        schedule: &'r Option<RawSchedule>,
        retention: &'r Option<RawRetention>,
        allow_plaintext: Option<bool>,
    ) -> Self {
        Common { name, schedule, retention, allow_plaintext: allow_plaintext.unwrap_or(false) }
    }

    fn finish<'a>(self, scope: &Scope<'a>, kind: &str, make: impl FnOnce(&Scope<'a>, &str) -> Option<SourceKind>) -> Found<'a> {
        let scope = scope.key(kind);
        let name = self.name.clone().unwrap_or_else(|| kind.to_owned());
        let mut good = check_name(&scope.key("name"), &name);
        if RESERVED.contains(&name.as_str()) {
            scope.key("name").error(format!("'{name}' is a name that every set uses itself"));
            good = false;
        }
        let own_schedule = self.schedule.as_ref().map(|raw| schedule(&scope.key("schedule"), raw));
        let own_retention = self.retention.as_ref().map(|raw| retention(&scope.key("retention"), raw));
        let kind = make(&scope, &name);
        let made = (|| {
            let retention = match own_retention {
                Some(own) => Some(own?),
                None => None,
            };
            let name = name.clone();
            Some(SourceConfig { name, schedule: own_schedule, retention, allow_plaintext: self.allow_plaintext, kind: kind? })
        })();
        (scope, name, made.filter(|_| good))
    }
}

/// Takes an optional setting; `Err(())` when it is there and was refused.
fn optional<T, R>(raw: &Option<R>, read: impl FnOnce(&R) -> Option<T>) -> Result<Option<T>, ()> {
    match raw {
        Some(raw) => read(raw).map(Some).ok_or(()),
        None => Ok(None),
    }
}

fn postgres(scope: &Scope<'_>, name: &str, raw: &RawPostgres) -> Option<PostgresConfig> {
    let way = reach(&scope.key("reach"), raw.reach.as_ref());
    let tools = match (raw.tools, &way) {
        (Some(RawTools::There), Some(ReachConfig::Direct)) => {
            scope.key("tools").error("'there' needs a reach: a server that is reached directly has no 'there'");
            return None;
        }
        (Some(RawTools::There), _) => Tools::There,
        (Some(RawTools::Here), _) => Tools::Here,
        (Some(RawTools::Auto) | None, _) => Tools::Auto,
    };
    if let (Some(RawText::Plain(host)), Some(ReachConfig::Docker(_) | ReachConfig::Ssh { .. })) = (&raw.host, &way)
        && host.starts_with('/')
    {
        scope.key("host").error("is the folder of a socket, which cannot be got at that way; write localhost");
    }
    let url = optional(&raw.url, |raw| postgres_url(&scope.key("url"), raw));
    let host = optional(&raw.host, |raw| text(&scope.key("host"), Some(raw)));
    let user = optional(&raw.user, |raw| text(&scope.key("user"), Some(raw)));
    let password = optional(&raw.password, |raw| secret(&scope.key("password"), Some(raw)));
    let (databases, database_ref) = databases(&scope.key("database"), raw.database.as_ref());
    let sslrootcert = optional(&raw.sslrootcert, |raw| match raw == SYSTEM_ROOTS {
        true => Some(PathBuf::from(SYSTEM_ROOTS)),
        false => scope.key("sslrootcert").path(raw),
    });
    let sslcert = optional(&raw.sslcert, |raw| scope.key("sslcert").path(raw));
    let sslkey = optional(&raw.sslkey, |raw| scope.key("sslkey").path(raw));
    let mode = raw.sslmode.map(ssl_mode);
    if let Some(mode) = mode.filter(|mode| raw.sslrootcert.as_deref() == Some(SYSTEM_ROOTS) && *mode != SslMode::VerifyFull) {
        let why = "does not go with sslrootcert system, whose authorities vouch for everyone; write verify-full";
        scope.key("sslmode").error(format!("'{}' {why}", mode.name()));
    }
    let maintenance_database = raw.maintenance_database.clone().unwrap_or_else(|| "postgres".to_owned());
    if maintenance_database.is_empty() {
        scope.key("maintenance_database").error("must not be empty");
    }
    Some(PostgresConfig {
        name: name.to_owned(),
        reach: way?,
        tools,
        url: url.ok()?,
        host: host.ok()?,
        port: raw.port,
        user: user.ok()?,
        password: password.ok()?,
        sslmode: mode,
        sslrootcert: sslrootcert.ok()?,
        sslcert: sslcert.ok()?,
        sslkey: sslkey.ok()?,
        exclude: excluded(&scope.key("exclude"), raw, databases.as_ref()),
        databases,
        database_ref,
        maintenance_database,
        globals: raw.globals.unwrap_or(true),
        role_passwords: raw.role_passwords.unwrap_or(true),
        allow_empty: raw.allow_empty.unwrap_or(false),
        lock_wait_timeout: scope.duration("lock_wait_timeout", raw.lock_wait_timeout.as_ref()).unwrap_or(Duration::from_secs(300)),
        connect_timeout: scope.duration("connect_timeout", raw.connect_timeout.as_ref()).unwrap_or(Duration::from_secs(10)),
        client_folders: scope.paths("client_folders", &raw.client_folders),
    })
}

fn ssl_mode(raw: RawSslMode) -> SslMode {
    match raw {
        RawSslMode::Disable => SslMode::Disable,
        RawSslMode::Allow => SslMode::Allow,
        RawSslMode::Prefer => SslMode::Prefer,
        RawSslMode::Require => SslMode::Require,
        RawSslMode::VerifyCa => SslMode::VerifyCa,
        RawSslMode::VerifyFull => SslMode::VerifyFull,
    }
}

fn reach(scope: &Scope<'_>, raw: Option<&RawReach>) -> Option<ReachConfig> {
    let by = match raw {
        None => return Some(ReachConfig::Direct),
        Some(RawReach::Name(name)) if name == "direct" => return Some(ReachConfig::Direct),
        Some(RawReach::Name(name)) => {
            scope.error(format!("'{}' is not a way to reach a server; write direct, or leave it out", shorten(name)));
            return None;
        }
        Some(RawReach::Of(by)) => by,
    };
    if by.kubernetes.is_some() {
        scope.error(format!("reaching a server by kubernetes is {LATER}; publish its port and use host and port"));
        return None;
    }
    match (&by.docker, &by.ssh) {
        (Some(name), None) => {
            // What Docker itself allows in names.
            let good = name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
            if !good {
                scope.key("docker").error(format!("'{}' cannot name a container or a service", shorten(name)));
            }
            good.then(|| ReachConfig::Docker(name.clone()))
        }
        (None, Some(RawSsh::Host(host))) => {
            ssh_host(&scope.key("ssh"), host).then(|| ReachConfig::Ssh { host: host.clone(), config: None, identity: None })
        }
        (None, Some(RawSsh::Of(ssh))) => {
            let scope = scope.key("ssh");
            let file = |key: &'static str, text: &Option<String>| optional(text, |text| scope.key(key).path(text));
            let host = ssh.host.clone().unwrap_or_default();
            let (good, config, identity) =
                (ssh_host(&scope.key("host"), &host), file("config", &ssh.config), file("identity", &ssh.identity));
            Some(ReachConfig::Ssh { host, config: config.ok()?, identity: identity.ok()? }).filter(|_| good)
        }
        _ => {
            scope.error("name exactly one of docker, ssh");
            None
        }
    }
}

/// A host that ssh cannot take for an option, nor the user's shell for anything else.
fn ssh_host(scope: &Scope<'_>, host: &str) -> bool {
    let good = !host.is_empty()
        && !host.starts_with('-')
        && !host.contains("@-")
        && host.chars().all(|c| c.is_ascii_graphic() && !"'\"`$;&|<>(){}*?\\!#".contains(c));
    if !good {
        scope.error(format!("'{}' is no host for ssh; write host or user@host", shorten(host)));
    }
    good
}

/// A URL that stands in the file is read now; what is shown of it has no password.
fn postgres_url(scope: &Scope<'_>, raw: &RawText) -> Option<SecretRef> {
    let text = match raw {
        RawText::By(raw) => return reference(scope, raw).map(SecretRef::By),
        RawText::Plain(text) => text,
    };
    let url = scope.take(PostgresUrl::parse(text))?;
    let shown = match (shown(scope), written(scope)) {
        (Some(whole), _) => Some(whole),
        (None, Some(written)) => {
            let (shown, in_file) = url_as_written(&written, text);
            if url.password.is_some() && in_file {
                in_the_file(scope, "a password");
            }
            shown
        }
        (None, None) => {
            if url.password.is_some() {
                in_the_file(scope, "a password");
            }
            masked_url(text)
        }
    };
    Some(SecretRef::Plain { value: Secret::new(text.as_str()), shown })
}

/// What is shown of a URL with variables in it: the variables as they were written, since any of them may be a secret, and no literal
/// password; and whether the password stands in the file at least in part. `postgres://app:${PASSWORD}@db/shop` is shown as it is.
fn url_as_written(written: &str, text: &str) -> (Option<String>, bool) {
    let Some((scheme, rest)) = written.split_once("://").filter(|(scheme, _)| !scheme.contains("${")) else {
        // Where its parts are cannot be told: shown is what comes out, without the parameters.
        return (masked_url(text.split('?').next().unwrap_or_default()), true);
    };
    let (base, query) = split_outside(rest, '?', false).map_or((rest, None), |(base, query)| (base, Some(query)));
    let (login, place) = split_outside(base, '@', true).map_or((None, base), |(login, place)| (Some(login), place));
    let (login, in_file) = match login.map(|l| split_outside(l, ':', false).unwrap_or((l, ""))) {
        None => (String::new(), false),
        Some((user, "")) => (format!("{user}@"), false),
        Some((user, password)) => match reference_only(password) {
            Some(shown) => (format!("{user}:{shown}@"), false),
            None => (format!("{user}:***@"), true),
        },
    };
    match query {
        Some(query) if query.contains("password") => (Some(format!("{scheme}://{login}{place}")), true),
        Some(query) => (Some(format!("{scheme}://{login}{place}?{query}")), in_file),
        None => (Some(format!("{scheme}://{login}{place}")), in_file),
    }
}

/// Splits at the first or last `mark` that stands outside of every `${…}`.
fn split_outside(text: &str, mark: char, last: bool) -> Option<(&str, &str)> {
    let mut inside = false;
    let mut found = None;
    for (at, c) in text.char_indices() {
        match c {
            '{' if text[..at].ends_with('$') && !text[..at].ends_with("$$") => inside = true,
            '}' => inside = false,
            c if c == mark && !inside && (last || found.is_none()) => found = Some(at),
            _ => {}
        }
    }
    found.map(|at| (&text[..at], &text[at + mark.len_utf8()..]))
}

fn databases(scope: &Scope<'_>, raw: Option<&RawDatabases>) -> (Option<DatabaseChoice>, Option<TextRef>) {
    match raw {
        None => (None, None),
        Some(RawDatabases::By(raw)) => (None, reference(scope, raw).map(TextRef::By)),
        Some(RawDatabases::One(name)) if name == "all" => (Some(DatabaseChoice::All), None),
        Some(RawDatabases::One(name)) => {
            check_database(scope, name);
            (Some(DatabaseChoice::Named(vec![name.clone()])), None)
        }
        Some(RawDatabases::List(list)) => {
            let mut names: Vec<String> = Vec::new();
            for (i, name) in list.iter().enumerate().filter_map(|(i, n)| Some((i, n.as_ref()?))) {
                check_database(&scope.index(i), name);
                if names.contains(name) {
                    scope.index(i).error(format!("'{}' stands twice", shorten(name)));
                } else {
                    names.push(name.clone());
                }
            }
            (Some(DatabaseChoice::Named(names)), None)
        }
    }
}

/// Databases that are left out. A pattern that can mean none of those that are named is a mistake: what it was to keep out is backed up.
fn excluded(scope: &Scope<'_>, raw: &RawPostgres, databases: Option<&DatabaseChoice>) -> Vec<String> {
    let named = match databases {
        Some(DatabaseChoice::Named(names)) => Some(names),
        _ => None,
    };
    let mut patterns = Vec::new();
    for (i, pattern) in items(&raw.exclude) {
        let place = scope.index(i);
        let glob = match GlobBuilder::new(pattern).build() {
            Ok(glob) => glob.compile_matcher(),
            Err(e) => {
                place.error(format!("'{}' is not a pattern: {}", shorten(pattern), e.kind()));
                continue;
            }
        };
        let fits = |name: &String| name == pattern || glob.is_match(name);
        if pattern.is_empty() {
            place.error("must not be empty");
        } else if let Some(names) = named.filter(|names| !names.iter().any(fits)) {
            place.error(format!("'{}' means none of the databases that are named: {}", shorten(pattern), shorten(&names.join(", "))));
        }
        patterns.push((pattern.clone(), glob));
    }
    if let Some(names) = named.filter(|_| !patterns.is_empty()) {
        let out = |name: &String| patterns.iter().any(|(pattern, glob)| name == pattern || glob.is_match(name));
        if names.iter().all(out) {
            scope.error("leaves nothing of the databases that are named; take them out of 'database' instead");
        }
    }
    patterns.into_iter().map(|(pattern, _)| pattern).collect()
}

fn check_database(scope: &Scope<'_>, name: &str) {
    // NAMEDATALEN - 1 bytes: the server would cut a longer name.
    if name.is_empty() || name.len() > 63 || name.contains('\0') {
        scope.error(format!("'{}' cannot name a database: 1 to 63 bytes", shorten(name)));
    }
}

fn files(scope: &Scope<'_>, name: &str, raw: &RawFiles) -> Option<FilesConfig> {
    let paths = scope.paths("paths", &raw.paths);
    let newer_than = optional(&raw.newer_than, |text| scope.long_duration("newer_than", Some(text)));
    let (include, exclude) = (scope.texts("include", &raw.include), scope.texts("exclude", &raw.exclude));
    check_patterns(scope, &paths, raw, &include, &exclude);
    Some(FilesConfig {
        name: name.to_owned(),
        paths: Some(paths).filter(|p| !p.is_empty())?,
        include,
        exclude,
        newer_than: newer_than.ok()?,
        one_file_system: raw.one_file_system.unwrap_or(true),
        allow_empty: raw.allow_empty.unwrap_or(false),
    })
}

/// Patterns that are none, or that can match nothing, at their own places.
fn check_patterns(scope: &Scope<'_>, paths: &[PathBuf], raw: &RawFiles, include: &[String], exclude: &[String]) {
    let roots: Vec<RootPath> = paths.iter().map(|path| RootPath::of(path)).collect();
    for (list, at, why) in patterns::check(&roots, include, exclude) {
        let raw = if list == patterns::List::Include { &raw.include } else { &raw.exclude };
        // What is empty, and told already, is not in the lists.
        let place = items(raw).filter(|(_, text)| !text.is_empty()).nth(at).map_or(at, |(i, _)| i);
        scope.key(list.key()).index(place).error(why);
    }
}

/// Whether a backup of `root` would read `inner`: it lies there, and no pattern excludes it or a folder above it.
pub fn backs_up(files: &FilesConfig, root: &Path, inner: &Path) -> bool {
    let root = RootPath::of(root);
    let inner = patterns::real(inner);
    let Ok(below) = inner.strip_prefix(&root.real) else { return false };
    // What is no pattern has been told.
    let Ok(patterns) = Patterns::new(std::slice::from_ref(&root), &[], &files.exclude) else { return true };
    !patterns.of(&root.path).is_some_and(|rules| rules.excludes_way(below))
}

fn environment(scope: &Scope<'_>, name: &str, raw: &RawEnvironment) -> Option<EnvironmentConfig> {
    let place = scope.key("from");
    let from = match &raw.from {
        None => Some(EnvironmentFrom::OwnProcess),
        Some(RawFrom::Name(text)) if text == "self" => Some(EnvironmentFrom::OwnProcess),
        Some(RawFrom::Name(text)) => {
            place.error(format!("'{}' is not where variables come from; write self, or {{ file: … }}", shorten(text)));
            None
        }
        Some(RawFrom::Of(of)) => {
            for (key, later) in [("container", &of.container), ("unit", &of.unit), ("pod", &of.pod)] {
                if later.is_some() {
                    place.key(key).error(format!("{} {COMES_LATER}; {MARK_IT}, or use self or {{ file: … }}", environment_of(key)));
                }
            }
            of.file.as_ref().and_then(|text| place.key("file").path(text)).map(EnvironmentFrom::File)
        }
    };
    let prefixes = scope.texts("prefixes", &raw.prefixes);
    let names = scope.texts("names", &raw.names);
    if from == Some(EnvironmentFrom::OwnProcess) && prefixes.is_empty() && names.is_empty() {
        scope.warn("takes every variable of drctl's own environment; narrow it with prefixes or names");
    }
    Some(EnvironmentConfig { name: name.to_owned(), from: from?, prefixes, names })
}

fn compose(scope: &Scope<'_>, name: &str, raw: &RawCompose) -> Option<ComposeConfig> {
    let files = scope.paths("files", &raw.files);
    (!files.is_empty()).then(|| ComposeConfig { name: name.to_owned(), files })
}

fn command(scope: &Scope<'_>, name: &str, raw: &RawCommand) -> Option<CommandConfig> {
    let run = program(&scope.key("run"), &raw.run);
    let artifact = raw.artifact.clone().unwrap_or_else(|| "output".to_owned());
    check_name(&scope.key("artifact"), &artifact);
    let extension = raw.extension.clone().unwrap_or_else(|| "raw".to_owned());
    let good = extension.len() <= 16 && !extension.is_empty() && extension.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !good {
        scope.key("extension").error(format!("'{}' is not an extension: 1 to 16 of a-z and 0-9, without a dot", shorten(&extension)));
    }
    let env = variables(&scope.key("env"), &raw.env);
    let folder = optional(&raw.folder, |text| scope.key("folder").path(text));
    let timeout = optional(&raw.timeout, |text| scope.duration("timeout", Some(text)));
    let mut run = run?.into_iter();
    let program = run.next()?;
    Some(CommandConfig {
        name: name.to_owned(),
        program,
        args: run.collect(),
        artifact,
        extension,
        folder: folder.ok()?.unwrap_or_else(|| scope.world.folder.to_owned()),
        env,
        allow_empty: raw.allow_empty.unwrap_or(false),
        timeout: timeout.ok()?,
        idle_timeout: scope.duration("idle_timeout", raw.idle_timeout.as_ref()).unwrap_or(Duration::from_secs(600)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_variables_are_shown_as_written() {
        for (written, text, shown, in_file) in [
            ("postgres://app:${PW}@db/shop", "postgres://app:hunter2@db/shop", "postgres://app:${PW}@db/shop", false),
            ("postgres://${U:-a:b}:${PW:-hunter2}@${HOST}", "postgres://a:hunter2@h", "postgres://${U:-a:b}:${PW:-***}@${HOST}", false),
            ("postgres://app:hunter2${PW}@db/shop", "postgres://app:hunter2x@db/shop", "postgres://app:***@db/shop", true),
            ("postgres://db/shop?password=hunter2&x=${X}", "postgres://db/shop?password=hunter2&x=", "postgres://db/shop", true),
            ("postgres://app@${HOST}/shop?x=${PW}", "postgres://app@h/shop?x=hunter2", "postgres://app@${HOST}/shop?x=${PW}", false),
            ("${BASE}/shop?x=${PW}", "postgres://u:hunter2@h/shop?x=hunter2", "postgres://u:***@h/shop", true),
        ] {
            assert_eq!(url_as_written(written, text), (Some(shown.to_owned()), in_file), "{written}");
        }
    }

    #[test]
    fn a_store_inside_a_source_is_seen_unless_excluded() {
        let files = |exclude: &[&str]| FilesConfig {
            name: "files".into(),
            paths: vec!["/srv/none".into()],
            include: vec![],
            exclude: exclude.iter().map(|p| (*p).to_owned()).collect(),
            newer_than: None,
            one_file_system: true,
            allow_empty: false,
        };
        let root = Path::new("/srv/none");
        for (exclude, inner, want) in [
            (&[][..], "/srv/none/backup/drctl", true),
            (&[], "/srv/none", true),
            (&[], "/srv/none2", false),
            (&["backup"], "/srv/none/backup/drctl", false),
            (&["backup/"], "/srv/none/backup/drctl", false),
            (&["/srv/none/backup/drctl"], "/srv/none/backup/drctl", false),
            (&["backup/*"], "/srv/none/backup/drctl", false),
            (&["*.log", "cache"], "/srv/none/backup/drctl", true),
            (&["/srv/none/backup"], "/srv/none/backup/drctl", false),
            (&["none/backup"], "/srv/none/backup/drctl", true),
            (&["/srv/*/drctl"], "/srv/none/backup/drctl", true),
            (&["drctl/"], "/srv/none/backup/drctl", false),
        ] {
            assert_eq!(backs_up(&files(exclude), root, Path::new(inner)), want, "{exclude:?} {inner}");
        }
    }
}
