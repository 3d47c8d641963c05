//! Set after set over a line on which requests fail: each run ends in a good set or a clear error, and nothing is left lying about.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/s3_proxy.rs"]
mod s3_proxy;
#[path = "support/versitygw.rs"]
mod versitygw;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cli::Home;
use drctl::catalog::retire::sweep;
use drctl::catalog::{Env, JobLog, MinisignKey, RecoveryFile, Repository, RoleKey};
use drctl::model::SetId;
use drctl::store::s3::{S3Store, Settings};
use drctl::store::{Store, whole};
use s3_proxy::{Fault, Proxy, When};
use versitygw::{BUCKET, ROOT, ROOT_SECRET};

/// Five faults, each in one request of so many, together about one in `one_in`; the numbers are prime to each other, so that none follows another.
fn spoil(proxy: &Proxy, one_in: usize) {
    let prime = |from: usize| (from..).find(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0)).unwrap();
    let faults = [
        ("*", Fault::Answer(500, "InternalError")),
        ("*", Fault::Answer(503, "SlowDown")),
        ("*", Fault::Swallow),
        ("GET", Fault::CutDown(3)),
        ("PUT", Fault::CutUp(100)),
    ];
    let mut n = one_in * faults.len();
    for (method, fault) in faults {
        n = prime(n + 1);
        proxy.rule(method, "", When::Every(n), fault);
    }
    // The one request that S3 answers with 200 before it knows.
    proxy.rule("POST", "uploadId", When::Every(3), Fault::DoneButError("InternalError"));
}

fn prepare(port: u16) -> Home {
    let mut home = Home::new();
    for (name, value) in [("AWS_ACCESS_KEY_ID", ROOT), ("AWS_SECRET_ACCESS_KEY", ROOT_SECRET), ("AWS_EC2_METADATA_DISABLED", "true")] {
        home.env(name, value);
    }
    let url = format!("s3://{BUCKET}/many?endpoint=http%3A%2F%2F127.0.0.1%3A{port}&region=us-east-1&provider=versitygw");
    home.init_with(&["--store", &url], "jobs:\n  - job: shop\n    sources:\n      - files: { name: data, paths: [data] }\n");
    home
}

async fn set_after_set(sets: usize, one_in: usize) {
    let Some(gateway) = versitygw::start() else { return };
    let proxy = Proxy::before(gateway.port).await;
    let home = prepare(proxy.port);
    spoil(&proxy, one_in);
    let mut state = 7u64;
    let (mut good, mut failed) = (Vec::new(), Vec::new());
    for n in 0..sets {
        // Every few runs an object of two parts.
        let bytes: usize = if n % 8 == 0 { 9 << 20 } else { 40 << 10 };
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(bytes)
        .collect();
        home.write("data/note", &format!("set {n}"));
        std::fs::write(home.path("data/noise"), noise).unwrap();
        let ran = home.run(&["backup", "now", "--accept-smaller", "data", "--json", "--quiet"]);
        match ran.code {
            0 => {
                let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
                good.push(value["result"][0]["set"].as_str().unwrap().to_owned());
            }
            code => {
                assert!([1, 8].contains(&code), "{n}: {code}: {}", ran.all());
                let text = ran.all();
                assert!(text.contains("error") && text.contains("s3://"), "{n}: what failed is said: {text}");
                failed.push(text);
            }
        }
    }
    println!("{} good sets, {} runs that failed", good.len(), failed.len());
    for text in &failed {
        println!("  {}", text.trim());
    }
    assert!(good.len() * 100 >= sets * 95, "a request that fails once ends no run: {failed:?}");
    proxy.clear();

    // Every good set is there, verifies, and its bytes are those of its run.
    let listed: BTreeSet<String> = home.sets().into_iter().collect();
    for (at, set) in good.iter().enumerate() {
        assert!(listed.contains(set), "{set}");
        if at % 4 == 0 || sets <= 20 {
            home.ok(&["verify", set]);
        }
    }
    home.ok(&["backup", "now"]);
    assert_eq!(gateway.open_uploads().await, 0, "no upload stays open");

    // What lies in the bucket belongs to a set of the log, or is swept.
    let recovery = RecoveryFile::parse(&std::fs::read_to_string(home.path("drctl-recovery.txt")).unwrap()).unwrap();
    let store = Arc::new(S3Store::open(&gateway.place("many"), Settings::default()).await.unwrap());
    let repository = Repository::open(store.clone(), Env::default(), &recovery.trust()).await.unwrap();
    let key = RoleKey { number: 1, signer: Arc::new(MinisignKey::load(&home.path("drctl-keys/signing.key")).unwrap()) };
    let mut log = JobLog::open(&repository, &"shop".parse().unwrap(), vec![key]).await.unwrap();
    // Objects are dated by the second, and the server renews its own date once a second.
    let now = drctl::model::Timestamp::now();
    while store.server_date().await.unwrap() <= now {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let swept = sweep(&mut log, Duration::ZERO).await.unwrap();
    println!("swept: {} sets, {} objects", swept.doomed.len(), swept.objects);
    assert!(swept.doomed.len() <= failed.len(), "only a run that failed leaves anything: {:?}", swept.doomed);
    let known: BTreeSet<SetId> = log.state().live().map(|entry| entry.id().clone()).collect();
    for entry in whole::list_all(&*store, "jobs/shop/sets/").await.unwrap() {
        let set = SetId::of_key(&entry.key);
        assert!(set.is_some_and(|set| known.contains(&set)), "{} is nobody's", entry.key);
    }
    assert!(swept.waiting.is_empty() && swept.strange.is_empty());
    for set in &good {
        assert!(known.contains(&set.parse().unwrap()), "{set} went with the orphans");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_to_f25_six_sets_over_a_line_that_fails_one_request_in_ten() {
    set_after_set(6, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes: make soak"]
async fn soak_200_sets_over_a_line_that_fails_one_request_in_a_hundred() {
    set_after_set(200, 100).await;
}
