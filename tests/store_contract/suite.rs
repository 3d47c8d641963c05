//! What every store must do, each point a function of a fresh, empty store.

use std::time::Duration;

use bytes::Bytes;
use drctl::error::Kind;
use drctl::model::Sha256;
use drctl::store::{Body, DynStore, Piece, whole};

async fn create(store: &DynStore, key: &str, text: &str) {
    whole::create(store.as_ref(), key, Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
}

async fn keys(store: &DynStore, prefix: &str) -> Vec<String> {
    whole::list_all(store.as_ref(), prefix).await.unwrap().into_iter().map(|e| e.key).collect()
}

pub async fn create_only(store: DynStore) {
    create(&store, "a/b", "one").await;
    let error = whole::create(store.as_ref(), "a/b", Bytes::from_static(b"two")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exists);
    let error = whole::create(store.as_ref(), "a/b", Bytes::from_static(b"one")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exists, "the very same bytes are no excuse");
    assert_eq!(whole::read(store.as_ref(), "a/b").await.unwrap(), "one");
}

pub async fn sixteen_creators_one_winner(store: DynStore) {
    for round in 0..4 {
        let key = format!("jobs/shop/log/{round:010}.signed");
        let creators = (0..16u8).map(|i| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move { (i, whole::create(store.as_ref(), &key, Bytes::from(vec![i; 1000])).await) })
        });
        let mut winners = Vec::new();
        for outcome in futures::future::join_all(creators).await {
            match outcome.unwrap() {
                (i, Ok(())) => winners.push(i),
                (_, Err(e)) => assert_eq!(e.kind(), Kind::Exists, "{e}"),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(whole::read(store.as_ref(), &key).await.unwrap(), vec![winners[0]; 1000]);
    }
}

pub async fn an_aborted_body_leaves_nothing(store: DynStore) {
    for pieces in [0usize, 1, 5] {
        let (sender, body) = Body::channel(2);
        let feed = tokio::spawn(async move {
            for _ in 0..pieces {
                sender.send(Piece::Data(Bytes::from(vec![7; 1 << 20]))).await.unwrap();
            }
        });
        store.put("x/y/z", body).await.unwrap_err();
        feed.await.unwrap();
        assert_eq!(store.head("x/y/z").await.unwrap_err().kind(), Kind::NotFound);
        assert!(keys(&store, "").await.is_empty());
    }
    create(&store, "x/y/z", "now it works").await;
}

pub async fn a_wrong_end_leaves_nothing(store: DynStore) {
    let data = Bytes::from_static(b"some bytes");
    let good = Sha256::of(&data);
    for (bytes, sha256) in [(9, good), (11, good), (0, good), (u64::MAX, good), (10, Sha256::of(b"others")), (10, Sha256([0; 32]))] {
        let (sender, body) = Body::channel(4);
        sender.send(Piece::Data(data.clone())).await.unwrap();
        sender.send(Piece::End { bytes, sha256, crc64_nvme: None }).await.unwrap();
        let error = store.put("k", body).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert_eq!(store.head("k").await.unwrap_err().kind(), Kind::NotFound);
        assert!(keys(&store, "").await.is_empty());
    }
    // What comes behind the end is not taken.
    let (sender, body) = Body::channel(4);
    sender.send(Piece::Data(data.clone())).await.unwrap();
    sender.send(Piece::End { bytes: 10, sha256: good, crc64_nvme: None }).await.unwrap();
    sender.send(Piece::Data(data.clone())).await.unwrap();
    store.put("k", body).await.unwrap();
    assert_eq!(whole::read(store.as_ref(), "k").await.unwrap(), data);
}

/// A body whose end tells the CRC-64: for stores that compare it, and hash nothing then. Of one part and of two.
pub async fn a_wrong_checksum_or_length_at_the_end_leaves_nothing(store: DynStore) {
    for bytes in [10usize, 9 << 20] {
        let data = Bytes::from((0..bytes).map(|i| (i * 7 % 251) as u8).collect::<Vec<_>>());
        let mut crc = drctl::model::digest::Crc64Nvme::default();
        crc.update(&data);
        let (right, length, sha256) = (crc.finish(), bytes as u64, Sha256::of(&data));
        let put = async |bytes: u64, crc64_nvme: Option<u64>| {
            let (sender, body) = Body::summed_channel(16);
            for piece in data.chunks(1 << 20) {
                sender.send(Piece::Data(data.slice_ref(piece))).await.unwrap();
            }
            sender.send(Piece::End { bytes, sha256, crc64_nvme }).await.unwrap();
            store.put("k", body).await
        };
        for (bytes, crc) in [(length, Some(right ^ 1)), (length, None), (length - 1, Some(right)), (length + 1, Some(right))] {
            let error = put(bytes, crc).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{error}");
            assert_eq!(store.head("k").await.unwrap_err().kind(), Kind::NotFound);
        }
        put(length, Some(right)).await.unwrap();
        assert_eq!(whole::read(store.as_ref(), "k").await.unwrap(), data);
        store.delete("k").await.unwrap();
    }
}

pub async fn ranges(store: DynStore) {
    let data: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    whole::create(store.as_ref(), "r", Bytes::from(data.clone())).await.unwrap();
    let all = data.len() as u64;
    for (offset, length) in [(0, 0), (0, 1), (0, all), (1, all - 1), (all - 1, 1), (all, 0), (65_535, 70_001)] {
        let got = store.get_range("r", offset, length).await.unwrap();
        assert_eq!(got, data[offset as usize..(offset + length) as usize]);
    }
    for (offset, length) in [(0, all + 1), (all, 1), (all + 1, 0), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX), (0, u64::MAX)] {
        let error = store.get_range("r", offset, length).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{offset}+{length}: {error}");
    }
    assert_eq!(store.get_range("not-there", 0, 1).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(store.get_range("r/below", 0, 1).await.unwrap_err().kind(), Kind::NotFound);
}

pub async fn heads(store: DynStore) {
    let before = store.server_date().await.unwrap();
    create(&store, "jobs/a", "12345").await;
    let head = store.head("jobs/a").await.unwrap();
    assert_eq!(head.bytes, 5);
    let after = store.server_date().await.unwrap();
    // Both have whole seconds. Servers renew their Date header once in a second, and a file system dates a file by the clock's last tick,
    // which may lie in the second before.
    let lag = jiff::SignedDuration::from_secs(2);
    assert!(before <= head.modified + lag && head.modified <= after + lag, "{before} {} {after}", head.modified);
    assert!(head.sha256.is_none_or(|s| s == Sha256::of(b"12345")));
    for missing in ["jobs", "jobs/a/b", "jobs/b", "other/a"] {
        assert_eq!(store.head(missing).await.unwrap_err().kind(), Kind::NotFound, "{missing}");
    }
}

/// Keys whose folders and files sort differently by name than by whole key.
const AWKWARD: &[&str] = &[
    "a-b",
    "a-b-c/x",
    "a.b",
    "a/b",
    "a/b-c",
    "a0",
    "a/b.d/e",
    "a/c/d/e/f",
    "a/c-d",
    "a/c.d",
    "a/c0",
    "A",
    "Z/z",
    "_",
    "~",
    "~/x",
    "0",
    "a/-",
    "a/~",
    "b/1",
    "b/10",
    "b/2",
    "ab",
];

/// `a/b` cannot be there beside `a/b/…` in a folder, so the awkward keys leave such pairs out.
pub async fn pages_come_in_byte_order(store: DynStore) {
    let mut expected: Vec<&str> = AWKWARD.iter().copied().filter(|k| !AWKWARD.iter().any(|o| o.starts_with(&format!("{k}/")))).collect();
    for key in &expected {
        create(&store, key, key).await;
    }
    expected.sort_unstable();
    for limit in [1, 2, 3, 7, expected.len() - 1, expected.len(), 1000] {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let page = store.list("", seen.last().map(String::as_str), limit).await.unwrap();
            assert!(page.len() <= limit);
            let last = page.len() < limit;
            assert!(page.iter().all(|e| e.bytes == e.key.len() as u64));
            seen.extend(page.into_iter().map(|e| e.key));
            if last {
                break;
            }
        }
        assert_eq!(seen, expected, "pages of {limit}");
    }
    assert!(store.list("", None, 0).await.unwrap().is_empty());
    // After something that is not there, in every gap.
    for after in ["", "a", "a/", "a/b", "a/bb", "a/c", "a/c/", "a/c/d/e/f", "a/c/d/e/g", "a/d", "b", "zzzz", "a-", "~~", "A/x", "/", "a//"]
    {
        let seen: Vec<String> = store.list("", Some(after), 1000).await.unwrap().into_iter().map(|e| e.key).collect();
        let wanted: Vec<&str> = expected.iter().copied().filter(|k| *k > after).collect();
        assert_eq!(seen, wanted, "after {after:?}");
    }
}

pub async fn prefixes(store: DynStore) {
    let all: Vec<&str> = AWKWARD.iter().copied().filter(|k| !AWKWARD.iter().any(|o| o.starts_with(&format!("{k}/")))).collect();
    for key in &all {
        create(&store, key, "").await;
    }
    let odd = ["..", "../", "./", "/", "//", "a//", "a/../", "a/./", "nothing", "a/b/x", "é", "a\0", "a b", ".drctl-tmp", ".drctl-tmp/"];
    for prefix in
        ["", "a", "a/", "a/b", "a/b-", "a/c", "a/c/", "a/c/d", "a/c/d/e/f", "a/c/d/e/f/", "a-", "b/1", "~", "Z"].iter().chain(&odd)
    {
        let mut wanted: Vec<&str> = all.iter().copied().filter(|k| k.starts_with(prefix)).collect();
        wanted.sort_unstable();
        assert_eq!(keys(&store, prefix).await, wanted, "prefix {prefix:?}");
        // With a start inside, before and behind the prefix.
        for after in ["", "a", "a/b", "a/c/d", "b", "~~"] {
            let page: Vec<String> = store.list(prefix, Some(after), 1000).await.unwrap().into_iter().map(|e| e.key).collect();
            let wanted: Vec<&str> = wanted.iter().copied().filter(|k| *k > after).collect();
            assert_eq!(page, wanted, "prefix {prefix:?} after {after:?}");
        }
    }
}

pub async fn odd_keys(store: DynStore) {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    let good = [
        "a",
        ".hidden",
        "..a",
        "...",
        "-x",
        "~2e~2e",
        "jobs/x/sets/2025/01/01/020000Z-full-7k3q/postgres.~53hop~20~44~42.dump.zst.age.002",
        &long,
    ];
    for key in good {
        create(&store, key, key).await;
        assert_eq!(whole::read(store.as_ref(), key).await.unwrap(), key);
    }
    let mut wanted: Vec<String> = good.iter().map(|k| (*k).to_owned()).collect();
    wanted.sort_unstable();
    assert_eq!(keys(&store, "").await, wanted);

    let too_long = "k".repeat(901);
    let bad = [
        "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a/..", "ü", "a b", "a\nb", "a\\b", "a\0b", "%2e%2e/x", "a:b",
        "*", &too_long,
    ];
    for key in bad {
        assert!(whole::create(store.as_ref(), key, Bytes::from_static(b"x")).await.is_err(), "put {key:?}");
        assert!(store.head(key).await.is_err(), "head {key:?}");
        assert!(store.get_range(key, 0, 0).await.is_err(), "get {key:?}");
        assert!(store.delete(key).await.is_err(), "delete {key:?}");
    }
    assert_eq!(keys(&store, "").await, wanted);
}

pub async fn deleting_twice(store: DynStore) {
    create(&store, "d/e/f", "x").await;
    create(&store, "d/g", "y").await;
    store.delete("d/e/f").await.unwrap();
    assert_eq!(store.head("d/e/f").await.unwrap_err().kind(), Kind::NotFound);
    for key in ["d/e/f", "d/e", "d", "never/was"] {
        store.delete(key).await.unwrap();
    }
    assert_eq!(keys(&store, "").await, ["d/g"]);
    create(&store, "d/e/f", "again").await;
    assert_eq!(whole::read(store.as_ref(), "d/e/f").await.unwrap(), "again");
}

pub async fn an_empty_object(store: DynStore) {
    create(&store, "empty", "").await;
    assert_eq!(store.head("empty").await.unwrap().bytes, 0);
    assert_eq!(store.get_range("empty", 0, 0).await.unwrap().len(), 0);
    assert_eq!(store.get_range("empty", 0, 1).await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(whole::read(store.as_ref(), "empty").await.unwrap().len(), 0);
    assert_eq!(store.list("", None, 10).await.unwrap()[0].bytes, 0);
    // An end alone, without any data.
    let (sender, body) = Body::channel(1);
    sender.send(Piece::End { bytes: 0, sha256: Sha256::of(b""), crc64_nvme: None }).await.unwrap();
    store.put("empty-2", body).await.unwrap();
    assert_eq!(store.head("empty-2").await.unwrap().bytes, 0);
}

/// 200 MiB, more than any window of write-back, in pieces of uneven size.
pub async fn a_large_object(store: DynStore) {
    const BYTES: usize = 200 << 20;
    let block: Bytes = (0..3_000_017u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<u8>>().into();
    let (sender, body) = Body::channel(4);
    let feed = {
        let block = block.clone();
        tokio::spawn(async move {
            let mut hasher = Sha256::hasher();
            let mut sent = 0;
            while sent < BYTES {
                let piece = block.slice(..block.len().min(BYTES - sent));
                hasher.update(&piece);
                sent += piece.len();
                sender.send(Piece::Data(piece)).await.unwrap();
            }
            sender.send(Piece::End { bytes: sent as u64, sha256: hasher.finish(), crc64_nvme: None }).await.unwrap();
        })
    };
    store.put("jobs/big/x.age", body).await.unwrap();
    feed.await.unwrap();
    assert_eq!(store.head("jobs/big/x.age").await.unwrap().bytes, BYTES as u64);
    for offset in [0, block.len() - 5, BYTES - 10] {
        let got = store.get_range("jobs/big/x.age", offset as u64, 10).await.unwrap();
        let wanted: Vec<u8> = (offset..offset + 10).map(|i| block[i % block.len()]).collect();
        assert_eq!(got, wanted);
    }
    let error = whole::read(store.as_ref(), "jobs/big/x.age").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "too large to be read in one piece");
}

pub async fn dates_go_forward(store: DynStore) {
    let mut last = store.server_date().await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = store.server_date().await.unwrap();
        assert!(now >= last, "{now} {last}");
        last = now;
    }
    let away = (jiff::Timestamp::now().as_second() - last.as_second()).abs();
    assert!(away < 60, "{away} s from our own clock");
    assert!(keys(&store, "").await.is_empty(), "asking for the date leaves nothing");
}

/// Reading while others write and delete beside it.
pub async fn reading_while_others_write(store: DynStore) {
    create(&store, "steady/a/b", "steady").await;
    let churn = {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 0..100 {
                let key = format!("churn/{}/x", i % 3);
                create(&store, &key, "x").await;
                store.delete(&key).await.unwrap();
            }
        })
    };
    let beside = {
        let store = store.clone();
        tokio::spawn(async move {
            // The same folders, emptied by the other task again and again.
            for i in 0..100 {
                create(&store, &format!("churn/{}/y{i}", i % 3), "y").await;
                store.delete(&format!("churn/{}/y{i}", i % 3)).await.unwrap();
            }
        })
    };
    while !(churn.is_finished() && beside.is_finished()) {
        assert_eq!(keys(&store, "steady/").await, ["steady/a/b"]);
        keys(&store, "").await;
        assert_eq!(whole::read(store.as_ref(), "steady/a/b").await.unwrap(), "steady");
    }
    churn.await.unwrap();
    beside.await.unwrap();
    assert_eq!(keys(&store, "").await, ["steady/a/b"]);
}
