//! The host is gone. A machine that has the program, the recovery file and the bucket, and nothing else of drctl, brings files and database back.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/postgres.rs"]
mod support;
#[path = "support/versitygw.rs"]
mod versitygw;

use cli::Home;
use support::{PASSWORD, Server};
use versitygw::{BUCKET, ROOT, ROOT_SECRET};

fn machine(port: u16) -> (Home, String) {
    let mut home = Home::new();
    for (name, value) in [("AWS_ACCESS_KEY_ID", ROOT), ("AWS_SECRET_ACCESS_KEY", ROOT_SECRET), ("AWS_EC2_METADATA_DISABLED", "true")] {
        home.env(name, value);
    }
    home.env("PGPASSWORD", PASSWORD);
    home.write("passphrase", "correct horse battery staple");
    home.env("DRCTL_PASSPHRASE_FILE", "passphrase");
    (home, format!("s3://{BUCKET}/lost?endpoint=http%3A%2F%2F127.0.0.1%3A{port}&region=us-east-1&provider=versitygw"))
}

#[test]
fn program_recovery_file_and_bucket_bring_files_and_database_back() {
    let Some(gateway) = versitygw::start() else { return };
    let (host, url) = machine(gateway.port);
    let server = Server::start();
    server.sql("postgres", "create database shop");
    server.sql("shop", "create table orders as select i, 'order ' || i as what from generate_series(1, 1000) i");
    let checksum = "select md5(string_agg(what, ',' order by i)) from orders";
    let whole = server.sql("shop", checksum);
    host.write("data/a.txt", "alpha");
    let jobs = format!(
        "jobs:\n  - job: shop\n    sources:\n      - files: {{ name: data, paths: [data] }}\n      - postgres: {{ host: 127.0.0.1, port: {}, user: postgres, database: shop, password: {{ env: PGPASSWORD }} }}\n",
        server.port
    );
    host.init_with(&["--store", &url], &jobs);
    host.ok(&["backup", "now"]);
    let recovery = std::fs::read_to_string(host.path("drctl-recovery.txt")).unwrap();
    drop((host, server));

    let (new, url) = machine(gateway.port);
    new.write("recovery.txt", &recovery);
    let fresh = Server::start();
    let target = format!("postgres://postgres@127.0.0.1:{}", fresh.port);
    let known = ["--repo", &url, "--recovery", "recovery.txt"];
    let files = ["restore", "--date", "latest", "--source", "data", "--target", "back", "--yes"];
    new.ok(&[&known[..], &files].concat());
    let found = new.files("back");
    assert!(found.iter().any(|f| f.ends_with("a.txt")), "{found:?}");
    let database = ["restore", "--date", "latest", "--source", "postgres", "--target", &target, "--yes"];
    new.ok(&[&known[..], &database].concat());
    assert_eq!(fresh.sql("shop", checksum), whole);
}
