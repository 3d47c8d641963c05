//! Lines of `NAME=value`: reading what people write into `.env` files, and writing what shells and Docker read.
//!
//! Reading: blank lines and `#` lines count for nothing; `export` in front is passed over; an unquoted value ends at the line's end or
//! at ` #`, without the blanks around it; `'…'` holds anything literally and `"…"` with the escapes `\n \r \t \" \\ \$` and `` \` ``,
//! both over several lines if need be. `${NAME}` is not expanded. The last of equal names holds. What is read serves to tell names and
//! differences, and to choose lines: these are kept byte for byte, for each reader of such files has rules of its own.
//!
//! Writing: one line for each name, sorted. A value of harmless characters stands bare (so `docker run --env-file` reads it too);
//! others stand in single quotes, those that hold a single quote in double quotes. `sh` reads all of it.

use std::collections::BTreeMap;

/// Names and values; both without NUL.
pub(crate) type Variables = BTreeMap<String, Vec<u8>>;

/// What was read. Nothing a person may have written is an error.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub variables: Variables,
    /// Every line that sets or names a variable: the name as it stands, and all its bytes, those of a value over several lines too.
    pub lines: Vec<(String, Vec<u8>)>,
    /// Sentences about lines that say nothing. They never hold a value.
    pub warnings: Vec<String>,
}

/// Whether a name can stand before `=` in every reader: letters, digits, `_`, and after the first also `.` and `-`.
pub(crate) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Reads a file's bytes. What is odd is taken as it stands: the rest of a line behind a quote that is not closed, or is closed in the middle
/// of a word, is the value.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let mut out = Parsed::default();
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut line = 1;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let this = rest[..end].trim_ascii();
        let this = this.strip_prefix(b"export").filter(|r| r.starts_with(b" ") || r.starts_with(b"\t")).unwrap_or(this).trim_ascii_start();
        let equals = memchr::memchr(b'=', this);
        let mut taken = end;
        if !this.is_empty() && !this.starts_with(b"#") {
            let name = std::str::from_utf8(this[..equals.unwrap_or(this.len())].trim_ascii()).ok();
            let valid = name.filter(|name| is_name(name));
            if equals.is_some() {
                let start = memchr::memchr(b'=', rest).map_or(end, |i| i + 1);
                let (value, length) = value(&rest[start..]);
                taken = start + length;
                match valid {
                    Some(name) if !value.contains(&0) => drop(out.variables.insert(name.to_owned(), value)),
                    _ => out.warnings.push(format!("line {line} has no valid name")),
                }
            } else {
                out.warnings.push(format!("line {line} has no '='"));
            }
            if let Some(name) = if equals.is_some() { name } else { valid } {
                out.lines.push((name.to_owned(), rest[..rest.len().min(taken + 1)].to_vec()));
            }
        }
        line += memchr::memchr_iter(b'\n', &rest[..taken]).count() + 1;
        rest = rest.get(taken + 1..).unwrap_or_default();
    }
    out
}

/// The value at the start of `rest` and how many bytes it takes up to its line's end.
fn value(rest: &[u8]) -> (Vec<u8>, usize) {
    if let Some(quoted) = quoted(rest) {
        return quoted;
    }
    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    let line = &rest[..end];
    let blank = line.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    if matches!(line.get(blank), Some(b'"' | b'\'')) {
        return (line.trim_ascii().to_vec(), end);
    }
    let remark = (1..line.len()).find(|i| line[*i] == b'#' && matches!(line[i - 1], b' ' | b'\t')).unwrap_or(line.len());
    (line[..remark].trim_ascii().to_vec(), end)
}

/// A value in quotes, behind which nothing but a remark stands in its line.
fn quoted(rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    let blank = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let (value, length) = match rest.get(blank)? {
        b'\'' => {
            let close = memchr::memchr(b'\'', &rest[blank + 1..])?;
            (rest[blank + 1..][..close].to_vec(), close + 2)
        }
        b'"' => double_quoted(&rest[blank + 1..])?,
        _ => return None,
    };
    let after = blank + length;
    let end = memchr::memchr(b'\n', &rest[after..]).map_or(rest.len(), |i| after + i);
    let tail = rest[after..end].trim_ascii();
    (tail.is_empty() || tail.starts_with(b"#")).then_some((value, end))
}

/// The value behind an opening double quote and its length with both quotes.
fn double_quoted(rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut out = Vec::new();
    let mut bytes = rest.iter().enumerate();
    while let Some((at, b)) = bytes.next() {
        match b {
            b'"' => return Some((out, at + 2)),
            b'\\' => match bytes.next().map(|(_, b)| *b)? {
                b'n' => out.push(b'\n'),
                b'r' => out.push(b'\r'),
                b't' => out.push(b'\t'),
                b @ (b'"' | b'\\' | b'$' | b'`') => out.push(b),
                b'\n' => {}
                other => out.extend([b'\\', other]),
            },
            _ => out.push(*b),
        }
    }
    None
}

/// Lines for variables that come from no file.
pub(crate) fn write(variables: &Variables) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in variables {
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        let bare = |b: &u8| b.is_ascii_alphanumeric() || b"_./:@%+,=-".contains(b);
        if value.iter().all(bare) {
            out.extend_from_slice(value);
        } else if !value.contains(&b'\'') {
            out.push(b'\'');
            out.extend_from_slice(value);
            out.push(b'\'');
        } else {
            out.push(b'"');
            for b in value {
                if b"\"\\$`".contains(b) {
                    out.push(b'\\');
                }
                out.push(*b);
            }
            out.push(b'"');
        }
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write() {
        let text = b"\xef\xbb\xbf# remark\nA=1\n\n export B = two words # remark\nC='a # b'  # remark\nD=\"l1\nl2\\n\\\"x\\\" \\$y \\q\"\r\nE=\nF=a#b\nG=${A}\n\
            A=again\r\nnonsense\n1x=3\nH=\"\"\nI='multi\nline'\nexported=1\nJ=x=y=z\nK='last'";
        let parsed = parse(text);
        let expected = [
            ("A", "again"),
            ("B", "two words"),
            ("C", "a # b"),
            ("D", "l1\nl2\n\"x\" $y \\q"),
            ("E", ""),
            ("F", "a#b"),
            ("G", "${A}"),
            ("H", ""),
            ("I", "multi\nline"),
            ("J", "x=y=z"),
            ("K", "last"),
            ("exported", "1"),
        ];
        let found: Vec<_> = parsed.variables.iter().map(|(n, v)| (n.as_str(), std::str::from_utf8(v).unwrap())).collect();
        assert_eq!(found, expected);
        assert_eq!(parsed.warnings, ["line 12 has no '='", "line 13 has no valid name"]);
    }

    #[test]
    fn f122_odd_lines_are_taken_as_they_stand() {
        let text = b"A=a #b\r\nP=\"a\"b\nQ='tis\nexport R=\"1\nS=\"2\nPEM=\"x\ny==\n\" # z\nPASSED\n# T=1\n1x=3\nU='last";
        let parsed = parse(text);
        let lines: Vec<_> = parsed.lines.iter().map(|(n, l)| (n.as_str(), std::str::from_utf8(l).unwrap())).collect();
        assert_eq!(
            lines,
            [
                ("A", "A=a #b\r\n"),
                ("P", "P=\"a\"b\n"),
                ("Q", "Q='tis\n"),
                ("R", "export R=\"1\n"),
                ("S", "S=\"2\n"),
                ("PEM", "PEM=\"x\ny==\n\" # z\n"),
                ("PASSED", "PASSED\n"),
                ("1x", "1x=3\n"),
                ("U", "U='last"),
            ]
        );
        assert_eq!(parsed.variables.keys().collect::<Vec<_>>(), ["A", "P", "PEM", "Q", "R", "S", "U"]);
        assert_eq!(parsed.variables["P"], b"\"a\"b");
        assert_eq!(parsed.variables["PEM"], b"x\ny==\n");
    }

    #[test]
    fn a_shell_reads_what_is_written() {
        let values: [&[u8]; 8] = [b"plain", b"two words", b"it's \"$HOME\" `id` \\n \\\\", b"line\nbreak", b"", b"#x", b"'", b"\xff\xfe\t"];
        let variables: Variables = values.iter().enumerate().map(|(i, v)| (format!("V{i}"), v.to_vec())).collect();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, write(&variables)).unwrap();
        let script = ". \"$0\"; for i in 0 1 2 3 4 5 6 7; do eval \"printf '%s\\\\0' \\\"\\$V$i\\\"\"; done";
        let output = std::process::Command::new("sh").arg("-c").arg(script).arg(&file).output().unwrap();
        assert!(output.status.success());
        let read: Vec<&[u8]> = output.stdout.split(|b| *b == 0).take(values.len()).collect();
        assert_eq!(read, values);
    }

    proptest! {
        #[test]
        fn written_is_read_back(variables in proptest::collection::btree_map("[A-Za-z_][A-Za-z0-9_.-]{0,8}", proptest::collection::vec(1u8..=255, 0..60), 0..8)) {
            let written = write(&variables);
            let parsed = parse(&written);
            prop_assert_eq!(parsed.lines.iter().flat_map(|(_, line)| line.clone()).collect::<Vec<u8>>(), written);
            prop_assert!(parsed.warnings.is_empty());
            prop_assert_eq!(parsed.variables, variables);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'='), Just(b'"'), Just(b'\''), Just(b'\\')], 0..120)) {
            let lines = parse(&bytes).lines.into_iter().map(|(_, line)| line.len()).sum::<usize>();
            prop_assert!(lines <= bytes.len());
        }
    }
}
