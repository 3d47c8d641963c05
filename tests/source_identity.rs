//! FAULTS I11: another server under the same name is refused until somebody says that it is meant.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/postgres.rs"]
mod support;

use std::sync::Arc;

use shop::Shop;
use support::Server;

/// Another server at the same port, as after a rebuild.
fn rebuilt(shop: &Shop) -> Server {
    shop.server.crash();
    let mut other = Server::start_with(&format!("port={}", shop.server.port));
    other.port = shop.server.port;
    other
}

/// The rebuilt server with a database of the shop's name: its own, not the shop's.
fn rebuilt_with_data(shop: &Shop) -> Server {
    let other = rebuilt(shop);
    other.sql("postgres", &format!("CREATE DATABASE {}", shop.database));
    other.sql(&shop.database, "CREATE TABLE orders (id int)");
    other
}

fn identifier(shop: &Shop) -> String {
    shop.server.sql("postgres", "SELECT system_identifier FROM pg_control_system()")
}

/// Artifacts of the newest set's source `postgres`.
fn dumps(shop: &Shop) -> Vec<String> {
    let shown = shop.home.json(&["show", &shop.home.newest()]);
    let artifacts = shown["result"]["artifacts"].as_array().unwrap().iter();
    artifacts.filter(|a| a["source"] == "postgres").map(|a| a["file"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn i11_another_server_under_the_same_name_is_refused_until_it_is_accepted() {
    let shop = Shop::on(Arc::new(Server::start()));
    let good = shop.backup();
    assert_eq!(dumps(&shop).len(), 2);
    let first = identifier(&shop);

    let other = rebuilt_with_data(&shop);
    let second = identifier(&shop);
    assert_ne!(first, second);
    let refused = shop.run(&["backup", "now"]);
    assert_eq!(refused.code, 3, "the other sources still run: {}", refused.all());
    for word in [
        "another postgres than before",
        &first,
        &second,
        &good,
        "drctl backup now shop --accept-new-identity postgres",
        "mend the address of postgres",
    ] {
        assert!(refused.all().contains(word), "{word}: {}", refused.all());
    }
    let quiet = shop.run(&["backup", "now", "--quiet"]);
    assert!(quiet.out.contains("drctl backup now shop --accept-new-identity postgres"), "cron shows this: {}", quiet.out);
    assert!(dumps(&shop).is_empty(), "nothing of the other server is in the set");
    let latest = shop.home.json(&["restore", "--date", "latest", "--source", "postgres", "--target", "postgres://postgres@127.0.0.1:1/x"]);
    assert!(!latest.to_string().contains(&shop.home.newest()), "{latest}");
    let sets = shop.home.sets().len();
    for args in [&["backup", "now", "--source", "postgres"][..], &["backup", "--dry-run"]] {
        let alone = shop.run(args);
        assert_eq!(alone.code, 4, "{args:?}: {}", alone.all());
        assert!(alone.err.contains("hint: ") && alone.err.contains("--accept-new-identity postgres"), "{}", alone.err);
    }
    assert_eq!(shop.home.sets().len(), sets, "nothing was stored");

    // The way out names the source; another name, or another source's, opens nothing.
    assert_eq!(shop.run(&["backup", "now", "--accept-new-identity", "nothing"]).code, 2);
    assert_eq!(shop.run(&["backup", "now", "--accept-new-identity", "uploads"]).code, 3);
    shop.home.ok(&["backup", "--dry-run", "--accept-new-identity", "postgres"]);
    let accepted = shop.home.ok(&["backup", "now", "shop", "--accept-new-identity", "postgres"]);
    assert!(accepted.out.contains("it is accepted from now on"), "{}", accepted.all());
    assert_eq!(dumps(&shop).len(), 2);
    let again = shop.home.ok(&["backup", "now"]);
    assert!(!again.all().contains("another postgres"), "said once: {}", again.all());

    // The first one is now the stranger.
    drop(other);
    shop.server.start_again();
    assert_eq!(shop.run(&["backup", "now"]).code, 3);
}

/// What was accepted stays accepted although another source failed in that run.
#[test]
fn i11_a_server_accepted_in_a_partial_set_is_accepted() {
    let shop = Shop::on(Arc::new(Server::start()));
    shop.backup();
    let _other = rebuilt_with_data(&shop);
    let env = shop.file("app.env");
    std::fs::remove_file(shop.home.path("app.env")).unwrap();
    assert_eq!(shop.run(&["backup", "now", "--accept-new-identity", "postgres"]).code, 3);
    shop.home.write("app.env", &env);
    shop.home.ok(&["backup", "now"]);
}

/// A server lost, rebuilt and filled by a restore: the next backup is nobody's business to allow.
#[test]
fn i11_a_server_that_a_restore_filled_is_known_and_one_that_was_a_target_is_not() {
    let shop = Shop::on(Arc::new(Server::start()));
    let whole = shop.orders();
    shop.backup();
    let _other = rebuilt(&shop);
    let url = format!("postgres://postgres@127.0.0.1:{}/{}", shop.server.port, shop.database);
    shop.home.ok(&["restore", "--date", "latest", "--source", "postgres", "--target", &url, "--yes"]);
    assert_eq!(shop.run(&["backup", "now"]).code, 3, "a target is a place of its own");
    shop.server.sql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", shop.database));

    let restored = shop.home.ok(&["restore", "--date", "latest", "--source", "postgres", "--yes"]);
    assert!(restored.err.contains("Another server: "), "{}", restored.err);
    assert_eq!(shop.orders(), whole);
    let next = shop.home.ok(&["backup", "now"]);
    assert!(next.out.contains("put the data there, so it is accepted"), "{}", next.all());
}
