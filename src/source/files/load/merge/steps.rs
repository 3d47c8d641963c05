//! The steps of a merge as they stand in their file.

use crate::source::files::load::look::Look;

/// One step; written as its letter, for folders a look as JSON and a newline, the path below the root, and a NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A folder on both sides, before anything in it changes; with its live look, for an undo.
    FolderBefore(Look),
    /// The same folder once all in it is done; with the look the set gives it.
    FolderAfter(Look),
    /// New: nothing is live under the name.
    Add,
    /// One file or link for another.
    Replace,
    /// A folder for something else, or the other way round.
    Turn,
    /// Live only, and the source would have taken it.
    Extra,
}

impl Step {
    /// Appends the step.
    pub fn write(&self, path: &[u8], out: &mut Vec<u8>) {
        let (letter, look) = match self {
            Step::FolderBefore(look) => (b'D', Some(look)),
            Step::FolderAfter(look) => (b'd', Some(look)),
            Step::Add => (b'a', None),
            Step::Replace => (b'r', None),
            Step::Turn => (b't', None),
            Step::Extra => (b'x', None),
        };
        out.push(letter);
        if let Some(look) = look {
            // Numbers only: neither newline nor NUL. It cannot fail.
            out.extend(serde_json::to_vec(look).unwrap_or_default());
            out.push(b'\n');
        }
        out.extend_from_slice(path);
        out.push(0);
    }

    /// One line without its NUL; `None` when it is none.
    pub fn read(line: &[u8]) -> Option<(Step, &[u8])> {
        let (letter, rest) = line.split_first()?;
        let folder = || {
            let end = memchr::memchr(b'\n', rest)?;
            Some((serde_json::from_slice::<Look>(&rest[..end]).ok()?, &rest[end + 1..]))
        };
        let (step, path) = match letter {
            b'D' => folder().map(|(look, path)| (Step::FolderBefore(look), path))?,
            b'd' => folder().map(|(look, path)| (Step::FolderAfter(look), path))?,
            b'a' => (Step::Add, rest),
            b'r' => (Step::Replace, rest),
            b't' => (Step::Turn, rest),
            b'x' => (Step::Extra, rest),
            _ => return None,
        };
        let root = path.is_empty() && matches!(step, Step::FolderBefore(_) | Step::FolderAfter(_));
        let sound = |path: &[u8]| path.split(|b| *b == b'/').all(|part| !part.is_empty() && part != b"." && part != b"..");
        (root || sound(path)).then_some((step, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_round_trip_and_bad_ones_are_refused() {
        let look = Look { mode: 0o2755, uid: 0, gid: 7, mtime: (-3, 5), xattrs: vec![(b"user.\n".to_vec(), vec![0, 10])] };
        let mut out = Vec::new();
        for (step, path) in
            [(Step::FolderBefore(look.clone()), &b""[..]), (Step::FolderAfter(look), b"a\n:b/c"), (Step::Extra, b"x\xff\ny")]
        {
            out.clear();
            step.write(path, &mut out);
            assert_eq!(memchr::memchr(0, &out), Some(out.len() - 1));
            assert_eq!(Step::read(&out[..out.len() - 1]), Some((step, path)));
        }
        for bad in [&b""[..], b"a", b"a../x", b"ax/../y", b"a/x", b"D{}\nx", b"Dx", b"qx"] {
            assert_eq!(Step::read(bad), None, "{bad:?}");
        }
    }
}
