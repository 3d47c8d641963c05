//! What drctl's user may not read: looked for before a run, told with owner, mode and the line that lets drctl in.
//!
//! Asking the kernel costs two calls a file, so the look is bounded in time; what it did not come to, the run itself tells of.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::process::shell_word;
use crate::source::files::filter::Filter;
use crate::source::files::mounts::Mounts;
use crate::source::files::names::is_leftover;
use crate::source::files::owners::Owners;
use crate::source::files::roots::{Root, RootKind};
use crate::source::files::sys::{self, DirStack, Names, Node, NodeId, NodeKind, shown};

/// Longest look. `drctl doctor` gives a source 30 s for everything.
pub(super) const LONGEST: Duration = Duration::from_secs(3);

/// The copy of drctl in its own image that may read everything (Dockerfile).
const READ_ALL: &str = "/usr/local/bin/drctl-read-all";

/// Most paths that are named.
const NAMED: usize = 5;

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// Files and folders that were looked at.
    pub seen: u64,
    /// Files and links that a dump takes.
    things: u64,
    /// Of what was seen, what may not be read.
    denied: u64,
    /// Something could not be looked at for another reason.
    missed: bool,
    /// The first of what may not be read, with owner and mode.
    named: Vec<String>,
    /// The roots they lie in.
    roots: BTreeSet<String>,
    /// The time was up, or the run was told to end, before everything was seen.
    pub cut: bool,
}

impl Looked {
    /// Whether everything was looked at, and there is no file, and no link, that a dump would take.
    pub fn is_empty(&self) -> bool {
        self.things == 0 && self.denied == 0 && !self.cut && !self.missed
    }

    /// A sentence for [`crate::source::Preflight::warnings`]; `None` when all may be read.
    pub fn warning(&self) -> Option<String> {
        self.sentence(&User::this())
    }

    fn sentence(&self, user: &User) -> Option<String> {
        if self.denied == 0 {
            return None;
        }
        let least = if self.cut { "at least " } else { "" };
        let more = self.denied - self.named.len() as u64;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let roots: Vec<String> = self.roots.iter().map(|root| shell_word(root)).collect();
        Some(format!(
            "{least}{} of {} files and folders may not be read by {}, and no set is whole without them: {}{more}. As root{}: setfacl -R -m \
             u:{uid}:rX,d:u:{uid}:rX {}; or {}",
            self.denied,
            self.seen,
            user.words(),
            self.named.join(", "),
            user.place(),
            roots.join(" "),
            user.otherwise(),
            uid = user.uid,
        ))
    }
}

/// Who drctl runs as.
struct User {
    uid: u32,
    name: String,
    /// drctl runs in its own image: the host's paths are other ones.
    contained: bool,
}

impl User {
    fn this() -> User {
        let uid = rustix::process::geteuid().as_raw();
        let name = String::from_utf8_lossy(Owners::of_machine().user(uid)).into_owned();
        User { uid, name, contained: Path::new(READ_ALL).exists() }
    }

    fn words(&self) -> String {
        if self.name.is_empty() { format!("uid {}", self.uid) } else { format!("{} (uid {})", self.name, self.uid) }
    }

    fn place(&self) -> &'static str {
        if self.contained { ", by its path on the host" } else { "" }
    }

    fn otherwise(&self) -> &'static str {
        match self.contained {
            true => "run drctl-read-all with the capability DAC_READ_SEARCH (docs/docker.md)",
            false => "give drctl CAP_DAC_READ_SEARCH (AmbientCapabilities= in its unit)",
        }
    }
}

/// The hint for one path that was refused: what refuses, whose it is, and the line that lets drctl in.
pub(crate) fn let_in(path: &Path) -> String {
    let (user, owners) = (User::this(), Owners::of_machine());
    let full = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned());
    // The outermost folder that may not be entered, else the thing itself.
    let folders: Vec<&Path> = full.ancestors().skip(1).collect();
    let closed = |folder: &&&Path| refused(rustix::fs::CWD, folder.as_os_str().as_encoded_bytes(), Access::EXEC_OK);
    let (what, rights) = folders.iter().rev().find(closed).map_or((full.as_path(), "rX"), |folder| (*folder, "x"));
    let word = shell_word(&what.display().to_string());
    let Ok(node) = rustix::fs::lstat(what).map(Node::from) else {
        return format!("as root{}: setfacl -m u:{}:{rights} {word}", user.place(), user.uid);
    };
    format!(
        "{} belongs to {}, mode {:04o}; as root{}: setfacl -m u:{}:{rights} {word}; or {}",
        what.display(),
        belongs(&owners, &node),
        node.mode,
        user.place(),
        user.uid,
        user.otherwise()
    )
}

/// `root:adm`; numbers where there are no names.
fn belongs(owners: &Owners, node: &Node) -> String {
    let word = |name: &[u8], number: u32| if name.is_empty() { number.to_string() } else { shown(name) };
    format!("{}:{}", word(owners.user(node.uid), node.uid), word(owners.group(node.gid), node.gid))
}

// Numbers of capabilities: linux/capability.h.
const CHOWN: u64 = 1 << 0;
const DAC_OVERRIDE: u64 = 1 << 1;
const DAC_READ_SEARCH: u64 = 1 << 2;

fn proc_self(file: &str) -> String {
    std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default()
}

/// The effective capabilities in `/proc/self/status`.
fn effective(status: &str) -> Option<u64> {
    status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
}

/// Whether the kernel lets this process read whatever there is, so that nothing need be looked at.
pub(super) fn reads_everything() -> bool {
    may_read_all(&proc_self("status"), &proc_self("uid_map"))
}

/// In a user namespace of its own (rootless engines) capabilities hold for the users mapped into it only.
fn may_read_all(status: &str, uid_map: &str) -> bool {
    let whole = uid_map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    whole && effective(status).is_some_and(|set| set & (DAC_OVERRIDE | DAC_READ_SEARCH) != 0)
}

/// Whether this process may give files to other owners: root may, unless that was taken from it, and whoever has CAP_CHOWN.
pub(super) fn gives_owners() -> bool {
    may_give(&proc_self("status"), rustix::process::geteuid().is_root())
}

fn may_give(status: &str, root: bool) -> bool {
    effective(status).map_or(root, |set| set & CHOWN != 0)
}

/// Whether this process may add and take away entries of a folder, by its effective user and capabilities.
pub(super) fn may_write_folder(path: &Path) -> bool {
    accessat(rustix::fs::CWD, path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

/// Whether the kernel says no for lack of rights, by the effective user.
fn refused(dir: BorrowedFd<'_>, name: &[u8], access: Access) -> bool {
    matches!(accessat(dir, name, access, AtFlags::EACCESS), Err(Errno::ACCESS | Errno::PERM))
}

/// How far a look goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// So long at most.
    pub longest: Duration,
    /// Up to the first file: only whether there is any is asked.
    pub first: bool,
}

/// Goes through all that a dump would read, opening folders only. Blocks.
pub(super) fn look(roots: &[Root], filter: &Filter, one_file_system: bool, how: Look, cancel: &CancellationToken) -> Looked {
    let mut look = Looking {
        filter,
        one_file_system,
        roots: roots.iter().map(|root| root.id).collect(),
        mounts: Mounts::of_machine().unwrap_or_default(),
        owners: Owners::of_machine(),
        until: Instant::now() + how.longest,
        first: how.first,
        cancel,
        looked: Looked { things: roots.iter().filter(|root| root.record.kind == RootKind::File).count() as u64, ..Looked::default() },
    };
    for root in roots.iter().filter(|root| root.record.kind == RootKind::Dir) {
        look.below(root);
    }
    look.looked
}

struct Looking<'a> {
    filter: &'a Filter,
    one_file_system: bool,
    roots: HashSet<NodeId>,
    mounts: Mounts,
    owners: Owners,
    until: Instant,
    first: bool,
    cancel: &'a CancellationToken,
    looked: Looked,
}

/// A folder being gone through.
struct Frame {
    names: Names,
    next: usize,
    path_length: usize,
}

impl Looking<'_> {
    /// What vanishes or breaks meanwhile is passed over: here only rights count.
    fn below(&mut self, root: &Root) {
        let (path, real) = (root.record.path.as_bytes(), root.real.as_os_str().as_encoded_bytes());
        let opened = sys::open_dir_path(&root.real).and_then(|fd| Ok((sys::fstat(&fd)?, Names::read(fd.as_fd())?, fd)));
        let Ok((node, names, fd)) = opened else {
            self.looked.missed = true;
            return;
        };
        if refused(rustix::fs::CWD, real, Access::EXEC_OK) {
            self.looked.seen += 1;
            return self.note(root, path, &node);
        }
        let mounted = self.mounts.relative_to(&root.real);
        let mut path = if path == b"/" { Vec::new() } else { path.to_vec() };
        let below = path.len() + 1;
        let taken = self.filter.of(&root.record.path);
        let mut stack = DirStack::new(fd);
        let mut frames = vec![Frame { names, next: 0, path_length: path.len() }];
        while let Some(frame) = frames.last_mut() {
            path.truncate(frame.path_length);
            let Some(name) = frame.names.get(frame.next) else {
                frames.pop();
                stack.pop();
                continue;
            };
            if self.is_over() || (self.first && self.looked.things > 0) {
                return;
            }
            frame.next += 1;
            path.push(b'/');
            path.extend_from_slice(name);
            if is_leftover(name) || taken.excludes(&path[below..]) {
                continue;
            }
            let Ok(dir) = stack.fd() else { continue };
            let Ok(found) = sys::lstat(dir, name) else { continue };
            match found.kind {
                NodeKind::Symlink if taken.includes(&path[below..], found.mtime.0) => self.looked.things += 1,
                NodeKind::File if taken.includes(&path[below..], found.mtime.0) => {
                    self.looked.things += 1;
                    self.looked.seen += 1;
                    if refused(dir, name, Access::READ_OK) {
                        self.note(root, &path, &found);
                    }
                }
                NodeKind::Dir => {
                    let elsewhere = found.id.dev != node.id.dev || mounted.contains(&path[below..]);
                    if self.roots.contains(&found.id) || (self.one_file_system && elsewhere) {
                        continue;
                    }
                    self.looked.seen += 1;
                    if refused(dir, name, Access::READ_OK | Access::EXEC_OK) {
                        self.note(root, &path, &found);
                        continue;
                    }
                    let opened = sys::open_dir(dir, name).and_then(|opened| Ok((Names::read(opened.as_fd())?, opened)));
                    let Ok((names, opened)) = opened else {
                        self.looked.missed = true;
                        continue;
                    };
                    let name = path[frame.path_length + 1..].to_vec();
                    stack.push(&name, opened);
                    frames.push(Frame { names, next: 0, path_length: path.len() });
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, root: &Root, path: &[u8], node: &Node) {
        self.looked.denied += 1;
        self.looked.roots.insert(root.record.path.clone());
        if self.looked.named.len() < NAMED {
            let owner = belongs(&self.owners, node);
            self.looked.named.push(format!("{} ({owner}, mode {:04o})", shown(path), node.mode));
        }
    }

    /// Whether to stop before the next name.
    fn is_over(&mut self) -> bool {
        self.looked.cut = self.cancel.is_cancelled() || Instant::now() >= self.until;
        self.looked.cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::files::roots;

    #[test]
    fn only_real_rights_count_as_reading_everything() {
        const WHOLE: &str = "         0          0 4294967295\n";
        for (status, map, all) in [
            ("Name:\tdrctl\nCapEff:\t000001ffffffffff\n", WHOLE, true),
            ("CapEff:\t0000000000000004\n", WHOLE, true),
            ("CapEff:\t0000000000000002\n", WHOLE, true),
            ("CapEff:\t0000000000000001\n", WHOLE, false),
            ("CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n", WHOLE, false),
            // Root of a rootless engine: it cannot read what belongs to users that are not mapped.
            ("CapEff:\t000001ffffffffff\n", "0 1000 1\n1 100000 65536\n", false),
            ("CapEff:\tx\n", WHOLE, false),
            ("", "", false),
        ] {
            assert_eq!(may_read_all(status, map), all, "{status}{map}");
        }
    }

    #[test]
    fn owners_are_given_by_capability_and_not_by_number() {
        for (status, root, may) in [
            ("CapEff:\t0000000000000001\n", false, true),
            ("CapEff:\t00000000a80425fb\n", true, true),
            ("CapEff:\t0000000000000000\n", true, false),
            ("CapEff:\t000000000000000a\n", false, false),
            ("", true, true),
            ("", false, false),
        ] {
            assert_eq!(may_give(status, root), may, "{status}{root}");
        }
    }

    #[test]
    fn the_sentence_names_some_and_counts_all() {
        let user = User { uid: 10001, name: "drctl".into(), contained: false };
        let mut looked = Looked { seen: 12, ..Looked::default() };
        assert_eq!(looked.sentence(&user), None);
        looked.denied = 7;
        looked.named = (1..=5).map(|i| format!("/a/{i} (root:root, mode 0600)")).collect();
        looked.roots = BTreeSet::from(["/a".to_owned(), "/it's".to_owned()]);
        let words = looked.sentence(&user).unwrap();
        assert!(words.starts_with("7 of 12 files and folders may not be read by drctl (uid 10001)"), "{words}");
        assert!(words.contains("/a/5 (root:root, mode 0600) and 2 more."), "{words}");
        assert!(words.contains("As root: setfacl -R -m u:10001:rX,d:u:10001:rX /a '/it'\\''s'; or give drctl CAP_DAC"), "{words}");
        looked.cut = true;
        let contained = User { name: String::new(), contained: true, ..user };
        let words = looked.sentence(&contained).unwrap();
        assert!(words.starts_with("at least 7 of 12 ") && words.contains("by uid 10001,"), "{words}");
        assert!(words.contains("on the host: setfacl") && words.contains("drctl-read-all"), "{words}");
    }

    #[test]
    fn a_look_ends_when_its_time_is_up_or_the_run_does() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..20 {
            std::fs::create_dir(dir.path().join(format!("d{i}"))).unwrap();
            std::fs::write(dir.path().join(format!("d{i}/f")), "").unwrap();
        }
        let roots = roots::find(&[dir.path().to_owned()]).unwrap();
        let look = |longest, cancel: &CancellationToken| {
            look(&roots, &Filter::new(&[], &[], &[], None).unwrap(), true, Look { longest, first: false }, cancel)
        };
        let cancel = CancellationToken::new();
        assert_eq!(look(Duration::from_secs(60), &cancel), Looked { seen: 40, things: 20, ..Looked::default() });
        assert_eq!(look(Duration::ZERO, &cancel), Looked { cut: true, ..Looked::default() });
        cancel.cancel();
        assert_eq!(look(Duration::from_secs(60), &cancel), Looked { cut: true, ..Looked::default() });
    }

    #[test]
    fn a_look_sees_what_a_dump_would_read() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a.log", "a.txt", "skip/b.log", "deep/c.log"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let roots = roots::find(&[dir.path().to_owned()]).unwrap();
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        for (include, exclude, seen) in [(&[][..], &[][..], 6), (&["*.log"], &[], 5), (&["*.log"], &["skip"], 3)] {
            let filter = Filter::new(&roots::paths(&roots), &strings(include), &strings(exclude), None).unwrap();
            let looked = look(&roots, &filter, true, Look { longest: Duration::from_secs(60), first: false }, &CancellationToken::new());
            assert_eq!((looked.seen, looked.cut), (seen, false), "{include:?} {exclude:?}");
        }
    }
}
