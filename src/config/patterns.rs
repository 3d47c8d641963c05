//! Which files a source takes: the one matcher of the check and of the walk.
//!
//! A pattern without a slash matches a name at any depth. One with a slash in it matches the path below each of the source's `paths`,
//! from its beginning; a slash at its end changes nothing. One that begins with a slash is a place on this machine, below one of the
//! `paths` (as configured, or where links lead); a single name behind it (`/cache`) that is none is looked for right below each of them.
//! `*` and `?` stop at slashes, `**` does not. An excluded folder is not entered. With `include` only files and links that match, or lie
//! below a folder that matches, are taken, and of folders only those needed for them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::{Candidate, GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

use crate::config::problem::shorten;

/// A path of a source: as it is configured, and where it really lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootPath {
    /// Absolute, as configured.
    pub path: PathBuf,
    /// Without a link in it; the same where that cannot be told.
    pub real: PathBuf,
}

impl RootPath {
    /// Looks where `path` lies now; of what does not exist yet, the folders that do are resolved.
    pub fn of(path: &Path) -> Self {
        RootPath { path: path.to_owned(), real: real(path) }
    }

    /// Whether `path` means this one, and what is left of an absolute pattern below it.
    fn rest_of(&self, pattern: &str) -> Rest {
        let spelled = Rest::of(pattern, &self.path);
        if self.real == self.path { spelled } else { spelled.or(Rest::of(pattern, &self.real)) }
    }
}

/// Where a path really lies: its longest beginning that exists is resolved.
pub fn real(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path.to_owned()
}

/// What an absolute pattern is for one path.
enum Rest {
    /// It leads elsewhere.
    Elsewhere,
    /// It means the path itself, or a folder around it.
    Whole,
    /// Patterns for what lies below.
    Below(Vec<String>),
}

impl Rest {
    /// Follows the pattern's parts down the path; `**` takes any number of them.
    fn of(pattern: &str, path: &Path) -> Rest {
        let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
        let mut at = vec![0];
        let mut whole = false;
        for name in path.components().filter_map(|c| if let std::path::Component::Normal(name) = c { Some(name) } else { None }) {
            open(&parts, &mut at);
            whole |= at.contains(&parts.len());
            let mut next: Vec<usize> = Vec::new();
            for place in at {
                match parts.get(place) {
                    Some(&"**") => next.push(place),
                    Some(part) if part_matches(part, name) => next.push(place + 1),
                    _ => {}
                }
            }
            next.sort_unstable();
            next.dedup();
            at = next;
        }
        let ended = at.contains(&parts.len());
        let below: Vec<String> = at.iter().filter(|place| **place < parts.len()).map(|place| parts[*place..].join("/")).collect();
        match (whole || ended, below.is_empty()) {
            (_, false) => Rest::Below(below),
            (true, true) => Rest::Whole,
            (false, true) => Rest::Elsewhere,
        }
    }

    fn or(self, other: Rest) -> Rest {
        match (self, other) {
            (Rest::Below(mut one), Rest::Below(other)) => {
                one.extend(other);
                Rest::Below(one)
            }
            (Rest::Below(one), _) | (_, Rest::Below(one)) => Rest::Below(one),
            (Rest::Whole, _) | (_, Rest::Whole) => Rest::Whole,
            _ => Rest::Elsewhere,
        }
    }
}

/// `**` may also stand for nothing.
fn open(parts: &[&str], at: &mut Vec<usize>) {
    let mut i = 0;
    while i < at.len() {
        let place = at[i];
        if parts.get(place) == Some(&"**") && !at.contains(&(place + 1)) {
            at.push(place + 1);
        }
        i += 1;
    }
}

fn part_matches(part: &str, name: &OsStr) -> bool {
    part.as_bytes() == name.as_bytes() || glob(part).is_ok_and(|glob| glob.is_match(Path::new(name)))
}

fn builder(pattern: &str) -> Result<globset::Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build()
}

fn glob(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    Ok(builder(pattern)?.compile_matcher())
}

/// What one pattern matches below one path, as globs of the path below it. None: nothing.
fn below(root: &RootPath, pattern: &str) -> Vec<String> {
    let trimmed = pattern.trim_end_matches('/');
    if !trimmed.contains('/') {
        return vec![format!("**/{trimmed}")];
    }
    let Some(inner) = trimmed.strip_prefix('/') else { return vec![trimmed.to_owned()] };
    match root.rest_of(trimmed) {
        Rest::Below(rest) => rest,
        Rest::Whole => vec!["**".to_owned()],
        Rest::Elsewhere if !inner.contains('/') => vec![inner.to_owned()],
        Rest::Elsewhere => Vec::new(),
    }
}

/// The patterns of a source, compiled for each of its paths.
#[derive(Clone, Debug)]
pub struct Patterns {
    takes_all: bool,
    roots: Vec<(PathBuf, Rules)>,
}

/// The patterns below one path.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Patterns {
    /// Compiles. What matches nothing is no error here, see [`check`]; the error of what is no pattern names it.
    pub fn new(roots: &[RootPath], include: &[String], exclude: &[String]) -> Result<Self, String> {
        let each = |root: &RootPath| {
            let include = if include.is_empty() { None } else { Some(set(root, include, true)?) };
            Ok((root.path.clone(), Rules { include, exclude: set(root, exclude, false)? }))
        };
        let roots = roots.iter().map(each).collect::<Result<_, String>>()?;
        Ok(Patterns { takes_all: include.is_empty() && exclude.is_empty(), roots })
    }

    /// Whether everything is taken.
    pub fn takes_all(&self) -> bool {
        self.takes_all
    }

    /// What holds below a path.
    pub fn of(&self, root: &Path) -> Option<&Rules> {
        self.roots.iter().find(|(path, _)| path == root).map(|(_, rules)| rules)
    }
}

impl Rules {
    /// Whether a path below the root is left out with all below it.
    pub fn excludes(&self, path: &[u8]) -> bool {
        !self.exclude.is_empty() && self.exclude.is_match(Path::new(OsStr::from_bytes(path)))
    }

    /// Whether a file or link that is not excluded is taken.
    pub fn includes(&self, path: &[u8]) -> bool {
        self.include.as_ref().is_none_or(|set| set.is_match_candidate(&Candidate::new(Path::new(OsStr::from_bytes(path)))))
    }

    /// Whether there is an `include` at all.
    pub fn chooses(&self) -> bool {
        self.include.is_some()
    }

    /// Whether `path` or a folder it lies in is left out.
    pub fn excludes_way(&self, path: &Path) -> bool {
        path.ancestors().filter(|part| !part.as_os_str().is_empty()).any(|part| self.excludes(part.as_os_str().as_bytes()))
    }
}

fn set(root: &RootPath, patterns: &[String], with_content: bool) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let bad = |e: globset::Error| no_pattern(pattern, &e);
        for full in below(root, pattern) {
            if with_content {
                set.add(builder(&format!("{full}/**")).map_err(bad)?);
            }
            set.add(builder(&full).map_err(bad)?);
        }
    }
    set.build().map_err(|_| "the patterns are too large together".to_owned())
}

fn no_pattern(pattern: &str, error: &globset::Error) -> String {
    format!("'{}' is not a pattern: {}", shorten(pattern), error.kind())
}

/// Which list a pattern stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `include`.
    Include,
    /// `exclude`.
    Exclude,
}

impl List {
    /// Its key.
    pub fn key(self) -> &'static str {
        match self {
            List::Include => "include",
            List::Exclude => "exclude",
        }
    }
}

/// What is wrong with the patterns: list, number in it, and the sentence. A pattern that is none, that can match nothing, or that leaves
/// nothing, is a mistake: what it was to keep out is backed up, what it was to choose is not.
pub fn check(roots: &[RootPath], include: &[String], exclude: &[String]) -> Vec<(List, usize, String)> {
    let mut found = Vec::new();
    for (list, patterns) in [(List::Include, include), (List::Exclude, exclude)] {
        for (at, pattern) in patterns.iter().enumerate() {
            if let Some(why) = wrong(roots, list, pattern) {
                found.push((list, at, why));
            }
        }
    }
    if found.is_empty() {
        found.extend(never_chosen(roots, include, exclude));
    }
    found
}

fn wrong(roots: &[RootPath], list: List, pattern: &str) -> Option<String> {
    let shown = shorten(pattern);
    let trimmed = pattern.trim_end_matches('/');
    if trimmed.is_empty() {
        return Some(format!("'{shown}' names nothing; write a name (*.tmp), a path below one of `paths` (logs/old), or a whole path"));
    }
    if pattern == "~" || pattern.starts_with("~/") {
        return Some(format!("'{shown}' matches nothing: '~' has no meaning here; write the whole path, or ${{HOME}}/…"));
    }
    if let Some(name) = pattern.strip_prefix('!') {
        return Some(format!(
            "'{shown}' takes nothing back: there is no '!' here; name in `exclude` only what is to be left out, or choose with `include`; a \
             name that begins with '!' is written '\\!{}'",
            shorten(name)
        ));
    }
    if let Err(e) = glob(trimmed) {
        return Some(no_pattern(pattern, &e));
    }
    let absolute = trimmed.starts_with('/');
    let parts: Vec<&str> = trimmed.strip_prefix('/').unwrap_or(trimmed).split('/').collect();
    if parts.contains(&"..") {
        return Some(format!("'{shown}' matches nothing: patterns know no '..'; write the whole path"));
    }
    if parts.iter().any(|part| part.is_empty() || *part == ".") {
        let kept: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty() && *part != ".").collect();
        let right = kept.join("/");
        let begins = if absolute || kept.len() == 1 { "/" } else { "" };
        return Some(if right.is_empty() {
            format!("'{shown}' matches nothing; leave it out, or write a name or a path below one of `paths`")
        } else {
            format!("'{shown}' matches nothing: patterns have no '.' and no empty parts; write '{begins}{}'", shorten(&right))
        });
    }
    let rest: Vec<(&RootPath, Rest)> = roots.iter().map(|root| (root, root.rest_of(trimmed))).collect();
    let paths = || shorten(&roots.iter().map(|root| root.path.display().to_string()).collect::<Vec<_>>().join(", "));
    if absolute && !roots.is_empty() {
        if let Some((root, _)) = rest.iter().find(|(_, rest)| list == List::Exclude && matches!(rest, Rest::Whole)) {
            return Some(format!("'{shown}' leaves out all of {}; take that out of `paths` instead", root.path.display()));
        }
        let elsewhere = rest.iter().all(|(_, rest)| matches!(rest, Rest::Elsewhere));
        if elsewhere && parts.len() > 1 {
            return Some(format!(
                "'{shown}' matches nothing: it lies below none of {}; write a whole path below one of them, or '{}' for that place below each",
                paths(),
                shorten(&parts.join("/"))
            ));
        }
        if list == List::Exclude
            && rest.iter().any(|(_, rest)| matches!(rest, Rest::Below(all) if all.iter().any(|one| is_everything(one))))
        {
            return Some(format!("'{shown}' leaves nothing of a whole path; take that out of `paths` instead"));
        }
        return None;
    }
    if list == List::Exclude && is_everything(trimmed) {
        return Some(format!("'{shown}' leaves out everything; leave out the source instead, or choose with `include`"));
    }
    // `srv/app/cache` below /srv/app would be /srv/app/srv/app/cache.
    let repeats = |root: &&RootPath| {
        let written = root.path.to_str().and_then(|path| path.strip_prefix('/')).filter(|path| path.contains('/'));
        written.is_some_and(|path| trimmed == path || trimmed.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    };
    if let Some(root) = roots.iter().find(repeats) {
        return Some(format!("'{shown}' is looked for below {}; write '/{}' for that place", root.path.display(), shorten(trimmed)));
    }
    None
}

fn is_everything(pattern: &str) -> bool {
    pattern.split('/').all(|part| matches!(part, "*" | "**"))
}

/// Entries of `include` that name one place, which `exclude` leaves out.
fn never_chosen(roots: &[RootPath], include: &[String], exclude: &[String]) -> Vec<(List, usize, String)> {
    let Ok(patterns) = Patterns::new(roots, &[], exclude) else { return Vec::new() };
    let mut found = Vec::new();
    for (at, pattern) in include.iter().enumerate() {
        let plain = pattern.trim_end_matches('/');
        if plain.contains(['*', '?', '[', '{', '\\']) || roots.is_empty() || exclude.is_empty() {
            continue;
        }
        let left_out = |root: &RootPath| {
            let whole = plain.starts_with('/') && matches!(root.rest_of(plain), Rest::Whole);
            let places = below(root, pattern);
            !whole
                && patterns.of(&root.path).is_some_and(|rules| {
                    places.iter().all(|place| rules.excludes_way(Path::new(place.strip_prefix("**/").unwrap_or(place))))
                })
        };
        if roots.iter().all(left_out) {
            let why = format!(
                "'{}' matches nothing: `exclude` leaves it out, and nothing is taken back; name in `exclude` only what is to be left out",
                shorten(pattern)
            );
            found.push((List::Include, at, why));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    fn root(path: &str) -> RootPath {
        RootPath { path: path.into(), real: path.into() }
    }

    #[test]
    fn patterns_match_as_documented() {
        for (pattern, path, matches) in [
            ("*.log", "a.log", true),
            ("*.log", "x/y/a.log", true),
            ("*.log", "a.log.1", false),
            ("cache", "x/cache", true),
            ("cache/", "cache", true),
            ("/cache", "cache", true),
            ("/cache", "x/cache", false),
            ("x/*", "x/a", true),
            ("x/*", "x/a/b", false),
            ("x/**", "x/a/b", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("{a,b}.txt", "z/b.txt", true),
            ("/srv/app/cache", "cache", true),
            ("/srv/app/cache/", "cache", true),
            ("/srv/app/cache", "x/cache", false),
            ("/srv/app/cache", "srv/app/cache", false),
            ("/srv/*/cache", "cache", true),
            ("/srv/**/cache", "x/y/cache", true),
            ("/**/cache", "cache", true),
            ("/srv/app/**/*.tmp", "a/b.tmp", true),
            ("/srv/other/cache", "cache", false),
            ("\\!keep", "a/!keep", true),
        ] {
            let patterns = Patterns::new(&[root("/srv/app")], &[], &strings(&[pattern])).unwrap();
            let rules = patterns.of(Path::new("/srv/app")).unwrap();
            assert_eq!(rules.excludes(path.as_bytes()), matches, "{pattern} {path}");
        }
        assert!(Patterns::new(&[root("/srv")], &[], &strings(&["["])).is_err());
    }

    #[test]
    fn each_path_has_its_own() {
        let roots = [root("/srv/a"), RootPath { path: "/data".into(), real: "/mnt/disk/data".into() }, root("/")];
        let patterns = Patterns::new(&roots, &strings(&["/srv/a/logs", "/mnt/disk/data/x"]), &[]).unwrap();
        let includes = |root: &str, path: &str| patterns.of(Path::new(root)).unwrap().includes(path.as_bytes());
        assert!(includes("/srv/a", "logs/b/c") && !includes("/srv/a", "x"));
        assert!(includes("/data", "x") && includes("/data", "x/y") && !includes("/data", "logs"));
        assert!(includes("/", "srv/a/logs") && includes("/", "mnt/disk/data/x/y") && !includes("/", "logs"));
        assert!(patterns.of(Path::new("/elsewhere")).is_none());
    }

    #[test]
    fn f121_what_can_match_nothing_is_refused_with_the_right_spelling() {
        let roots = [root("/srv/app"), root("/srv/web/data")];
        for (list, pattern, want) in [
            (List::Exclude, "/srv/app/cache", None),
            (List::Exclude, "/srv/app/*/cache", None),
            (List::Exclude, "/srv/**", Some("leaves nothing")),
            (List::Exclude, "/cache", None),
            (List::Exclude, "cache/", None),
            (List::Exclude, "~$*", None),
            (List::Exclude, "./cache", Some("write '/cache'")),
            (List::Exclude, "./a/b", Some("write 'a/b'")),
            (List::Exclude, "/srv/app//cache", Some("write '/srv/app/cache'")),
            (List::Exclude, "a/./b/", Some("write 'a/b'")),
            (List::Exclude, "../app/cache", Some("'..'")),
            (List::Exclude, "~/x", Some("${HOME}")),
            (List::Exclude, "!keep", Some("'\\!keep'")),
            (List::Exclude, "/srv/app", Some("take that out of `paths`")),
            (List::Exclude, "/srv", Some("take that out of `paths`")),
            (List::Exclude, "/opt/app/cache", Some("'opt/app/cache' for that place")),
            (List::Exclude, "*", Some("everything")),
            (List::Exclude, "**/*", Some("everything")),
            (List::Exclude, "srv/app/cache", Some("write '/srv/app/cache'")),
            (List::Exclude, ".", Some("matches nothing")),
            (List::Exclude, "/", Some("names nothing")),
            (List::Exclude, "", Some("names nothing")),
            (List::Exclude, "[a", Some("is not a pattern")),
            (List::Include, "/srv/web/data/**", None),
            (List::Include, "/srv/app", None),
            (List::Include, "/etc/nginx/nginx.conf", Some("lies below none of /srv/app, /srv/web/data")),
        ] {
            let found = match list {
                List::Include => check(&roots, &strings(&[pattern]), &[]),
                List::Exclude => check(&roots, &[], &strings(&[pattern])),
            };
            match want {
                None => assert_eq!(found, [], "{pattern}"),
                Some(words) => assert!(found.len() == 1 && found[0].2.contains(words), "{pattern}: {found:?}"),
            }
        }
    }

    #[test]
    fn f121_what_is_excluded_cannot_be_included() {
        let roots = [root("/srv/app")];
        let check = |include: &[&str], exclude: &[&str]| check(&roots, &strings(include), &strings(exclude)).len();
        assert_eq!(check(&["cache/keep"], &["cache"]), 1);
        assert_eq!(check(&["/srv/app/cache/keep", "b"], &["/cache"]), 1);
        assert_eq!(check(&["keep"], &["cache"]), 0);
        assert_eq!(check(&["data"], &["data/tmp"]), 0);
        assert_eq!(check(&["*.txt"], &["*.txt"]), 0, "only what names one place is looked at");
    }
}
