//! What a restore would do, found out without changing anything.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Result;
use crate::format::tar::Totals;
use crate::process::shell_word;
use crate::source::files::FilesSettings;
use crate::source::files::access;
use crate::source::files::filter::Filter;
use crate::source::files::load::place::{is_empty_or_absent, place_all};
use crate::source::files::load::state::{Mode, RootState, details};
use crate::source::files::load::tree::{measure, size};
use crate::source::files::mounts::Mounts;
use crate::source::files::names::Beside;
use crate::source::files::owners::Owners;
use crate::source::files::roots::{FilesDetails, absolute};
use crate::source::files::sys;
use crate::source::load::{Growth, LoadPlan, LoadRequest};

/// Time for measuring live data, all roots together.
const MEASURE: Duration = Duration::from_secs(2);

/// The plan. Looks at disks; blocks.
pub(super) fn plan(settings: &FilesSettings, request: &LoadRequest) -> Result<LoadPlan> {
    let details = details(&request.details)?;
    let totals = request.artifacts.iter().map(|a| Totals::of_facts(&a.facts)).next().unwrap_or_default();
    let stored: u64 = request.artifacts.iter().map(|a| a.artifact.plain_bytes).sum();
    // Holes take no room; what is stored in the archive is never less than what the disk needs for content.
    let need = totals.bytes.min(stored);
    let mut plan = LoadPlan::default();
    if request.artifacts.is_empty() {
        plan.refusals.push("the set holds no files artifact".to_owned());
    }
    match &request.target {
        Some(target) => target_plan(&mut plan, Path::new(target), &details, &totals, need)?,
        None => {
            plan.exchanges = true;
            live_plan(&mut plan, settings, request, &details, &totals, need)?;
        }
    }
    owners(&mut plan, &details);
    if details.unreadable.len() > 0 {
        plan.warnings.push(format!("{} entries could not be read when the set was made and are not in it", details.unreadable.len()));
    }
    if details.without_attributes.len() > 0 {
        plan.warnings
            .push(format!("extended attributes of {} entries could not be read when the set was made", details.without_attributes.len()));
    }
    if request.in_place {
        plan.warnings.push("files are laid beside the live ones first even with --in-place, and put in place at the end".to_owned());
    }
    if !access::gives_owners() {
        plan.warnings.push("drctl runs neither as root nor with CAP_CHOWN: owners cannot be restored".to_owned());
    }
    Ok(plan)
}

fn target_plan(plan: &mut LoadPlan, target: &Path, details: &FilesDetails, totals: &Totals, need: u64) -> Result<()> {
    let target = PathBuf::from(absolute(target)?);
    plan.target = target.display().to_string();
    if !is_empty_or_absent(&target)? {
        plan.refusals.push(format!("{} is not empty: name a folder that is empty or does not exist", target.display()));
    }
    for root in &details.roots {
        plan.touches.push(format!("{} is written; nothing live is changed", target.join(&root.name).display()));
    }
    room(plan, &[target], totals, need, &[]);
    Ok(())
}

fn live_plan(
    plan: &mut LoadPlan,
    settings: &FilesSettings,
    request: &LoadRequest,
    details: &FilesDetails,
    totals: &Totals,
    need: u64,
) -> Result<()> {
    let mounts = Mounts::of_machine()?;
    let filter = details.filter()?;
    let each = MEASURE / u32::try_from(details.roots.len().max(1)).unwrap_or(1);
    let configured: Vec<String> = settings.paths.iter().filter_map(|path| absolute(path).ok()).collect();
    let mut bases = Vec::new();
    for placed in place_all(details, &filter, &mounts)? {
        let record = &placed.root.record;
        if !configured.contains(&record.path) {
            plan.warnings.push(format!("{} is in the set, but not among the configured `paths`", record.path));
        }
        if let Some(outer) = &placed.part_of {
            plan.touches.push(format!("{}: a part of {outer} now, restored with it", record.path));
            continue;
        }
        bases.push(placed.root.base.clone());
        if let Some(refusal) = placed.refusal {
            plan.refusals.push(refusal);
            continue;
        }
        let root = placed.root;
        let live = root.live().display().to_string();
        let kept = root.tree_path(Beside::Old, &request.restore).display().to_string();
        if !placed.exists {
            plan.touches.push(format!("{live}: not there now, is created"));
            continue;
        }
        let measured = match sys::open_dir_path(root.live().parent().unwrap_or(Path::new("/"))) {
            Ok(parent) => {
                let measured = measure(parent.as_fd(), root.live().file_name().map_or(&b"."[..], OsStrExt::as_bytes), each);
                fixed(plan, &root, &measured.fixed, &filter);
                measured.to_string()
            }
            Err(_) => "of unknown size".to_owned(),
        };
        plan.touches.push(match (root.mode, placed.why_merge) {
            (Mode::Merge, Some(why)) => {
                format!("{live}: {measured} live, restored entry by entry because {why}; what is replaced is kept in {kept}")
            }
            _ => format!("{live}: {measured} live, kept as {kept}"),
        });
        if root.mode == Mode::Exchange {
            plan.warnings.push(format!("programs that have files of {live} open go on with the old ones: stop or restart them"));
        }
        if writable(&root.base) == Some(false) {
            plan.refusals.push(format!("{} may not be written: run drctl as its owner or as root", root.base.display()));
        }
    }
    plan.target = details.roots.iter().map(|root| root.path.as_str()).collect::<Vec<_>>().join(", ");
    room(plan, &bases, totals, need, &request.grows);
    Ok(())
}

/// What may be neither changed nor renamed: it stops a merge, and of an exchange the tree itself does.
fn fixed(plan: &mut LoadPlan, root: &RootState, found: &[Vec<u8>], filter: &Filter) {
    let taken = filter.of(&root.record.path);
    let excluded = |path: &[u8]| memchr::memchr_iter(b'/', path).chain([path.len()]).any(|end| end > 0 && taken.excludes(&path[..end]));
    let full = |path: &Vec<u8>| {
        let live = root.live();
        if path.is_empty() { live } else { live.join(OsStr::from_bytes(path)) }
    };
    let (stops, stays): (Vec<&Vec<u8>>, Vec<&Vec<u8>>) =
        found.iter().filter(|path| !excluded(path)).partition(|path| root.mode == Mode::Merge || path.is_empty());
    let words = |paths: &[&Vec<u8>]| {
        let named: Vec<String> = paths.iter().take(FIXED_NAMED).map(|path| shell_word(&full(path).display().to_string())).collect();
        let more = paths.len() - named.len();
        (named.join(" "), if more > 0 { format!(" and {more} more") } else { String::new() })
    };
    if !stops.is_empty() {
        let (names, more) = words(&stops);
        plan.refusals.push(format!("may be neither changed nor renamed: chattr -i -a {names}{more}; or restore with --target FOLDER"));
    }
    if !stays.is_empty() {
        let (names, more) = words(&stays);
        plan.warnings
            .push(format!("before drctl restore --finish can remove the old tree: chattr -i -a {names}{more}, in the tree that is kept"));
    }
}

/// Most things that may not be changed which are named.
const FIXED_NAMED: usize = 5;

fn writable(path: &Path) -> Option<bool> {
    let existing = path.ancestors().find(|p| p.exists())?;
    Some(access::may_write_folder(existing))
}

/// Compares what the set needs with what the disks have.
fn room(plan: &mut LoadPlan, places: &[PathBuf], totals: &Totals, need: u64, grows: &[Growth]) {
    let mut disks: Vec<(u64, PathBuf, u64, Option<u64>)> = Vec::new();
    for place in places {
        let Some(existing) = place.ancestors().find(|p| p.exists()) else { continue };
        let (Ok(stat), Ok(node)) = (rustix::fs::statvfs(existing), rustix::fs::stat(existing).map(sys::Node::from)) else { continue };
        if !disks.iter().any(|(device, ..)| *device == node.id.dev) {
            // File systems that make inodes as needed say 0 of 0.
            let inodes = (stat.f_files > 0).then_some(stat.f_favail);
            disks.push((node.id.dev, existing.to_path_buf(), stat.f_bavail.saturating_mul(stat.f_frsize), inodes));
        }
    }
    let single = disks.len() == 1;
    for (_, place, free, inodes) in disks {
        let before = Growth::beside(grows, &place);
        let short = if free.saturating_sub(before) < need {
            let safety =
                if before > 0 { format!(" and the safety set, which goes to that disk first, {}", size(before)) } else { String::new() };
            format!("{} has {} free, the set needs {}{safety}", place.display(), size(free), size(need))
        } else if inodes.is_some_and(|inodes| inodes < totals.entries()) {
            format!("{} has too few inodes free for {} entries", place.display(), totals.entries())
        } else {
            continue;
        };
        if single {
            plan.refusals.push(format!("{short}: make room, or restore with --target FOLDER"));
        } else {
            plan.warnings.push(format!("{short} on all its disks together"));
        }
    }
}

/// Ownership goes by number: says where the numbers mean other names here.
fn owners(plan: &mut LoadPlan, details: &FilesDetails) {
    let here = Owners::of_machine();
    let mut compare = |sort: &str, number: u32, then: &str, now: &[u8]| {
        let now = sys::shown(now);
        if now != then {
            let now = if now.is_empty() { "nobody" } else { &now };
            plan.warnings.push(format!("{sort} {number} was {then} and is {now} here; ownership is restored by number"));
        }
    };
    for (uid, name) in &details.users {
        compare("user", *uid, name, here.user(*uid));
    }
    for (gid, name) in &details.groups {
        compare("group", *gid, name, here.group(*gid));
    }
}
