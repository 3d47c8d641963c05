//! TLS to real PostgreSQL servers, with certificates made here. Wherever libpq is asked the same, it must give the same answer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use drctl::error::{Error, Kind};
use drctl::model::Secret;
use drctl::source::Source;
use drctl::source::postgres::{ChannelBinding, Databases, PostgresSettings, PostgresSource, SslMode};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

#[path = "support/postgres.rs"]
mod support;
use support::{PASSWORD, Server, bin, context, dump_all, shared};

/// An authority and what it signs, in a folder that the server may read.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new(name: &str) -> Ca {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key.
    fn sign(&self, common_name: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A server with TLS, and a folder for files of the client.
struct World {
    server: Server,
    folder: tempfile::TempDir,
}

impl World {
    /// A superuser with the password of `postgres`, which must not stand in any argument: other tests look for it there.
    fn role(&self, name: &str) {
        let password = "(SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres')";
        self.server.sql("postgres", &format!("CREATE ROLE {name} SUPERUSER LOGIN"));
        self.server.sql("postgres", &format!("UPDATE pg_authid SET rolpassword = {password} WHERE rolname = '{name}'"));
    }

    fn start((certificate, key): (String, String), client_ca: Option<&Ca>, hba: &str) -> World {
        let folder = tempfile::Builder::new().prefix("drctl-test-tls-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("server.crt"), certificate).unwrap();
        std::fs::write(at("client-ca.crt"), client_ca.map_or("", |ca| &ca.pem)).unwrap();
        std::fs::write(at("pg_hba.conf"), format!("{hba}\nhost all postgres 127.0.0.1/32 scram-sha-256\n")).unwrap();
        write_key(&at("server.key"), &key);
        if rustix::process::geteuid().is_root() {
            assert!(Command::new("chown").arg("postgres").arg(at("server.key")).status().unwrap().success());
        }
        let place = folder.path().display();
        let mut conf = format!(
            "ssl=on\nssl_cert_file='{place}/server.crt'\nssl_key_file='{place}/server.key'\nhba_file='{place}/pg_hba.conf'\nlog_connections=on\n"
        );
        if client_ca.is_some() {
            conf.push_str(&format!("ssl_ca_file='{place}/client-ca.crt'\n"));
        }
        World { server: Server::start_with(&conf), folder }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        write_key(&path, text);
        path
    }

    fn settings(&self, host: &str, mode: SslMode, root: Option<&Path>) -> PostgresSettings {
        PostgresSettings {
            host: host.into(),
            sslmode: mode,
            sslrootcert: root.map(Path::to_owned),
            databases: Databases::Named(vec!["postgres".into()]),
            ..self.server.settings()
        }
    }
}

fn write_key(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

async fn try_with(settings: &PostgresSettings, run: &str) -> Result<(), Error> {
    PostgresSource::new("postgres", settings.clone()).preflight(&context(run)).await.map(|_| ())
}

/// Whether the run's connections used TLS, by the server's log.
fn encrypted(server: &Server, run: &str) -> bool {
    let log = server.log();
    let mark = format!("application_name=drctl/{run}");
    let lines: Vec<&str> = log.lines().filter(|l| l.contains("connection authorized") && l.split_whitespace().any(|w| w == mark)).collect();
    assert!(!lines.is_empty(), "{run}: {log}");
    let with = lines.iter().filter(|l| l.contains("SSL enabled")).count();
    assert!(with == 0 || with == lines.len(), "{lines:?}");
    with > 0
}

/// What libpq makes of the same settings: `Some(whether with TLS)` or `None`.
fn libpq(settings: &PostgresSettings) -> Option<bool> {
    let mut command = Command::new(bin().join("psql"));
    command.args(["-X", "-A", "-t", "-w", "-c", "select ssl from pg_stat_ssl where pid = pg_backend_pid()", "postgres"]);
    command.env("PGHOST", &settings.host).env("PGPORT", settings.port.to_string()).env("PGUSER", &settings.user);
    command.env("PGPASSWORD", PASSWORD).env("PGSSLMODE", settings.sslmode.name());
    let files = [("PGSSLROOTCERT", &settings.sslrootcert), ("PGSSLCERT", &settings.sslcert), ("PGSSLKEY", &settings.sslkey)];
    for (name, path) in files {
        if let Some(path) = path {
            command.env(name, path);
        }
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim() == "t")
}

fn check_refusal(error: &Error, part: &str, case: &str) {
    assert_eq!(error.kind(), Kind::Preflight, "{case}: {error:?}");
    assert!(error.to_string().contains(part), "{case}: {error:?}");
    assert!(error.hint_text().is_some() && !format!("{error:?}").contains("canary"), "{case}: {error:?}");
}

#[tokio::test]
async fn every_mode_does_as_libpq_does() {
    let (good, other) = (Ca::new("good"), Ca::new("other"));
    let world = World::start(good.sign("db", &["localhost"], |_| ()), None, "");
    let (right, wrong) = (world.file("right.crt", &good.pem), world.file("wrong.crt", &other.pem));
    let (right, wrong) = (Some(right.as_path()), Some(wrong.as_path()));
    use SslMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
    let unknown = "signed by no authority";
    let cases = [
        ("localhost", Disable, right, Ok(false)),
        ("127.0.0.1", Disable, wrong, Ok(false)),
        ("127.0.0.1", Prefer, None, Ok(true)),
        ("127.0.0.1", Prefer, right, Ok(true)),
        ("localhost", Prefer, wrong, Ok(false)),
        ("127.0.0.1", Require, None, Ok(true)),
        ("127.0.0.1", Require, right, Ok(true)),
        ("localhost", Require, wrong, Err(unknown)),
        ("127.0.0.1", VerifyCa, right, Ok(true)),
        ("localhost", VerifyCa, wrong, Err(unknown)),
        ("localhost", VerifyCa, None, Err("no certificate of an authority")),
        ("localhost", VerifyFull, right, Ok(true)),
        ("localhost", VerifyFull, wrong, Err(unknown)),
        // Against the authorities of the system.
        ("localhost", VerifyFull, None, Err(unknown)),
        ("127.0.0.1", VerifyFull, right, Err("certificate is for localhost, not for 127.0.0.1")),
    ];
    for (i, (host, mode, root, want)) in cases.into_iter().enumerate() {
        let (settings, run) = (world.settings(host, mode, root), format!("case{i}"));
        let case = format!("{host} {mode:?} {root:?}");
        match (try_with(&settings, &run).await, want) {
            (Ok(()), Ok(tls)) => assert_eq!(encrypted(&world.server, &run), tls, "{case}"),
            (Err(error), Err(part)) => check_refusal(&error, part, &case),
            (got, want) => panic!("{case}: {got:?}, not {want:?}"),
        }
        assert_eq!(libpq(&settings), want.ok(), "libpq: {case}");
    }
}

#[tokio::test]
async fn pg_dump_goes_the_same_way() {
    let ca = Ca::new("good");
    let hba = "hostssl all sslonly 127.0.0.1/32 scram-sha-256";
    let world = World::start(ca.sign("db", &["localhost"], |_| ()), None, hba);
    world.server.sql("postgres", "create table t as select 1 a");
    world.role("sslonly");
    let root = world.file("root.crt", &ca.pem);
    let settings = PostgresSettings { user: "sslonly".into(), ..world.settings("localhost", SslMode::VerifyFull, Some(&root)) };
    let (dumped, _) = dump_all(settings.clone(), &context("dump")).await.unwrap();
    assert!(dumped.iter().any(|d| d.plan.name == "postgres" && d.facts.is_ok()));
    // That needed the file in pg_dump's environment too: without it libpq refuses this mode. And the name counts.
    let named = PostgresSettings { host: "127.0.0.1".into(), ..settings.clone() };
    let error = try_with(&named, "name").await.unwrap_err();
    check_refusal(&error, "not for 127.0.0.1", "name");
    // hostssl only, and no TLS here.
    let plain = PostgresSettings { sslmode: SslMode::Disable, sslrootcert: None, ..settings };
    let error = try_with(&plain, "plain").await.unwrap_err();
    check_refusal(&error, "no encryption", "plain");
    assert!(error.hint_text().unwrap().contains("does the server demand TLS"), "{error:?}");
}

#[tokio::test]
async fn prefer_tries_without_tls_and_tells_of_both() {
    let (ca, other) = (Ca::new("good"), Ca::new("other"));
    let hba = "hostssl all sslonly 127.0.0.1/32 scram-sha-256\nhostnossl all plainonly 127.0.0.1/32 scram-sha-256";
    let world = World::start(ca.sign("db", &["localhost"], |_| ()), None, hba);
    for role in ["sslonly", "plainonly"] {
        world.role(role);
    }
    let with = |user: &str, mode, root| PostgresSettings { user: user.into(), ..world.settings("localhost", mode, root) };
    try_with(&with("plainonly", SslMode::Prefer, None), "plainonly").await.unwrap();
    assert!(!encrypted(&world.server, "plainonly"));
    try_with(&with("sslonly", SslMode::Prefer, None), "sslonly").await.unwrap();
    assert!(encrypted(&world.server, "sslonly"));
    let error = try_with(&with("plainonly", SslMode::Require, None), "no").await.unwrap_err();
    check_refusal(&error, "SSL encryption", "plainonly");
    assert!(error.hint_text().unwrap().contains("hostnossl"), "{error:?}");
    let wrong = world.file("wrong.crt", &other.pem);
    let error = try_with(&with("sslonly", SslMode::Prefer, Some(&wrong)), "both").await.unwrap_err();
    check_refusal(&error, "signed by no authority", "both");
    assert!(error.to_string().contains("; and without TLS: ") && error.to_string().contains("no encryption"), "{error}");
    // A wrong password is tried once only.
    let bad = PostgresSettings { password: Some(Secret::new("wrong")), ..with("postgres", SslMode::Prefer, None) };
    check_refusal(&try_with(&bad, "password").await.unwrap_err(), "password authentication failed", "password");
    assert_eq!(world.server.log().matches("FATAL:  password authentication failed").count(), 1);
}

#[tokio::test]
async fn a_server_without_tls() {
    let server = shared();
    for (mode, fine) in [(SslMode::Disable, true), (SslMode::Prefer, true), (SslMode::Require, false)] {
        let settings = PostgresSettings { sslmode: mode, ..server.named(&["postgres"]) };
        match try_with(&settings, "none").await {
            Ok(()) => assert!(fine),
            Err(error) => {
                assert!(!fine, "{error:?}");
                check_refusal(&error, "the server offers no TLS", mode.name());
            }
        }
        assert_eq!(libpq(&settings).is_some(), fine);
    }
    let bound = PostgresSettings { channel_binding: ChannelBinding::Require, ..server.named(&["postgres"]) };
    assert!(try_with(&bound, "bound").await.is_err(), "there is nothing to bind to");
}

#[tokio::test]
async fn client_certificates() {
    let (ca, other) = (Ca::new("good"), Ca::new("other"));
    let world = World::start(ca.sign("db", &["localhost"], |_| ()), Some(&ca), "hostssl all certuser 127.0.0.1/32 cert");
    world.server.sql("postgres", "create role certuser superuser login");
    let root = world.file("root.crt", &ca.pem);
    let client = |ca: &Ca, name: &str| {
        let (certificate, key) = ca.sign(name, &[], |p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth));
        let (at, number) = (world.folder.path(), rand::random::<u32>());
        write_key(&at.join(format!("{number}.crt")), &certificate);
        write_key(&at.join(format!("{number}.key")), &key);
        (at.join(format!("{number}.crt")), at.join(format!("{number}.key")))
    };
    let with = |pair: Option<(PathBuf, PathBuf)>| {
        let (sslcert, sslkey) = pair.unzip();
        let settings = world.settings("localhost", SslMode::VerifyFull, Some(&root));
        PostgresSettings { user: "certuser".into(), password: None, sslcert, sslkey, ..settings }
    };
    let good = client(&ca, "certuser");
    dump_all(with(Some(good.clone())), &context("cert")).await.unwrap();
    assert!(world.server.log().contains("connection authenticated: identity=\"CN=certuser\" method=cert"));
    let cases = [
        (with(None), "valid client certificate", "sslcert"),
        (with(Some(client(&ca, "someone"))), "certificate authentication failed", "pg_ident.conf"),
        (with(Some(client(&other, "certuser"))), "refuses our client certificate", "ssl_ca_file"),
        (with(Some((good.0.clone(), client(&ca, "x").1))), "use the client certificate", "belong together"),
    ];
    for (settings, part, hint) in cases {
        let error = try_with(&settings, "cert").await.unwrap_err();
        check_refusal(&error, part, part);
        assert!(error.hint_text().unwrap().contains(hint), "{error:?}");
        assert_eq!(libpq(&settings), None);
    }
}

#[tokio::test]
async fn passwords_can_be_bound_to_the_certificate() {
    let ca = Ca::new("good");
    let world = World::start(ca.sign("db", &["localhost"], |_| ()), None, "");
    // tokio-postgres refuses with `require` unless SCRAM-SHA-256-PLUS was agreed on, and the server checks the digest.
    let settings = PostgresSettings { channel_binding: ChannelBinding::Require, ..world.settings("localhost", SslMode::Require, None) };
    dump_all(settings.clone(), &context("bound")).await.unwrap();
    let plain = PostgresSettings { sslmode: SslMode::Disable, ..settings };
    assert!(try_with(&plain, "unbound").await.is_err());
}

/// Certificates as people make them in a hurry: libpq takes them, so drctl does.
#[tokio::test]
async fn certificates_that_the_web_would_refuse() {
    // Self-signed and marked as an authority, its name in the common name only.
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "localhost");
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let world = World::start((pem.clone(), key.serialize_pem()), None, "");
    let (own, other) = (world.file("own.crt", &pem), world.file("other.crt", &Ca::new("other").pem));
    agrees(&world, "localhost", SslMode::VerifyFull, &own, None).await;
    agrees(&world, "127.0.0.1", SslMode::VerifyCa, &own, None).await;
    agrees(&world, "127.0.0.1", SslMode::VerifyFull, &own, Some("is for localhost, not for 127.0.0.1")).await;
    agrees(&world, "localhost", SslMode::VerifyFull, &other, Some("signed by no authority")).await;
}

#[tokio::test]
async fn certificates_of_version_1() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |args: &str| {
        let output = Command::new("openssl").current_dir(folder.path()).args(args.split(' ')).output();
        let output = output.expect("openssl is needed for this test: apt-get install openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    for ca in ["ca", "false"] {
        // Two authorities of one name: only one of them signed.
        openssl(&format!("req -new -x509 -days 9 -nodes -subj /CN=root -newkey rsa:2048 -keyout {ca}.key -out {ca}.crt"));
    }
    openssl("req -new -nodes -subj /CN=localhost -newkey rsa:2048 -keyout s.key -out s.csr");
    openssl("x509 -req -in s.csr -days 9 -CA ca.crt -CAkey ca.key -set_serial 1 -out s.crt");
    if !openssl("x509 -in s.crt -noout -text").contains("Version: 1 ") {
        eprintln!("this openssl makes version 3 only: what follows checks that instead");
    }
    let world = World::start((read("s.crt"), read("s.key")), None, "");
    let (right, wrong) = (world.file("right.crt", &read("ca.crt")), world.file("false.crt", &read("false.crt")));
    let other = world.file("other.crt", &Ca::new("other").pem);
    agrees(&world, "localhost", SslMode::VerifyFull, &right, None).await;
    agrees(&world, "127.0.0.1", SslMode::VerifyFull, &right, Some("is for localhost, not for 127.0.0.1")).await;
    agrees(&world, "localhost", SslMode::VerifyCa, &wrong, Some("not signed by the authority")).await;
    agrees(&world, "localhost", SslMode::VerifyCa, &other, Some("signed by no authority")).await;
    try_with(&world.settings("127.0.0.1", SslMode::Require, None), "any").await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate() {
    let ca = Ca::new("good");
    let old = |p: &mut CertificateParams| {
        (p.not_before, p.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    };
    let world = World::start(ca.sign("db", &["localhost"], old), None, "");
    let root = world.file("root.crt", &ca.pem);
    agrees(&world, "localhost", SslMode::VerifyCa, &root, Some("has expired")).await;
    // The very certificate in the file of authorities does not live longer for that.
    let pem = std::fs::read_to_string(world.folder.path().join("server.crt")).unwrap();
    let own = world.file("own.crt", &pem);
    agrees(&world, "localhost", SslMode::VerifyCa, &own, Some("has expired")).await;
}

/// drctl and libpq both get there with TLS, or neither does and drctl says why.
async fn agrees(world: &World, host: &str, mode: SslMode, root: &Path, refused: Option<&str>) {
    let settings = world.settings(host, mode, Some(root));
    let case = format!("{host} {mode:?} {}", root.display());
    match (try_with(&settings, "agrees").await, refused) {
        (Ok(()), None) => {}
        (Err(error), Some(part)) => check_refusal(&error, part, &case),
        (got, want) => panic!("{case}: {got:?}, not {want:?}"),
    }
    assert_eq!(libpq(&settings), refused.is_none().then_some(true), "libpq: {case}");
}
