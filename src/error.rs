//! The one error type: what was being done, why it failed, and the next command to type.
//!
//! A [`Kind`] decides the exit code and whether trying again can help; both stand in one table here and
//! nowhere else. Errors are written as lower-case fragments that read well after "failed to"; context is
//! added on the way up, and an error is printed once, where it is handled.

use std::fmt;

/// `Result` with drctl's own error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Anything without a kind of its own.
    Failed,
    /// The command line cannot be understood.
    Usage,
    /// The configuration is wrong.
    Config,
    /// A set was committed, but not every source is whole in it.
    Partial,
    /// Checks made before the work refused it; nothing was changed.
    Preflight,
    /// A stored set is not what its manifest says, or a drill failed.
    Verify,
    /// There is no set as asked for.
    NoSuchSet,
    /// Another run holds the job.
    Locked,
    /// A store or a database cannot be reached just now.
    Unreachable,
    /// A commit was sent and its answer never came (FORMAT rule 5).
    OutcomeUnknown,
    /// A backup, verification or drill is older than allowed.
    Stale,
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// A store holds nothing under this key.
    NotFound,
    /// A create-only write found the key taken.
    Exists,
    /// The store refuses this caller.
    Denied,
    /// No room is left: on a disk, in a quota, among the files that may be open. Nothing was stored.
    Full,
    /// Bytes read are not the bytes written: wrong length, hash, signature or structure.
    Corrupt,
    /// The format is newer than this program.
    Unsupported,
    /// The other end of a stream stopped. Its own error says why and is told instead of this one.
    Stopped,
}

/// Kind, its name in JSON, its exit code, and whether trying again can help.
const TABLE: &[(Kind, &str, u8, bool)] = &[
    (Kind::Failed, "failed", 1, false),
    (Kind::Usage, "usage", 2, false),
    (Kind::Config, "config", 2, false),
    (Kind::Partial, "partial", 3, false),
    (Kind::Preflight, "preflight", 4, false),
    (Kind::Verify, "verify", 5, false),
    (Kind::NoSuchSet, "no-such-set", 6, false),
    (Kind::Locked, "locked", 7, false),
    (Kind::Unreachable, "unreachable", 8, true),
    (Kind::OutcomeUnknown, "outcome-unknown", 8, false),
    (Kind::Stale, "stale", 9, false),
    (Kind::Interrupted, "interrupted", 130, false),
    (Kind::Terminated, "terminated", 143, false),
    (Kind::NotFound, "not-found", 1, false),
    (Kind::Exists, "exists", 1, false),
    (Kind::Denied, "denied", 1, false),
    (Kind::Full, "full", 1, false),
    (Kind::Corrupt, "corrupt", 5, false),
    (Kind::Unsupported, "unsupported", 1, false),
    (Kind::Stopped, "stopped", 1, false),
];

impl Kind {
    fn row(self) -> &'static (Kind, &'static str, u8, bool) {
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[0])
    }

    /// The name used in JSON output.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The exit code of the process when this error ends it (DESIGN §7).
    pub fn exit_code(self) -> u8 {
        self.row().2
    }

    /// Whether the same step may succeed when tried again.
    pub fn retryable(self) -> bool {
        self.row().3
    }
}

/// What was being done, why it failed, and what to type next.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    what: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `what` is a lower-case fragment naming the object concerned.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, what: what.into(), hint: None, source: None }))
    }

    /// [`Kind::Failed`].
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, what)
    }

    /// [`Kind::Corrupt`].
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, what)
    }

    /// The next command to type, or the question to ask.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// A hint for an error that has none.
    pub fn hint_or(self, hint: impl Into<String>) -> Self {
        if self.0.hint.is_some() { self } else { self.hint(hint) }
    }

    /// The hint of another error for one that has none.
    pub fn hint_of(self, other: &Error) -> Self {
        match other.hint_text() {
            Some(hint) => self.hint_or(hint),
            None => self,
        }
    }

    /// The underlying error; its words are printed after ours.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error seen from one step further up: `what` goes in front, kind and hint stay.
    pub fn context(self, what: impl Into<String>) -> Self {
        let kind = self.0.kind;
        let hint = self.0.hint.clone();
        let mut outer = Error::new(kind, what).because(self);
        outer.0.hint = hint;
        outer
    }

    /// A panic, caught: `what` was being done. Its words are for whoever mends drctl.
    pub fn broke_down(what: &str, panic: &(dyn std::any::Any + Send)) -> Error {
        let words = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let error = Error::failed(format!("{what} broke down: {}", words.unwrap_or("a panic without words")));
        error.hint("this is a bug in drctl: please report it; nothing stored earlier was touched")
    }

    /// Of the errors of a stream's two ends the one that was there first.
    pub fn first_of(one: Error, other: Error) -> Error {
        if one.kind() == Kind::Stopped { other } else { one }
    }

    /// The same error under another kind.
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The next command to type, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    /// The whole chain on one line, outermost first, without the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        let mut next: Option<&(dyn std::error::Error + 'static)> =
            self.0.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static));
        while let Some(error) = next {
            if let Some(own) = error.downcast_ref::<Error>() {
                // Its Display prints the rest of the chain itself.
                return write!(f, ": {own}");
            }
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.0.kind.name())?;
        if let Some(hint) = &self.0.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}

/// Adds what was being done to any error on its way up.
pub trait Context<T> {
    /// Puts `what()` in front of the error; an I/O error gets the kind that fits it.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.context(what()))
    }
}

impl<T> Context<T> for std::result::Result<T, std::io::Error> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error::new(io_kind(&e), what()).because(e))
    }
}

/// The kind of an operating system error.
pub fn io_kind(error: &std::io::Error) -> Kind {
    use std::io::ErrorKind as Io;
    // Told before anything is written, so that nobody takes it for an outcome that is not known (FAULTS 15).
    if let Some(libc::EMFILE | libc::ENFILE) = error.raw_os_error() {
        return Kind::Full;
    }
    match error.kind() {
        Io::NotFound => Kind::NotFound,
        Io::AlreadyExists => Kind::Exists,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => Kind::Denied,
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => Kind::Full,
        Io::ConnectionRefused
        | Io::ConnectionReset
        | Io::ConnectionAborted
        | Io::TimedOut
        | Io::HostUnreachable
        | Io::NetworkUnreachable => Kind::Unreachable,
        _ => Kind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_is_one_line_and_keeps_the_hint() {
        let io = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = Err::<(), _>(io).context(|| "open /x").unwrap_err().hint("chmod it").context("back up files 'a'");
        assert_eq!(error.kind(), Kind::Denied);
        assert_eq!(error.hint_text(), Some("chmod it"));
        assert_eq!(error.to_string(), "back up files 'a': open /x: permission denied");
    }

    #[test]
    fn f15_no_descriptor_left_is_no_room_and_no_unknown_outcome() {
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOSPC, libc::EDQUOT] {
            assert_eq!(io_kind(&std::io::Error::from_raw_os_error(code)), Kind::Full);
        }
    }

    #[test]
    fn every_kind_stands_in_the_table_once() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(TABLE.iter().position(|r| r.0 == row.0), Some(i));
            assert!(row.2 != 0, "no error exits 0");
        }
    }
}
