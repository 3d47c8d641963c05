//! A small production: a database, uploads, an environment, a compose file and a command, with a job for all of them.
//!
//! Include it after `cli.rs` and `postgres.rs`, as `#[path = "support/shop.rs"] mod shop;` beside `mod cli` and `mod support`.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cli::{Home, Ran};
use crate::support::{PASSWORD, Server, shared};

/// The value in the env file that must not show anywhere.
pub const ENV_CANARY: &str = "canary-env-hunter2";

pub struct Shop {
    pub home: Home,
    pub server: Arc<Server>,
    /// Its database.
    pub database: String,
}

impl Shop {
    /// With a database of its own on the shared server.
    pub fn new() -> Shop {
        Shop::on(shared())
    }

    pub fn on(server: Arc<Server>) -> Shop {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let database = format!("shop_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let home = Home::new();
        server.sql("postgres", &format!("CREATE DATABASE {database}"));
        server.sql(
            &database,
            "CREATE TABLE orders (id int PRIMARY KEY, item text, price numeric(10,2));
             INSERT INTO orders SELECT i, 'item ' || i, i * 1.25 FROM generate_series(1, 1000) i;
             CREATE TABLE customers (id int PRIMARY KEY, name text);
             INSERT INTO customers SELECT i, md5(i::text) FROM generate_series(1, 50) i;
             CREATE VIEW dear AS SELECT * FROM orders WHERE price > 1000",
        );
        let shop = Shop { home, server, database };
        shop.home.write("pg-password", PASSWORD);
        shop.home.write("uploads/a.txt", "alpha");
        shop.home.write("uploads/sub/b.bin", &"0123456789".repeat(60_000));
        shop.home.write("app.env", &format!("APP_KEY={ENV_CANARY}\nAPP_MODE=prod\n"));
        shop.home.write("compose.yml", "services:\n  db:\n    image: postgres:15\n");
        shop.home.init(&shop.jobs());
        shop
    }

    /// The `postgres:` source.
    pub fn postgres(&self, more: &str) -> String {
        format!(
            "postgres: {{ host: 127.0.0.1, port: {}, user: postgres, password: {{ file: pg-password }}, database: [{}]{more} }}",
            self.server.port, self.database
        )
    }

    /// All jobs, as `drctl.yaml` has them.
    pub fn jobs(&self) -> String {
        format!(
            "jobs:\n  - job: shop\n    timezone: UTC\n    sources:\n      - {}\n      - files: {{ name: uploads, paths: [uploads] }}\n      \
             - environment: {{ from: {{ file: app.env }} }}\n      - compose: {{ files: [compose.yml] }}\n      \
             - command: {{ name: hello, run: [sh, -c, 'echo hello world'], artifact: greeting, extension: txt }}\n",
            self.postgres("")
        )
    }

    /// Puts other jobs into the configuration.
    pub fn set_jobs(&self, jobs: &str) {
        let config = std::fs::read_to_string(self.home.path("drctl.yaml")).unwrap();
        let head: Vec<&str> = config.lines().take_while(|line| !line.starts_with("jobs:")).collect();
        self.home.write("drctl.yaml", &format!("{}\n{jobs}", head.join("\n")));
        self.home.ok(&["config", "check"]);
    }

    pub fn backup(&self) -> String {
        self.home.ok(&["backup", "now"]);
        self.home.newest()
    }

    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql)
    }

    pub fn orders(&self) -> String {
        self.sql("SELECT count(*) || ' ' || sum(price) || ' ' || md5(string_agg(item, ',' ORDER BY id)) FROM orders")
    }

    /// Loses a table and the uploads.
    pub fn damage(&self) {
        self.sql("DROP TABLE orders CASCADE");
        std::fs::remove_dir_all(self.home.path("uploads/sub")).unwrap();
        self.home.write("uploads/a.txt", "overwritten");
        self.home.write("uploads/new.txt", "written since");
    }

    pub fn file(&self, below: &str) -> String {
        std::fs::read_to_string(self.home.path(below)).unwrap_or_else(|e| format!("{below}: {e}"))
    }

    /// What is in the uploads folder and the tables, as one text.
    pub fn picture(&self) -> String {
        let files: Vec<String> =
            self.home.files("uploads").iter().map(|f| format!("{f}={}", md5(&self.file(&format!("uploads/{f}"))))).collect();
        let tables = self.sql("SELECT string_agg(relname || ':' || relkind::text, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace");
        let orders = if tables.contains("orders:r") { self.orders() } else { "no orders".into() };
        format!("{files:?} {tables} {orders}")
    }

    /// Databases of the server that belong to this shop: its own, those kept, those loaded beside.
    pub fn databases(&self) -> Vec<String> {
        let found = self
            .server
            .sql("postgres", &format!("SELECT datname FROM pg_database WHERE datname ~ '^{}(_drctl|$)' ORDER BY 1", self.database));
        found.lines().map(str::to_owned).collect()
    }

    /// Files and folders of the working folder that a restore made.
    pub fn beside(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.home.path("")).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|n| n.contains(".drctl-")).collect()
    }

    /// A path below the working folder as an archive has it: absolute, without the first slash.
    pub fn stored(&self, below: &str) -> String {
        stored(&self.home, below)
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.home.run(args)
    }
}

fn md5(text: &str) -> String {
    drctl::model::Sha256::of(text.as_bytes()).to_string()[..12].to_owned()
}

/// The day of a set in UTC, as a person types it: today, unless midnight has passed since.
pub fn day_of(set: &str) -> String {
    set.split('/').nth(1).unwrap()[..8].to_owned()
}

pub fn stored(home: &Home, below: &str) -> String {
    home.path(below).display().to_string().trim_start_matches('/').to_owned()
}
