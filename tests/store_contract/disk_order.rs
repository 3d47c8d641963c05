//! The order in which the folder store asks for durability, recorded and broken step by step (FAULTS 13 and 14).

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use drctl::error::Kind;
use drctl::model::Sha256;
use drctl::store::local::{Disk, Folder, LocalStore, RealDisk};
use drctl::store::{Body, Piece, Store, whole};

const KEY: &str = "jobs/shop/log/0000000001.signed";
const FOLDERS: [&str; 4] = ["", "jobs/", "jobs/shop/", "jobs/shop/log/"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Write(usize),
    StartWriteBack(u64, u64),
    WaitWriteBack(u64, u64),
    SyncFile,
    Close,
    Link(String),
    SyncFolder(String),
    MakeFolder(String),
    Remove,
}

/// Notes each step, and lets one of them fail.
#[derive(Default)]
struct Recorder {
    steps: Mutex<Vec<Step>>,
    fail: Option<(usize, i32)>,
    no_hard_links: bool,
}

impl Recorder {
    fn failing(step: usize, errno: i32) -> Self {
        Recorder { fail: Some((step, errno)), ..Recorder::default() }
    }

    fn note(&self, step: Step) -> io::Result<()> {
        let mut steps = self.steps.lock().unwrap();
        steps.push(step);
        match self.fail {
            Some((n, errno)) if n == steps.len() - 1 => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn taken(&self) -> Vec<Step> {
        std::mem::take(&mut self.steps.lock().unwrap())
    }
}

impl Disk for Recorder {
    fn create(&self, folder: &Folder, name: &str) -> io::Result<File> {
        assert_eq!(folder.path(), ".drctl-tmp/");
        self.note(Step::Create)?;
        RealDisk.create(folder, name)
    }
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        self.note(Step::Write(bytes.len()))?;
        RealDisk.write(file, bytes)
    }
    fn start_write_back(&self, file: &File, offset: u64, length: u64) -> io::Result<()> {
        self.note(Step::StartWriteBack(offset, length))?;
        RealDisk.start_write_back(file, offset, length)
    }
    fn wait_write_back(&self, file: &File, offset: u64, length: u64) -> io::Result<()> {
        self.note(Step::WaitWriteBack(offset, length))?;
        RealDisk.wait_write_back(file, offset, length)
    }
    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.note(Step::SyncFile)?;
        RealDisk.sync_file(file)
    }
    fn close(&self, file: File) -> io::Result<()> {
        self.note(Step::Close)?;
        RealDisk.close(file)
    }
    fn link(&self, from: &Folder, old: &str, to: &Folder, new: &str) -> io::Result<()> {
        self.note(Step::Link(format!("{}{new}", to.path())))?;
        if self.no_hard_links {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        RealDisk.link(from, old, to, new)
    }
    fn sync_folder(&self, folder: &Folder) -> io::Result<()> {
        self.note(Step::SyncFolder(folder.path().to_owned()))?;
        RealDisk.sync_folder(folder)
    }
    fn make_folder(&self, parent: &Folder, name: &str) -> io::Result<()> {
        self.note(Step::MakeFolder(format!("{}{name}/", parent.path())))?;
        RealDisk.make_folder(parent, name)
    }
    fn remove(&self, folder: &Folder, name: &str) -> io::Result<()> {
        self.note(Step::Remove)?;
        RealDisk.remove(folder, name)
    }
}

fn store_with(root: &Path, recorder: Recorder) -> (LocalStore, Arc<Recorder>) {
    let recorder = Arc::new(recorder);
    (LocalStore::with_disk(root, recorder.clone()).unwrap(), recorder)
}

fn temporary_files(root: &Path) -> usize {
    std::fs::read_dir(root.join(".drctl-tmp")).map_or(0, Iterator::count)
}

fn position(steps: &[Step], wanted: impl Fn(&Step) -> bool) -> usize {
    steps.iter().position(wanted).unwrap()
}

/// What a power loss after the first `cut` steps would leave at worst: whether the name stands, whether its bytes stand.
/// A name is on the disk once its folder was synced after the link, and maybe sooner; bytes surely only after the file's sync.
fn name_may_stand_without_bytes(steps: &[Step], cut: usize) -> bool {
    let done = &steps[..cut];
    let linked = done.iter().any(|s| matches!(s, Step::Link(_)));
    let last_write = done.iter().rposition(|s| matches!(s, Step::Write(_)));
    let synced = done.iter().rposition(|s| *s == Step::SyncFile);
    linked && !(synced.is_some() && last_write < synced)
}

#[tokio::test]
async fn f14_bytes_then_name_then_every_folder() {
    let root = tempfile::tempdir().unwrap();
    let (store, recorder) = store_with(root.path(), Recorder::default());
    whole::create(&store, KEY, Bytes::from_static(b"record")).await.unwrap();
    let steps = recorder.taken();

    for cut in 0..=steps.len() {
        assert!(!name_may_stand_without_bytes(&steps, cut), "{:?}", &steps[..cut]);
    }
    let sync_file = position(&steps, |s| *s == Step::SyncFile);
    let close = position(&steps, |s| *s == Step::Close);
    let link = position(&steps, |s| *s == Step::Link(KEY.into()));
    assert!(sync_file < close && close < link, "{steps:?}");
    for folder in FOLDERS {
        let made = steps.iter().position(|s| *s == Step::MakeFolder(folder.into()));
        let synced = steps.iter().rposition(|s| *s == Step::SyncFolder(folder.into())).unwrap();
        assert!(made < Some(link) && link < synced, "{folder}: {steps:?}");
    }
    assert_eq!(steps.last(), Some(&Step::Remove));
    assert_eq!(temporary_files(root.path()), 0);
}

/// The checker of the test above is not blind: it finds each wrong order.
#[test]
fn f14_the_checker_sees_wrong_orders() {
    let link = || Step::Link(KEY.into());
    for wrong in [
        vec![Step::Write(1), link(), Step::SyncFile],
        vec![Step::Write(1), Step::SyncFile, Step::Write(1), link()],
        vec![Step::Write(1), link()],
    ] {
        assert!((0..=wrong.len()).any(|cut| name_may_stand_without_bytes(&wrong, cut)), "{wrong:?}");
    }
}

/// Whoever is told that a key is taken may find its own bytes there and call that success, so by then the name must be durable.
#[tokio::test]
async fn f14_a_taken_key_is_made_durable_before_it_is_said() {
    let root = tempfile::tempdir().unwrap();
    let (store, recorder) = store_with(root.path(), Recorder::default());
    whole::create(&store, KEY, Bytes::from_static(b"record")).await.unwrap();
    recorder.taken();
    let error = whole::create(&store, KEY, Bytes::from_static(b"record")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exists);
    let steps: BTreeSet<String> = recorder.taken().into_iter().map(|s| format!("{s:?}")).collect();
    for folder in FOLDERS {
        assert!(steps.contains(&format!("{:?}", Step::SyncFolder(folder.into()))), "{folder}: {steps:?}");
    }
}

/// Every single step fails once with an I/O error; nothing half-made may show, and no error may be swallowed.
#[tokio::test]
async fn f13_an_io_error_at_any_step_is_an_error() {
    let sound = tempfile::tempdir().unwrap();
    let (store, recorder) = store_with(sound.path(), Recorder::default());
    whole::create(&store, KEY, Bytes::from_static(b"record")).await.unwrap();
    let steps = recorder.taken();
    let link = position(&steps, |s| matches!(s, Step::Link(_)));

    for (n, step) in steps.iter().enumerate() {
        let root = tempfile::tempdir().unwrap();
        let (store, _) = store_with(root.path(), Recorder::failing(n, libc::EIO));
        let outcome = whole::create(&store, KEY, Bytes::from_static(b"record")).await;
        let sound = LocalStore::open(root.path()).unwrap();
        match step {
            // The object stands and is durable; the temporary name is left for the cleaner.
            Step::Remove => {
                outcome.unwrap();
                assert_eq!(sound.clean_temp().await.unwrap(), 1);
            }
            _ if n > link => {
                let error = outcome.unwrap_err();
                assert_eq!(error.kind(), Kind::OutcomeUnknown, "{step:?}: {error}");
                assert!(!error.kind().retryable());
            }
            _ => {
                let error = outcome.unwrap_err();
                assert_eq!(error.kind(), Kind::Failed, "{step:?}: {error}");
                assert!(error.hint_text().unwrap().contains("dmesg"), "{error:?}");
                assert_eq!(sound.head(KEY).await.unwrap_err().kind(), Kind::NotFound);
                whole::create(&sound, KEY, Bytes::from_static(b"record")).await.unwrap();
            }
        }
        assert_eq!(temporary_files(root.path()), 0, "{step:?}");
        assert_eq!(whole::read(&sound, KEY).await.unwrap(), "record");
    }
}

#[tokio::test]
async fn errors_of_the_system_become_kinds_with_a_hint() {
    for (errno, kind, hint) in [
        (libc::ENOSPC, Kind::Full, "df -h"),
        (libc::EDQUOT, Kind::Full, "quota"),
        (libc::EFBIG, Kind::Full, "ulimit -f"),
        (libc::EROFS, Kind::Denied, "read-only"),
        (libc::EACCES, Kind::Denied, "right to write"),
        (libc::EIO, Kind::Failed, "dmesg"),
        (libc::EMFILE, Kind::Full, "ulimit -n"),
        (libc::ESTALE, Kind::Unreachable, "mount it again"),
    ] {
        let root = tempfile::tempdir().unwrap();
        // Steps: MakeFolder of the temporary files, Create, Write …
        let (store, _) = store_with(root.path(), Recorder::failing(2, errno));
        let error = whole::create(&store, "key", Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().starts_with("write key: "), "{error}");
        assert!(error.hint_text().unwrap().contains(hint), "{error:?}");
    }
}

#[tokio::test]
async fn a_filesystem_without_hard_links_still_creates_only() {
    let root = tempfile::tempdir().unwrap();
    let (store, _) = store_with(root.path(), Recorder { no_hard_links: true, ..Recorder::default() });
    let (sender, late) = Body::channel(2);
    // Begun while the key is free, ended when it is taken.
    let store = Arc::new(store);
    let slow = tokio::spawn({
        let store = store.clone();
        async move { store.put("a/b", late).await }
    });
    sender.send(Piece::Data(Bytes::from_static(b"late"))).await.unwrap();
    while temporary_files(root.path()) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    whole::create(store.as_ref(), "a/b", Bytes::from_static(b"first")).await.unwrap();
    sender.send(Piece::End { bytes: 4, sha256: Sha256::of(b"late"), crc64_nvme: None }).await.unwrap();
    assert_eq!(slow.await.unwrap().unwrap_err().kind(), Kind::Exists);
    assert_eq!(whole::read(store.as_ref(), "a/b").await.unwrap(), "first");
    assert_eq!(temporary_files(root.path()), 0);
}

/// Write-back starts early and is waited for, so that neither the last fsync nor memory gets all of a long stream.
#[tokio::test]
async fn a_long_stream_is_written_back_as_it_grows() {
    let root = tempfile::tempdir().unwrap();
    let (store, recorder) = store_with(root.path(), Recorder::default());
    let piece = Bytes::from(vec![5u8; 4 << 20]);
    let (sender, body) = Body::channel(2);
    let feed = tokio::spawn(async move {
        let mut hasher = Sha256::hasher();
        for _ in 0..75 {
            hasher.update(&piece);
            sender.send(Piece::Data(piece.clone())).await.unwrap();
        }
        sender.send(Piece::End { bytes: 300 << 20, sha256: hasher.finish(), crc64_nvme: None }).await.unwrap();
    });
    store.put("long", body).await.unwrap();
    feed.await.unwrap();
    let (mut written, mut started, mut waited) = (0u64, 0u64, 0u64);
    for step in recorder.taken() {
        match step {
            Step::Write(bytes) => written += bytes as u64,
            Step::StartWriteBack(offset, length) => {
                assert_eq!(offset, started);
                started += length;
            }
            Step::WaitWriteBack(offset, length) => {
                assert_eq!(offset, waited);
                waited += length;
                assert!(waited <= started);
            }
            _ => {}
        }
        assert!(written - started <= 16 << 20 && written - waited <= 160 << 20, "{written} {started} {waited}");
    }
    assert!(waited >= 128 << 20);
}

/// A disk on which every fsync waits until the test lets it go on.
struct SlowDisk(Mutex<std::sync::mpsc::Receiver<()>>, std::sync::mpsc::SyncSender<()>);

impl Disk for SlowDisk {
    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.1.send(()).unwrap();
        let _ = self.0.lock().unwrap().recv();
        RealDisk.sync_file(file)
    }
}

fn slow_store(root: &Path) -> (Arc<LocalStore>, std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<()>) {
    let (go, wait) = std::sync::mpsc::channel();
    let (reached, at_fsync) = std::sync::mpsc::sync_channel(8);
    (Arc::new(LocalStore::with_disk(root, Arc::new(SlowDisk(Mutex::new(wait), reached))).unwrap()), go, at_fsync)
}

/// On the one thread of this runtime other work goes on while the disk hangs.
#[tokio::test(flavor = "current_thread")]
async fn a_hanging_disk_does_not_hold_up_the_runtime() {
    let root = tempfile::tempdir().unwrap();
    let (store, go, at_fsync) = slow_store(root.path());
    let put = tokio::spawn({
        let store = store.clone();
        async move { whole::create(store.as_ref(), "k", Bytes::from_static(b"x")).await }
    });
    while at_fsync.try_recv().is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!put.is_finished());
    assert_eq!(store.head("k").await.unwrap_err().kind(), Kind::NotFound, "not visible before it is durable");
    go.send(()).unwrap();
    put.await.unwrap().unwrap();
    assert_eq!(store.head("k").await.unwrap().bytes, 1);
}

#[tokio::test]
async fn a_put_that_nobody_waits_for_any_more_gets_no_name() {
    let root = tempfile::tempdir().unwrap();
    let (store, go, at_fsync) = slow_store(root.path());
    let put = tokio::spawn({
        let store = store.clone();
        async move { whole::create(store.as_ref(), "k/l", Bytes::from_static(b"x")).await }
    });
    while at_fsync.try_recv().is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    put.abort();
    assert!(put.await.unwrap_err().is_cancelled());
    go.send(()).unwrap();
    while temporary_files(root.path()) > 0 || root.path().join("k").exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(store.head("k/l").await.unwrap_err().kind(), Kind::NotFound);
}

/// A disk that takes nothing makes the sender wait.
struct StuckDisk(Mutex<std::sync::mpsc::Receiver<()>>);

impl Disk for StuckDisk {
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let _ = self.0.lock().unwrap().recv();
        RealDisk.write(file, bytes)
    }
}

#[tokio::test]
async fn a_slow_disk_makes_the_sender_wait() {
    let root = tempfile::tempdir().unwrap();
    let (go, wait) = std::sync::mpsc::channel();
    let store = LocalStore::with_disk(root.path(), Arc::new(StuckDisk(Mutex::new(wait)))).unwrap();
    let (sender, body) = Body::channel(2);
    let put = tokio::spawn(async move { store.put("k", body).await });
    // One in the writer's hand, two in the channel.
    for _ in 0..3 {
        sender.send(Piece::Data(Bytes::from_static(b"x"))).await.unwrap();
    }
    let fourth = tokio::time::timeout(Duration::from_millis(300), sender.send(Piece::Data(Bytes::from_static(b"x")))).await;
    assert!(fourth.is_err(), "it must wait");
    drop(go);
    sender.send(Piece::End { bytes: 3, sha256: Sha256::of(b"xxx"), crc64_nvme: None }).await.unwrap();
    put.await.unwrap().unwrap();
}
