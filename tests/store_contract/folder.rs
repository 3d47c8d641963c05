//! What only a folder can get wrong: full and read-only disks, links, mounts, what dead processes leave.
//!
//! Tests that need a small or read-only filesystem run their inner half in a mount namespace of their own (`unshare -m`), by starting this test
//! program again. Where that is not allowed they say SKIPPED on stderr, which the test run counts.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drctl::error::Kind;
use drctl::model::Sha256;
use drctl::store::local::{LocalStore, available_bytes};
use drctl::store::{Body, Entry, Piece, Store, whole};

/// Set for the inner half of a test: the folder to work in.
const INSIDE: &str = "DRCTL_TEST_INSIDE";

fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

/// This test program, asked to run one test, with the folder to work in.
fn this_test(launcher: &[&str], test: &str, folder: &Path) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut words: Vec<&std::ffi::OsStr> = launcher.iter().map(std::ffi::OsStr::new).collect();
    words.push(exe.as_os_str());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["--exact", test, "--nocapture", "--test-threads", "1"]).env(INSIDE, folder);
    command
}

/// Runs the inner half of `test` in a mount namespace.
fn in_a_namespace(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    let unshare: &[&str] = if rustix::process::geteuid().is_root() { &["unshare", "-m"] } else { &["unshare", "-rm"] };
    let allowed = Command::new(unshare[0]).args(&unshare[1..]).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !allowed.is_ok_and(|o| o.status.success()) {
        // Not eprintln: the harness would swallow it.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: no mount namespace can be made here");
        return;
    }
    let output = this_test(unshare, test, folder.path()).output().unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the inner half did not run");
}

fn mount(arguments: &[&str], at: &Path) {
    let status = Command::new("mount").args(arguments).arg(at).status().unwrap();
    assert!(status.success(), "mount {arguments:?}");
}

/// Streams so many MiB into a key.
async fn put_mebibytes(store: &LocalStore, key: &str, mebibytes: usize) -> drctl::error::Result<()> {
    let (sender, body) = Body::channel(2);
    let piece = Bytes::from(vec![9u8; 1 << 20]);
    let feed = async {
        let mut hasher = Sha256::hasher();
        for _ in 0..mebibytes {
            hasher.update(&piece);
            if sender.send(Piece::Data(piece.clone())).await.is_err() {
                return;
            }
        }
        let _ = sender.send(Piece::End { bytes: (mebibytes as u64) << 20, sha256: hasher.finish(), crc64_nvme: None }).await;
    };
    tokio::join!(store.put(key, body), feed).0
}

fn temporary_files(root: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root.join(".drctl-tmp")) else { return Vec::new() };
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn f12_a_full_disk_leaves_nothing_half_made() {
    let Some(root) = inside() else { return in_a_namespace("folder::f12_a_full_disk_leaves_nothing_half_made") };
    mount(&["-t", "tmpfs", "-o", "size=8m", "none"], &root);
    let store = LocalStore::open(&root).unwrap();
    put_mebibytes(&store, "jobs/old", 2).await.unwrap();
    let room = store.available_bytes().unwrap();
    assert!(room > 5 << 20 && room <= 6 << 20, "{room}");

    let error = put_mebibytes(&store, "jobs/new", 16).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Full, "{error}");
    assert!(error.to_string().starts_with("write jobs/new: "), "{error}");
    assert!(error.hint_text().unwrap().contains("df -h"));
    assert_eq!(store.head("jobs/new").await.unwrap_err().kind(), Kind::NotFound);
    assert!(temporary_files(&root).is_empty());
    assert_eq!(store.available_bytes().unwrap(), room, "all room is given back");
    assert_eq!(whole::read(&store, "jobs/old").await.unwrap(), vec![9u8; 2 << 20]);
    put_mebibytes(&store, "jobs/new", 4).await.unwrap();
}

/// The inner half runs under a limit of the size of files, with its signal ignored as the program does.
#[tokio::test]
async fn f12_a_file_size_limit_leaves_nothing_half_made() {
    let Some(root) = inside() else {
        let folder = tempfile::tempdir().unwrap();
        let limit = ["sh", "-c", "trap '' XFSZ; ulimit -f 4096; exec \"$@\"", "sh"];
        let output = this_test(&limit, "folder::f12_a_file_size_limit_leaves_nothing_half_made", folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        return;
    };
    let store = LocalStore::open(&root).unwrap();
    let error = put_mebibytes(&store, "a/big", 16).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Full, "{error}");
    assert!(error.hint_text().unwrap().contains("ulimit -f"));
    assert!(temporary_files(&root).is_empty());
    assert!(!root.join("a").exists(), "no empty folder stays");
    put_mebibytes(&store, "a/small", 1).await.unwrap();
}

#[tokio::test]
async fn f13_a_read_only_disk_is_said_and_can_be_read() {
    let Some(root) = inside() else { return in_a_namespace("folder::f13_a_read_only_disk_is_said_and_can_be_read") };
    mount(&["-t", "tmpfs", "none"], &root);
    let store = LocalStore::open(&root).unwrap();
    whole::create(&store, "a/b", Bytes::from_static(b"kept")).await.unwrap();
    mount(&["-o", "remount,ro"], &root);

    for error in [
        whole::create(&store, "a/c", Bytes::from_static(b"new")).await.unwrap_err(),
        whole::create(&store, "d/e/f", Bytes::from_static(b"new")).await.unwrap_err(),
        store.delete("a/b").await.unwrap_err(),
        store.server_date().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert!(error.hint_text().unwrap().contains("read-only"), "{error:?}");
    }
    assert_eq!(whole::create(&store, "a/b", Bytes::from_static(b"other")).await.unwrap_err().kind(), Kind::Exists);
    assert_eq!(whole::read(&store, "a/b").await.unwrap(), "kept");
    assert_eq!(whole::list_all(&store, "").await.unwrap().len(), 1);
}

#[tokio::test]
async fn another_filesystem_at_the_root_is_noticed() {
    let Some(root) = inside() else { return in_a_namespace("folder::another_filesystem_at_the_root_is_noticed") };
    let store = LocalStore::open(&root).unwrap();
    whole::create(&store, "a", Bytes::from_static(b"x")).await.unwrap();
    mount(&["-t", "tmpfs", "none"], &root);
    for error in [
        whole::create(&store, "b", Bytes::from_static(b"x")).await.unwrap_err(),
        store.head("a").await.unwrap_err(),
        whole::list_all(&store, "").await.unwrap_err(),
        store.delete("a").await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        assert!(error.hint_text().unwrap().contains("mount it again"));
    }
}

#[tokio::test]
async fn another_filesystem_inside_is_refused_before_a_byte_is_taken() {
    let Some(root) = inside() else { return in_a_namespace("folder::another_filesystem_inside_is_refused_before_a_byte_is_taken") };
    let store = LocalStore::open(&root).unwrap();
    std::fs::create_dir(root.join("jobs")).unwrap();
    mount(&["-t", "tmpfs", "none"], &root.join("jobs"));
    let (_sender, body) = Body::channel(1);
    let error = store.put("jobs/x", body).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("one filesystem"), "{error:?}");
}

#[tokio::test]
async fn links_inside_the_root_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repository");
    let outside = folder.path().join("outside");
    std::fs::create_dir_all(outside.join("sets")).unwrap();
    std::fs::write(outside.join("sets/secret"), "not yours").unwrap();
    let store = LocalStore::create(&root).unwrap();
    whole::create(&store, "real/x", Bytes::from_static(b"x")).await.unwrap();
    symlink(&outside, root.join("jobs")).unwrap();
    symlink(outside.join("sets/secret"), root.join("real/link")).unwrap();
    symlink("nowhere", root.join("real/dangling")).unwrap();

    // Behind a link nothing is read or written.
    for key in ["jobs/sets/secret", "jobs/new"] {
        for error in [
            store.get_range(key, 0, 1).await.unwrap_err(),
            store.head(key).await.unwrap_err(),
            store.delete(key).await.unwrap_err(),
            whole::create(&store, key, Bytes::from_static(b"evil")).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Denied, "{key}: {error}");
            assert!(error.to_string().contains("symbolic link"), "{error}");
        }
    }
    // A link itself takes its name and holds nothing.
    for key in ["real/link", "real/dangling"] {
        assert_eq!(store.head(key).await.unwrap().bytes, 0);
        assert_eq!(store.get_range(key, 0, 0).await.unwrap().len(), 0);
        let error = store.get_range(key, 0, 1).await.unwrap_err();
        assert!(error.kind() == Kind::Denied && error.to_string().contains("symbolic link"), "{error}");
        assert_eq!(whole::create(&store, key, Bytes::from_static(b"evil")).await.unwrap_err().kind(), Kind::Exists);
    }
    let listed = |listed: Vec<Entry>| listed.into_iter().map(|entry| (entry.key, entry.bytes)).collect::<Vec<_>>();
    let all = listed(whole::list_all(&store, "").await.unwrap());
    assert_eq!(all, [("jobs".to_owned(), 0), ("real/dangling".to_owned(), 0), ("real/link".to_owned(), 0), ("real/x".to_owned(), 1)]);
    assert_eq!(listed(whole::list_all(&store, "jobs/sets/").await.unwrap()), []);
    store.delete("real/link").await.unwrap();
    assert!(root.join("real/link").symlink_metadata().is_err(), "the link goes, not what it points at");
    assert_eq!(std::fs::read_to_string(outside.join("sets/secret")).unwrap(), "not yours");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);

    // The folder of temporary files is no way out either.
    std::fs::remove_dir_all(root.join(".drctl-tmp")).unwrap();
    symlink(&outside, root.join(".drctl-tmp")).unwrap();
    assert_eq!(whole::create(&store, "real/y", Bytes::from_static(b"y")).await.unwrap_err().kind(), Kind::Denied);
    assert_eq!(store.clean_temp().await.unwrap_err().kind(), Kind::Denied);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_no_object_is_not_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path()).unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from(0o600)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    // Does not wait for a writer.
    for key in ["pipe", "socket"] {
        assert!(store.get_range(key, 0, 1).await.is_err());
        assert_eq!((store.head(key).await.unwrap().bytes, store.get_range(key, 0, 0).await.unwrap().len()), (0, 0));
        assert_eq!(whole::create(&store, key, Bytes::new()).await.unwrap_err().kind(), Kind::Exists);
        store.delete(key).await.unwrap();
        assert!(folder.path().join(key).symlink_metadata().is_err());
    }

    std::fs::create_dir(folder.path().join("lost+found")).unwrap();
    std::fs::write(folder.path().join("lost+found/x"), "").unwrap();
    std::fs::write(folder.path().join("name with spaces"), "").unwrap();
    assert!(whole::list_all(&store, "").await.unwrap().is_empty());

    whole::create(&store, "a/b", Bytes::new()).await.unwrap();
    for (key, kind, word) in [("a", Kind::Exists, "is a folder"), ("a/b/c", Kind::Failed, "is an object")] {
        let error = whole::create(&store, key, Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(word) && error.hint_text().unwrap().contains("rm "), "{error}");
    }
    // An empty folder is nothing to anyone.
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    whole::create(&store, "empty", Bytes::from_static(b"x")).await.unwrap();
}

#[tokio::test]
async fn temporary_files_are_no_keys() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path()).unwrap();
    store.server_date().await.unwrap();
    std::fs::write(folder.path().join(".drctl-tmp/x"), "x").unwrap();
    for key in [".drctl-tmp", ".drctl-tmp/x"] {
        assert!(store.head(key).await.is_err());
        assert!(store.get_range(key, 0, 1).await.is_err());
        assert!(store.delete(key).await.is_err());
        assert!(whole::create(&store, key, Bytes::new()).await.is_err());
    }
    whole::create(&store, ".drctl-tmp-not", Bytes::new()).await.unwrap();
    whole::create(&store, "a/.drctl-tmp", Bytes::new()).await.unwrap();
    for prefix in ["", ".d", ".drctl-tmp"] {
        let keys: Vec<String> = whole::list_all(&store, prefix).await.unwrap().into_iter().map(|e| e.key).collect();
        assert_eq!(keys[0], ".drctl-tmp-not");
        assert!(!keys.iter().any(|k| k.starts_with(".drctl-tmp/")));
    }
}

#[tokio::test]
async fn the_root_must_be_there_unless_it_is_to_be_made() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("mnt/backup");
    let error = LocalStore::open(&root).err().unwrap();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.hint_text().unwrap().contains("mounted"), "{error:?}");
    assert!(!root.exists());
    LocalStore::create(&root).unwrap();
    LocalStore::create(&root).unwrap();
    LocalStore::open(&root).unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    assert!(LocalStore::open(&folder.path().join("file")).is_err());
    assert!(LocalStore::create(&folder.path().join("file")).is_err());
    assert!(available_bytes(&root).unwrap() > 0);

    // Gone while it is in use.
    let store = LocalStore::open(&root).unwrap();
    std::fs::remove_dir(&root).unwrap();
    assert_eq!(whole::create(&store, "a", Bytes::new()).await.unwrap_err().kind(), Kind::Unreachable);
    assert_eq!(store.head("a").await.unwrap_err().kind(), Kind::Unreachable, "never 'there is no such object'");
    assert!(!root.exists(), "never made anew behind the user's back");
}

#[tokio::test]
async fn files_and_folders_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("r");
    let store = LocalStore::create(&root).unwrap();
    whole::create(&store, "jobs/x", Bytes::from_static(b"x")).await.unwrap();
    let mode = |path: &str| std::fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode(""), mode("jobs"), mode(".drctl-tmp"), mode("jobs/x")], [0o700, 0o700, 0o700, 0o600]);
    assert_eq!(std::fs::metadata(root.join("jobs/x")).unwrap().nlink(), 1);
    store.delete("jobs/x").await.unwrap();
    assert!(!root.join("jobs").exists(), "emptied folders go");
    assert!(root.exists());
}

#[tokio::test]
async fn an_object_that_shrinks_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path()).unwrap();
    whole::create(&store, "x", Bytes::from_static(b"0123456789")).await.unwrap();
    std::fs::OpenOptions::new().write(true).open(folder.path().join("x")).unwrap().set_len(4).unwrap();
    assert_eq!(store.get_range("x", 0, 10).await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(store.get_range("x", 0, 4).await.unwrap(), "0123");
}

#[tokio::test]
async fn cleaning_takes_what_the_dead_left_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::open(folder.path()).unwrap());
    assert_eq!(store.clean_temp().await.unwrap(), 0, "before there is anything");

    // A living upload stays, however often it is looked at.
    let (sender, body) = Body::channel(2);
    let living = tokio::spawn({
        let store = store.clone();
        async move { store.put("k", body).await }
    });
    sender.send(Piece::Data(Bytes::from_static(b"abc"))).await.unwrap();
    // Written, not only made: it is locked after that, and the cleaner may take it before.
    let written = |name: &String| std::fs::metadata(folder.path().join(".drctl-tmp").join(name)).is_ok_and(|m| m.len() > 0);
    let living_name = loop {
        if let Some(name) = temporary_files(folder.path()).into_iter().find(written) {
            break name;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let boot = living_name.split('-').next().unwrap();
    assert_eq!(boot.len(), 16, "{living_name}");

    let temp = folder.path().join(".drctl-tmp");
    let day_old = std::time::SystemTime::now() - Duration::from_secs(25 * 3600);
    let leave = |name: &str, old: bool| {
        let file = std::fs::File::create(temp.join(name)).unwrap();
        if old {
            file.set_modified(day_old).unwrap();
        }
    };
    leave(&format!("{boot}-1-0-00000000.tmp"), false);
    leave("0123456789abcdef-1-0-00000000.tmp", true);
    leave("0123456789abcdef-1-0-00000001.tmp", false);
    leave("notes.txt", true);
    std::fs::File::options().write(true).open(temp.join(&living_name)).unwrap().set_modified(day_old).unwrap();

    assert_eq!(store.clean_temp().await.unwrap(), 2);
    let mut left = temporary_files(folder.path());
    left.sort();
    let mut wanted = ["0123456789abcdef-1-0-00000001.tmp".to_owned(), living_name, "notes.txt".to_owned()];
    wanted.sort();
    assert_eq!(left, wanted);

    sender.send(Piece::End { bytes: 3, sha256: Sha256::of(b"abc"), crc64_nvme: None }).await.unwrap();
    living.await.unwrap().unwrap();
}

/// A process is killed in the middle of an upload; what it leaves is found by the next one.
#[tokio::test]
async fn f2_a_killed_upload_leaves_only_a_temporary_file() {
    if let Some(root) = inside() {
        let store = LocalStore::open(&root).unwrap();
        let (sender, body) = Body::channel(2);
        sender.send(Piece::Data(Bytes::from_static(b"half of it"))).await.unwrap();
        let _ = store.put("jobs/x", body).await;
        unreachable!("killed before");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = this_test(&["env"], "folder::f2_a_killed_upload_leaves_only_a_temporary_file", folder.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let store = LocalStore::open(folder.path()).unwrap();
    let half_written = || {
        let names = temporary_files(folder.path());
        names.iter().any(|n| std::fs::metadata(folder.path().join(".drctl-tmp").join(n)).is_ok_and(|m| m.len() > 0))
    };
    while !half_written() {
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.clean_temp().await.unwrap(), 0, "it is alive");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(store.head("jobs/x").await.unwrap_err().kind(), Kind::NotFound);
    assert!(whole::list_all(&store, "").await.unwrap().is_empty());
    assert_eq!(store.clean_temp().await.unwrap(), 1);
    assert!(temporary_files(folder.path()).is_empty());
}
