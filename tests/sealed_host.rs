//! A sealed host reads its own set back by an identity that lives no longer than the run (DESIGN §5).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/scripted.rs"]
mod scripted;

use std::collections::BTreeSet;
use std::sync::Arc;

use cli::{Home, Ran};
use drctl::error::Kind;
use drctl::model::Encryption;
use drctl::ops::Setup;
use drctl::ops::backup::{BackupOptions, backup};
use drctl::ops::own_read::{OwnRead, with_identity};
use drctl::pipeline::seal::{Identities, Sealing};
use drctl::pipeline::split::Sink;
use drctl::store::faulty::{Fault, FaultyStore, Operation, When};
use scripted::{Act, Scripted, World};

const FILES: &str = "jobs:\n  - job: shop\n    sources:\n      - files: { name: data, paths: [data] }\n";

/// A host with these roles and no identity.
fn sealed(roles: &[&str]) -> Home {
    let home = Home::new();
    home.write("data/a.txt", "the secret of the house");
    home.init(FILES);
    let mut args = vec!["key", "rotate", "--by", "drctl-recovery.txt"];
    args.extend(roles.iter().flat_map(|role| ["--role", role]));
    let mut command = home.command(&args);
    let ran = Ran::of(command.env("DRCTL_PASSPHRASE_FILE", home.path("passphrase")).output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.all());
    std::fs::remove_file(home.path("drctl-keys/identity.txt")).unwrap();
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let config: Vec<&str> = config.lines().filter(|line| !line.trim_start().starts_with("identity:")).collect();
    home.write("drctl.yaml", &config.join("\n"));
    // As it is kept: elsewhere.
    std::fs::rename(home.path("drctl-recovery.txt"), home.away("recovery.txt")).unwrap();
    std::fs::rename(home.path("passphrase"), home.away("passphrase")).unwrap();
    home
}

fn recipients(home: &Home, set: &str) -> BTreeSet<String> {
    let shown = home.json(&["show", set]);
    let artifacts = shown["result"]["artifacts"].as_array().unwrap().clone();
    let of = |artifact: &serde_json::Value| artifact["recipients"].as_array().unwrap().clone();
    artifacts.iter().flat_map(of).map(|r| r.as_str().unwrap().to_owned()).collect()
}

/// Everything that a copy of the host's disk has, but the data itself and the repository.
fn disk(home: &Home) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for root in [home.path(""), home.state()] {
        cli::walk(&root, &mut |path| files.push((path.display().to_string(), std::fs::read(path).unwrap())));
    }
    files.retain(|(path, _)| !path.contains("/data/") && !path.contains("/drctl-repository/"));
    assert!(files.iter().any(|(path, _)| path.ends_with("signing.key")) && files.iter().any(|(path, _)| path.contains("/state/")));
    files
}

#[test]
fn a_copy_of_a_sealed_host_s_disk_opens_no_set_that_the_host_has_read_back() {
    let home = sealed(&["writer"]);
    let ran = home.ok(&["-vvv", "backup", "now", "--verify", "read-back"]);
    assert!(ran.out.contains("to read-back") && ran.out.contains("no proof in the log: that takes a prover's key"), "{}", ran.all());
    let set = home.newest();
    assert!(!home.ok(&["list"]).out.contains("read-back"), "a writer's word raises no grade");
    let of_set = recipients(&home, &set);
    assert_eq!(of_set.len(), 2, "the repository's own and the run's: {of_set:?}");

    for (path, bytes) in disk(&home) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("AGE-SECRET-KEY"), "{path}");
    }
    assert!(!ran.all().contains("AGE-SECRET-KEY"));
    for args in [["cat", &set, "data"].as_slice(), &["verify", &set], &["restore", &set, "--source", "data", "--target", "back", "--yes"]] {
        let ran = home.run(args);
        assert!(ran.code != 0 && ran.err.contains("no identity is at hand"), "{args:?}\n{}", ran.all());
    }
    // The recovery file opens it, as ever.
    let (repo, recovery) = (home.path("drctl-repository").display().to_string(), home.away("recovery.txt").display().to_string());
    let mut command = home.command(&["cat", &set, "data", "--repo", &repo, "--recovery", &recovery]);
    let ran = Ran::of(command.env("DRCTL_PASSPHRASE_FILE", home.away("passphrase")).output().unwrap());
    assert!(ran.code == 0 && ran.out.contains("the secret of the house"), "{}", ran.err);

    // Each run has one of its own, and a run that was not asked to has none.
    home.ok(&["backup", "now", "--verify", "read-back"]);
    let next = recipients(&home, &home.newest());
    assert_eq!(of_set.intersection(&next).count(), 1, "{of_set:?} {next:?}");
    home.ok(&["backup", "now"]);
    assert_eq!(recipients(&home, &home.newest()).len(), 1);
    assert!(home.json(&["backup", "now", "--verify", "read-back"])["result"][0]["verified"]["before_commit"].as_bool().unwrap());
}

#[test]
fn rule_15_the_reading_is_a_proof_where_the_host_s_key_is_also_a_prover_s() {
    let home = sealed(&["writer", "prover"]);
    let ran = home.ok(&["backup", "now", "--verify", "read-back"]);
    assert!(ran.out.contains("read before its commit") && !ran.out.contains("no proof in the log"), "{}", ran.all());
    assert!(home.ok(&["list"]).out.contains("read-back"), "the proof stands in the log");
    assert_eq!(recipients(&home, &home.newest()).len(), 2);
    assert!(home.ok(&["status"]).out.contains("1 verified"));
}

#[test]
fn a_host_that_can_read_its_sets_makes_no_identity_for_the_run() {
    let home = Home::new();
    home.write("data/a.txt", "a");
    home.init(FILES);
    let ran = home.ok(&["backup", "now", "--verify", "read-back"]);
    assert!(!ran.out.contains("before its commit"), "{}", ran.out);
    assert_eq!(recipients(&home, &home.newest()).len(), 1);
}

/// A sealed host over a store that can be spoilt.
async fn spoilt() -> (Arc<FaultyStore>, World) {
    let mut world = World::new().await;
    let store = Arc::new(FaultyStore::new(world.setup.sinks[0].store.clone()));
    world.setup.sinks = vec![Sink::new("main", store.clone())];
    let (_, recipient) = Identities::generate();
    world.setup.sealing = Sealing::Age(vec![recipient]);
    world.setup.identities = Identities::default();
    (store, world)
}

fn asked() -> BackupOptions {
    BackupOptions { read_own: true, ..BackupOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn f23_a_set_that_does_not_read_back_is_not_committed() {
    let (store, world) = spoilt().await;
    let job = || world.job([Arc::new(Scripted::new("s", [Act::Good(300_000)]))]);
    store.rule(Operation::Put, "*/s.*", When::Always, Fault::FlipBit(80_000));
    let error = backup(&world.setup, &job(), &asked()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Verify, "{error}");
    assert!(error.to_string().contains("does not read back from 'main', so it was not committed: "), "{error}");
    assert_eq!(world.setup.log(&"shop".parse().unwrap()).await.unwrap().state().live().count(), 0);
    assert!(world.keys("sets/").await.is_empty(), "{:?}", world.keys("sets/").await);
    // The same damage without the reading is committed: it is the reading that finds it.
    backup(&world.setup, &job(), &BackupOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_gives_nothing_back_just_now_costs_the_reading_and_not_the_set() {
    let (store, world) = spoilt().await;
    let job = world.job([Arc::new(Scripted::new("s", [Act::Good(300_000)]))]);
    store.rule(Operation::Get, "*/sets/*", When::Always, Fault::Fail(Kind::Unreachable));
    let report = backup(&world.setup, &job, &asked()).await.unwrap();
    assert!(matches!(report.own_read, Some(OwnRead::NotNow { kind: Kind::Unreachable, .. })), "{:?}", report.own_read);
    assert_eq!(world.setup.log(&job.name).await.unwrap().state().live().count(), 1);
}

#[tokio::test]
async fn only_a_host_that_cannot_open_what_it_seals_gets_an_identity() {
    let world = World::new().await;
    let with = |sealing: Sealing, identities: Identities| {
        let setup = Setup { sealing, identities, ..world.setup.clone() };
        with_identity(&setup).unwrap()
    };
    let (secret, own) = Identities::generate();
    let (other_secret, other) = Identities::generate();
    let parse = |secret| Identities::parse(secret, "t").unwrap();
    assert!(with(Sealing::None, Identities::default()).is_none());
    assert!(with(Sealing::Age(vec![own.clone(), other.clone()]), parse(&other_secret)).is_none());
    for identities in [Identities::default(), parse(&other_secret)] {
        let run = with(Sealing::Age(vec![own.clone()]), identities).unwrap();
        let Encryption::Age { recipients } = run.sealing.encryption() else { panic!("not sealed") };
        assert!(recipients.len() == 2 && recipients.contains(&own.to_string()), "the repository's own stays: {recipients:?}");
        let runs_own: Vec<String> = run.identities.recipients().iter().map(ToString::to_string).collect();
        assert!(runs_own.len() == 1 && recipients.contains(&runs_own[0]));
        assert!(!parse(&secret).recipients().iter().any(|r| runs_own.contains(&r.to_string())));
    }
}
