//! The S3 store against a real server behind a proxy that spoils requests and answers by script (FAULTS 16 to 25, 34, 36, 37).

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "support/s3_proxy.rs"]
mod s3_proxy;
#[path = "support/versitygw.rs"]
mod versitygw;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drctl::config::s3::{S3Keys, S3Place};
use drctl::config::secret::{Reference, SecretRef};
use drctl::error::{Error, Kind, Result};
use drctl::model::Sha256;
use drctl::observe::bus::Observer;
use drctl::observe::{Bus, Event};
use drctl::store::retry::RetryPolicy;
use drctl::store::s3::{Algorithm, PART_BYTES, S3Store, Settings, Swept};
use drctl::store::{Body, Piece, Store, whole};
use s3_proxy::{Fault, Proxy, When};
use versitygw::Gateway;

#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl Observer for Told {
    fn observe(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Told {
    fn retries(&self) -> usize {
        self.0.lock().unwrap().iter().filter(|e| matches!(e, Event::Retry { .. })).count()
    }

    fn warnings(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        events.iter().filter_map(|e| if let Event::Warning { text } = e { Some(text.clone()) } else { None }).collect()
    }
}

struct Bench {
    gateway: Gateway,
    proxy: Proxy,
    store: S3Store,
    told: Arc<Told>,
}

fn settings(bus: Bus) -> Settings {
    let retry = RetryPolicy { tries: 5, first_delay: Duration::from_millis(5), ..RetryPolicy::default() };
    Settings { retry, stall: Duration::from_secs(20), bus, ..Settings::default() }
}

async fn bench_with(change: impl FnOnce(&mut Settings, &mut S3Place)) -> Option<Bench> {
    let gateway = versitygw::start()?;
    let proxy = Proxy::before(gateway.port).await;
    let told = Arc::new(Told::default());
    let bus = Bus::new();
    bus.subscribe(told.clone());
    let (mut settings, mut place) = (settings(bus), gateway.place_at(&proxy.endpoint(), "drctl"));
    change(&mut settings, &mut place);
    let store = S3Store::open(&place, settings).await.unwrap();
    Some(Bench { gateway, proxy, store, told })
}

async fn bench() -> Option<Bench> {
    bench_with(|_, _| {}).await
}

/// Bytes that are different everywhere.
fn noise(bytes: usize) -> Bytes {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect::<Vec<u8>>().into()
}

async fn put(store: &S3Store, key: &str, bytes: &Bytes) -> Result<()> {
    let (sender, body) = Body::channel(2);
    let feed = async {
        for at in (0..bytes.len()).step_by(1 << 20) {
            sender.send(Piece::Data(bytes.slice(at..bytes.len().min(at + (1 << 20))))).await?;
        }
        sender.send(Piece::End { bytes: bytes.len() as u64, sha256: Sha256::of(bytes), crc64_nvme: None }).await
    };
    let (stored, _) = tokio::join!(store.put(key, body), feed);
    stored
}

/// What really stands in the bucket, read around the proxy.
async fn stands(bench: &Bench, key: &str) -> Option<Bytes> {
    let got = bench.gateway.client().get_object().bucket(versitygw::BUCKET).key(format!("drctl/{key}")).send().await.ok()?;
    Some(got.body.collect().await.unwrap().into_bytes())
}

const KEY: &str = "jobs/shop/sets/2025/01/01/020000Z-full-7k3q/x.age";
/// Three parts, the last one short.
const LARGE: usize = 2 * PART_BYTES + 12_345;

macro_rules! bench {
    () => {
        match bench().await {
            Some(bench) => bench,
            None => return,
        }
    };
}

fn assert_clear(error: &Error, kind: Kind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts.iter().chain(&[KEY, "s3://backups/drctl"]) {
        assert!(error.to_string().contains(part), "no {part} in: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_bursts_of_500_and_503_are_sat_out() {
    let bench = bench!();
    let bytes = noise(LARGE);
    for (status, code) in [(500, "InternalError"), (503, "SlowDown"), (503, "ServiceUnavailable"), (502, "")] {
        bench.proxy.clear();
        for (method, part) in [("POST", "uploads"), ("PUT", "partNumber=2"), ("POST", "uploadId"), ("HEAD", "x.age")] {
            bench.proxy.rule(method, part, When::First(3), Fault::Answer(status, code));
        }
        let key = format!("{KEY}-{status}-{code}");
        put(&bench.store, &key, &bytes).await.unwrap();
        assert_eq!(stands(&bench, &key).await.unwrap(), bytes);
        for (method, part) in [("GET", "small"), ("PUT", "small"), ("HEAD", "small"), ("DELETE", "small"), ("GET", "list-type=2")] {
            bench.proxy.rule(method, part, When::First(3), Fault::Answer(status, code));
        }
        whole::create(&bench.store, "small", Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(whole::read(&bench.store, "small").await.unwrap(), "abc");
        assert_eq!(bench.store.list("small", None, 9).await.unwrap().len(), 1);
        bench.store.server_date().await.unwrap();
        bench.store.delete("small").await.unwrap();
    }
    assert!(bench.told.retries() >= 4 * 8 * 3, "each is told");
    assert_eq!(bench.gateway.open_uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_a_burst_without_end_is_an_error_in_the_end() {
    let bench = bench!();
    bench.proxy.rule("PUT", "partNumber=2", When::Always, Fault::Answer(503, "SlowDown"));
    let error = put(&bench.store, KEY, &noise(LARGE)).await.unwrap_err();
    assert_clear(&error, Kind::Unreachable, &["SlowDown (503)", "part 2", "tried 5 times"]);
    assert_eq!(bench.proxy.count("PUT", "partNumber=2"), 5);
    assert!(stands(&bench, KEY).await.is_none());
    assert_eq!(bench.gateway.open_uploads().await, 0, "given up means aborted");
}

#[tokio::test(flavor = "multi_thread")]
async fn f17_a_skewed_clock_is_measured_and_said() {
    let bench = bench!();
    let hence = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(3);
    let date = hence.strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string();
    bench.proxy.rule("GET", "list-type=2", When::Call(1), Fault::AnswerWith(403, "RequestTimeTooSkewed", date));
    let empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>".to_owned();
    bench.proxy.rule("GET", "list-type=2", When::Call(2), Fault::Body(empty));
    assert!(bench.store.list("", None, 9).await.unwrap().is_empty());
    let dates = bench.proxy.dates();
    assert!(dates[1].starts_with(&hence.strftime("%Y%m%dT%H").to_string()) || dates[1] > dates[0], "{dates:?}");
    let hours = |d: &str| d[9..11].parse::<i32>().unwrap() + 24 * d[6..8].parse::<i32>().unwrap();
    assert!(
        (2..=3).contains(&(hours(&dates[1]) - hours(&dates[0]))) || hours(&dates[1]) < hours(&dates[0]),
        "signed by the store's clock: {dates:?}"
    );
    let warnings = bench.told.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("behind") && warnings[0].contains("timedatectl"), "{warnings:?}");

    // Told again and again it is an error, after one more try only.
    let bench = bench!();
    let date = hence.strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string();
    bench.proxy.rule("PUT", "x.age", When::Always, Fault::AnswerWith(403, "RequestTimeTooSkewed", date));
    let error = whole::create(&bench.store, KEY, Bytes::from_static(b"x")).await.unwrap_err();
    assert_clear(&error, Kind::Denied, &["RequestTimeTooSkewed", "the store's clock says"]);
    assert!(error.hint_text().unwrap().contains("timedatectl"));
    assert_eq!(bench.proxy.count("PUT", "x.age"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn f18_a_connection_cut_in_mid_part_costs_that_part_only() {
    let bench = bench!();
    bench.proxy.rule("PUT", "partNumber=2", When::First(2), Fault::CutUp(100_000));
    let bytes = noise(LARGE);
    put(&bench.store, KEY, &bytes).await.unwrap();
    assert_eq!(stands(&bench, KEY).await.unwrap(), bytes);
    let sent: Vec<usize> = (1..=4).map(|n| bench.proxy.count("PUT", &format!("partNumber={n}&"))).collect();
    assert_eq!(sent, [1, 3, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn f19_a_lost_answer_is_looked_into() {
    let bytes = noise(LARGE);
    for checksum in [Algorithm::Crc64Nvme, Algorithm::Crc32c, Algorithm::None] {
        let Some(bench) = bench_with(|s, _| s.checksum = Some(checksum)).await else { return };
        for (method, part) in [("PUT", "small"), ("PUT", "partNumber=1"), ("POST", "uploadId")] {
            bench.proxy.rule(method, part, When::Call(1), Fault::Swallow);
        }
        let small = noise(3 << 20);
        put(&bench.store, "small", &small).await.unwrap();
        assert_eq!(stands(&bench, "small").await.unwrap(), small);
        assert_eq!(bench.proxy.count("PUT", "small"), 2, "the second was refused, and what stands is ours");
        put(&bench.store, KEY, &bytes).await.unwrap();
        assert_eq!(stands(&bench, KEY).await.unwrap(), bytes);
        assert_eq!(bench.gateway.open_uploads().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f19_others_bytes_are_a_conflict_even_after_a_lost_answer() {
    let bench = bench!();
    let theirs = noise(1000);
    for other in [Bytes::from_static(b"short"), noise(1001).slice(1..)] {
        bench.store.delete(KEY).await.unwrap();
        put(&bench.store, KEY, &other).await.unwrap();
        bench.proxy.clear();
        bench.proxy.rule("PUT", "x.age", When::Call(1), Fault::Answer(500, "InternalError"));
        let error = put(&bench.store, KEY, &theirs).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Exists, "{error}");
        assert_eq!(stands(&bench, KEY).await.unwrap(), other);
    }
    // The same for an upload of parts.
    bench.proxy.clear();
    bench.proxy.rule("POST", "uploadId", When::Call(1), Fault::Answer(500, "InternalError"));
    let error = put(&bench.store, KEY, &noise(LARGE)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exists, "{error}");
    assert_eq!(bench.gateway.open_uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn f19_a_refusal_after_a_lost_answer_tells_nothing() {
    let bench = bench!();
    bench.proxy.rule("PUT", "x.age", When::Call(1), Fault::CutUp(1));
    bench.proxy.rule("PUT", "x.age", When::From(2), Fault::Answer(403, "AccessDenied"));
    let error = put(&bench.store, KEY, &noise(1000)).await.unwrap_err();
    assert_clear(&error, Kind::OutcomeUnknown, &["AccessDenied", "sent before without an answer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn f19_of_two_uploads_to_one_key_one_stands() {
    let bench = bench!();
    let (one, other) = (noise(LARGE), noise(LARGE + 1).slice(1..));
    let (first, second) = tokio::join!(put(&bench.store, KEY, &one), put(&bench.store, KEY, &other));
    let stood = stands(&bench, KEY).await.unwrap();
    match (first, second) {
        (Ok(()), Err(e)) => assert!(e.kind() == Kind::Exists && stood == one, "{e}"),
        (Err(e), Ok(())) => assert!(e.kind() == Kind::Exists && stood == other, "{e}"),
        both => panic!("{both:?}"),
    }
    assert_eq!(bench.gateway.open_uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn f20_a_200_with_an_error_in_its_body_is_a_failure() {
    let bench = bench!();
    let bytes = noise(LARGE);
    let error = "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>again</Message></Error>".to_owned();
    bench.proxy.rule("POST", "uploadId", When::First(2), Fault::Body(error.clone()));
    put(&bench.store, KEY, &bytes).await.unwrap();
    assert_eq!(bench.proxy.count("POST", "uploadId"), 3);
    assert_eq!(stands(&bench, KEY).await.unwrap(), bytes);

    bench.proxy.rule("POST", "never", When::Always, Fault::Body(error));
    let text = put(&bench.store, "never/x.age", &bytes).await.unwrap_err();
    assert!(text.kind() == Kind::Unreachable && text.to_string().contains("InternalError (200)"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f20_a_complete_that_never_happens_is_an_error() {
    let bench = bench!();
    let error = "<Error><Code>InternalError</Code><Message>again</Message></Error>".to_owned();
    bench.proxy.rule("POST", "uploadId", When::Always, Fault::Body(error));
    let error = put(&bench.store, KEY, &noise(LARGE)).await.unwrap_err();
    assert_clear(&error, Kind::Unreachable, &["complete", "InternalError", "tried 5 times"]);
    assert!(stands(&bench, KEY).await.is_none());
    assert_eq!(bench.gateway.open_uploads().await, 0);
    // An answer of success for what was never done.
    let bench = bench!();
    let done = "<CompleteMultipartUploadResult><ETag>\"x-3\"</ETag></CompleteMultipartUploadResult>".to_owned();
    bench.proxy.rule("POST", "uploadId", When::Always, Fault::Body(done));
    let error = put(&bench.store, KEY, &noise(LARGE)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::OutcomeUnknown, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f21_no_such_upload_after_a_lost_success_is_success() {
    let bench = bench!();
    let bytes = noise(LARGE);
    bench.proxy.rule("POST", "uploadId", When::Call(1), Fault::DoneButError("InternalError"));
    bench.proxy.rule("POST", "uploadId", When::Call(2), Fault::Answer(404, "NoSuchUpload"));
    put(&bench.store, KEY, &bytes).await.unwrap();
    assert_eq!(stands(&bench, KEY).await.unwrap(), bytes);

    // One that someone aborted is no success.
    bench.proxy.clear();
    bench.proxy.rule("POST", "uploadId", When::Always, Fault::Answer(404, "NoSuchUpload"));
    let error = put(&bench.store, &format!("{KEY}-2"), &bytes).await.unwrap_err();
    assert_clear(&error, Kind::Failed, &["NoSuchUpload"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn f22_a_bit_turned_on_the_way_up_is_refused_and_sent_again() {
    for checksum in [Algorithm::Crc64Nvme, Algorithm::Crc32c, Algorithm::None] {
        let Some(bench) = bench_with(|s, _| s.checksum = Some(checksum)).await else { return };
        let bytes = noise(LARGE);
        bench.proxy.rule("PUT", "partNumber=2", When::Call(1), Fault::FlipUp(4_000_000));
        bench.proxy.rule("PUT", "small", When::Call(1), Fault::FlipUp(10));
        put(&bench.store, KEY, &bytes).await.unwrap();
        assert_eq!(stands(&bench, KEY).await.unwrap(), bytes);
        put(&bench.store, "small", &bytes.slice(..100)).await.unwrap();
        assert_eq!(stands(&bench, "small").await.unwrap(), bytes.slice(..100));

        bench.proxy.rule("PUT", "always", When::Always, Fault::FlipUp(10));
        let error = put(&bench.store, "always", &bytes.slice(..100)).await.unwrap_err();
        assert!(error.kind() == Kind::Corrupt && error.to_string().contains("network or memory garbles"), "{error}");
        assert_eq!(bench.proxy.count("PUT", "always"), 2, "once more, and no more");
        assert!(stands(&bench, "always").await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f24_a_get_that_ends_short_is_read_on() {
    let bench = bench!();
    let bytes = noise(1_000_000);
    put(&bench.store, KEY, &bytes).await.unwrap();
    for fault in [Fault::CutDown(400_000), Fault::CutDown(0), Fault::Shorten(400_000), Fault::Shorten(0)] {
        bench.proxy.clear();
        bench.proxy.rule("GET", "x.age", When::First(2), fault.clone());
        assert_eq!(bench.store.get_range(KEY, 10, 900_000).await.unwrap(), bytes.slice(10..900_010), "{fault:?}");
        bench.proxy.clear();
        bench.proxy.rule(
            "GET",
            "x.age",
            When::Always,
            match fault {
                Fault::CutDown(_) => Fault::CutDown(0),
                _ => Fault::Shorten(0),
            },
        );
        let error = bench.store.get_range(KEY, 10, 900_000).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Corrupt | Kind::Unreachable), "{error}");
        assert!(error.to_string().contains("of 900000 bytes") && error.to_string().contains(KEY), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f25_a_get_that_stalls_is_given_up_and_read_on() {
    let Some(bench) = bench_with(|s, _| s.stall = Duration::from_millis(400)).await else { return };
    let bytes = noise(1_000_000);
    // What is not to stall may take its time; what is to be read on in the end is tried often enough for that.
    let place = bench.gateway.place_at(&bench.proxy.endpoint(), "drctl");
    let patient = S3Store::open(&place, settings(Bus::new())).await.unwrap();
    put(&patient, KEY, &bytes).await.unwrap();
    let often = RetryPolicy { tries: 200, longest_delay: Duration::from_millis(50), ..settings(Bus::new()).retry };
    let often = Settings { retry: often, stall: Duration::from_millis(400), ..settings(Bus::new()) };
    let often = S3Store::open(&place, often).await.unwrap();
    for fault in [Fault::Hold, Fault::HoldAfter(0), Fault::HoldAfter(300_000)] {
        bench.proxy.clear();
        bench.proxy.rule("GET", "x.age", When::Call(1), fault);
        let began = Instant::now();
        assert_eq!(often.get_range(KEY, 0, 1_000_000).await.unwrap(), bytes);
        assert!(began.elapsed() >= Duration::from_millis(400) && began.elapsed() < Duration::from_secs(90));
    }
    bench.proxy.clear();
    bench.proxy.rule("GET", "x.age", When::Always, Fault::Hold);
    bench.proxy.rule("HEAD", "x.age", When::Always, Fault::Hold);
    bench.proxy.rule("GET", "list-type", When::Always, Fault::Hold);
    let error = bench.store.get_range(KEY, 0, 10).await.unwrap_err();
    assert_clear(&error, Kind::Unreachable, &["nothing came for"]);
    assert_eq!(bench.store.head(KEY).await.unwrap_err().kind(), Kind::Unreachable);
    assert_eq!(bench.store.list("", None, 5).await.unwrap_err().kind(), Kind::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn f32_a_listing_that_repeats_itself_is_refused_and_one_that_omits_proves_nothing() {
    let bench = bench!();
    for key in ["a/1", "a/2", "a/3"] {
        whole::create(&bench.store, key, Bytes::from_static(b"x")).await.unwrap();
    }
    bench.proxy.rule("GET", "list-type=2", When::Call(1), Fault::Omit("a/2"));
    assert_eq!(bench.store.list("a/", None, 9).await.unwrap().len(), 2);
    assert_eq!(bench.store.head("a/2").await.unwrap().bytes, 1, "the exact key tells");
    let page = "<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>drctl/a/1</Key><Size>1</Size>\
                <LastModified>2025-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>";
    bench.proxy.rule("GET", "list-type=2", When::Always, Fault::Body(page.to_owned()));
    let error = bench.store.list("a/", None, 9).await.unwrap_err();
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains("not in order"), "{error}");
    bench.proxy.clear();
    bench.proxy.rule("GET", "list-type=2", When::Always, Fault::Body(page.replace("drctl/a/1", "../../etc/passwd")));
    assert_eq!(bench.store.list("a/", None, 9).await.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test(flavor = "multi_thread")]
async fn f34_keys_that_run_out_in_mid_upload_are_fetched_anew() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("echo x >> {0}/asked; printf %s {1}", folder.path().display(), versitygw::ROOT_SECRET);
    let by_command = |place: &mut S3Place| {
        let keys = place.keys.take().unwrap();
        let secret_key = SecretRef::By(Reference::Cmd(vec!["sh".into(), "-c".into(), script.clone()]));
        place.keys = Some(S3Keys { secret_key, ..keys });
    };
    let Some(bench) = bench_with(|_, place| by_command(place)).await else { return };
    let asked = || std::fs::read_to_string(folder.path().join("asked")).unwrap().lines().count();
    assert_eq!(asked(), 1);
    let bytes = noise(7 * PART_BYTES + 1);
    bench.proxy.rule("PUT", "partNumber=7", When::Call(1), Fault::Answer(400, "ExpiredToken"));
    put(&bench.store, KEY, &bytes).await.unwrap();
    assert_eq!(asked(), 2, "fetched once more");
    assert_eq!(stands(&bench, KEY).await.unwrap(), bytes);
    // New keys that are refused as well end it, and the parts do not stay.
    bench.proxy.clear();
    bench.proxy.rule("PUT", "partNumber=3", When::Always, Fault::Answer(403, "ExpiredToken"));
    let error = put(&bench.store, &format!("{KEY}-2"), &bytes).await.unwrap_err();
    assert_clear(&error, Kind::Denied, &["ExpiredToken", "part 3"]);
    assert!(error.hint_text().unwrap().contains("could not be renewed"));
    assert_eq!(bench.gateway.open_uploads().await, 0);
}

/// A policy that allows the user these actions on the bucket and below the prefix.
fn policy(user: &str, actions: &[&str]) -> String {
    let list: Vec<String> = actions.iter().map(|a| format!("\"{a}\"")).collect();
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":"{user}","Action":[{}],"Resource":["arn:aws:s3:::backups","arn:aws:s3:::backups/*"]}}]}}"#,
        list.join(",")
    )
}

async fn as_user(bench: &Bench, actions: &[&str]) -> (S3Store, Arc<Told>) {
    as_new_user(bench, "writer", actions).await
}

/// The bucket has one policy: what an earlier user might do is over.
async fn as_new_user(bench: &Bench, user: &str, actions: &[&str]) -> (S3Store, Arc<Told>) {
    bench.gateway.user(user, "writersecret");
    let client = bench.gateway.client();
    client.put_bucket_policy().bucket(versitygw::BUCKET).policy(policy(user, actions)).send().await.unwrap();
    let told = Arc::new(Told::default());
    let bus = Bus::new();
    bus.subscribe(told.clone());
    let place = versitygw::place(&bench.proxy.endpoint(), "drctl", user, "writersecret");
    (S3Store::open(&place, settings(bus)).await.unwrap(), told)
}

#[tokio::test(flavor = "multi_thread")]
async fn f36_abort_and_looking_for_uploads_denied_are_warnings() {
    let bench = bench!();
    let (writer, told) = as_user(&bench, &["s3:PutObject", "s3:GetObject", "s3:ListBucket"]).await;
    put(&writer, KEY, &noise(LARGE)).await.unwrap();
    assert_eq!(writer.sweep_uploads(Duration::ZERO).await.unwrap(), Swept { aborted: 0, left: None });
    let (sender, body) = Body::channel(20);
    for _ in 0..10 {
        sender.send(Piece::Data(noise(1 << 20))).await.unwrap();
    }
    drop(sender);
    let error = writer.put(&format!("{KEY}-2"), body).await.unwrap_err();
    assert!(error.to_string().contains("given up before its end"), "what went wrong first is what counts: {error}");
    let warnings = told.warnings().join("\n");
    assert!(warnings.contains("s3:ListBucketMultipartUploads") && warnings.contains("s3:AbortMultipartUpload"), "{warnings}");
    // Someone who may do it sweeps.
    assert_eq!(bench.gateway.open_uploads().await, 1);
    assert_eq!(bench.store.sweep_uploads(Duration::from_secs(3600)).await.unwrap(), Swept { aborted: 0, left: Some(0) }, "too young");
    // Dates have whole seconds, and the server's own date lags by up to one. An upload is dated by its last part here, and the server may still be
    // writing the one whose sender hung up.
    let (lister, _) = as_new_user(&bench, "lister", &["s3:ListBucket", "s3:ListBucketMultipartUploads"]).await;
    let begun = std::time::Instant::now();
    loop {
        let swept = lister.sweep_uploads(Duration::ZERO).await.unwrap();
        if swept == (Swept { aborted: 0, left: Some(1) }) {
            break;
        }
        assert_eq!(swept, Swept { aborted: 0, left: Some(0) }, "may look and not abort");
        assert!(begun.elapsed() < Duration::from_secs(60), "the upload is not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bench.store.sweep_uploads(Duration::ZERO).await.unwrap(), Swept { aborted: 1, left: Some(0) });
    assert_eq!(bench.gateway.open_uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn f35_f77_a_writer_can_neither_delete_nor_overwrite() {
    let bench = bench!();
    let (writer, _) = as_user(&bench, &["s3:PutObject", "s3:GetObject", "s3:ListBucket", "s3:AbortMultipartUpload"]).await;
    let bytes = noise(1000);
    put(&writer, KEY, &bytes).await.unwrap();
    let error = writer.delete(KEY).await.unwrap_err();
    assert_clear(&error, Kind::Denied, &["AccessDenied (403)"]);
    assert_eq!(error.hint_text(), Some("the store's user needs s3:DeleteObject here"));
    assert_eq!(put(&writer, KEY, &noise(10)).await.unwrap_err().kind(), Kind::Exists);
    assert_eq!(stands(&bench, KEY).await.unwrap(), bytes);
    // What may not be read is never "not there".
    let (blind, _) = as_user_blind(&bench).await;
    assert_eq!(blind.head(KEY).await.unwrap_err().kind(), Kind::Denied);
    assert_eq!(blind.head("nothing/here").await.unwrap_err().kind(), Kind::Denied);
}

async fn as_user_blind(bench: &Bench) -> (S3Store, ()) {
    bench.gateway.user("blind", "blindsecret");
    let place = versitygw::place(&bench.proxy.endpoint(), "drctl", "blind", "blindsecret");
    (S3Store::open(&place, settings(Bus::new())).await.unwrap(), ())
}

#[tokio::test(flavor = "multi_thread")]
async fn f37_wrong_bucket_region_keys_and_address_are_told_without_trying_on() {
    let bench = bench!();
    let open = async |change: &dyn Fn(&mut S3Place)| {
        let mut place = bench.gateway.place_at(&bench.proxy.endpoint(), "drctl");
        change(&mut place);
        S3Store::open(&place, settings(Bus::new())).await.unwrap()
    };
    // A missing bucket is not a missing object.
    let store = open(&|p| p.bucket = "no-such-bucket".into()).await;
    for error in
        [store.head(KEY).await.unwrap_err(), store.get_range(KEY, 0, 1).await.unwrap_err(), put(&store, KEY, &noise(9)).await.unwrap_err()]
    {
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        assert!(error.to_string().contains("NoSuchBucket") && error.hint_text().unwrap().contains("drctl makes no bucket"), "{error}");
    }
    // A wrong secret, a wrong user.
    for (user, secret, code) in [(versitygw::ROOT, "wrong", "SignatureDoesNotMatch"), ("nobody", "x", "InvalidAccessKeyId")] {
        let place = versitygw::place(&bench.proxy.endpoint(), "drctl", user, secret);
        let store = S3Store::open(&place, settings(Bus::new())).await.unwrap();
        let error = put(&store, KEY, &noise(9)).await.unwrap_err();
        assert_clear(&error, Kind::Denied, &[code]);
        assert_eq!(store.head(KEY).await.unwrap_err().kind(), Kind::Denied);
    }
    // A bucket of another region, and something that is not S3 at all.
    let count = || bench.proxy.calls().len();
    for (status, code, headers, kind, hint) in [
        (301, "PermanentRedirect", "x-amz-bucket-region: eu-west-3\r\n", Kind::Config, "eu-west-3"),
        (400, "AuthorizationHeaderMalformed", "", Kind::Config, "region"),
        (403, "AccessDenied", "", Kind::Denied, "s3:GetObject"),
        (404, "", "", Kind::Unreachable, "endpoint"),
    ] {
        bench.proxy.clear();
        bench.proxy.rule("GET", "x.age", When::Always, Fault::AnswerWith(status, code, headers.to_owned()));
        let before = count();
        let error = bench.store.get_range(KEY, 0, 1).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.hint_text().unwrap().contains(hint), "{error:?}");
        assert_eq!(count(), before + 1, "{status} is not tried again");
    }
    // An answer that breaks off in its words is asked for again.
    bench.proxy.clear();
    for cut in [0, 3, 60] {
        bench.proxy.rule("GET", "nothing", When::First(2), Fault::CutDown(cut));
        let error = bench.store.head("nothing").await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{cut}: {error}");
    }
    // No such name, nobody listens.
    for endpoint in ["http://no-such-host.invalid", "http://127.0.0.1:1"] {
        let began = Instant::now();
        let store = open(&|p| p.endpoint = Some(endpoint.into())).await;
        let error = store.head(KEY).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        assert!(began.elapsed() < Duration::from_secs(300));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f37_without_keys_the_start_says_so() {
    let mut place = versitygw::place("http://127.0.0.1:1", "drctl", "x", "y");
    place.keys.as_mut().unwrap().secret_key = SecretRef::By(Reference::Env("DRCTL_NO_SUCH_VARIABLE".into()));
    let Err(error) = S3Store::open(&place, settings(Bus::new())).await else { panic!("opened without a secret") };
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    assert!(error.to_string().contains("DRCTL_NO_SUCH_VARIABLE is not set"), "{error}");
    assert!(error.hint_text().unwrap().contains("AWS_ACCESS_KEY_ID"));
}
