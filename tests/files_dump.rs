//! The files source: what its archives hold, checked against GNU tar.

#![allow(clippy::unwrap_used, reason = "test code")]

mod files_support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use drctl::error::Kind;
use drctl::source::files::FilesSettings;
use files_support::*;

fn at(path: &Path) -> FilesSettings {
    FilesSettings::all_of([path])
}

#[tokio::test]
async fn f68_gnu_tar_brings_back_one_of_everything() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    zoo(&root);
    let before = picture(&root);
    let dump = dump(at(&root)).await.unwrap();
    assert_eq!((dump.problems.len(), dump.warnings.len()), (0, 0), "{:?}", dump.warnings);
    assert!(dump.bytes.len() < 5 << 20, "holes are not stored");

    let out = tempfile::tempdir().unwrap();
    gnu_tar(&dump.bytes, out.path());
    let there = out.path().join(root.strip_prefix("/").unwrap());
    assert_eq!(picture(&there), before);
    assert!(blocks(&there.join("holes")) < 1000, "holes come back as holes");
    assert!(blocks(&there.join("one-hole")) < 16);
    assert_eq!(dump.details["users"]["0"], "root");
    assert_eq!(dump.details["roots"][0]["path"], root.to_str().unwrap());

    let again = self::dump(at(&root)).await.unwrap();
    assert_eq!(again.bytes, dump.bytes, "equal trees give equal bytes");
}

async fn dump(settings: FilesSettings) -> drctl::error::Result<Dump> {
    files_support::dump(settings).await
}

#[tokio::test]
async fn f67_any_name_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    for base in [root.clone(), root.join(OsStr::from_bytes(&[0xfe; 200])), root.join("d".repeat(200)).join("e".repeat(250))] {
        std::fs::create_dir_all(&base).unwrap();
        for name in odd_names() {
            std::fs::write(base.join(OsStr::from_bytes(&name)), &name).unwrap();
        }
        std::os::unix::fs::symlink(OsStr::from_bytes(&[0xfd; 150]), base.join("link")).unwrap();
    }
    sparse(&root.join(OsStr::from_bytes(b"sparse\xff\n")), 1 << 20, &[(0, 1)]);
    let dump = dump(at(&root)).await.unwrap();
    assert!(dump.problems.is_empty() && dump.warnings.is_empty());
    let out = tempfile::tempdir().unwrap();
    gnu_tar(&dump.bytes, out.path());
    assert_eq!(picture(&out.path().join(root.strip_prefix("/").unwrap())), picture(&root));
}

#[tokio::test]
async fn f68_specials_are_listed_and_unreadable_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("ok"), b"ok").unwrap();
    run(Command::new("mkfifo").arg(root.join("fifo")));
    run(Command::new("mknod").arg(root.join("device")).args(["c", "1", "3"]));
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let dump = dump(at(&root)).await.unwrap();
    assert_eq!(names(&dump.bytes).len(), 2);
    let mut skipped: Vec<_> = dump.details["skipped"]["entries"].as_array().unwrap().iter().map(|e| e[1].as_str().unwrap()).collect();
    skipped.sort_unstable();
    assert_eq!(skipped, ["device", "fifo", "socket"]);
    assert!(dump.problems.is_empty());

    // Root reads everything: the worker is another user.
    std::fs::write(root.join("secret"), b"s").unwrap();
    std::fs::set_permissions(root.join("secret"), PermissionsExt::from_mode(0o0)).unwrap();
    std::fs::create_dir(root.join("closed")).unwrap();
    std::fs::set_permissions(root.join("closed"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = dir.path().join("worker");
    copy_program(&copy);
    let words = run(Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&copy)
        .args(["--exact", "as_another_user", "--nocapture", "--include-ignored"])
        .env("DRCTL_TEST_TREE", &root)
        .current_dir("/"));
    assert!(words.contains("secret could not be read"), "{words}");
    assert!(words.contains("closed could not be read"), "{words}");
    assert!(words.contains("tree/ok"), "{words}");
    assert!(words.contains("tree/closed"), "the folder itself is stored: {words}");
}

/// Reading it would drop the locks that SQLite has on it.
#[tokio::test]
async fn f116_the_state_file_of_this_process_is_left_closed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("ok"), b"ok").unwrap();
    let path = root.join("state.sqlite");
    let state = drctl::state::StateFile::open(&path, std::sync::Arc::new(drctl::model::SystemClock)).unwrap();
    let taken = dump(at(&root)).await.unwrap();
    assert_eq!(taken.problems, Vec::<String>::new());
    let skipped = taken.details["skipped"].to_string();
    for name in ["state.sqlite", "state.sqlite-wal", "state.sqlite-shm"] {
        assert!(skipped.contains(&format!("tree/{name}\"")), "{name}: {skipped}");
    }
    drop(state);
    let taken = dump(at(&root)).await.unwrap();
    assert!(!taken.details["skipped"].to_string().contains("state.sqlite"), "nobody has it open");
}

/// What no archive can hold is told, once for all of it; whoever leaves it out, or asks for other files, hears nothing of it.
#[tokio::test]
async fn f107_sockets_and_fifos_are_told_and_make_no_set_partial() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir_all(root.join("run")).unwrap();
    std::fs::write(root.join("ok.sql"), b"ok").unwrap();
    run(Command::new("mkfifo").args((0..7).map(|i| root.join(format!("run/fifo{i}")))));
    let _socket = std::os::unix::net::UnixListener::bind(root.join("run/app.sock")).unwrap();
    let dumped = dump(at(&root)).await.unwrap();
    assert_eq!(dumped.problems, Vec::<String>::new());
    let [line] = dumped.warnings.as_slice() else { panic!("{:?}", dumped.warnings) };
    let shown = root.display();
    let begin =
        format!("what is neither file, folder nor link is not in the set (8): {shown}/run/app.sock (socket), {shown}/run/fifo0 (fifo), ");
    assert!(line.starts_with(&begin) && line.ends_with("fifo3 (fifo), …"), "{line}");
    for settings in [
        FilesSettings { exclude: vec!["run".into()], ..at(&root) },
        FilesSettings { include: vec!["*.sql".into()], ..at(&root) },
        FilesSettings { exclude: vec!["fifo*".into(), "*.sock".into()], ..at(&root) },
    ] {
        let dumped = dump(settings).await.unwrap();
        assert_eq!((dumped.problems.len(), dumped.warnings.len()), (0, 0), "{:?}", dumped.warnings);
    }
}

#[tokio::test]
#[ignore = "the part of another test that runs as another user"]
async fn as_another_user() {
    let Some(root) = std::env::var_os("DRCTL_TEST_TREE") else { return };
    let dump = dump(at(Path::new(&root))).await.unwrap();
    println!("{:?} {:?}", dump.problems, names(&dump.bytes));
}

#[tokio::test]
async fn f69_a_file_that_grows_shrinks_or_vanishes_never_breaks_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    let size = 16 << 20;
    for name in ["a-grows", "b-shrinks", "c-rewritten"] {
        std::fs::write(root.join(name), vec![1u8; size]).unwrap();
    }
    // The clock of file times moves by some milliseconds at once: a rewriting in the same tick could not be told.
    set_mtime(&root.join("c-rewritten"), 1_000_000_000, 0);
    std::fs::write(root.join("d-vanishes"), b"x").unwrap();
    std::fs::write(root.join("e-stays"), b"x").unwrap();
    let (mut step, tree) = (0, root.clone());
    // The stream holds a few blocks only: when this many bytes are here, the file in question is still being read.
    let dump = dump_in(at(&root), &context(), move |bytes| {
        let open = |name: &str| std::fs::OpenOptions::new().write(true).open(tree.join(name)).unwrap();
        if step == 0 && bytes > 1 << 20 {
            open("a-grows").write_all_at(b"more", size as u64).unwrap();
            step = 1;
        } else if step == 1 && bytes > size + (1 << 20) {
            open("b-shrinks").set_len(4 << 20).unwrap();
            step = 2;
        } else if step == 2 && bytes > 2 * size + (1 << 20) {
            open("c-rewritten").write_all_at(b"new", 0).unwrap();
            std::fs::remove_file(tree.join("d-vanishes")).unwrap();
            step = 3;
        }
    })
    .await
    .unwrap();
    assert!(dump.problems.is_empty(), "{:?}", dump.problems);
    let said = dump.warnings.join("\n");
    assert!(said.contains("a-grows changed while it was read: it grew; its first 16777216 bytes are in the set"), "{said}");
    assert!(said.contains("b-shrinks changed while it was read: it shrank"), "{said}");
    assert!(said.contains("c-rewritten changed while it was read: it was written to"), "{said}");
    assert!(said.contains("d-vanishes vanished"), "{said}");
    let out = tempfile::tempdir().unwrap();
    gnu_tar(&dump.bytes, out.path());
    let there = out.path().join(root.strip_prefix("/").unwrap());
    assert_eq!(std::fs::metadata(there.join("a-grows")).unwrap().len(), size as u64);
    let shrunk = std::fs::read(there.join("b-shrinks")).unwrap();
    assert!(shrunk.len() == size && shrunk[..4 << 20].iter().all(|b| *b == 1) && shrunk[size - 4096..].iter().all(|b| *b == 0));
    assert!(there.join("e-stays").exists());
}

#[tokio::test]
async fn f69_a_writer_at_full_speed_never_breaks_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("stays"), "x").unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (root, stop) = (root.clone(), stop.clone());
        move || {
            let mut i = 0usize;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let path = root.join(format!("f{}", i % 50));
                match i % 7 {
                    0 => drop(std::fs::remove_file(&path)),
                    1 => drop(std::fs::remove_dir_all(&path)),
                    2 => drop(std::fs::create_dir(&path)),
                    3 => drop(std::os::unix::fs::symlink("/etc", &path)),
                    4 => drop(std::fs::OpenOptions::new().write(true).open(&path).map(|f| f.set_len((i % 9) as u64 * 1000))),
                    _ => drop(std::fs::write(&path, vec![b'x'; (i * 7919) % 700_000])),
                }
                i += 1;
            }
        }
    });
    for _ in 0..40 {
        // Walks the archive to its end; a torn one would fail here.
        let dump = dump(at(&root)).await.unwrap();
        assert!(dump.problems.is_empty(), "{:?}", dump.problems);
        assert!(names(&dump.bytes).iter().all(|name| !name.contains("passwd")), "never led outside by a link");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
}

/// Between the look at a name and its opening a link takes its place: nothing outside is read, however often it is tried.
#[tokio::test]
async fn f69_what_is_exchanged_for_a_link_in_that_moment_never_leads_outside() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("tree"), dir.path().join("outside"));
    std::fs::create_dir_all(outside.join("their-names")).unwrap();
    std::fs::write(outside.join("their-content"), b"precious content").unwrap();
    std::fs::create_dir_all(root.join("folder/own")).unwrap();
    std::fs::write(root.join("file"), b"own").unwrap();
    std::fs::write(root.join("stays"), b"own").unwrap();
    for (link, to) in [("file-link", "their-content"), ("folder-link", "")] {
        std::os::unix::fs::symlink(outside.join(to), root.join(link)).unwrap();
    }
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapping = std::thread::spawn({
        let (root, stop) = (root.clone(), stop.clone());
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for name in ["file", "folder"] {
                    let link = root.join(format!("{name}-link"));
                    renameat_with(CWD, root.join(name), CWD, link, RenameFlags::EXCHANGE).unwrap();
                }
            }
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..300 {
        let dump = dump(at(&root)).await.unwrap();
        assert!(!dump.bytes.windows(16).any(|w| w == b"precious content"), "the content of another file");
        seen.extend(names(&dump.bytes));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    swapping.join().unwrap();
    assert!(seen.iter().any(|name| name.ends_with("/own")), "{seen:?}");
    assert!(!seen.iter().any(|name| name.contains("their-")), "{seen:?}");
}

#[tokio::test]
async fn f66_an_empty_folder_is_a_valid_archive_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let dump = dump(FilesSettings { allow_empty: true, ..at(dir.path()) }).await.unwrap();
    assert_eq!(dump.facts.totals["dirs"], 1);
    assert_eq!(dump.details["empty"], true);
    assert!(dump.warnings.is_empty());
}

#[tokio::test]
async fn f120_a_source_that_finds_nothing_is_an_error_unless_that_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = async |settings: FilesSettings| dump(settings).await.err().unwrap();
    let error = nothing(at(dir.path())).await;
    assert_eq!(error.kind(), Kind::Preflight);
    assert!(error.to_string().contains(dir.path().to_str().unwrap()) && error.hint_text().unwrap().contains("allow_empty"), "{error:?}");
    // Folders alone are nothing either; nor is what the patterns or the age leave out.
    std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
    assert_eq!(nothing(at(dir.path())).await.kind(), Kind::Preflight);
    std::fs::write(dir.path().join("a/b/file"), "x").unwrap();
    let chosen = FilesSettings { include: vec!["*.txt".into()], ..at(dir.path()) };
    assert!(nothing(chosen.clone()).await.to_string().contains("`include`"));
    assert!(nothing(FilesSettings { exclude: vec!["file".into()], ..at(dir.path()) }).await.to_string().contains("`exclude`"));
    dump(FilesSettings { allow_empty: true, ..chosen }).await.unwrap();
    // One file or one link is something. Of several paths each that has none is told.
    dump(at(dir.path())).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let both = FilesSettings::all_of([dir.path(), other.path()]);
    let dumped = dump(both.clone()).await.unwrap();
    assert!(dumped.warnings.len() == 1 && dumped.warnings[0].contains(other.path().to_str().unwrap()), "{:?}", dumped.warnings);
    std::os::unix::fs::symlink("/nowhere", other.path().join("link")).unwrap();
    assert!(dump(both).await.unwrap().warnings.is_empty());
}

#[tokio::test]
async fn f121_a_pattern_that_begins_with_a_slash_is_a_place_on_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let (root, link) = (dir.path().canonicalize().unwrap().join("app"), dir.path().join("link"));
    for path in ["cache/a", "x/cache/b", "keep"] {
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), "x").unwrap();
    }
    std::os::unix::fs::symlink(&root, &link).unwrap();
    let taken = async |path: &Path, exclude: String| {
        let dumped = dump(FilesSettings { exclude: vec![exclude], ..at(path) }).await.unwrap();
        let below = |name: &String| Some(name.split_once("/app/").or(name.split_once("/link/"))?.1.to_owned());
        names(&dumped.bytes).iter().filter_map(below).filter(|name| root.join(name).is_file()).collect::<Vec<_>>()
    };
    for (path, exclude) in
        [(&root, root.join("cache")), (&link, root.join("cache")), (&link, link.join("cache/")), (&root, dir.path().join("*/cache"))]
    {
        assert_eq!(taken(path, exclude.display().to_string()).await, ["keep", "x/cache/b"], "{exclude:?}");
    }
    assert_eq!(taken(&root, root.join("**/cache").display().to_string()).await, ["keep"]);
    assert_eq!(taken(&root, "/cache".to_owned()).await, ["keep", "x/cache/b"]);
    for refused in ["./cache", "~/cache", "!keep", "/opt/app/cache"] {
        let settings = FilesSettings { exclude: vec![refused.to_owned()], ..at(&root) };
        assert_eq!(dump(settings).await.err().unwrap().kind(), Kind::Config, "{refused}");
    }
}

#[tokio::test]
async fn a_missing_path_is_refused_before_the_run() {
    let error = dump(at(Path::new("/no/such/path"))).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Preflight);
    assert!(error.to_string().contains("/no/such/path") && error.hint_text().is_some(), "{error}");
}

#[tokio::test]
async fn patterns_age_and_roots_choose_what_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("logs");
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    std::fs::create_dir_all(root.join("z")).unwrap();
    for name in ["x.log", "x.txt", "a/b/y.log", "a/old.log"] {
        std::fs::write(root.join(name), name).unwrap();
    }
    std::fs::write(dir.path().join("single.conf"), "c").unwrap();
    set_mtime(&root.join("a/old.log"), 1_000_000, 0);
    let strip = |dump: &Dump| -> Vec<String> {
        let prefix = dir.path().strip_prefix("/").unwrap().to_str().unwrap();
        names(&dump.bytes).iter().map(|name| name.strip_prefix(prefix).unwrap().trim_start_matches('/').to_owned()).collect()
    };
    let logs = FilesSettings { include: vec!["*.log".into()], newer_than: Some(Duration::from_secs(3600)), ..at(&root) };
    assert_eq!(strip(&dump(logs).await.unwrap()), ["logs", "logs/a", "logs/a/b", "logs/a/b/y.log", "logs/x.log"]);
    let rest = FilesSettings { exclude: vec!["*.log".into(), "/a".into()], ..at(&root) };
    assert_eq!(strip(&dump(rest).await.unwrap()), ["logs", "logs/x.txt", "logs/z"]);
    let both = FilesSettings::all_of([dir.path().join("single.conf"), root.join("z")]);
    assert_eq!(strip(&dump(both).await.unwrap()), ["logs/z", "single.conf"]);
}

#[tokio::test]
async fn unchanged_content_of_large_files_gives_equal_frames() {
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..1_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut parts = Vec::new();
    for (name, before) in [("one", 10), ("two", 77_777)] {
        let root = dir.path().join(name);
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("a"), vec![1; before]).unwrap();
        std::fs::write(root.join("big"), &content).unwrap();
        std::fs::write(root.join("c"), vec![2; before]).unwrap();
        let dump = dump(at(&root)).await.unwrap();
        assert_eq!(dump.cuts.len(), 2);
        parts.push(dump.bytes[dump.cuts[0]..dump.cuts[1]].to_vec());
    }
    assert_eq!(parts[0], parts[1]);
    assert_eq!(&parts[0][..content.len()], content);
}

#[tokio::test]
async fn other_file_systems_are_not_entered_unless_asked() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir_all(root.join("mnt")).unwrap();
    std::fs::write(root.join("file"), "x").unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(root.join("mnt")));
    std::fs::write(root.join("mnt/inside"), b"x").unwrap();
    let one = dump(at(&root)).await;
    let all = dump(FilesSettings { one_file_system: false, ..at(&root) }).await;
    let both = dump(FilesSettings::all_of([root.clone(), root.join("mnt")])).await;
    unmount(&root.join("mnt"));
    let (one, all, both) = (one.unwrap(), all.unwrap(), both.unwrap());
    assert!(names(&one.bytes).iter().any(|n| n.ends_with("/mnt")) && !names(&one.bytes).iter().any(|n| n.ends_with("inside")));
    assert!(one.warnings[0].contains("another file system"));
    assert_eq!(names(&all.bytes).iter().filter(|n| n.ends_with("inside")).count(), 1);
    assert_eq!(names(&both.bytes).iter().filter(|n| n.ends_with("/mnt")).count(), 1, "a root inside a root stands once");
}

#[tokio::test]
async fn trees_deeper_than_open_files_and_path_lengths_allow() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    let mut at_fd = rustix::fs::open(&root, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    let name = "deep-folder-name-of-some-length";
    for _ in 0..400 {
        rustix::fs::mkdirat(&at_fd, name, 0o755.into()).unwrap();
        rustix::fs::mkdirat(&at_fd, "side", 0o755.into()).unwrap();
        rustix::fs::mkdirat(&at_fd, "zside", 0o755.into()).unwrap();
        at_fd = rustix::fs::openat(&at_fd, name, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    }
    let dump = dump(FilesSettings { allow_empty: true, ..at(&root) }).await.unwrap();
    assert!(dump.problems.is_empty() && dump.warnings.is_empty(), "{:?}", dump.warnings);
    assert_eq!(dump.facts.totals["dirs"], 1 + 3 * 400);
}

#[tokio::test]
async fn a_stopped_run_stops_the_walk() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), vec![0; 64 << 20]).unwrap();
    let context = context();
    let cancel = context.cancel.clone();
    let error = dump_in(at(dir.path()), &context, move |bytes| {
        if bytes > 1 << 20 {
            cancel.cancel();
        }
    })
    .await
    .err()
    .unwrap();
    assert_eq!(error.kind(), Kind::Interrupted);
}

#[tokio::test]
async fn what_a_restore_left_is_not_backed_up_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("x.drctl-old-7k3q9xz0")).unwrap();
    std::fs::write(dir.path().join("x"), b"x").unwrap();
    let dump = dump(at(dir.path())).await.unwrap();
    assert!(!names(&dump.bytes).iter().any(|n| n.contains("drctl-old")));
    assert!(dump.warnings[0].contains("earlier restore"), "{:?}", dump.warnings);
}
