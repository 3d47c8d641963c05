//! What a bucket does, tried out: each answer over a real server and over one that errs, and what people are told when it changes (F38).

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/s3_proxy.rs"]
mod s3_proxy;
#[path = "support/versitygw.rs"]
mod versitygw;

use std::time::Duration;

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use cli::Home;
use drctl::store::profile::{Answer, Checksum, Lock, StoreProfile};
use drctl::store::retry::RetryPolicy;
use drctl::store::s3::{Algorithm, S3Store, Settings};
use s3_proxy::{Fault, Proxy, When};
use versitygw::{BUCKET, Gateway, ROOT, ROOT_SECRET};

async fn open(gateway: &Gateway, endpoint: &str, checksum: Option<Algorithm>) -> S3Store {
    let retry = RetryPolicy { first_delay: Duration::from_millis(1), longest_delay: Duration::from_millis(5), ..RetryPolicy::default() };
    S3Store::open(&gateway.place_at(endpoint, "drctl"), Settings { retry, checksum, stall: Duration::from_secs(60), ..Settings::default() })
        .await
        .unwrap()
}

async fn set_versioning(gateway: &Gateway, on: bool) {
    let status = if on { BucketVersioningStatus::Enabled } else { BucketVersioningStatus::Suspended };
    let wanted = VersioningConfiguration::builder().status(status).build();
    gateway.client().put_bucket_versioning().bucket(BUCKET).versioning_configuration(wanted).send().await.unwrap();
}

fn sound() -> StoreProfile {
    StoreProfile {
        create_only: Answer::Yes,
        create_only_multipart: Answer::Yes,
        checksum: Checksum::Crc64nvme,
        lists_at_once: Answer::Yes,
        ranges: Answer::Yes,
        may_overwrite: Answer::Yes,
        may_delete: Answer::Yes,
        versioning: Answer::No,
        lock: Lock::None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sound_server_does_is_found_by_whatever_checksum_one_begins_with() {
    let Some(gateway) = versitygw::start() else { return };
    for checksum in [None, Some(Algorithm::None), Some(Algorithm::Crc32c)] {
        assert_eq!(open(&gateway, &gateway.endpoint(), checksum).await.try_out().await.unwrap(), sound(), "{checksum:?}");
    }
    set_versioning(&gateway, true).await;
    let store = open(&gateway, &gateway.endpoint(), None).await;
    assert_eq!(store.try_out().await.unwrap(), StoreProfile { versioning: Answer::Yes, ..sound() });
    let versions = gateway.client().list_object_versions().bucket(BUCKET).send().await.unwrap();
    assert!(versions.delete_markers().is_empty(), "asking for the permission to delete leaves no marks");
    assert_eq!(gateway.open_uploads().await, 0);
}

type Rules = &'static [(&'static str, &'static str, When, &'static str)];

/// Each rule is a method, what the request's target holds, which calls, and `403`, `501` or the body of an answer of 200.
#[tokio::test(flavor = "multi_thread")]
async fn f38_each_answer_is_the_stores_own() {
    let Some(gateway) = versitygw::start() else { return };
    let locked = |mode: &str, rule: &str| {
        format!(
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>{mode}</Mode>{rule}</DefaultRetention></Rule></ObjectLockConfiguration>"
        )
    };
    let lock_30: &'static str = locked("COMPLIANCE", "<Days>30</Days>").leak();
    let lock_years: &'static str = locked("GOVERNANCE", "<Years>2</Years>").leak();
    let rules = |rules: Vec<(&'static str, &'static str, When, &'static str)>| -> Rules { rules.leak() };
    let table: Vec<(Rules, StoreProfile)> = vec![
        (rules(vec![("PUT", "probe/create-only", When::First(2), "")]), StoreProfile { create_only: Answer::No, ..sound() }),
        // The fake upload id is the server's own trouble: what counts is that the end is answered by 200.
        (
            rules(vec![(
                "POST",
                "create-only?uploadId",
                When::Always,
                "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>",
            )]),
            // A HEAD finds other bytes than were sent.
            StoreProfile { create_only_multipart: Answer::Unknown, ..sound() },
        ),
        // A wrong checksum is taken (the second put by each algorithm).
        (rules(vec![("PUT", "probe/scratch", When::Call(3), "")]), StoreProfile { checksum: Checksum::Crc32c, ..sound() }),
        (
            rules(vec![("PUT", "probe/scratch", When::Call(2), "501"), ("PUT", "probe/scratch", When::Call(3), "501")]),
            StoreProfile { checksum: Checksum::None, ..sound() },
        ),
        (
            rules(vec![("PUT", "probe/scratch", When::From(2), "403")]),
            StoreProfile { checksum: Checksum::Unknown, may_overwrite: Answer::No, lists_at_once: Answer::Unknown, ..sound() },
        ),
        (
            rules(vec![("GET", "probe%2Fscratch", When::Always, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")]),
            StoreProfile { lists_at_once: Answer::No, ..sound() },
        ),
        (rules(vec![("GET", "probe/create-only", When::Always, "drctl")]), StoreProfile { ranges: Answer::No, ..sound() }),
        (rules(vec![("GET", "probe/create-only", When::Always, "403")]), StoreProfile { ranges: Answer::Unknown, ..sound() }),
        (rules(vec![("DELETE", "sets/none", When::Always, "403")]), StoreProfile { may_delete: Answer::No, ..sound() }),
        (rules(vec![("DELETE", "sets/none", When::Always, "501")]), StoreProfile { may_delete: Answer::Unknown, ..sound() }),
        (rules(vec![("GET", "versioning", When::Always, "403")]), StoreProfile { versioning: Answer::Unknown, ..sound() }),
        (
            rules(vec![(
                "GET",
                "versioning",
                When::Always,
                "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>",
            )]),
            sound(),
        ),
        (rules(vec![("GET", "object-lock", When::Always, "403")]), StoreProfile { lock: Lock::Unknown, ..sound() }),
        (
            rules(vec![("GET", "object-lock", When::Always, lock_30)]),
            StoreProfile { lock: Lock::Default { compliance: true, days: 30 }, ..sound() },
        ),
        (
            rules(vec![("GET", "object-lock", When::Always, lock_years)]),
            StoreProfile { lock: Lock::Default { compliance: false, days: 730 }, ..sound() },
        ),
    ];
    for (rules, wanted) in table {
        let proxy = Proxy::before(gateway.port).await;
        let store = open(&gateway, &proxy.endpoint(), None).await;
        // The keys are there.
        store.try_out().await.unwrap();
        let proxy = Proxy::before(gateway.port).await;
        for (method, part, when, answer) in rules {
            let fault = match *answer {
                "403" => Fault::Answer(403, "AccessDenied"),
                "501" => Fault::Answer(501, "NotImplemented"),
                body => Fault::Body(body.to_owned()),
            };
            proxy.rule(method, part, *when, fault);
        }
        let store = open(&gateway, &proxy.endpoint(), None).await;
        let began = std::time::Instant::now();
        let found = store.try_out().await.unwrap_or_else(|e| panic!("{rules:?}: {e}"));
        assert_eq!(found, wanted, "{rules:?}");
        assert!(began.elapsed() < Duration::from_secs(120), "{rules:?}: {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_errors_that_pass_do_not_change_what_is_found() {
    let Some(gateway) = versitygw::start() else { return };
    let faults = [
        ("*", Fault::Swallow),
        ("PUT", Fault::CutUp(1)),
        ("*", Fault::Answer(500, "InternalError")),
        ("*", Fault::Answer(503, "SlowDown")),
    ];
    for (method, fault) in faults {
        let proxy = Proxy::before(gateway.port).await;
        proxy.rule(method, "", When::Every(3), fault.clone());
        let store = open(&gateway, &proxy.endpoint(), None).await;
        assert_eq!(store.try_out().await.unwrap(), sound(), "{fault:?}");
    }
    let proxy = Proxy::before(gateway.port).await;
    proxy.rule("*", "", When::Always, Fault::Answer(503, "SlowDown"));
    let store = open(&gateway, &proxy.endpoint(), None).await;
    assert!(store.try_out().await.unwrap_err().kind().retryable(), "nothing could be learnt, and nothing is made up");
}

fn home_at(port: u16) -> (Home, String) {
    let mut home = Home::new();
    home.env("AWS_ACCESS_KEY_ID", ROOT);
    home.env("AWS_SECRET_ACCESS_KEY", ROOT_SECRET);
    home.env("AWS_EC2_METADATA_DISABLED", "true");
    (home, format!("s3://{BUCKET}/acme/drctl?endpoint=http%3A%2F%2F127.0.0.1%3A{port}&region=us-east-1&provider=other"))
}

fn prepare(home: &Home, url: &str) {
    home.write("data/a.txt", "hello");
    home.init_with(&["--store", url], "jobs:\n  - job: shop\n    sources:\n      - files: { name: data, paths: [data] }\n");
}

fn store_name(home: &Home) -> String {
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    config.lines().find_map(|line| line.trim().strip_prefix("- name: ")).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn f38_a_bucket_that_keeps_no_versions_any_more_is_an_alarm_until_it_is_accepted() {
    let Some(gateway) = versitygw::start() else { return };
    let proxy = Proxy::before(gateway.port).await;
    set_versioning(&gateway, true).await;
    let (home, url) = home_at(proxy.port);
    prepare(&home, &url);
    home.ok(&["backup", "now"]);
    assert!(!home.ok(&["status"]).out.contains("ALARM"));
    // What was tried today is not tried again by a run.
    let tried = proxy.count("GET", "object-lock");
    home.ok(&["backup", "now"]);
    assert_eq!(proxy.count("GET", "object-lock"), tried);

    set_versioning(&gateway, false).await;
    let doctor = home.run(&["doctor"]);
    assert_eq!(doctor.code, 1, "{}", doctor.all());
    assert!(doctor.out.contains("versioning was yes and is no"), "{}", doctor.out);
    let sets = home.json(&["list"])["result"]["sets"].as_array().unwrap().len();
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 1, "{}", ran.all());
    let name = store_name(&home);
    let line = format!("drctl backup now --accept-changed-store {name}");
    assert!(
        ran.err.contains("the backup stands") && ran.err.contains("versioning was yes and is no") && ran.err.contains(&line),
        "{}",
        ran.err
    );
    assert_eq!(home.json(&["list"])["result"]["sets"].as_array().unwrap().len(), sets + 1, "the set was made all the same");
    let status = home.ok(&["status"]).out;
    assert!(status.contains("ALARM: store") && status.contains("can be destroyed for good"), "{status}");

    assert_eq!(home.run(&["backup", "now", "--accept-changed-store", "nowhere"]).code, 2);
    home.ok(&["backup", "now", "--accept-changed-store", &name]);
    home.ok(&["backup", "now"]);
    assert!(!home.ok(&["status"]).out.contains("ALARM"));

    // Keys that may not write any more: the day on which they could is told.
    proxy.rule("PUT", "probe/", When::Always, Fault::Answer(403, "AccessDenied"));
    let doctor = home.run(&["doctor"]);
    assert!(doctor.code != 0 && doctor.out.contains("could still write there on"), "{}", doctor.all());
    proxy.clear();
    home.ok(&["backup", "now"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_13_a_bucket_that_overwrites_has_one_writer_and_the_checksum_it_was_seen_to_keep() {
    let Some(gateway) = versitygw::start() else { return };
    let key = "acme/drctl/probe/create-only";
    gateway.client().put_object().bucket(BUCKET).key(key).body(b"drctl\n".to_vec().into()).send().await.unwrap();
    let proxy = Proxy::before(gateway.port).await;
    proxy.rule("PUT", "probe/create-only", When::Always, Fault::Body(String::new()));
    let (home, url) = home_at(proxy.port);
    prepare(&home, &url);
    home.ok(&["backup", "now"]);
    home.ok(&["verify"]);
    let doctor = home.run(&["doctor"]).out;
    assert!(doctor.contains("OVERWRITES although told not to") && doctor.contains("checks CRC64NVME"), "{doctor}");
    let terms = std::fs::read_to_string(gateway.data().join("acme/drctl/repository/0001.json")).unwrap();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert!(terms.contains(&format!("\"single_writer\":\"{host}\"")), "{terms}");
}
