//! What `drctl grants postgres` prints is enough for a role that is no superuser, and no more than it says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/postgres.rs"]
mod support;

use cli::Home;
use support::{PASSWORD, Server};

/// A database with what an ordinary reader is kept from: other owners, row security, a large object, a private schema.
fn clinic() -> Server {
    let server = Server::start();
    server.sql("postgres", "CREATE ROLE clinic LOGIN");
    server.sql("postgres", "CREATE DATABASE clinic OWNER clinic");
    server.sql(
        "clinic",
        "CREATE SCHEMA private AUTHORIZATION clinic; SET ROLE clinic;
         CREATE TABLE private.patients (id int, ward text); INSERT INTO private.patients SELECT i, 'w' || i % 3 FROM generate_series(1, 300) i;
         ALTER TABLE private.patients ENABLE ROW LEVEL SECURITY; ALTER TABLE private.patients FORCE ROW LEVEL SECURITY;
         CREATE POLICY own ON private.patients USING (ward = 'w1');
         SELECT lo_from_bytea(0, 'scan')",
    );
    server
}

fn home(server: &Server, role: &str) -> Home {
    let home = Home::new();
    home.write("pg-password", "rolepw");
    home.init(&format!(
        "jobs:\n  - job: clinic\n    sources:\n      - postgres: {{ host: 127.0.0.1, port: {}, user: {role}, password: {{ file: pg-password }}, database: [clinic] }}\n",
        server.port
    ));
    home
}

/// Runs a script as psql does, meta-commands included.
fn psql(server: &Server, script: &str) {
    let mut command = std::process::Command::new(support::bin().join("psql"));
    command
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-p"])
        .arg(server.port.to_string());
    command.env("PGPASSWORD", PASSWORD).stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{script}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_printed_grants_are_enough_for_a_whole_backup_and_each_is_needed() {
    let server = clinic();
    let role = "dr \"ctl\" ä";
    server.sql("postgres", "CREATE ROLE \"dr \"\"ctl\"\" ä\" LOGIN PASSWORD 'rolepw'");
    let home = home(&server, "'dr \"ctl\" ä'");
    let ran = home.run(&["backup", "now"]);
    assert_ne!(ran.code, 0, "without grants: {}", ran.all());

    server.sql("postgres", "REVOKE CONNECT ON DATABASE clinic FROM PUBLIC");
    let script = home.ok(&["grants", "postgres", "--role", role, "--database", "clinic"]).out;
    psql(&server, &script);
    psql(&server, &script);
    server.sql("postgres", "REVOKE CONNECT ON DATABASE clinic FROM \"dr \"\"ctl\"\" ä\"");
    // Without names of databases it is granted for all that there are.
    psql(&server, &home.ok(&["grants", "postgres", "--role", role]).out);
    let ran = home.ok(&["backup", "now", "--verify", "read-back"]);
    assert!(ran.out.contains("300 rows"), "{}", ran.out);
    assert_eq!(server.sql("postgres", "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname LIKE 'dr %'"), "f");

    // Each line taken back: the next backup is no good set, and says what to do.
    let take = |sql: &str| server.sql("clinic", sql);
    for (away, again) in [
        ("REVOKE pg_read_all_data FROM \"dr \"\"ctl\"\" ä\"", "GRANT pg_read_all_data TO \"dr \"\"ctl\"\" ä\""),
        ("REVOKE CONNECT ON DATABASE clinic FROM \"dr \"\"ctl\"\" ä\"", "GRANT CONNECT ON DATABASE clinic TO \"dr \"\"ctl\"\" ä\""),
        ("ALTER ROLE \"dr \"\"ctl\"\" ä\" NOBYPASSRLS", "ALTER ROLE \"dr \"\"ctl\"\" ä\" BYPASSRLS"),
        (
            "DO $$ DECLARE l oid; BEGIN FOR l IN SELECT oid FROM pg_largeobject_metadata LOOP EXECUTE format('REVOKE SELECT ON LARGE OBJECT %s FROM %I', l, 'dr \"ctl\" ä'); END LOOP; END $$",
            "SELECT 1",
        ),
    ] {
        take(away);
        let ran = home.run(&["backup", "now"]);
        assert_ne!(ran.code, 0, "{away}: {}", ran.all());
        take(again);
    }
}

#[test]
fn a_role_with_the_printed_grants_restores_what_it_backed_up() {
    let server = clinic();
    let home = home(&server, "drctl");
    let script = home.ok(&["grants", "postgres", "--restore", "--database", "clinic"]).out;
    psql(&server, &script);
    server.sql("postgres", "ALTER ROLE drctl PASSWORD 'rolepw'");
    server.sql("postgres", "GRANT clinic TO drctl");
    home.ok(&["backup", "now"]);
    server.sql("clinic", "DELETE FROM private.patients");
    let ran = home.run(&["restore", "--date", "latest", "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(server.sql("clinic", "SELECT count(*) FROM private.patients"), "300");
    assert_eq!(server.sql("clinic", "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'clinic'"), "clinic");
    home.ok(&["restore", "--finish", "--yes"]);
    assert!(home.run(&["grants", "postgres", "--role", ""]).code == 2);
}
