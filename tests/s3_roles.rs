//! What `drctl grants s3` prints is enough for each role's own user, no more than enough, and what it keeps from a user the store itself refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/versitygw.rs"]
mod versitygw;

use std::time::Duration;

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, Delete, ObjectIdentifier, VersioningConfiguration};
use bytes::Bytes;
use cli::{Home, Ran};
use drctl::catalog::env::Env;
use drctl::catalog::{JobLog, MinisignKey, Repository, RoleKey, Trust, lease, retire};
use drctl::store::profile::{Answer, Lock};
use drctl::store::s3::{S3Store, Settings};
use drctl::store::{Store, whole};
use serde_json::{Value, json};
use versitygw::{BUCKET, Gateway};

const PREFIX: &str = "acme/drctl";
const ROLES: [&str; 4] = ["writer", "prover", "pruner", "restorer"];

fn secret(user: &str) -> String {
    format!("{user}-secret-canary")
}

fn url(gateway: &Gateway) -> String {
    format!("s3://{BUCKET}/{PREFIX}?endpoint=http%3A%2F%2F127.0.0.1%3A{}&region=us-east-1&provider=versitygw", gateway.port)
}

/// A home whose runs go to the store as this user.
fn home(user: &str) -> Home {
    let mut home = Home::new();
    home.env("AWS_ACCESS_KEY_ID", user);
    home.env("AWS_SECRET_ACCESS_KEY", &secret(user));
    home.env("AWS_EC2_METADATA_DISABLED", "true");
    home.write("passphrase", "correct horse battery staple");
    home
}

/// The statements that the program prints for a role's user; users are called like their roles here.
fn printed(gateway: &Gateway, role: &str) -> Vec<Value> {
    let printed = Home::new().json(&["grants", "s3", &url(gateway), "--role", role, "--user-arn", role]);
    assert_eq!(printed["result"][0]["attach_to"], "bucket");
    printed["result"][0]["policy"]["Statement"].as_array().unwrap().clone()
}

fn document(statements: &[Value]) -> Value {
    // The server keeps a policy in an extended attribute, which takes 4 KiB on some filesystems: names are left out.
    let mut statements = statements.to_vec();
    statements.iter_mut().for_each(|s| drop(s.as_object_mut().unwrap().remove("Sid")));
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// A server with a user for each role, and the bucket's policy as printed for all of them.
async fn bench() -> Option<Gateway> {
    let gateway = versitygw::start()?;
    ROLES.iter().for_each(|role| gateway.user(role, &secret(role)));
    let all: Vec<Value> = ROLES.iter().flat_map(|role| printed(&gateway, role)).collect();
    gateway.policy(&document(&all)).await;
    Some(gateway)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn with_passphrase(home: &Home, args: &[&str]) -> Ran {
    let mut command = home.command(args);
    command.env("DRCTL_PASSPHRASE_FILE", home.path("passphrase"));
    let ran = Ran::of(command.output().unwrap());
    assert_eq!(ran.code, 0, "drctl {args:?}\n{}", ran.all());
    ran
}

/// A repository that the writer's user made, its host sealed, with keys for the other roles and two sets; and the same bucket's other tenant.
fn sealed(gateway: &Gateway, runtime: &tokio::runtime::Runtime) -> Home {
    let writer = home("writer");
    let large: Vec<u8> = (0..9 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    writer.write("data/a.txt", "hello");
    std::fs::write(writer.path("data/large"), large).unwrap();
    writer.ok(&["init", "--job", "shop", "--store", &url(gateway), "--passphrase-file", "passphrase"]);
    let config = std::fs::read_to_string(writer.path("drctl.yaml")).unwrap();
    let head: Vec<&str> = config.lines().take_while(|line| !line.starts_with("jobs:")).collect();
    let jobs = "jobs:\n  - job: shop\n    sources:\n      - files: { name: data, paths: [data] }\n";
    writer.write("drctl.yaml", &format!("{}\n{jobs}", head.join("\n")));
    for role in ["prover", "pruner", "restorer"] {
        let out = format!("{role}.key");
        with_passphrase(&writer, &["key", "add", "--role", role, "--holder", role, "--out", &out, "--by", "drctl-recovery.txt"]);
    }
    with_passphrase(&writer, &["key", "rotate", "--role", "writer", "--by", "drctl-recovery.txt"]);
    let config = std::fs::read_to_string(writer.path("drctl.yaml")).unwrap();
    let config: Vec<&str> = config.lines().filter(|line| !line.trim_start().starts_with("identity:")).collect();
    writer.write("drctl.yaml", &config.join("\n"));
    for text in ["one", "two"] {
        writer.write("data/a.txt", text);
        let ran = writer.ok(&["backup", "now"]);
        assert!(!ran.err.contains("unfinished uploads"), "{}", ran.err);
    }
    runtime.block_on(async {
        let put = gateway.client().put_object().bucket(BUCKET).key("other/secret").body(ByteStream::from_static(b"another tenant's"));
        put.send().await.unwrap();
    });
    writer
}

/// Another machine with a role's key and user, which opens sets where it has the identity.
fn elsewhere(writer: &Home, role: &str, identity: bool) -> Home {
    let other = home(role);
    let config = std::fs::read_to_string(writer.path("drctl.yaml")).unwrap();
    let line = if identity { "repository:\n  identity: drctl-keys/identity.txt" } else { "repository:" };
    other.write("drctl.yaml", &config.replacen("repository:", line, 1));
    other.write("drctl-keys/signing.key", &std::fs::read_to_string(writer.path(&format!("{role}.key"))).unwrap());
    if identity {
        other.write("drctl-keys/identity.txt", &std::fs::read_to_string(writer.path("drctl-keys/identity.txt")).unwrap());
    }
    other
}

/// Whether the store itself said no.
fn refused<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug>(what: &str, result: Result<T, E>) {
    match result {
        Ok(done) => panic!("{what} was allowed: {done:?}"),
        Err(error) => assert_eq!(error.code(), Some("AccessDenied"), "{what}: {error:?}"),
    }
}

async fn keys(gateway: &Gateway) -> Vec<String> {
    let listed = gateway.client().list_objects_v2().bucket(BUCKET).send().await.unwrap();
    listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
}

#[test]
fn a_sealed_host_whose_user_the_store_keeps_from_deleting_and_from_others_backs_up() {
    let runtime = runtime();
    let Some(gateway) = runtime.block_on(bench()) else { return };
    let writer = sealed(&gateway, &runtime);
    assert_eq!(writer.sets().len(), 2);
    writer.ok(&["verify", "--grade", "uploaded"]);
    let status = writer.ok(&["status"]).out;
    assert!(status.contains("sealed writer: "), "{status}");

    runtime.block_on(async {
        let thief = gateway.client_of("writer", &secret("writer"));
        let before = keys(&gateway).await;
        assert!(before.iter().any(|key| key.contains("/log/")) && before.iter().any(|key| key.contains("/sets/")));
        for key in &before {
            refused(&format!("delete of {key}"), thief.delete_object().bucket(BUCKET).key(key).send().await);
        }
        let all = before.iter().map(|key| ObjectIdentifier::builder().key(key).build().unwrap()).collect();
        let many = thief.delete_objects().bucket(BUCKET).delete(Delete::builder().set_objects(Some(all)).build().unwrap()).send().await;
        if let Ok(many) = many {
            assert!(many.deleted().is_empty(), "{many:?}");
        }
        assert_eq!(keys(&gateway).await, before);
        refused("another's object", thief.get_object().bucket(BUCKET).key("other/secret").send().await);
        refused(
            "another's object",
            thief.head_object().bucket(BUCKET).key("other/secret").send().await.map_err(|e| NoBody(format!("{e:?}"))),
        );
        refused("a listing of others", thief.list_objects_v2().bucket(BUCKET).prefix("other/").send().await);
        refused("a listing of all", thief.list_objects_v2().bucket(BUCKET).send().await);
        refused("a listing of a name that only begins so", thief.list_objects_v2().bucket(BUCKET).prefix("acme/drctl").send().await);
        let put = |key: &str| thief.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(b"x")).send();
        refused("a write outside", put("other/mine").await);
        refused("a write beside", put("acme/drctl2/mine").await);
        refused("the bucket's policy", thief.delete_bucket_policy().bucket(BUCKET).send().await);
    });
    // What a run stores and may not take back stays, is told, and hurts nobody.
    std::fs::remove_dir_all(writer.path("data")).unwrap();
    assert_ne!(writer.run(&["backup", "now"]).code, 0);
    writer.write("data/a.txt", "three");
    writer.ok(&["backup", "now", "--accept-smaller", "data", "--quiet"]);
}

/// A HEAD has no body that could say a code: its status is the answer.
#[derive(Debug)]
struct NoBody(String);

impl ProvideErrorMetadata for NoBody {
    fn meta(&self) -> &aws_sdk_s3::error::ErrorMetadata {
        static DENIED: std::sync::LazyLock<aws_sdk_s3::error::ErrorMetadata> =
            std::sync::LazyLock::new(|| aws_sdk_s3::error::ErrorMetadata::builder().code("AccessDenied").build());
        assert!(self.0.contains("403"), "{}", self.0);
        &DENIED
    }
}

#[test]
fn prover_restorer_and_pruner_are_users_of_their_own() {
    let runtime = runtime();
    let Some(gateway) = runtime.block_on(bench()) else { return };
    let writer = sealed(&gateway, &runtime);
    let (older, newer) = (writer.sets()[0].clone(), writer.newest());

    let prover = elsewhere(&writer, "prover", true);
    prover.ok(&["verify", &newer]);
    assert!(prover.ok(&["list"]).out.contains("read-back"), "the proof stands in the log");
    assert_eq!(prover.run(&["backup", "now"]).code, 1, "its key may not");

    let restorer = elsewhere(&writer, "restorer", true);
    let target = restorer.path("back").display().to_string();
    let ran = restorer.ok(&["restore", &newer, "--source", "data", "--target", &target, "--yes"]);
    assert!(!ran.err.contains("without a hold"), "{}", ran.err);

    runtime.block_on(async {
        for role in ["prover", "restorer"] {
            let user = gateway.client_of(role, &secret(role));
            for key in keys(&gateway).await {
                refused(&format!("{role} deletes {key}"), user.delete_object().bucket(BUCKET).key(key).send().await);
            }
            for key in ["keys/0009.json", "drctl-repository.json", "probe/x", "jobs/shop/sets/x", "jobs/shop/lease/0000000099.json"] {
                let put = user.put_object().bucket(BUCKET).key(format!("{PREFIX}/{key}")).body(ByteStream::from_static(b"x"));
                refused(&format!("{role} writes {key}"), put.send().await);
            }
        }

        // The pruner's verb comes later: its protocol and its user are here.
        let place = versitygw::place(&gateway.endpoint(), PREFIX, "pruner", &secret("pruner"));
        let store = std::sync::Arc::new(S3Store::open(&place, Settings::default()).await.unwrap());
        let repository = Repository::open(store.clone(), Env::default(), &Trust::OnFirstUse).await.unwrap();
        let signer = MinisignKey::load(&writer.path("pruner.key")).unwrap();
        let number = repository
            .key_files()
            .await
            .unwrap()
            .iter()
            .find(|file| file.public == *drctl::catalog::Signer::public(&signer))
            .unwrap()
            .number;
        let job = "shop".parse().unwrap();
        let pruner = vec![RoleKey { number, signer: std::sync::Arc::new(signer) }];
        let mut log = JobLog::open(&repository, &job, pruner).await.unwrap();
        let old: drctl::model::SetId = older.parse().unwrap();
        let intent = retire::retire_chain(&mut log, &old, "old").await.unwrap().unwrap();
        let gone = retire::finish_delete(&mut log, intent).await.unwrap();
        assert!(gone.objects >= 4, "{gone:?}");
        assert!(whole::list_all(&*store, &old.prefix()).await.unwrap().is_empty());
        assert!(lease::tidy(&repository, &job).await.unwrap() > 0);

        let thief = gateway.client_of("pruner", &secret("pruner"));
        for key in keys(&gateway).await.iter().filter(|key| !key.contains("/sets/") && !key.contains("/lease/")) {
            refused(&format!("the pruner deletes {key}"), thief.delete_object().bucket(BUCKET).key(key).send().await);
        }
        assert_eq!(retire::retire_chain(&mut log, &newer.parse().unwrap(), "all").await.unwrap_err().kind(), drctl::error::Kind::Preflight);
    });
    let status = writer.ok(&["status"]).out;
    assert!(!status.contains("ALARM"), "{status}");
    assert_eq!(writer.sets(), std::slice::from_ref(&newer));
    prover.ok(&["verify", &newer]);
}

/// Does all that a role needs, each with keys of its own; the first thing that fails.
async fn work(gateway: &Gateway, role: &str, turn: usize) -> Result<(), String> {
    let root = gateway.client();
    let at = |key: &str| format!("{PREFIX}/{key}");
    let record = format!("jobs/shop/log/{turn:010}.signed");
    let object = format!("jobs/shop/sets/2025/01/01/020000Z-full-7k3q/{role}.{turn}");
    let lease = format!("jobs/shop/lease/{turn:010}.json");
    for key in [&object, &lease] {
        root.put_object().bucket(BUCKET).key(at(key)).body(ByteStream::from_static(b"x")).send().await.unwrap();
    }
    let place = versitygw::place(&gateway.endpoint(), PREFIX, role, &secret(role));
    let store = S3Store::open(&place, Settings::default()).await.unwrap();
    let said = |what: &str| {
        let what = what.to_owned();
        move |e: drctl::error::Error| format!("{what}: {e}")
    };
    store.list("jobs/", None, 10).await.map_err(said("list"))?;
    store.server_date().await.map_err(said("date"))?;
    whole::read(&store, &object).await.map_err(said("read"))?;
    whole::create(&store, &record, Bytes::from(format!("{role} {turn}"))).await.map_err(said("record"))?;
    if role == "writer" {
        for key in ["drctl-repository.json", "keys/0001.json", "probe/create-only"] {
            whole::create(&store, &format!("{key}.{turn}"), Bytes::from_static(b"x")).await.map_err(said(key))?;
        }
        let large = Bytes::from(vec![7u8; 9 << 20]);
        whole::create(&store, &format!("{object}.large"), large).await.map_err(said("upload"))?;
        let tried = store.try_out().await.map_err(said("look"))?;
        if tried.versioning == Answer::Unknown || tried.lock == Lock::Unknown {
            return Err(format!("look: {tried:?}"));
        }
        assert_eq!(tried.may_delete, Answer::No);
    }
    if matches!(role, "writer" | "pruner") {
        root.create_multipart_upload().bucket(BUCKET).key(at(&format!("{object}.open"))).send().await.unwrap();
        // Ages count whole seconds, and the server renews its Date header once a second.
        let now = drctl::model::Timestamp::now();
        while store.server_date().await.map_err(said("date"))? <= now {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let swept = store.sweep_uploads(Duration::ZERO).await.map_err(said("sweep"))?;
        if swept.aborted == 0 {
            return Err("sweep: nothing was swept".into());
        }
    }
    if role == "pruner" {
        store.delete(&object).await.map_err(said("delete"))?;
        store.delete(&lease).await.map_err(said("delete lease"))?;
    }
    if role == "restorer" {
        let user = gateway.client_of(role, &secret(role));
        root.put_object().bucket(BUCKET).key(at(&object)).body(ByteStream::from_static(b"a thief's")).send().await.unwrap();
        let versions =
            user.list_object_versions().bucket(BUCKET).prefix(at(&object)).send().await.map_err(|e| format!("versions: {e:?}"))?;
        let first = versions.versions().iter().find(|v| v.is_latest() != Some(true)).unwrap().version_id().unwrap().to_owned();
        let old =
            user.get_object().bucket(BUCKET).key(at(&object)).version_id(first).send().await.map_err(|e| format!("version: {e:?}"))?;
        assert_eq!(old.body.collect().await.unwrap().into_bytes(), "x");
    }
    Ok(())
}

/// The policy without one action, or without one resource, of one of its Allow statements.
fn weaker(statements: &[Value]) -> Vec<(String, Vec<Value>)> {
    let mut all = Vec::new();
    for (at, statement) in statements.iter().enumerate().filter(|(_, s)| s["Effect"] == "Allow") {
        for field in ["Action", "Resource"] {
            let parts = statement[field].as_array().unwrap();
            if field == "Resource" && parts.len() < 2 {
                continue;
            }
            for (part, name) in parts.iter().enumerate() {
                let mut less = statements.to_vec();
                match parts.len() {
                    1 => drop(less.remove(at)),
                    _ => drop(less[at][field].as_array_mut().unwrap().remove(part)),
                }
                all.push((format!("{} without {name}", statement["Sid"]), less));
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn each_allow_is_needed() {
    let Some(gateway) = bench().await else { return };
    let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    gateway.client().put_bucket_versioning().bucket(BUCKET).versioning_configuration(on).send().await.unwrap();
    let mut turn = 0;
    for role in ROLES {
        let whole = printed(&gateway, role);
        turn += 1;
        gateway.policy(&document(&whole)).await;
        work(&gateway, role, turn).await.unwrap_or_else(|e| panic!("{role}: {e}"));
        let weaker = weaker(&whole);
        assert!(weaker.len() >= 3, "{role}");
        for (what, less) in weaker {
            turn += 1;
            gateway.policy(&document(&less)).await;
            let missed = work(&gateway, role, turn).await.expect_err(&what);
            assert!(misses(&what).iter().any(|step| missed.starts_with(&format!("{step}: "))), "{what}: {missed}");
        }
    }
}

/// The steps that are the first to miss a permission.
fn misses(what: &str) -> &'static [&'static str] {
    match what.rsplit_once(' ').unwrap().1.trim_matches('"') {
        "s3:ListBucket" => &["list"],
        "s3:GetObject" => &["read"],
        "s3:PutObject" => &["record"],
        "s3:AbortMultipartUpload" | "s3:ListBucketMultipartUploads" => &["sweep"],
        "s3:DeleteObject" => &["delete"],
        "s3:GetBucketVersioning" | "s3:GetBucketObjectLockConfiguration" => &["look"],
        "s3:ListBucketVersions" => &["versions"],
        "s3:GetObjectVersion" => &["version"],
        resource if resource.ends_with("/sets/*") => &["delete"],
        resource if resource.ends_with("/lease/*") => &["delete lease"],
        other => panic!("nobody knows what misses {other}"),
    }
}

/// A user that someone gave far too much: the Deny stands above it (FORMAT rule 6).
#[tokio::test(flavor = "multi_thread")]
async fn rule_6_the_deny_outweighs_whatever_else_a_user_was_given() {
    let Some(gateway) = bench().await else { return };
    let root = gateway.client();
    for role in ROLES {
        let record = format!("{PREFIX}/jobs/shop/log/0000000001.signed");
        let mut statements = printed(&gateway, role);
        statements.push(json!({
            "Sid": "TooMuch", "Effect": "Allow", "Principal": { "AWS": [role] }, "Action": "s3:*",
            "Resource": [format!("arn:aws:s3:::{BUCKET}"), format!("arn:aws:s3:::{BUCKET}/*")],
        }));
        let user = gateway.client_of(role, &secret(role));
        root.put_object().bucket(BUCKET).key(&record).body(ByteStream::from_static(b"x")).send().await.unwrap();
        gateway.policy(&document(&statements)).await;
        refused(role, user.delete_object().bucket(BUCKET).key(&record).send().await);
        // Without it that user deletes: it is the Deny that keeps the record.
        statements.retain(|s| s["Effect"] == "Allow");
        gateway.policy(&document(&statements)).await;
        user.delete_object().bucket(BUCKET).key(&record).send().await.unwrap();
    }
}

#[test]
fn grants_s3_reads_the_configuration_and_prints_json_that_can_be_piped() {
    let home = Home::new();
    home.write("data/a.txt", "a");
    let ran = home.run(&["grants", "s3"]);
    assert!(ran.code == 2 && ran.err.contains("drctl grants s3 s3://bucket/prefix"), "{}", ran.all());
    home.init("jobs:\n  - job: shop\n    sources:\n      - files: { name: data, paths: [data] }\n");
    let ran = home.run(&["grants", "s3"]);
    assert!(ran.code == 2 && ran.err.contains("no bucket"), "{}", ran.all());

    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let stores = "      local: { path: drctl-repository }\n    - { name: off-site, s3: { bucket: acme-backups, prefix: drctl, region: eu-central-1 } }\n    - { name: far, s3: { bucket: acme-far, endpoint: \"https://minio.example:9000\" } }";
    home.write("drctl.yaml", &config.replace("      local: { path: drctl-repository }", stores));
    // Whoever sets up the bucket has none of the host's keys.
    std::fs::remove_dir_all(home.path("drctl-keys")).unwrap();
    let all = home.json(&["grants", "s3"]);
    let names: Vec<&str> = all["result"].as_array().unwrap().iter().map(|g| g["store"].as_str().unwrap()).collect();
    assert_eq!(names, ["off-site", "far"]);
    let ran = home.ok(&["grants", "s3", "off-site", "--role", "writer"]);
    let policy: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(policy["Statement"].as_array().unwrap().iter().all(|s| s.get("Principal").is_none()), "{policy:#}");
    assert!(ran.out.contains("arn:aws:s3:::acme-backups/drctl/*") && ran.out.contains("s3:if-none-match"), "{}", ran.out);
    assert!(ran.err.contains("writer: policy for its own user") && !ran.err.contains("overwriting"), "{}", ran.err);
    let ran = home.ok(&["grants", "s3", "far", "--role", "prover", "--role", "restorer", "--user-arn", "arn:aws:iam::1:user/p"]);
    assert!(ran.err.contains("prover and restorer: policy of the bucket") && ran.err.contains("overwriting"), "{}", ran.err);
    assert_eq!(home.ok(&["grants", "s3", "far", "--quiet"]).err, "");
    for (args, part) in [
        (["off-site", "--user-arn", "*"], "let others in"),
        (["off-site", "--user-arn", " "], "no name of a user"),
        (["main", "--role", "writer"], "not a bucket"),
        (["nowhere", "--role", "writer"], "its stores are"),
        (["s3://x", "--role", "writer"], "bucket"),
    ] {
        let ran = home.run(&[&["grants", "s3"], args.as_slice()].concat());
        assert!(ran.code == 2 && ran.err.contains(part), "{args:?}\n{}", ran.all());
    }
}
