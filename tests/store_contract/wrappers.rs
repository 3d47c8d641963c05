//! Retry, faults by script, and counting.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drctl::error::Kind;
use drctl::model::Sha256;
use drctl::observe::{Bus, Event, bus::Observer};
use drctl::store::counting::CountingStore;
use drctl::store::faulty::{Fault, FaultyStore, Operation, When};
use drctl::store::memory::MemoryStore;
use drctl::store::retry::{RetryPolicy, RetryStore, SMALL_BYTES};
use drctl::store::{Body, Piece, Store, whole};

#[derive(Default)]
struct Retries(Mutex<Vec<(String, u32)>>);

impl Observer for Retries {
    fn observe(&self, event: &Event) {
        if let Event::Retry { what, attempt, .. } = event {
            self.0.lock().unwrap().push((what.clone(), *attempt));
        }
    }
}

fn bench() -> (Arc<MemoryStore>, Arc<FaultyStore>, RetryStore, Arc<Retries>) {
    let memory = Arc::new(MemoryStore::default());
    let faulty = Arc::new(FaultyStore::new(memory.clone()));
    let retries = Arc::new(Retries::default());
    let bus = Bus::new();
    bus.subscribe(retries.clone());
    let policy = RetryPolicy { tries: 4, first_delay: Duration::from_millis(1), ..RetryPolicy::default() };
    (memory, faulty.clone(), RetryStore::new(faulty, policy, bus), retries)
}

fn text(t: &'static str) -> Bytes {
    Bytes::from_static(t.as_bytes())
}

#[tokio::test]
async fn every_operation_is_tried_again_and_told() {
    let (_, faulty, store, retries) = bench();
    for operation in [Operation::Put, Operation::Get, Operation::Head, Operation::List, Operation::Delete, Operation::Date] {
        faulty.rule(operation, "*", When::First(2), Fault::Fail(Kind::Unreachable));
    }
    whole::create(&store, "k", text("abc")).await.unwrap();
    assert_eq!(store.head("k").await.unwrap().bytes, 3);
    assert_eq!(store.get_range("k", 1, 2).await.unwrap(), "bc");
    assert_eq!(store.list("", None, 9).await.unwrap().len(), 1);
    store.server_date().await.unwrap();
    store.delete("k").await.unwrap();
    let told = retries.0.lock().unwrap();
    assert_eq!(told.len(), 12);
    assert_eq!(told[..2], [("store k at memory".to_owned(), 2), ("store k at memory".to_owned(), 3)]);
}

#[tokio::test]
async fn only_what_may_pass_is_tried_again() {
    for kind in [Kind::NotFound, Kind::Exists, Kind::Denied, Kind::Full, Kind::Corrupt, Kind::Failed, Kind::OutcomeUnknown] {
        let (_, faulty, store, retries) = bench();
        faulty.rule(None, "*", When::Always, Fault::Fail(kind));
        assert_eq!(store.head("k").await.unwrap_err().kind(), kind);
        assert_eq!(whole::create(&store, "k", text("x")).await.unwrap_err().kind(), kind);
        assert_eq!(faulty.calls().len(), 2);
        assert!(retries.0.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn tries_and_time_have_an_end() {
    let (_, faulty, store, _) = bench();
    faulty.rule(None, "*", When::Always, Fault::Fail(Kind::Unreachable));
    let error = store.head("k").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.to_string().starts_with("look at k at memory, tried 4 times: "), "{error}");
    assert_eq!(faulty.calls().len(), 4);

    let hasty = RetryPolicy {
        first_delay: Duration::from_secs(3600),
        longest_delay: Duration::from_secs(3600),
        total: Duration::from_secs(60),
        ..RetryPolicy::default()
    };
    let began = Instant::now();
    RetryStore::new(faulty, hasty, Bus::new()).head("k").await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(60), "no pause is begun that would pass the limit");
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_finds_its_own_bytes() {
    let (memory, faulty, store, _) = bench();
    faulty.rule(Operation::Put, "*", When::Call(1), Fault::LoseAnswer(Kind::Unreachable));
    // Comparing may meet trouble too.
    faulty.rule(Operation::Get, "*", When::Call(1), Fault::Fail(Kind::Unreachable));
    whole::create(&store, "log/1", text("mine")).await.unwrap();
    assert_eq!(whole::read(memory.as_ref(), "log/1").await.unwrap(), "mine");
}

#[tokio::test]
async fn a_retry_that_finds_others_bytes_says_so() {
    for others in ["other bytes", "minf", ""] {
        let (memory, faulty, store, _) = bench();
        whole::create(memory.as_ref(), "log/1", text(others)).await.unwrap();
        faulty.rule(Operation::Put, "*", When::Call(1), Fault::Fail(Kind::Unreachable));
        let error = whole::create(&store, "log/1", text("mine")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Exists, "{others:?}");
    }
    // Without a lost answer before it a taken key is taken, whatever stands there.
    let (memory, _, store, _) = bench();
    whole::create(memory.as_ref(), "log/1", text("mine")).await.unwrap();
    assert_eq!(whole::create(&store, "log/1", text("mine")).await.unwrap_err().kind(), Kind::Exists);
}

#[tokio::test]
async fn a_long_stream_passes_through_and_is_not_tried_again() {
    let (memory, faulty, store, retries) = bench();
    faulty.rule(Operation::Put, "bad", When::Always, Fault::FailAfterBytes(SMALL_BYTES as u64 + 10, Kind::Unreachable));
    for (key, works) in [("good", true), ("bad", false)] {
        let (sender, body) = Body::channel(2);
        let feed = tokio::spawn(async move {
            let piece = Bytes::from(vec![1u8; SMALL_BYTES / 2]);
            let mut hasher = Sha256::hasher();
            for _ in 0..8 {
                hasher.update(&piece);
                if sender.send(Piece::Data(piece.clone())).await.is_err() {
                    return;
                }
            }
            let _ = sender.send(Piece::End { bytes: 4 * SMALL_BYTES as u64, sha256: hasher.finish(), crc64_nvme: None }).await;
        });
        let outcome = store.put(key, body).await;
        feed.await.unwrap();
        assert_eq!(outcome.is_ok(), works);
        if let Err(e) = outcome {
            assert_eq!(e.kind(), Kind::Unreachable, "the store's own error is the answer: {e}");
        }
    }
    assert!(retries.0.lock().unwrap().is_empty());
    assert_eq!(memory.head("good").await.unwrap().bytes, 4 * SMALL_BYTES as u64);
    assert_eq!(memory.head("bad").await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn faults_do_what_they_say() {
    let memory = Arc::new(MemoryStore::default());
    let faulty = FaultyStore::new(memory.clone());

    faulty.rule(Operation::Put, "cut", When::Always, Fault::Truncate(3));
    whole::create(&faulty, "cut", text("abcdef")).await.unwrap();
    assert_eq!(whole::read(memory.as_ref(), "cut").await.unwrap(), "abc");

    faulty.rule(Operation::Put, "flip", When::Always, Fault::FlipBit(8));
    whole::create(&faulty, "flip", text("aaa")).await.unwrap();
    assert_eq!(whole::read(memory.as_ref(), "flip").await.unwrap(), "a`a");

    faulty.rule(Operation::Get, "flip", When::Call(2), Fault::FlipBit(8));
    assert_eq!(whole::read(&faulty, "flip").await.unwrap(), "a`a");
    assert_eq!(whole::read(&faulty, "flip").await.unwrap(), "aaa");
    assert_eq!(whole::read(&faulty, "flip").await.unwrap(), "a`a");

    faulty.rule(Operation::List, "", When::Always, Fault::Truncate(1));
    assert_eq!(whole::list_all(&faulty, "").await.unwrap().len(), 1);
    faulty.rule(Operation::Delete, "c*", When::Always, Fault::Truncate(0));
    faulty.delete("cut").await.unwrap();
    assert_eq!(memory.head("cut").await.unwrap().bytes, 3);
    faulty.rule(Operation::Head, "cut", When::From(1), Fault::Truncate(9));
    assert_eq!(faulty.head("cut").await.unwrap().bytes, 9);

    faulty.rule(Operation::Date, "*", When::Always, Fault::Hang);
    assert!(tokio::time::timeout(Duration::from_millis(50), faulty.server_date()).await.is_err());

    faulty.rule(Operation::Put, "late", When::Always, Fault::AnswerLate(Duration::from_secs(3600)));
    assert!(tokio::time::timeout(Duration::from_millis(50), whole::create(&faulty, "late", text("x"))).await.is_err());
    assert_eq!(memory.head("late").await.unwrap().bytes, 1, "done before the answer");

    faulty.rule(Operation::Put, "a/*/c", When::Always, Fault::Fail(Kind::Denied));
    assert_eq!(whole::create(&faulty, "a/b/b/c", text("x")).await.unwrap_err().kind(), Kind::Denied);
    whole::create(&faulty, "a/b/d", text("x")).await.unwrap();

    faulty.clear();
    faulty.delete("cut").await.unwrap();
    assert_eq!(memory.head("cut").await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn the_counting_store_checks_and_counts() {
    let store = CountingStore::new(1000);
    whole::create(&store, "small", text("kept")).await.unwrap();
    whole::create(&store, "large", Bytes::from(vec![1u8; 5000])).await.unwrap();
    assert_eq!(whole::create(&store, "large", text("x")).await.unwrap_err().kind(), Kind::Exists);
    assert_eq!(whole::read(&store, "small").await.unwrap(), "kept");
    assert_eq!(store.get_range("large", 0, 10).await.unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(store.head("large").await.unwrap().bytes, 5000);
    assert_eq!(store.head("large").await.unwrap().sha256, Some(Sha256::of(&[1u8; 5000])));
    assert_eq!(store.objects(), [("large".to_owned(), 5000), ("small".to_owned(), 4)]);
    let (sender, body) = Body::channel(2);
    sender.send(Piece::Data(Bytes::from(vec![1u8; 5000]))).await.unwrap();
    sender.send(Piece::End { bytes: 5000, sha256: Sha256::of(b""), crc64_nvme: None }).await.unwrap();
    assert_eq!(store.put("wrong", body).await.unwrap_err().kind(), Kind::Corrupt);
}
