use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::error::{Error, Kind, Result};
use crate::model::Secret;
use crate::model::testing::{alone, passes};

fn shell(script: &str) -> Command {
    Command::new("fake dump of shop", "/bin/sh").arg("-c").arg(script)
}

fn limits(idle_ms: Option<u64>, total_ms: Option<u64>) -> Limits {
    Limits { idle: idle_ms.map(Duration::from_millis), total: total_ms.map(Duration::from_millis), grace: Duration::from_millis(500) }
}

async fn collect(command: Command) -> std::result::Result<(Vec<u8>, Finished), Failure> {
    command.output(&CancellationToken::new(), 1 << 28).await
}

fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn pid_in(file: &Path) -> i32 {
    let mut pid = None;
    wait_until("a pid file", || {
        pid = std::fs::read_to_string(file).ok().and_then(|t| t.trim().parse().ok());
        pid.is_some()
    })
    .await;
    pid.unwrap()
}

/// The sizes of blocks as they come. All but the last are whole, but for what was held for two seconds.
#[derive(Clone, Default)]
struct Blocks(Arc<Mutex<Vec<(usize, Instant)>>>);

impl Blocks {
    fn add(&self, bytes: &Bytes) {
        self.0.lock().unwrap().push((bytes.len(), Instant::now()));
    }

    /// How many there were, and their bytes, if none was handed on too early.
    fn judge(&self, begun: Instant) -> (usize, u64) {
        let blocks = self.0.lock().unwrap();
        let mut before = begun;
        for (size, at) in &blocks[..blocks.len() - 1] {
            assert!(*size == 512 * 1024 || *at - before >= Duration::from_secs(2), "{size} bytes after {:?}", *at - before);
            before = *at;
        }
        (blocks.len(), blocks.iter().map(|(size, _)| *size as u64).sum())
    }
}

#[tokio::test]
async fn output_arrives_whole_in_large_blocks() {
    let blocks = Blocks::default();
    let seen = blocks.clone();
    let total = 64 << 20;
    let sink = move |bytes: Bytes| {
        seen.add(&bytes);
        Ok(())
    };
    let begun = Instant::now();
    let finished = shell(&format!("head -c {total} /dev/zero")).stream(&CancellationToken::new(), sink).await.unwrap();
    assert_eq!(finished.bytes, total);
    assert_eq!(blocks.judge(begun).1, total);
}

#[tokio::test]
async fn what_a_slow_child_writes_is_handed_on_before_a_block_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("arrived");
    let blocks = Blocks::default();
    let (seen, arrived) = (blocks.clone(), file.clone());
    let sink = move |bytes: Bytes| {
        seen.add(&bytes);
        std::fs::write(&arrived, "").unwrap();
        Ok(())
    };
    // It goes on until something of it has arrived.
    let script = format!("while [ ! -e {} ]; do echo x; sleep 0.1; done; sleep 0.2; echo z", file.display());
    let begun = Instant::now();
    let slow = shell(&script).limits(limits(None, Some(60_000))).stream(&CancellationToken::new(), sink).await.unwrap();
    let (count, bytes) = blocks.judge(begun);
    assert!(count >= 2 && bytes == slow.bytes, "{count} blocks, {bytes} of {} bytes", slow.bytes);
}

#[tokio::test]
async fn content_is_kept_when_blocks_are_held_or_let_go() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let seen = held.clone();
    let sink = move |bytes: Bytes| {
        seen.lock().unwrap().push(bytes);
        Ok(())
    };
    shell("seq 1 1000000").stream(&CancellationToken::new(), sink).await.unwrap();
    let text: Vec<u8> = held.lock().unwrap().iter().flat_map(|b| b.to_vec()).collect();
    let want: String = (1..=1_000_000).map(|i| format!("{i}\n")).collect();
    assert!(text == want.as_bytes());
}

#[tokio::test]
async fn f26_exit_status_after_all_output_voids_it_and_gives_the_last_lines() {
    let failure = collect(shell("seq 1 30 >&2; head -c 100000 /dev/zero; exit 3")).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Exit(3));
    assert_eq!(failure.stderr.len(), 20);
    let text = failure.error.to_string();
    assert!(text.starts_with("fake dump of shop exited 3 after ") && text.contains(": 11; 12;") && text.ends_with("; 30"), "{text}");
}

#[tokio::test]
async fn a_signal_voids_it() {
    let failure = collect(shell("echo x; kill -11 $$")).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Signal(11));
}

#[tokio::test]
async fn f29_a_child_that_hangs_is_killed_with_its_group() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("trap '' TERM; sleep 600 & echo $! > {}; echo x; wait; sleep 600", file.display());
    let mut idle = 300;
    let failure = loop {
        let failure = collect(shell(&script).limits(limits(Some(idle), None))).await.unwrap_err();
        assert_eq!(failure.reason, Reason::Idle);
        // One that was killed before it had begun says nothing of one that hangs.
        if idle > 60_000 || !failure.error.to_string().contains(" after 0 bytes") {
            break failure;
        }
        idle *= 2;
    };
    let said = format!("wrote nothing for {} s after 2 bytes", Duration::from_millis(idle).as_secs_f64());
    assert!(failure.error.to_string().contains(&said), "{}", failure.error);
    let pid = pid_in(&file).await;
    wait_until("the grandchild dies", || !alive(pid)).await;
}

#[tokio::test]
async fn f29_the_total_limit_holds_for_a_child_that_keeps_writing() {
    let failure = collect(shell("while :; do echo x; sleep 0.01; done").limits(limits(Some(2000), Some(400)))).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Total);
}

#[tokio::test]
async fn time_in_which_we_do_not_read_is_not_the_childs() {
    let mut idle = 300;
    loop {
        let slow = move |_: Bytes| {
            std::thread::sleep(Duration::from_millis(idle * 2 + 100));
            Ok(())
        };
        let command = shell("head -c 1000000 /dev/zero").limits(limits(Some(idle), None));
        match command.stream(&CancellationToken::new(), slow).await {
            Ok(_) => return,
            // The child itself may have been held up; its limit is always shorter than the time in which we do not read.
            Err(failure) => assert!(failure.reason == Reason::Idle && idle < 10_000, "{}", failure.error),
        }
        idle *= 3;
    }
}

/// What the other tests of this process hold in memory must not be counted.
#[test]
fn f29_a_flood_of_stderr_neither_blocks_nor_grows() {
    passes(&mut alone("process::tests::helper_of_f29_flood"));
}

#[tokio::test]
#[ignore = "a part of f29_a_flood_of_stderr_neither_blocks_nor_grows, which runs it in a process of its own"]
async fn helper_of_f29_flood() {
    let gib = shell("head -c 1073741824 /dev/zero | tr '\\0' 'e' >&2; echo; echo the end >&2; echo out");
    let before = resident_kib();
    let mut highest = before;
    // Looked at while it runs: afterwards what was kept is given back.
    let watch = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            highest = highest.max(resident_kib());
        }
    };
    let (out, finished) = tokio::select! {
        ended = collect(gib) => ended.unwrap(),
        () = watch => unreachable!(),
    };
    assert_eq!(out, b"\nout\n");
    assert!(finished.stderr.iter().map(String::len).sum::<usize>() < 20_000);
    assert!(highest < before + 256 * 1024, "from {before} to {highest} KiB");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn f2_cancel_kills_the_whole_group() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let cancel = CancellationToken::new();
    let script = format!("sleep 600 & echo $! > {}; wait", file.display());
    let run = tokio::spawn({
        let cancel = cancel.clone();
        async move { shell(&script).output(&cancel, 1000).await }
    });
    let pid = pid_in(&file).await;
    cancel.cancel();
    let failure = run.await.unwrap().unwrap_err();
    assert_eq!((failure.reason, failure.error.kind()), (Reason::Cancelled, Kind::Interrupted));
    wait_until("the grandchild dies", || !alive(pid)).await;
}

#[tokio::test]
#[ignore = "a part of f2_kill_9_of_drctl_kills_the_child, which runs it in a process of its own"]
async fn helper_of_f2_kill_9() {
    if let Ok(file) = std::env::var("DRCTL_TEST_PID_FILE") {
        let _ = collect(shell(&format!("trap '' TERM HUP; echo $$ > {file}; while :; do sleep 0.1; done"))).await;
    }
}

#[tokio::test]
async fn f2_kill_9_of_drctl_kills_the_child() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let mut helper =
        alone("process::tests::helper_of_f2_kill_9").env("DRCTL_TEST_PID_FILE", &file).stdout(std::process::Stdio::null()).spawn().unwrap();
    let pid = pid_in(&file).await;
    assert!(alive(pid));
    helper.kill().unwrap();
    helper.wait().unwrap();
    wait_until("the child dies", || !alive(pid)).await;
}

#[tokio::test]
async fn f2_dropping_the_future_kills_the_child() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("echo $$ > {}; sleep 600", file.display());
    let run = tokio::spawn(async move { collect(shell(&script)).await });
    let pid = pid_in(&file).await;
    run.abort();
    wait_until("the child dies and is reaped", || !Path::new(&format!("/proc/{pid}")).exists()).await;
}

#[tokio::test]
async fn f2_a_child_that_nobody_took_over_yet_is_killed_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("echo $$ > {}; sleep 600", file.display());
    let mut run = Box::pin(collect(shell(&script)));
    // Asked once: it is being started. Nobody asks again, so that the started child waits to be taken over.
    assert!(futures::FutureExt::now_or_never(&mut run).is_none());
    let pid = pid_in(&file).await;
    drop(run);
    wait_until("the child dies and is reaped", || !Path::new(&format!("/proc/{pid}")).exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_children_outlive_the_thread_that_asked_for_them() {
    // The parent-death signal fires when the spawning thread ends: a runtime's thread that ends must not kill the child.
    let folder = tempfile::tempdir().unwrap();
    let (file, go) = (folder.path().join("pid"), folder.path().join("go"));
    let script = format!("echo $$ > {}; while [ ! -e {} ]; do sleep 0.05; done; echo done", file.display(), go.display());
    let runtime = tokio::runtime::Handle::current();
    let start = move || runtime.block_on(started(Box::pin(collect(shell(&script))), &file)).unwrap();
    let run = tokio::task::spawn_blocking(|| std::thread::spawn(start).join().unwrap()).await.unwrap();
    std::fs::write(&go, "").unwrap();
    let (out, _) = run.await.unwrap();
    assert_eq!(out, b"done\n");
}

/// Polls a future until its child has started and written its id, and hands it back unfinished.
async fn started<F: std::future::Future + Unpin>(mut run: F, file: &Path) -> Option<F> {
    tokio::select! {
        _ = &mut run => None,
        _ = pid_in(file) => Some(run),
    }
}

#[tokio::test]
async fn an_error_of_the_sink_kills_the_child_and_is_the_error() {
    let sink = |_: Bytes| -> Result<()> { Err(Error::new(Kind::Full, "no room left")) };
    let failure = shell("cat /dev/zero").stream(&CancellationToken::new(), sink).await.unwrap_err();
    assert_eq!((failure.reason, failure.error.kind()), (Reason::Stream, Kind::Full));
}

#[tokio::test]
async fn what_a_child_leaves_behind_cannot_hold_the_run() {
    let since = Instant::now();
    let failure = collect(shell("sleep 600 & echo x")).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Leftover);
    assert!(since.elapsed() < Duration::from_secs(300));
}

#[tokio::test]
async fn secrets_are_neither_inherited_nor_kept() {
    passes(alone("process::tests::helper_of_secrets_inherited").env("DRCTL_TEST_CANARY", "canary-1"));
    let command = shell("env; echo connect to u:s3cret@h >&2; exit 1").env("PGAPPNAME", "drctl/x").secret(&Secret::new("s3cret"));
    let out = Arc::new(Mutex::new(Vec::new()));
    let kept = out.clone();
    let sink = move |b: Bytes| {
        kept.lock().unwrap().extend_from_slice(&b);
        Ok(())
    };
    let failure = command.stream(&CancellationToken::new(), sink).await.unwrap_err();
    assert_eq!(failure.stderr, ["connect to u:***@h"]);
    assert!(!failure.error.to_string().contains("s3cret"));
}

#[tokio::test]
#[ignore = "a part of secrets_are_neither_inherited_nor_kept, which runs it in a process with a variable of its own"]
async fn helper_of_secrets_inherited() {
    if std::env::var_os("DRCTL_TEST_CANARY").is_none() {
        return;
    }
    let env = shell("env").env("PGAPPNAME", "drctl/x");
    let (env, _) = collect(env).await.unwrap();
    let env = String::from_utf8(env).unwrap();
    assert!(env.contains("PGAPPNAME=drctl/x") && env.contains("PATH=") && !env.contains("canary"), "{env}");
}

#[tokio::test]
async fn a_missing_program_is_said() {
    let failure = collect(Command::new("pg_dump of shop", "/nowhere/pg_dump")).await.unwrap_err();
    assert_eq!((failure.reason, failure.error.kind()), (Reason::Start, Kind::Preflight));
    assert!(failure.error.to_string().contains("/nowhere/pg_dump"), "{}", failure.error);
}

#[tokio::test]
async fn input_is_fed_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copy");
    let source = |input: &mut Input<'_>| {
        for _ in 0..64 {
            assert!(input.write(&[7u8; 1 << 16])?);
        }
        Ok(())
    };
    let finished = shell(&format!("cat > {}", file.display())).feed(&CancellationToken::new(), source).await.unwrap();
    assert_eq!(finished.bytes, 4 << 20);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 4 << 20);
}

#[tokio::test]
async fn f84_an_input_that_breaks_off_is_never_seen_as_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("end");
    let source = |input: &mut Input<'_>| {
        input.write(b"half")?;
        Err(Error::corrupt("the artifact broke off"))
    };
    let script = format!("cat > /dev/null; touch {}", file.display());
    let failure = shell(&script).feed(&CancellationToken::new(), source).await.unwrap_err();
    assert_eq!((failure.reason, failure.error.kind()), (Reason::Stream, Kind::Corrupt));
    assert!(!file.exists());
}

#[tokio::test]
async fn a_child_that_stops_reading_says_why_itself() {
    let count = Arc::new(AtomicU64::new(0));
    let seen = count.clone();
    let source = move |input: &mut Input<'_>| {
        while input.write(&[7u8; 1 << 16])? {
            seen.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let failure = shell("echo cannot >&2; exit 1").feed(&CancellationToken::new(), source).await.unwrap_err();
    assert_eq!((failure.reason, failure.stderr), (Reason::Exit(1), vec!["cannot".to_owned()]));
    assert!(count.load(Ordering::Relaxed) < 1000);
}
