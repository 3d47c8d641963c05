//! What a bucket was found to do when it was tried, and how that changed since the last time (FAULTS 38).

use std::fmt;

use serde::{Deserialize, Serialize};

/// What came of one question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// These keys may not ask, or nothing clear came back.
    #[default]
    Unknown,
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Answer {
        if yes { Answer::Yes } else { Answer::No }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Answer::Yes => "yes",
            Answer::No => "no",
            Answer::Unknown => "unknown",
        })
    }
}

/// A checksum that the store was seen to check and to keep, weakest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// It could not be tried.
    #[default]
    Unknown,
    /// It takes a body with a wrong one, or does not keep it.
    None,
    /// CRC-32C; of a multipart object that of its parts' checksums.
    Crc32c,
    /// CRC-64/NVME of the whole object.
    Crc64nvme,
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Checksum::Unknown => "unknown",
            Checksum::None => "none",
            Checksum::Crc32c => "CRC32C",
            Checksum::Crc64nvme => "CRC64NVME",
        })
    }
}

/// How long the bucket keeps what is put there by its own rule, whoever asks for its deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lock {
    /// These keys may not ask.
    #[default]
    Unknown,
    /// Not at all.
    None,
    /// Objects can be locked one by one; there is no rule for all.
    Possible,
    /// A default retention.
    Default {
        /// Whether nobody, not even the account's root, can shorten it.
        compliance: bool,
        /// Its length in days; a year counts 365.
        days: u32,
    },
}

impl Lock {
    /// How much it protects, for a comparison.
    fn rank(&self) -> (u8, u32, bool) {
        match self {
            Lock::Unknown => (0, 0, false),
            Lock::None => (1, 0, false),
            Lock::Possible => (2, 0, false),
            Lock::Default { compliance, days } => (3, *days, *compliance),
        }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lock::Unknown => f.write_str("unknown"),
            Lock::None => f.write_str("none"),
            Lock::Possible => f.write_str("without a default"),
            Lock::Default { compliance, days } => {
                write!(f, "{} for {days} days", if *compliance { "compliance" } else { "governance" })
            }
        }
    }
}

/// What a bucket does, as tried with the keys at hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreProfile {
    /// Refuses to create what is there (`If-None-Match: *` on a put). The log rests on it.
    pub create_only: Answer,
    /// The same at the end of a multipart upload.
    pub create_only_multipart: Answer,
    /// The checksum that it checks and keeps.
    pub checksum: Checksum,
    /// A listing shows at once what was written.
    pub lists_at_once: Answer,
    /// Answers with exactly the bytes asked for.
    pub ranges: Answer,
    /// These keys may overwrite what is there.
    pub may_overwrite: Answer,
    /// These keys may delete for good: objects, or where older versions are kept, versions.
    pub may_delete: Answer,
    /// What is overwritten or deleted is kept as an older version.
    pub versioning: Answer,
    /// Object Lock.
    pub lock: Lock,
}

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `versioning was yes and is no`.
    pub words: String,
    /// Whether sets are less safe for it.
    pub worse: bool,
}

impl StoreProfile {
    /// What is otherwise than it was `before`, in the order of the fields.
    pub fn changes_since(&self, before: &StoreProfile) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut note = |what: &str, was: &dyn fmt::Display, is: &dyn fmt::Display, worse: bool| {
            changes.push(Change { words: format!("{what} was {was} and is {is}"), worse });
        };
        // What cannot be asked any more is told; that something can be asked now is no change of the store.
        let mut answer = |what: &str, was: Answer, is: Answer, good: Answer| {
            if was != is && was != Answer::Unknown {
                note(what, &was, &is, was == good && is != Answer::Unknown);
            }
        };
        answer("create-only put", before.create_only, self.create_only, Answer::Yes);
        answer("create-only multipart upload", before.create_only_multipart, self.create_only_multipart, Answer::Yes);
        answer("listing at once", before.lists_at_once, self.lists_at_once, Answer::Yes);
        answer("reading of ranges", before.ranges, self.ranges, Answer::Yes);
        answer("permission to overwrite", before.may_overwrite, self.may_overwrite, Answer::No);
        answer("permission to delete", before.may_delete, self.may_delete, Answer::No);
        answer("versioning", before.versioning, self.versioning, Answer::Yes);
        if before.checksum != self.checksum && before.checksum != Checksum::Unknown {
            let worse = self.checksum < before.checksum && self.checksum != Checksum::Unknown;
            note("checksum", &before.checksum, &self.checksum, worse);
        }
        if before.lock != self.lock && before.lock != Lock::Unknown {
            let worse = self.lock != Lock::Unknown
                && (self.lock.rank() < before.lock.rank()
                    || matches!(
                        (&before.lock, &self.lock),
                        (Lock::Default { compliance: true, .. }, Lock::Default { compliance: false, .. })
                    ));
            note("object lock", &before.lock, &self.lock, worse);
        }
        changes
    }

    /// Whether whoever has these keys can destroy what is stored for good.
    pub fn can_lose_all(&self) -> bool {
        let overwrites = self.may_overwrite == Answer::Yes && self.versioning != Answer::Yes;
        (self.may_delete == Answer::Yes || overwrites) && !matches!(self.lock, Lock::Default { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> StoreProfile {
        StoreProfile {
            create_only: Answer::Yes,
            create_only_multipart: Answer::Yes,
            checksum: Checksum::Crc64nvme,
            lists_at_once: Answer::Yes,
            ranges: Answer::Yes,
            may_overwrite: Answer::No,
            may_delete: Answer::No,
            versioning: Answer::Yes,
            lock: Lock::Default { compliance: true, days: 30 },
        }
    }

    type Turn = fn(&mut StoreProfile);

    #[test]
    fn f38_every_change_is_named_and_judged() {
        let table: &[(Turn, &str, bool)] = &[
            (|p| p.create_only = Answer::No, "create-only put was yes and is no", true),
            (|p| p.create_only_multipart = Answer::No, "create-only multipart upload was yes and is no", true),
            (|p| p.checksum = Checksum::Crc32c, "checksum was CRC64NVME and is CRC32C", true),
            (|p| p.checksum = Checksum::Unknown, "checksum was CRC64NVME and is unknown", false),
            (|p| p.lists_at_once = Answer::No, "listing at once was yes and is no", true),
            (|p| p.ranges = Answer::No, "reading of ranges was yes and is no", true),
            (|p| p.may_overwrite = Answer::Yes, "permission to overwrite was no and is yes", true),
            (|p| p.may_delete = Answer::Yes, "permission to delete was no and is yes", true),
            (|p| p.versioning = Answer::No, "versioning was yes and is no", true),
            (|p| p.versioning = Answer::Unknown, "versioning was yes and is unknown", false),
            (|p| p.lock = Lock::None, "object lock was compliance for 30 days and is none", true),
            (|p| p.lock = Lock::Possible, "object lock was compliance for 30 days and is without a default", true),
            (
                |p| p.lock = Lock::Default { compliance: true, days: 29 },
                "object lock was compliance for 30 days and is compliance for 29 days",
                true,
            ),
            (
                |p| p.lock = Lock::Default { compliance: false, days: 30 },
                "object lock was compliance for 30 days and is governance for 30 days",
                true,
            ),
            (
                |p| p.lock = Lock::Default { compliance: true, days: 31 },
                "object lock was compliance for 30 days and is compliance for 31 days",
                false,
            ),
        ];
        for (turn, words, worse) in table {
            let mut now = good();
            turn(&mut now);
            assert_eq!(now.changes_since(&good()), [Change { words: (*words).to_owned(), worse: *worse }]);
            // The way back is for the better.
            assert!(!worse || good().changes_since(&now).iter().all(|change| !change.worse), "{words}");
        }
        assert_eq!(good().changes_since(&good()), []);
        assert_eq!(good().changes_since(&StoreProfile::default()), [], "what was not known before has not changed");
    }

    #[test]
    fn all_can_be_lost_where_nothing_keeps_what_is_deleted() {
        let of =
            |delete, overwrite, versioning, lock| StoreProfile { may_delete: delete, may_overwrite: overwrite, versioning, lock, ..good() };
        let locked = Lock::Default { compliance: false, days: 1 };
        assert!(of(Answer::Yes, Answer::No, Answer::No, Lock::None).can_lose_all());
        assert!(of(Answer::No, Answer::Yes, Answer::Unknown, Lock::Possible).can_lose_all());
        assert!(!of(Answer::No, Answer::No, Answer::No, Lock::None).can_lose_all());
        assert!(!of(Answer::No, Answer::Yes, Answer::Yes, Lock::None).can_lose_all(), "the older version stays");
        assert!(of(Answer::Yes, Answer::No, Answer::Yes, Lock::None).can_lose_all(), "versions can be deleted too");
        assert!(!of(Answer::Yes, Answer::Yes, Answer::No, locked).can_lose_all());
    }

    #[test]
    fn a_profile_of_a_later_or_earlier_program_is_read_as_far_as_it_is_known() {
        let text = serde_json::to_string(&good()).unwrap();
        assert_eq!(serde_json::from_str::<StoreProfile>(&text).unwrap(), good());
        let read: StoreProfile = serde_json::from_str(r#"{"versioning":"no","colour":"blue"}"#).unwrap();
        assert_eq!(read, StoreProfile { versioning: Answer::No, ..StoreProfile::default() });
    }
}
