//! Names of jobs, sets and keys in a repository (FORMAT, Keys).

use std::fmt;
use std::str::FromStr;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind, Result};
use crate::model::digest::Sha256;

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A job's name: `[a-z0-9][a-z0-9-]{0,62}`, and not `now`, which is a word of the command line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(String);

impl JobName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let first = text.bytes().next();
        let well_formed = text.len() <= 63
            && first.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !well_formed {
            return Err(Error::new(
                Kind::Config,
                format!("'{}' is not a job name: 1 to 63 of a-z, 0-9 and '-', not starting with '-'", text.escape_debug()),
            ));
        }
        if text == "now" {
            return Err(Error::new(Kind::Config, "'now' is a word of the command line and cannot name a job"));
        }
        Ok(JobName(text.to_owned()))
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
serde_as_text!(JobName);

/// Whether a set stands alone or refers to frames of earlier sets of its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetKind {
    /// Holds every frame itself.
    Full,
    /// Holds only the frames its chain did not have.
    Incremental,
}

impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SetKind::Full => "full",
            SetKind::Incremental => "incremental",
        })
    }
}

/// `<job>/20250101T020000Z-full-7k3q`: unique by its four random characters, which also end the folder's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId {
    job: JobName,
    at: Timestamp,
    kind: SetKind,
    suffix: String,
}

/// Letters and digits that are not mistaken for one another when read aloud.
const SUFFIX_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl SetId {
    /// A new id; `at` is cut to whole seconds, `random` gives the suffix (20 bits of it are used).
    pub fn new(job: JobName, at: Timestamp, kind: SetKind, random: u32) -> Self {
        let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
        let suffix = (0..4).map(|i| char::from(SUFFIX_ALPHABET[(random >> (5 * i)) as usize % 32])).collect();
        SetId { job, at, kind, suffix }
    }

    /// The job whose run made the set.
    pub fn job(&self) -> &JobName {
        &self.job
    }

    /// When the run began, whole seconds UTC.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Full or incremental.
    pub fn kind(&self) -> SetKind {
        self.kind
    }

    /// The id without its job: `20250101T020000Z-full-7k3q`.
    pub fn short(&self) -> String {
        format!("{}-{}-{}", self.at.strftime("%Y%m%dT%H%M%SZ"), self.kind, self.suffix)
    }

    /// Where the set's objects lie, from the repository's root, with a slash at the end:
    /// `jobs/<job>/sets/2025/01/01/020000Z-full-7k3q/`.
    pub fn prefix(&self) -> String {
        format!("jobs/{}/sets/{}-{}-{}/", self.job, self.at.strftime("%Y/%m/%d/%H%M%SZ"), self.kind, self.suffix)
    }

    /// The set whose folder holds `key`; `None` when the key does not lie in a set's folder.
    pub fn of_key(key: &str) -> Option<SetId> {
        let mut parts = key.split('/');
        if parts.next()? != "jobs" {
            return None;
        }
        let job = parts.next()?;
        if parts.next()? != "sets" {
            return None;
        }
        let (year, month, day, leaf) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        parts.next()?;
        let (time, rest) = leaf.split_once('-')?;
        let id: SetId = format!("{job}/{year}{month}{day}T{time}-{rest}").parse().ok()?;
        key.starts_with(&id.prefix()).then_some(id)
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.short())
    }
}

impl FromStr for SetId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(Kind::Usage, format!("'{}' is not a set id", text.escape_debug()))
                .hint("set ids look like shop/20250101T020000Z-full-7k3q: drctl list")
        };
        let (job, rest) = text.split_once('/').ok_or_else(bad)?;
        let job: JobName = job.parse().map_err(|_| bad())?;
        let mut parts = rest.split('-');
        let (Some(at), Some(kind), Some(suffix), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(bad());
        };
        let kind = match kind {
            "full" => SetKind::Full,
            "incremental" => SetKind::Incremental,
            _ => return Err(bad()),
        };
        let civil = DateTime::strptime("%Y%m%dT%H%M%SZ", at).map_err(|_| bad())?;
        let at = civil.to_zoned(TimeZone::UTC).map_err(|_| bad())?.timestamp();
        if suffix.len() != 4 || !suffix.bytes().all(|b| SUFFIX_ALPHABET.contains(&b)) {
            return Err(bad());
        }
        let id = SetId { job, at, kind, suffix: suffix.to_owned() };
        // One set, one spelling.
        if id.to_string() == text { Ok(id) } else { Err(bad()) }
    }
}
serde_as_text!(SetId);

/// The file name of an artifact: `<source>.<artifact>.<ext>`, with `ext` such as `dump.zst.age`.
///
/// Bytes of the names outside `[a-z0-9_-]` become `~xx`; a name that grows over 100 bytes keeps its first 80, then
/// `~` and 16 hex digits of the SHA-256 of the whole true name. True names stand in the details.
pub fn artifact_file(source: &str, artifact: &str, ext: &str) -> String {
    format!("{}.{}.{ext}", key_safe(source), key_safe(artifact))
}

/// One part of a key made of safe bytes only.
pub fn key_safe(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for b in name.bytes() {
        match b {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => out.push(char::from(b)),
            _ => out.push_str(&format!("~{b:02x}")),
        }
    }
    if out.len() > 100 {
        let digest = Sha256::of(name.as_bytes()).to_string();
        out.truncate(80);
        out.push('~');
        out.push_str(&digest[..16]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_names() {
        for good in ["a", "0", "shop-2", &"a".repeat(63)] {
            assert!(good.parse::<JobName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a/b", "..", "now", "é", &"a".repeat(64)] {
            assert!(bad.parse::<JobName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn set_ids_round_trip_and_have_one_spelling() {
        let at: Timestamp = "2025-01-01T02:00:00.7Z".parse().unwrap();
        let id = SetId::new("shop".parse().unwrap(), at, SetKind::Full, 0xabcde);
        assert!(id.to_string().starts_with("shop/20250101T020000Z-full-"));
        assert_eq!(id.to_string().parse::<SetId>().unwrap(), id);
        assert!(id.prefix().starts_with("jobs/shop/sets/2025/01/01/020000Z-full-"));
        assert_eq!(SetId::of_key(&format!("{}x.age", id.prefix())), Some(id));
        assert_eq!(SetId::of_key("jobs/shop/sets/2025/1/01/020000Z-full-abcd/x"), None);
        assert_eq!(SetId::of_key("jobs/shop/log/0000000001.signed"), None);
        for bad in [
            "shop",
            "shop/20250101T020000Z-full-7k3",
            "shop/20250101T020000Z-half-7k3q",
            "shop/2025101T020000Z-full-7k3q",
            "Shop/20250101T020000Z-full-7k3q",
            "shop/20250101T020000Z-full-7k3q/",
        ] {
            assert!(bad.parse::<SetId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_safe_and_bounded() {
        assert_eq!(artifact_file("postgres", "Shop DB", "dump.zst.age"), "postgres.~53hop~20~44~42.dump.zst.age");
        let long = key_safe(&"ü".repeat(200));
        assert_eq!(long.len(), 97);
        assert_ne!(long, key_safe(&"ü".repeat(201)));
        for name in ["../x", "a/b", "~", ".", "a\nb", "-x", "%2e"] {
            assert!(key_safe(name).bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'~')), "{name}");
        }
    }
}
