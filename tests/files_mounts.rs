//! Restoring files where something is mounted, and all that could take away live data that no set holds.
//!
//! Tests that mount run their inner half in a mount namespace of their own (`unshare -m`), by starting this test program again. Where
//! that is not allowed they say SKIPPED on stderr, which the test run counts.
#![allow(clippy::unwrap_used, reason = "test code")]

mod files_support;
#[path = "support/namespace.rs"]
mod namespace;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use drctl::error::Result;
use drctl::source::files::{FilesLoader, FilesSettings};
use drctl::source::load::{Journal, LoadPlan, LoadRequest, Loader};
use files_support::*;
use namespace::inside;

fn mount_tmpfs(at: &Path) {
    run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(at));
}

fn bind(from: &Path, at: &Path) {
    run(Command::new("mount").arg("--bind").arg(from).arg(at));
}

fn umount(at: &Path) {
    run(Command::new("umount").arg(at));
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// A dump made ready to be loaded.
struct Restore {
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
        Restore { loader: FilesLoader::new(settings), request, bytes: dump.bytes, journal: MemoryJournal::default() }
    }

    async fn plan(&self) -> LoadPlan {
        self.loader.plan(&self.request, &context()).await.unwrap()
    }

    async fn load(&self) {
        let plan = self.plan().await;
        assert!(plan.refusals.is_empty(), "{plan:?}");
        let artifact = &self.request.artifacts[0];
        self.loader.load(&self.request, artifact, stream(self.bytes.clone(), true), &self.journal, &context()).await.unwrap();
        let facts = self.loader.count(&self.request, artifact, &self.journal, &context()).await.unwrap();
        assert_eq!(facts.totals, artifact.facts.totals);
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

    async fn discard(&self) {
        self.loader.discard(&self.journal, &context()).await.unwrap();
    }

    /// Adds a line to one of the lists of the set's details.
    fn list(&mut self, list: &str, path: &Path, what: &str) {
        self.request.details[list]["entries"].as_array_mut().unwrap().push(serde_json::json!([path.display().to_string(), what]));
    }
}

fn tree() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("data");
    std::fs::create_dir(&root).unwrap();
    (dir, root)
}

#[tokio::test]
async fn a_root_inside_a_root_is_restored_where_nothing_is_mounted_now() {
    if !inside("a_root_inside_a_root_is_restored_where_nothing_is_mounted_now") {
        return;
    }
    let (dir, root) = tree();
    std::fs::create_dir(root.join("mnt")).unwrap();
    mount_tmpfs(&root.join("mnt"));
    write(&root.join("a"), "outer");
    write(&root.join("mnt/b"), "inner");
    let mut restore = Restore::of(FilesSettings::all_of([root.clone(), root.join("mnt")])).await;

    // While it is mounted both have their own place.
    write(&root.join("mnt/b"), "live");
    restore.load().await;
    restore.switch().await.unwrap();
    assert_eq!(read(&root.join("mnt/b")).as_deref(), Some("inner"));
    restore.undo().await.unwrap();
    assert_eq!(read(&root.join("mnt/b")).as_deref(), Some("live"));
    restore.finish().await.unwrap();

    umount(&root.join("mnt"));
    std::fs::remove_dir_all(&root).unwrap();
    restore.journal = MemoryJournal::default();
    let plan = restore.plan().await;
    assert!(plan.touches[1].contains("a part of"), "{plan:?}");
    restore.load().await;
    restore.switch().await.unwrap();
    restore.finish().await.unwrap();
    assert_eq!((read(&root.join("a")).as_deref(), read(&root.join("mnt/b")).as_deref()), (Some("outer"), Some("inner")));

    // Into a target: nothing is counted twice.
    restore.journal = MemoryJournal::default();
    restore.request.target = Some(dir.path().join("out").display().to_string());
    restore.load().await;
}

#[tokio::test]
async fn live_data_that_could_not_be_read_is_never_taken_away() {
    let (_dir, root) = tree();
    for name in ["secret/deep/kept", "zeros", "plain", "attributes"] {
        write(&root.join(name), "set");
    }
    let mut restore = Restore::of(FilesSettings::all_of([&root])).await;
    restore.list("unreadable", &root.join("secret"), "Permission denied");
    restore.list("unreadable", &root.join("zeros"), "3 bytes of it are zeros in the set");
    restore.list("without_attributes", &root.join("attributes"), "Input/output error");
    for name in ["secret/key", "secret/deep/key", "zeros", "plain", "attributes", "extra"] {
        write(&root.join(name), "live");
    }
    restore.load().await;
    restore.switch().await.unwrap();
    restore.finish().await.unwrap();
    for name in ["secret/key", "secret/deep/key", "zeros"] {
        assert_eq!(read(&root.join(name)).as_deref(), Some("live"), "{name}");
    }
    for name in ["plain", "attributes"] {
        assert_eq!(read(&root.join(name)).as_deref(), Some("set"), "{name}");
    }
    assert!(!root.join("extra").exists());

    // More than the list holds: what they are is not known.
    restore.request.details["unreadable"]["more"] = 1.into();
    assert!(restore.plan().await.refusals[0].contains("could not be read"));
}

#[tokio::test]
async fn a_root_that_could_not_be_listed_stays_as_it_is() {
    let (_dir, root) = tree();
    let mut restore = Restore::of(FilesSettings { allow_empty: true, ..FilesSettings::all_of([&root]) }).await;
    restore.list("unreadable", &root, "Input/output error");
    write(&root.join("f"), "live");
    restore.load().await;
    restore.switch().await.unwrap();
    restore.finish().await.unwrap();
    assert_eq!(read(&root.join("f")).as_deref(), Some("live"));
}

#[tokio::test]
async fn a_stage_that_is_gone_or_another_is_an_error() {
    for merge in [false, true] {
        let (dir, root) = tree();
        write(&root.join("f"), "set");
        let mut settings = FilesSettings::all_of([&root]);
        settings.exclude.extend(merge.then(|| "nothing".to_owned()));
        let restore = Restore::of(settings).await;
        write(&root.join("f"), "live");
        restore.load().await;
        let stage = dir.path().join("data.drctl-7k3q");
        std::fs::remove_dir_all(&stage).unwrap();
        assert!(restore.switch().await.unwrap_err().to_string().contains("is not what was loaded"));
        std::fs::create_dir(&stage).unwrap();
        assert!(restore.switch().await.unwrap_err().to_string().contains("is not what was loaded"));
        assert_eq!(read(&root.join("f")).as_deref(), Some("live"));
        restore.discard().await;
        assert!(restore.switch().await.is_err());
    }
}

#[tokio::test]
async fn a_mount_of_the_same_device_stops_switch_and_finish_before_they_begin() {
    if !inside("a_mount_of_the_same_device_stops_switch_and_finish_before_they_begin") {
        return;
    }
    let (dir, root) = tree();
    let other = dir.path().join("other");
    write(&other.join("precious"), "x");
    std::fs::create_dir(root.join("m")).unwrap();
    write(&root.join("a"), "set");
    let restore = Restore::of(FilesSettings::all_of([&root])).await;
    write(&root.join("a"), "live");
    restore.load().await;
    bind(&other, &root.join("m"));
    let error = restore.switch().await.unwrap_err().to_string();
    assert!(error.contains("something is mounted at"), "{error}");
    assert_eq!(read(&root.join("a")).as_deref(), Some("live"));
    umount(&root.join("m"));
    restore.switch().await.unwrap();
    let old = dir.path().join("data.drctl-old-7k3q");
    bind(&other, &old.join("m"));
    let error = restore.finish().await.unwrap_err().to_string();
    assert!(error.contains("something is mounted at"), "{error}");
    assert_eq!((read(&other.join("precious")).as_deref(), read(&old.join("a")).as_deref()), (Some("x"), Some("live")));
    umount(&old.join("m"));
    restore.finish().await.unwrap();
    assert!(!old.exists() && other.join("precious").exists());
}

/// Takes the mark away again, however the test ends: a folder with such a file in it could not be removed.
struct Fixed(PathBuf);

impl Fixed {
    fn mark(path: &Path, flag: &str) -> Option<Fixed> {
        let done = Command::new("chattr").arg(flag).arg(path).output().is_ok_and(|output| output.status.success());
        if !done {
            eprintln!("SKIPPED: chattr {flag} is not to be had here");
        }
        done.then(|| Fixed(path.to_owned()))
    }
}

impl Drop for Fixed {
    fn drop(&mut self) {
        let _ = Command::new("chattr").args(["-i", "-a"]).arg(&self.0).status();
    }
}

#[tokio::test]
async fn f128_what_may_not_be_changed_stops_a_merge_in_the_plan() {
    let (_dir, root) = tree();
    for name in ["a", "sub/b", "log/c", "out/d"] {
        write(&root.join(name), "set");
    }
    let mut settings = FilesSettings::all_of([&root]);
    settings.exclude = vec!["out".into()];
    let restore = Restore::of(settings).await;
    let whole = Restore::of(FilesSettings::all_of([&root])).await;
    write(&root.join("a"), "live");
    write(&root.join("extra"), "live");
    for (path, flag) in [("sub/b", "+i"), ("extra", "+i"), ("sub", "+i"), ("log/c", "+a"), ("", "+i")] {
        let Some(fixed) = Fixed::mark(&root.join(path), flag) else { return };
        let plan = restore.plan().await;
        let named = format!("chattr -i -a {}", root.join(path).display().to_string().trim_end_matches('/'));
        assert!(plan.refusals.len() == 1 && plan.refusals[0].contains(&named), "{path}: {:?}", plan.refusals);
        // An exchange renames the tree as a whole, unless it is the tree itself.
        let plan = whole.plan().await;
        assert_eq!(
            (plan.refusals.len(), plan.warnings.iter().any(|w| w.contains(&named))),
            if path.is_empty() { (1, false) } else { (0, true) },
            "{plan:?}"
        );
        drop(fixed);
        assert_eq!(restore.plan().await.refusals, Vec::<String>::new());
    }
    // What the source leaves out stands in nobody's way; what is marked behind the plan stops it before the first step.
    let _left_out = Fixed::mark(&root.join("out/d"), "+i");
    restore.load().await;
    let late = Fixed::mark(&root.join("sub/b"), "+i");
    let error = restore.switch().await.unwrap_err();
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    assert_eq!((read(&root.join("a")).as_deref(), read(&root.join("extra")).as_deref()), (Some("live"), Some("live")));
    drop(late);
    restore.switch().await.unwrap();
    assert_eq!((read(&root.join("a")).as_deref(), read(&root.join("extra"))), (Some("set"), None));
}

#[tokio::test]
async fn a_mount_of_the_same_device_below_a_root_is_left_alone() {
    if !inside("a_mount_of_the_same_device_below_a_root_is_left_alone") {
        return;
    }
    let (dir, root) = tree();
    let other = dir.path().join("other");
    write(&other.join("precious"), "x");
    write(&root.join("a"), "set");
    write(&root.join("m/below"), "under the mount");
    let plain = Restore::of(FilesSettings::all_of([&root])).await;
    bind(&other, &root.join("m"));
    let found = dump(FilesSettings::all_of([&root])).await.unwrap();
    assert!(!names(&found.bytes).iter().any(|name| name.ends_with("precious")), "not entered");
    assert!(found.warnings[0].contains("a mount point and was not entered"), "{:?}", found.warnings);
    let all = dump(FilesSettings { one_file_system: false, ..FilesSettings::all_of([&root]) }).await.unwrap();
    assert!(names(&all.bytes).iter().any(|name| name.ends_with("precious")));
    dump(FilesSettings::all_of([root.clone(), root.join("m")])).await.unwrap();

    let restore = Restore::of(FilesSettings::all_of([&root])).await;
    write(&root.join("a"), "live");
    restore.load().await;
    restore.switch().await.unwrap();
    assert_eq!((read(&root.join("a")).as_deref(), read(&root.join("m/precious")).as_deref()), (Some("set"), Some("x")));
    restore.undo().await.unwrap();
    assert_eq!(read(&root.join("a")).as_deref(), Some("live"));
    restore.finish().await.unwrap();

    // A set made when nothing was mounted there.
    let refusals = plain.plan().await.refusals;
    assert!(refusals[0].contains("restore with --target"), "{refusals:?}");
    assert!(other.join("precious").exists());
}

#[tokio::test]
async fn undoing_a_merge_makes_removed_folders_again() {
    let (dir, root) = tree();
    write(&root.join("d/f"), "set");
    let mut settings = FilesSettings::all_of([&root]);
    settings.exclude = vec!["nothing".into()];
    let restore = Restore::of(settings).await;
    write(&root.join("d/f"), "live, newer");
    restore.load().await;
    restore.switch().await.unwrap();
    std::fs::remove_dir_all(root.join("d")).unwrap();
    write(&root.join("d"), "a file where the folder was");
    assert!(restore.undo().await.is_err());
    assert_eq!(read(&dir.path().join("data.drctl-old-7k3q/d/f")).as_deref(), Some("live, newer"));
    std::fs::remove_file(root.join("d")).unwrap();
    restore.undo().await.unwrap();
    assert_eq!(read(&root.join("d/f")).as_deref(), Some("live, newer"));

    // What an undo left in the kept tree is not removed.
    std::fs::rename(root.join("d/f"), dir.path().join("data.drctl-old-7k3q/d/f")).unwrap();
    assert!(restore.finish().await.unwrap_err().to_string().contains("was not put back"));
    std::fs::rename(dir.path().join("data.drctl-old-7k3q/d/f"), root.join("d/f")).unwrap();
    restore.finish().await.unwrap();
    assert_eq!(read(&root.join("d/f")).as_deref(), Some("live, newer"));
}

#[tokio::test]
async fn an_undo_works_when_device_numbers_have_changed() {
    let (_dir, root) = tree();
    write(&root.join("f"), "set");
    let restore = Restore::of(FilesSettings::all_of([&root])).await;
    write(&root.join("f"), "live");
    restore.load().await;
    restore.switch().await.unwrap();
    let mut noted = restore.journal.get("files.root.0").unwrap();
    if noted["switch"]["new"]["born"].is_null() {
        let _ = writeln!(std::io::stderr(), "SKIPPED an_undo_works_when_device_numbers_have_changed: no times of birth here");
        return;
    }
    for sort in ["new", "old"] {
        let device = noted["switch"][sort]["dev"].as_u64().unwrap();
        noted["switch"][sort]["dev"] = (device + 1).into();
    }
    restore.journal.note("files.root.0", noted).await.unwrap();
    restore.undo().await.unwrap();
    assert_eq!(read(&root.join("f")).as_deref(), Some("live"));
    restore.finish().await.unwrap();
}

#[tokio::test]
async fn finish_removes_only_what_the_restore_put_aside() {
    let (dir, root) = tree();
    write(&root.join("f"), "set");
    let restore = Restore::of(FilesSettings::all_of([&root])).await;
    write(&root.join("f"), "live");
    restore.load().await;
    restore.switch().await.unwrap();
    let (old, away) = (dir.path().join("data.drctl-old-7k3q"), dir.path().join("away"));
    std::fs::rename(&old, &away).unwrap();
    write(&old.join("mine"), "x");
    assert!(restore.finish().await.unwrap_err().to_string().contains("is not what this restore put aside"));
    assert!(old.join("mine").exists());
    std::fs::remove_dir_all(&old).unwrap();
    std::fs::rename(&away, &old).unwrap();
    std::fs::rename(&root, &away).unwrap();
    assert!(restore.finish().await.unwrap_err().to_string().contains("nothing is at"));
    std::fs::rename(&away, &root).unwrap();
    restore.finish().await.unwrap();
    assert!(!old.exists() && root.join("f").exists());
}

#[tokio::test]
async fn f101_finish_keeps_what_may_be_the_last_copy_after_an_undo_too() {
    let (dir, root) = tree();
    write(&root.join("f"), "set");
    let restore = Restore::of(FilesSettings::all_of([&root])).await;
    write(&root.join("f"), "live");
    restore.load().await;
    restore.switch().await.unwrap();
    restore.undo().await.unwrap();
    let undone = dir.path().join("data.drctl-undone-7k3q");
    std::fs::remove_dir_all(&root).unwrap();
    let error = restore.finish().await.unwrap_err();
    assert!(error.to_string().contains("it may be the last copy"), "{error}");
    assert!(error.hint_text().unwrap().contains(&root.display().to_string()), "{error:?}");
    assert!(undone.join("f").exists());
    std::fs::create_dir(&root).unwrap();
    restore.finish().await.unwrap();
    assert!(!undone.exists() && root.exists());
}

#[tokio::test]
async fn f111_finish_keeps_the_undone_copy_of_a_folder_that_was_not_there_before() {
    let (dir, root) = tree();
    write(&root.join("f"), "set");
    let restore = Restore::of(FilesSettings::all_of([&root])).await;
    std::fs::remove_dir_all(&root).unwrap();
    restore.load().await;
    restore.switch().await.unwrap();
    restore.undo().await.unwrap();
    let undone = dir.path().join("data.drctl-undone-7k3q");
    assert!(!root.exists() && undone.join("f").exists());
    let error = restore.finish().await.unwrap_err();
    assert!(error.to_string().contains("it may be the last copy"), "{error}");
    assert!(error.hint_text().unwrap().contains(&format!("move it to {}, or away", root.display())), "{error:?}");
    std::fs::rename(&undone, &root).unwrap();
    restore.finish().await.unwrap();
    assert_eq!(read(&root.join("f")).as_deref(), Some("set"));
}

#[tokio::test]
async fn what_a_dump_passes_over_stays_live() {
    let (_dir, root) = tree();
    write(&root.join("f"), "set");
    write(&root.join("conf.drctl-2024/mine"), "the user's own");
    write(&root.join("conf.drctl-20240101/mine"), "looks like a leftover");
    run(Command::new("mkfifo").arg(root.join("pipe")));
    let restore = Restore::of(FilesSettings::all_of([&root])).await;
    assert!(restore.plan().await.touches[0].contains("not in the set"));
    write(&root.join("f"), "live");
    write(&root.join("conf.drctl-2024/mine"), "live");
    restore.load().await;
    restore.switch().await.unwrap();
    restore.finish().await.unwrap();
    assert_eq!(read(&root.join("f")).as_deref(), Some("set"));
    assert_eq!(read(&root.join("conf.drctl-2024/mine")).as_deref(), Some("the user's own"), "no id of a restore: saved");
    assert!(root.join("conf.drctl-20240101/mine").exists() && root.join("pipe").exists());
}
