//! The program against a bucket: init, backup, verify, restore, and the way back with the recovery file alone.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/s3_proxy.rs"]
mod s3_proxy;
#[path = "support/versitygw.rs"]
mod versitygw;

use std::time::{Duration, Instant};

use cli::Home;
use s3_proxy::{Fault, Proxy, When};
use versitygw::{Gateway, ROOT, ROOT_SECRET};

fn home(gateway: &Gateway) -> (Home, String) {
    home_at(gateway.port)
}

/// A home whose URL leads to this port: the server's, or that of a proxy before it.
fn home_at(port: u16) -> (Home, String) {
    let mut home = Home::new();
    home.env("AWS_ACCESS_KEY_ID", ROOT);
    home.env("AWS_SECRET_ACCESS_KEY", ROOT_SECRET);
    home.env("AWS_EC2_METADATA_DISABLED", "true");
    let endpoint = format!("http%3A%2F%2F127.0.0.1%3A{port}");
    (home, format!("s3://backups/acme/drctl?endpoint={endpoint}&region=us-east-1&provider=versitygw"))
}

/// A repository in the bucket and a job of files of some 20 MiB that do not compress, so that an object has several parts.
fn prepare(home: &Home, url: &str) -> Vec<u8> {
    let mut state = 1u64;
    let bytes: Vec<u8> = (0..20 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    home.write("data/a.txt", "hello");
    std::fs::write(home.path("data/large"), &bytes).unwrap();
    home.init_with(&["--store", url], "jobs:\n  - job: shop\n    sources:\n      - files: { name: data, paths: [data] }\n");
    bytes
}

#[test]
fn a_bucket_holds_a_repository_from_init_to_restore() {
    let Some(gateway) = versitygw::start() else { return };
    let (home, url) = home(&gateway);
    let bytes = prepare(&home, &url);
    assert!(gateway.data().join("acme/drctl/drctl-repository.json").is_file());
    let again = home.run(&["init", "--job", "x", "--config", "other/drctl.yaml", "--store", &url]);
    assert_ne!(again.code, 0, "a second init into the same place");

    let ran = home.ok(&["backup", "now"]);
    assert!(!ran.all().contains(ROOT_SECRET));
    home.ok(&["verify"]);
    let shown = home.json(&["list"]);
    assert_eq!(shown["result"]["location"], "s3://backups/acme/drctl");
    let restored = home.ok(&["restore", "--date", "latest", "--source", "data", "--target", "back", "--yes"]);
    assert!(!restored.all().contains(ROOT_SECRET));
    let large = home.files("back").into_iter().find(|f| f.ends_with("large")).unwrap();
    assert_eq!(std::fs::read(home.path("back").join(large)).unwrap(), bytes);

    // Another machine: nothing but the program, the URL from the recovery file, and the passphrase.
    let text = std::fs::read_to_string(home.path("drctl-recovery.txt")).unwrap();
    assert!(text.contains(&url), "{text}");
    assert!(!text.contains(ROOT_SECRET));
    let (mut elsewhere, _) = self::home(&gateway);
    elsewhere.write("recovery.txt", &text);
    elsewhere.write("passphrase", "correct horse battery staple");
    elsewhere.env("DRCTL_PASSPHRASE_FILE", "passphrase");
    let args =
        ["restore", "--repo", &url, "--recovery", "recovery.txt", "--date", "latest", "--source", "data", "--target", "back", "--yes"];
    elsewhere.ok(&args);
    let large = elsewhere.files("back").into_iter().find(|f| f.ends_with("large")).unwrap();
    assert_eq!(std::fs::read(elsewhere.path("back").join(large)).unwrap(), bytes);
}

#[test]
fn f37_a_wrong_place_is_told_at_once() {
    let Some(gateway) = versitygw::start() else { return };
    let (home, url) = home(&gateway);
    for (from, to, code, part) in
        [("s3://backups/", "s3://no-such-bucket/", 8, "NoSuchBucket"), (&format!("{}", gateway.port), "1", 8, "tried")]
    {
        let ran = home.run(&["init", "--job", "x", "--store", &url.replace(from, to)]);
        assert_eq!(ran.code, code, "{}", ran.all());
        assert!(ran.err.contains(part), "{}", ran.err);
        assert!(!home.path("drctl.yaml").exists() && !home.path("drctl-keys").exists());
    }
    let ran = home.run(&["list", "--repo", "s3://backups/x?colour=red"]);
    assert_eq!(ran.code, 2, "{}", ran.all());
}

/// A proxy with a runtime to run it on.
fn proxy(gateway: &Gateway) -> (tokio::runtime::Runtime, Proxy) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let proxy = runtime.block_on(Proxy::before(gateway.port));
    (runtime, proxy)
}

fn wait_for(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !what() {
        assert!(Instant::now() < end, "it does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn f3_an_upload_of_a_killed_run_is_aborted_at_the_next_start() {
    let Some(gateway) = versitygw::start() else { return };
    let (runtime, proxy) = proxy(&gateway);
    let (home, url) = home_at(proxy.port);
    prepare(&home, &url);
    proxy.rule("PUT", "partNumber=2", When::Always, Fault::Hold);
    let mut child =
        home.command(&["backup", "now"]).stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for(|| proxy.count("PUT", "partNumber=2") > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(runtime.block_on(gateway.open_uploads()), 1, "nobody could end it");
    proxy.clear();
    home.ok(&["backup", "now"]);
    assert_eq!(runtime.block_on(gateway.open_uploads()), 0);
    home.ok(&["verify"]);
}

#[test]
fn f8_a_terminated_run_aborts_its_upload_itself() {
    let Some(gateway) = versitygw::start() else { return };
    let (runtime, proxy) = proxy(&gateway);
    let (home, url) = home_at(proxy.port);
    prepare(&home, &url);
    proxy.rule("PUT", "partNumber=2", When::Always, Fault::Hold);
    let child = home.command(&["backup", "now"]).stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    wait_for(|| proxy.count("PUT", "partNumber=2") > 0);
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let began = Instant::now();
    let ran = cli::Ran::of(child.wait_with_output().unwrap());
    assert!(began.elapsed() < Duration::from_secs(90), "it does not wait for the part: {:?}", began.elapsed());
    assert_eq!(ran.code, 143, "{}", ran.all());
    assert_eq!(runtime.block_on(gateway.open_uploads()), 0, "{}", ran.all());
}

#[test]
fn f23_a_bit_turned_at_rest_or_on_the_way_down_is_named_by_verify() {
    let Some(gateway) = versitygw::start() else { return };
    let (_runtime, proxy) = proxy(&gateway);
    let (home, url) = home_at(proxy.port);
    prepare(&home, &url);
    home.ok(&["backup", "now"]);
    home.write("data/a.txt", "changed");
    home.ok(&["backup", "now"]);
    home.ok(&["verify", "--all"]);
    let (older, newer) = (home.sets()[0].clone(), home.newest());

    proxy.rule("GET", "data.tree.tar.zst.age", When::Always, Fault::FlipDown(5_000));
    let ran = home.run(&["verify", &newer]);
    assert_eq!(ran.code, 5, "{}", ran.all());
    assert!(ran.all().contains("data.tree"), "{}", ran.all());
    proxy.clear();
    home.ok(&["verify", &newer]);

    let id: drctl::model::SetId = newer.parse().unwrap();
    let file = gateway.data().join("acme/drctl").join(id.prefix()).join("data.tree.tar.zst.age");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let ran = home.run(&["verify", &newer]);
    assert_eq!(ran.code, 5, "{}", ran.all());
    assert!(ran.all().contains("data.tree"), "{}", ran.all());
    home.ok(&["verify", &older]);
}
