//! Restoring files: beside, counted, switched, undone, finished; and what an archive may not do.
#![allow(clippy::unwrap_used, reason = "test code")]

mod files_support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use drctl::error::{Kind, Result};
use drctl::source::files::{FilesLoader, FilesSettings, extract_path};
use drctl::source::load::{LoadRequest, Loader};
use files_support::*;

fn at(path: &Path) -> FilesSettings {
    FilesSettings::all_of([path])
}

/// A dump made ready to be loaded.
struct Restore {
    settings: FilesSettings,
    loader: FilesLoader,
    request: LoadRequest,
    bytes: Vec<u8>,
    journal: MemoryJournal,
}

impl Restore {
    async fn of(settings: FilesSettings) -> Self {
        let dump = dump(settings.clone()).await.unwrap();
        let artifact = load_artifact("files", "tree", drctl::model::ArtifactFormat::Tar, &dump.bytes, dump.facts);
        let request = request("files", vec![artifact], dump.details);
        Restore { loader: FilesLoader::new(settings.clone()), settings, request, bytes: dump.bytes, journal: MemoryJournal::default() }
    }

    async fn load(&self) -> Result<()> {
        self.load_bytes(self.bytes.clone(), true).await
    }

    async fn load_bytes(&self, bytes: Vec<u8>, ends: bool) -> Result<()> {
        self.loader.load(&self.request, &self.request.artifacts[0], stream(bytes, ends), &self.journal, &context()).await.map(drop)
    }

    async fn load_and_count(&self) {
        let plan = self.loader.plan(&self.request, &context()).await.unwrap();
        assert!(plan.refusals.is_empty(), "{plan:?}");
        self.load().await.unwrap();
        let facts = self.loader.count(&self.request, &self.request.artifacts[0], &self.journal, &context()).await.unwrap();
        assert_eq!(facts.totals, self.request.artifacts[0].facts.totals);
    }

    async fn switch(&self) -> Result<()> {
        self.loader.switch(&self.request, &self.journal, &context()).await
    }
    async fn undo(&self) -> Result<Vec<String>> {
        self.loader.undo(&self.journal, &context()).await
    }
    async fn finish(&self) -> Result<Vec<String>> {
        self.loader.finish(&self.journal, &context()).await
    }
    async fn kept(&self) -> Vec<String> {
        self.loader.kept(&self.journal, &context()).await.unwrap()
    }
    async fn discard(&self) {
        self.loader.discard(&self.journal, &context()).await.unwrap();
    }
    async fn plan(&self) -> drctl::source::load::LoadPlan {
        self.loader.plan(&self.request, &context()).await.unwrap()
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn one_of_everything_is_restored_switched_undone_and_finished() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    zoo(&root);
    let saved = picture(&root);
    let restore = Restore::of(at(&root)).await;
    std::fs::remove_file(root.join("big")).unwrap();
    std::fs::write(root.join("since"), b"new").unwrap();
    let live = picture(&root);

    restore.load_and_count().await;
    assert_eq!(picture(&root), live, "nothing live changes before the switch");
    restore.switch().await.unwrap();
    restore.switch().await.unwrap();
    assert_eq!(picture(&root), saved);
    assert!(blocks(&root.join("holes")) < 1000);
    assert_eq!(entries(dir.path()), ["tree", "tree.drctl-old-7k3q"]);
    assert!(restore.kept().await[0].contains("tree.drctl-old-7k3q: "));
    restore.discard().await;
    assert_eq!(picture(&root), saved, "discard after the switch does nothing");

    std::fs::write(root.join("after"), b"written since").unwrap();
    let said = restore.undo().await.unwrap();
    assert!(said[0].contains("drctl-undone-7k3q"), "{said:?}");
    restore.undo().await.unwrap();
    assert_eq!(picture(&root), live);
    assert_eq!(std::fs::read(dir.path().join("tree.drctl-undone-7k3q/after")).unwrap(), b"written since");
    assert!(restore.switch().await.is_err(), "undone is undone");
    restore.finish().await.unwrap();
    restore.finish().await.unwrap();
    assert_eq!(entries(dir.path()), ["tree"]);
}

#[tokio::test]
async fn f67_any_name_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    use std::os::unix::ffi::OsStrExt;
    for name in odd_names() {
        std::fs::write(root.join(std::ffi::OsStr::from_bytes(&name)), &name).unwrap();
    }
    let saved = picture(&root);
    let restore = Restore::of(at(&root)).await;
    std::fs::remove_dir_all(&root).unwrap();
    restore.load_and_count().await;
    restore.switch().await.unwrap();
    assert_eq!(picture(&root), saved);
    for name in odd_names() {
        let full = [root.as_os_str().as_bytes(), b"/", &name].concat();
        let mut out = Vec::new();
        assert!(extract_path(restore.bytes.as_slice(), &full, &mut out).unwrap());
        assert_eq!(out, name);
    }
}

#[tokio::test]
async fn missing_paths_single_files_and_links_are_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path();
    std::fs::create_dir_all(base.join("gone/deep/tree")).unwrap();
    std::fs::write(base.join("gone/deep/tree/f"), b"f").unwrap();
    std::fs::write(base.join("app.conf"), b"old").unwrap();
    std::fs::create_dir(base.join("release-1")).unwrap();
    std::fs::write(base.join("release-1/x"), b"x").unwrap();
    std::os::unix::fs::symlink("release-1", base.join("current")).unwrap();
    let settings = FilesSettings::all_of([base.join("gone/deep/tree"), base.join("app.conf"), base.join("current")]);
    let restore = Restore::of(settings).await;
    std::fs::remove_dir_all(base.join("gone")).unwrap();
    std::fs::write(base.join("app.conf"), b"newer").unwrap();
    std::fs::remove_file(base.join("release-1/x")).unwrap();
    restore.load_and_count().await;
    restore.switch().await.unwrap();
    assert_eq!(std::fs::read(base.join("gone/deep/tree/f")).unwrap(), b"f");
    assert_eq!(std::fs::read(base.join("app.conf")).unwrap(), b"old");
    assert_eq!(std::fs::read(base.join("current/x")).unwrap(), b"x");
    assert!(std::fs::symlink_metadata(base.join("current")).unwrap().is_symlink(), "the link itself stays");
    restore.undo().await.unwrap();
    assert!(!base.join("gone/deep/tree").exists());
    assert_eq!(std::fs::read(base.join("app.conf")).unwrap(), b"newer");
    assert!(!base.join("current/x").exists());
    // Nothing was there before: what was restored is the only copy until somebody puts another there (FAULTS 111).
    let refused = restore.finish().await.unwrap_err();
    assert!(refused.to_string().contains("gone/deep/tree") && refused.to_string().contains("the last copy"), "{refused}");
    std::fs::create_dir_all(base.join("gone/deep/tree")).unwrap();
    restore.finish().await.unwrap();
    assert_eq!(entries(base), ["app.conf", "current", "gone", "release-1"]);
}

#[tokio::test]
async fn a_crash_at_any_note_can_be_repeated_or_undone() {
    for stop in 0..6 {
        for undo in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (a, b) = (dir.path().join("a"), dir.path().join("b"));
            for root in [&a, &b] {
                std::fs::create_dir(root).unwrap();
                std::fs::write(root.join("f"), b"saved").unwrap();
            }
            let restore = Restore::of(FilesSettings::all_of([&a, &b])).await;
            for root in [&a, &b] {
                std::fs::write(root.join("f"), b"live").unwrap();
            }
            restore.load_and_count().await;
            *restore.journal.stop_after.lock().unwrap() = Some(stop);
            let first = restore.switch().await;
            assert_eq!(first.is_ok(), stop >= 4, "{stop}");
            *restore.journal.stop_after.lock().unwrap() = None;
            let expected = if undo {
                restore.undo().await.unwrap();
                "live"
            } else {
                restore.switch().await.unwrap();
                "saved"
            };
            for root in [&a, &b] {
                assert_eq!(std::fs::read_to_string(root.join("f")).unwrap(), expected, "{stop} {undo}");
            }
            if undo {
                restore.discard().await;
            }
            restore.finish().await.unwrap();
            assert_eq!(entries(dir.path()), ["a", "b"]);
        }
    }
}

#[tokio::test]
async fn a_mount_root_is_restored_entry_by_entry() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("mnt");
    std::fs::create_dir(&root).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&root));
    let result = tokio::spawn({
        let root = root.clone();
        async move {
            std::fs::create_dir_all(root.join("sub/deep")).unwrap();
            std::fs::write(root.join("same"), b"same").unwrap();
            std::fs::write(root.join("changed"), b"saved").unwrap();
            std::fs::write(root.join("sub/deep/gone"), b"gone").unwrap();
            std::fs::write(root.join("turned"), b"file").unwrap();
            std::os::unix::fs::symlink("same", root.join("link")).unwrap();
            std::fs::set_permissions(root.join("sub"), PermissionsExt::from_mode(0o701)).unwrap();
            let saved = picture(&root);
            let restore = Restore::of(at(&root)).await;
            std::fs::write(root.join("changed"), b"live").unwrap();
            std::fs::remove_dir_all(root.join("sub/deep")).unwrap();
            std::fs::set_permissions(root.join("sub"), PermissionsExt::from_mode(0o755)).unwrap();
            std::fs::remove_file(root.join("turned")).unwrap();
            std::fs::create_dir(root.join("turned")).unwrap();
            std::fs::write(root.join("turned/inside"), b"i").unwrap();
            std::fs::write(root.join("sub/extra"), b"extra").unwrap();
            let live = picture(&root);
            let plan = restore.plan().await;
            assert!(plan.touches[0].contains("entry by entry because it is a mount point"), "{plan:?}");
            restore.load_and_count().await;
            restore.switch().await.unwrap();
            restore.switch().await.unwrap();
            let without = |lines: Vec<String>| -> Vec<String> { lines.into_iter().filter(|l| !l.contains(".drctl-")).collect() };
            assert_eq!(without(picture(&root)), saved);
            assert_eq!(std::fs::read(root.join(".drctl-old-7k3q/sub/extra")).unwrap(), b"extra");
            std::fs::write(root.join("changed"), b"written since").unwrap();
            restore.undo().await.unwrap();
            restore.undo().await.unwrap();
            assert_eq!(without(picture(&root))[1..], live[1..], "all but the time of the root folder itself");
            assert_eq!(std::fs::read(root.join(".drctl-undone-7k3q/changed")).unwrap(), b"written since");
            restore.finish().await.unwrap();
            assert_eq!(entries(&root), ["changed", "link", "same", "sub", "turned"]);
        }
    })
    .await;
    unmount(&root);
    result.unwrap();
}

#[tokio::test]
async fn a_part_of_a_folder_is_merged_and_the_rest_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir_all(root.join("cache")).unwrap();
    for name in ["a.log", "b.log", "data.db", "cache/c.log"] {
        std::fs::write(root.join(name), b"saved").unwrap();
    }
    let logs = FilesSettings { include: vec!["*.log".into()], exclude: vec!["cache".into()], ..at(&root) };
    let restore = Restore::of(logs).await;
    for name in ["a.log", "data.db", "cache/c.log", "later.log", "later.db"] {
        std::fs::write(root.join(name), b"live").unwrap();
    }
    std::fs::remove_file(root.join("b.log")).unwrap();
    let live = picture(&root);
    restore.load_and_count().await;
    restore.switch().await.unwrap();
    let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
    assert_eq!(read("a.log").as_deref(), Some("saved"));
    assert_eq!(read("b.log").as_deref(), Some("saved"));
    assert_eq!(read("data.db").as_deref(), Some("live"), "not in the set: left alone");
    assert_eq!(read("cache/c.log").as_deref(), Some("live"), "excluded: left alone");
    assert_eq!(read("later.db").as_deref(), Some("live"));
    assert_eq!(read("later.log"), None, "would have been taken: moved aside");
    assert_eq!(std::fs::read(dir.path().join("tree.drctl-old-7k3q/later.log")).unwrap(), b"live");
    restore.undo().await.unwrap();
    assert_eq!(picture(&root), live);
    restore.finish().await.unwrap();
    assert_eq!(entries(dir.path()), ["tree"]);

    // With an age limit nothing live is taken away: it may only be too old.
    let young = FilesSettings { newer_than: Some(Duration::from_secs(3600)), ..at(&root) };
    let restore = Restore::of(young).await;
    std::fs::write(root.join("extra"), b"live").unwrap();
    restore.load_and_count().await;
    restore.switch().await.unwrap();
    assert!(root.join("extra").exists());
}

#[tokio::test]
async fn what_could_not_be_read_is_left_alone_by_the_restore() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("f"), b"saved").unwrap();
    let mut restore = Restore::of(at(&root)).await;
    let unreadable = root.join("secret").display().to_string();
    restore.request.details["unreadable"]["entries"] = serde_json::json!([[unreadable, "permission denied"]]);
    std::fs::write(root.join("secret"), b"precious").unwrap();
    std::fs::write(root.join("extra"), b"extra").unwrap();
    restore.load_and_count().await;
    restore.switch().await.unwrap();
    assert_eq!(std::fs::read(root.join("secret")).unwrap(), b"precious");
    assert!(!root.join("extra").exists());
}

#[tokio::test]
async fn f83_a_target_must_be_empty_and_nothing_live_changes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    zoo(&root);
    let saved = picture(&root);
    let mut restore = Restore::of(at(&root)).await;
    let target = dir.path().join("out/deeper");
    restore.request.target = Some(target.display().to_string());
    restore.load_and_count().await;
    restore.switch().await.unwrap();
    restore.discard().await;
    assert_eq!(picture(&target.join(root.strip_prefix("/").unwrap())), saved);
    assert_eq!(entries(dir.path()), ["out", "tree"]);

    let again = Restore { journal: MemoryJournal::default(), ..restore };
    assert!(again.plan().await.refusals[0].contains("not empty"));
    assert_eq!(again.load().await.unwrap_err().kind(), Kind::Preflight);
    assert_eq!(picture(&target.join(root.strip_prefix("/").unwrap())), saved);
    assert_eq!(again.settings.paths.len(), 1);
}

#[tokio::test]
async fn f27_a_stream_that_breaks_off_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    zoo(&root);
    let live = picture(&root);
    let restore = Restore::of(at(&root)).await;
    let length = restore.bytes.len();
    for (keep, ends) in [(length, false), (length - 512, true), (length - 1024, true), (length / 2, true), (0, true), (1000, false)] {
        let error = restore.load_bytes(restore.bytes[..keep].to_vec(), ends).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert_eq!(entries(dir.path()), ["tree"], "{keep}");
    }
    assert_eq!(picture(&root), live);
    restore.load_and_count().await;
    restore.discard().await;
    restore.discard().await;
    assert_eq!(entries(dir.path()), ["tree"]);
}

#[tokio::test]
async fn acls_of_the_folder_around_are_not_inherited() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir_all(root.join("d")).unwrap();
    std::fs::write(root.join("d/f"), b"f").unwrap();
    let saved = picture(&root);
    let restore = Restore::of(at(&root)).await;
    xattr::set(dir.path(), "system.posix_acl_default", &acl()).unwrap();
    restore.load_and_count().await;
    restore.switch().await.unwrap();
    assert_eq!(picture(&root), saved);
}

#[tokio::test]
async fn plans_say_what_stands_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("f"), vec![1; 10_000]).unwrap();
    let mut restore = Restore::of(at(&root)).await;
    let plan = restore.plan().await;
    assert!(plan.touches[0].contains("live, kept as") && plan.warnings.iter().any(|w| w.contains("stop or restart")), "{plan:?}");

    restore.request.details["users"] = serde_json::json!({ "0": "someone" });
    assert!(restore.plan().await.warnings.iter().any(|w| w == "user 0 was someone and is root here; ownership is restored by number"));
    restore.request.artifacts[0].artifact.plain_bytes = 1 << 60;
    restore.request.artifacts[0].facts.totals.insert("bytes".into(), 1 << 60);
    assert!(restore.plan().await.refusals[0].contains("free, the set needs"));
    restore.request.artifacts[0].artifact.plain_bytes = 1;
    std::fs::remove_dir_all(&root).unwrap();
    std::fs::write(&root, b"a file now").unwrap();
    assert!(restore.plan().await.refusals[0].contains("is a file now"));
    assert_eq!(restore.load().await.unwrap_err().kind(), Kind::Preflight);
    let elsewhere = FilesLoader::new(at(Path::new("/etc")));
    assert!(elsewhere.plan(&restore.request, &context()).await.unwrap().warnings[0].contains("not among the configured"));
    restore.request.details["roots"][0]["path"] = "/a/../etc".into();
    assert_eq!(restore.loader.plan(&restore.request, &context()).await.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test]
async fn f68_restored_by_another_user_without_setuid_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("tool"), b"#!").unwrap();
    std::fs::set_permissions(root.join("tool"), PermissionsExt::from_mode(0o4755)).unwrap();
    std::fs::create_dir(root.join("closed")).unwrap();
    std::fs::write(root.join("closed/f"), b"f").unwrap();
    std::fs::set_permissions(root.join("closed"), PermissionsExt::from_mode(0o555)).unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let worker = dir.path().join("worker");
    copy_program(&worker);
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    rustix::fs::chown(&out, Some(rustix::fs::Uid::from_raw(65534)), None).unwrap();
    run(Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&worker)
        .args(["--exact", "as_another_user", "--include-ignored"])
        .env("DRCTL_TEST_TREE", &root)
        .env("DRCTL_TEST_OUT", &out)
        .current_dir("/"));
    let there = out.join("t").join(root.strip_prefix("/").unwrap());
    let meta = std::fs::metadata(there.join("tool")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o755, 65534), "no setuid with another's rights");
    assert_eq!(std::fs::metadata(there.join("closed")).unwrap().mode() & 0o7777, 0o555);
}

#[tokio::test]
#[ignore = "the part of another test that runs as another user"]
async fn as_another_user() {
    let (Some(root), Some(out)) = (std::env::var_os("DRCTL_TEST_TREE"), std::env::var_os("DRCTL_TEST_OUT")) else { return };
    let mut restore = Restore::of(at(Path::new(&root))).await;
    restore.request.target = Some(PathBuf::from(out).join("t").display().to_string());
    restore.load_and_count().await;
}
