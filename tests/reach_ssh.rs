//! A database that drctl gets at by ssh, against a real sshd: connections, tools here and there, and everything that can go wrong on the way.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/sshd.rs"]
mod sshd;
#[path = "support/postgres.rs"]
mod support;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use cli::Ran;
use drctl::error::{Error, Kind};
use drctl::model::ArtifactFormat;
use drctl::pipeline::plain::{Plain, channel};
use drctl::reach::Ssh;
use drctl::source::Source;
use drctl::source::postgres::{PostgresSettings, PostgresSource, SslMode, Tools};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use shop::Shop;
use sshd::{Sshd, processes};
use support::{PASSWORD, Server, context, dump_all, fake_tools, shared};

fn bastion() -> Arc<Sshd> {
    static SHARED: Mutex<Weak<Sshd>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(|p| p.into_inner());
    if let Some(sshd) = shared.upgrade() {
        return sshd;
    }
    let sshd = Arc::new(Sshd::start(""));
    *shared = Arc::downgrade(&sshd);
    sshd
}

fn by(sshd: &Sshd, known_hosts: &str, key: &str, settings: PostgresSettings) -> PostgresSettings {
    let ssh = Ssh { host: "bastion".into(), config: Some(sshd.config(known_hosts, key)), identity: None };
    PostgresSettings { reach: Some(Arc::new(ssh)), ..settings }
}

async fn refused(settings: PostgresSettings) -> Error {
    let begun = Instant::now();
    let error = PostgresSource::new("postgres", settings).preflight(&context("refused")).await.expect_err("it is refused");
    assert!(begun.elapsed() < Duration::from_secs(60), "it waited for an answer");
    error
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs drctl and collects the arguments and programs of its family, and of the other side's.
fn watched(shop: &Shop, args: &[&str], leaks: &mut BTreeSet<String>, programs: &mut BTreeSet<String>) -> Ran {
    let child = shop.home.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waiting = std::thread::spawn(move || Ran::of(child.wait_with_output().unwrap()));
    while !waiting.is_finished() {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
            let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            if line.contains(PASSWORD) {
                leaks.insert(line.clone());
            }
            let comm = String::from_utf8_lossy(&read("comm")).trim().to_owned();
            if comm == "ssh" {
                if String::from_utf8_lossy(&read("environ")).contains(PASSWORD) {
                    leaks.insert(format!("environment of {line}"));
                }
                programs.insert(line);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    waiting.join().unwrap()
}

/// Through the program, from backup to restore: with the tools of this side, then with those of the other.
#[test]
fn a_database_behind_ssh_is_backed_up_and_restored() {
    let (sshd, shop) = (bastion(), Shop::new());
    let before = shop.orders();
    let nothing = fake_tools(&[]);
    for (tools, way) in [("", "-W localhost:"), (", tools: there", "PGAPPNAME=drctl/")] {
        let reach = format!("reach: {{ ssh: {{ host: bastion, config: {} }} }}", sshd.config("known_hosts", "key").display());
        let more = if tools.is_empty() { String::new() } else { format!("{tools}, client_folders: [{}]", nothing.path().display()) };
        shop.set_jobs(&format!(
            "jobs:\n  - job: shop\n    timezone: UTC\n    sources:\n      - postgres: {{ {reach}, port: {}, user: postgres, password: {{ file: \
             pg-password }}, database: [{}]{more} }}\n",
            shop.server.port, shop.database
        ));
        let doctor = shop.home.run(&["doctor"]);
        let place = format!("localhost:{} by ssh bastion", shop.server.port);
        assert!(doctor.out.contains(&place), "{}", doctor.all());
        assert_eq!(doctor.out.contains("dumped by the pg_dump"), !tools.is_empty(), "{}", doctor.out);
        let (mut leaks, mut programs) = (BTreeSet::new(), BTreeSet::new());
        let ran = watched(&shop, &["backup", "now", "--verify", "read-back"], &mut leaks, &mut programs);
        assert_eq!(ran.code, 0, "{}", ran.all());
        shop.sql("DROP TABLE orders CASCADE");
        let ran = watched(&shop, &["restore", &shop.home.newest(), "--yes"], &mut leaks, &mut programs);
        assert_eq!(ran.code, 0, "{}", ran.all());
        assert_eq!(shop.orders(), before);
        assert_eq!(leaks, BTreeSet::new());
        // The look may have come too late.
        for _ in 0..5 {
            if !programs.iter().any(|line| line.contains(way)) {
                watched(&shop, &["backup", "now"], &mut leaks, &mut programs);
            }
        }
        assert!(programs.iter().any(|line| line.contains(way)), "{way}: {programs:?}");
        shop.home.ok(&["restore", "--undo"]);
        shop.home.ok(&["restore", "--finish", "--yes"]);
        shop.sql(
            "CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY, item text, price numeric(10,2)); TRUNCATE orders;
             INSERT INTO orders SELECT i, 'item ' || i, i * 1.25 FROM generate_series(1, 1000) i",
        );
    }
    assert!(sshd.log().contains("direct-tcpip"), "the connections went through it");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_client_here_the_servers_own_is_used() {
    let (sshd, server, nothing) = (bastion(), shared(), fake_tools(&[]));
    server.sql("postgres", "CREATE DATABASE there_1");
    server.sql("there_1", "CREATE TABLE t AS SELECT generate_series(1, 1234) i");
    let settings = PostgresSettings { host: "localhost".into(), client_folders: vec![nothing.path().into()], ..server.named(&["there_1"]) };
    let direct = PostgresSource::new("postgres", settings.clone()).preflight(&context("none")).await.unwrap_err();
    assert!(direct.to_string().contains("there is no pg_dump"), "{direct}");
    let (dumped, details) = dump_all(by(&sshd, "known_hosts", "key", settings.clone()), &context("there")).await.unwrap();
    assert_eq!(dumped[1].facts.as_ref().unwrap().totals["rows"], 1234);
    assert_eq!(details["reach"], "ssh bastion");
    assert!(dumped[0].end.tool.as_ref().unwrap().name == "pg_dumpall");
    // 'here' means it.
    let here = PostgresSettings { tools: Tools::Here, ..by(&sshd, "known_hosts", "key", settings.clone()) };
    assert!(refused(here).await.to_string().contains("there is no pg_dump"));
    // Files for checking the server lie here: nothing is checked less because the tool runs there.
    let strict = PostgresSettings { sslmode: SslMode::VerifyFull, ..by(&sshd, "known_hosts", "key", settings) };
    let error = refused(PostgresSettings { tools: Tools::There, ..strict }).await;
    assert_ne!(error.kind(), Kind::Unreachable, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ssh_would_ask_about_is_an_error_in_its_own_words() {
    let (sshd, server) = (bastion(), shared());
    let settings = PostgresSettings { host: "localhost".into(), ..server.settings() };
    for (hosts, key, words, hint) in [
        ("wrong_hosts", "key", "Host key verification failed", "ssh-keygen -R"),
        ("no_hosts", "key", "Host key verification failed", "once by hand"),
        ("known_hosts", "locked", "Permission denied (publickey)", "ssh -o BatchMode=yes HOST true"),
        ("known_hosts", "stranger", "Permission denied (publickey)", "ssh -o BatchMode=yes HOST true"),
    ] {
        let error = refused(by(&sshd, hosts, key, settings.clone())).await;
        assert_eq!(error.kind(), Kind::Preflight, "{hosts} {key}: {error}");
        assert!(error.to_string().contains("ssh bastion: ") && error.to_string().contains(words), "{error}");
        assert!(error.hint_text().unwrap().contains(hint), "{error:?}");
    }
    let error = refused(PostgresSettings { port: support::free_port(), ..by(&sshd, "known_hosts", "key", settings.clone()) }).await;
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.to_string().contains("open failed") && error.hint_text().unwrap().contains("nothing answers there"), "{error:?}");
    let error =
        refused(PostgresSettings { password: Some(drctl::model::Secret::new("wrong")), ..by(&sshd, "known_hosts", "key", settings) }).await;
    assert!(error.to_string().contains("password authentication failed"), "{error}");
}

/// A dump that waits for a lock, and what is left of it after a cancel.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_the_other_side_too() {
    let (sshd, server, nothing) = (bastion(), shared(), fake_tools(&[]));
    server.sql("postgres", "CREATE DATABASE cancel_1");
    server.sql("cancel_1", "CREATE TABLE t (i int)");
    for (run, tools) in [("cancel-here", Tools::Here), ("cancel-there", Tools::There)] {
        // It does not end by itself while the test waits for its end.
        let lock_wait_timeout = Duration::from_secs(600);
        let mut settings = PostgresSettings { host: "localhost".into(), tools, lock_wait_timeout, ..server.named(&["cancel_1"]) };
        if tools == Tools::There {
            settings.client_folders = vec![nothing.path().into()];
        }
        let mut holder = server.sql_in_background("cancel_1", "BEGIN; LOCK TABLE t; SELECT pg_sleep(600)");
        let count = |sql: &str| server.sql("postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE {sql}"));
        until("the lock", || count("query LIKE 'BEGIN; LOCK TABLE t%' AND wait_event = 'PgSleep'") == "1").await;
        let context = context(run);
        let dumping = tokio::spawn({
            let (context, settings) = (context.clone(), by(&sshd, "known_hosts", "key", settings));
            async move { dump_all(settings, &context).await.err() }
        });
        let application = format!("application_name = 'drctl/{run}'");
        until("the wait", || count(&format!("{application} AND wait_event_type = 'Lock'")) == "1").await;
        let environment = format!("PGAPPNAME=drctl/{run}");
        assert_eq!(processes("pg_dump", &environment).len(), 1);
        context.cancel.cancel();
        let error = dumping.await.unwrap().unwrap();
        assert_eq!(error.kind(), Kind::Interrupted, "{error}");
        until("the end of the backends", || count(&application) == "0").await;
        until("the end of the program", || processes("pg_dump", &environment).is_empty()).await;
        let _ = holder.kill();
        server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK TABLE t%'");
        let _ = holder.wait();
    }
}

/// The connection dies with the dump half way: nothing of it counts, and the error says where it died.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_dies_in_the_midst_of_a_dump_voids_it() {
    let (server, nothing) = (shared(), fake_tools(&[]));
    let sshd = Sshd::start("");
    server.sql("postgres", "CREATE DATABASE tunnel_1");
    server.sql("tunnel_1", "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 20) AS x FROM generate_series(1, 100000) i");
    for tools in [Tools::Here, Tools::There] {
        let mut settings = PostgresSettings { host: "localhost".into(), tools, ..server.named(&["tunnel_1"]) };
        if tools == Tools::There {
            settings.client_folders = vec![nothing.path().into()];
        }
        let context = context("tunnel");
        let source = PostgresSource::new("postgres", by(&sshd, "known_hosts", "key", settings));
        let mut session = source.open(&context).await.unwrap();
        let plan = session.artifacts().into_iter().find(|a| a.format == ArtifactFormat::PgCustom).unwrap();
        let (sender, mut receiver) = channel();
        let (began, begins) = std::sync::mpsc::channel::<()>();
        let (go, goes) = std::sync::mpsc::channel::<()>();
        let reader = tokio::task::spawn_blocking(move || {
            let mut bytes = 0;
            while let Some(Plain::Data(piece)) = receiver.blocking_next() {
                if bytes == 0 {
                    began.send(()).unwrap();
                    goes.recv().unwrap();
                }
                bytes += piece.len();
            }
            bytes
        });
        let cutting = tokio::task::spawn_blocking(move || begins.recv_timeout(Duration::from_secs(120)));
        let dumping = session.dump(&plan, sender.clone(), &context);
        let cut = async {
            cutting.await.unwrap().unwrap();
            sshd.cut();
            go.send(()).unwrap();
        };
        let (end, ()) = tokio::join!(dumping, cut);
        drop(sender);
        let error = end.expect_err("half a dump is none");
        assert!(reader.await.unwrap() < 60_000_000);
        assert_eq!(error.kind(), Kind::Unreachable, "{tools:?}: {error}");
        assert!(error.to_string().contains("ssh bastion"), "{tools:?}: {error}");
    }
}

/// The name in the certificate is the server's, whatever the address of the tunnel's near end is.
#[tokio::test(flavor = "multi_thread")]
async fn verify_full_checks_the_servers_own_name() {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority");
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let signed = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap().pem();
    let folder = tempfile::Builder::new().prefix("drctl-test-tls-").tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, text) in [("root.crt", &root), ("server.crt", &signed), ("server.key", &own.serialize_pem())] {
        std::fs::write(at(name), text).unwrap();
    }
    let chmod =
        |mode: &str, path: &std::path::Path| assert!(std::process::Command::new("chmod").arg(mode).arg(path).status().unwrap().success());
    chmod("755", folder.path());
    chmod("600", &at("server.key"));
    if rustix::process::geteuid().is_root() {
        assert!(std::process::Command::new("chown").arg("postgres").arg(at("server.key")).status().unwrap().success());
    }
    let place = folder.path().display();
    let server = Server::start_with(&format!("ssl=on\nssl_cert_file='{place}/server.crt'\nssl_key_file='{place}/server.key'\n"));
    server.sql("postgres", "CREATE DATABASE tls_1");
    let sshd = bastion();
    let settings = |host: &str| PostgresSettings {
        host: host.into(),
        sslmode: SslMode::VerifyFull,
        sslrootcert: Some(at("root.crt")),
        ..by(&sshd, "known_hosts", "key", server.named(&["tls_1"]))
    };
    let (dumped, _) = dump_all(settings("localhost"), &context("tls")).await.unwrap();
    assert_eq!(dumped.len(), 2);
    let error = refused(settings("127.0.0.1")).await;
    assert!(error.to_string().contains("certificate"), "{error}");
}
