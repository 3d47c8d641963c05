//! PAX extended header records: `<length> <key>=<value>\n`.

use crate::error::{Error, Result};

/// Longest PAX header believed. Values are names and extended attributes (64 KiB each at most on Linux).
pub(super) const MAX_PAX: u64 = 8 << 20;

/// What the records of one extended header say about the entry that follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub uname: Option<Vec<u8>>,
    pub gname: Option<Vec<u8>>,
    pub mtime: Option<(i64, u32)>,
    pub sparse_major: Option<u64>,
    pub sparse_minor: Option<u64>,
    pub sparse_name: Option<Vec<u8>>,
    pub sparse_size: Option<u64>,
    pub xattrs: Vec<crate::format::tar::Xattr>,
}

/// Key and value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits one extended header into its records. Says what is wrong as a fragment.
pub(super) fn split(mut bytes: &[u8]) -> std::result::Result<Vec<Record<'_>>, &'static str> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = memchr::memchr(b' ', &bytes[..bytes.len().min(10)]).ok_or("a PAX record has no length")?;
        let length = decimal(&bytes[..space]).ok_or("a PAX record's length is not a number")?;
        let length = usize::try_from(length).map_err(|_| "a PAX record is too long")?;
        if length > bytes.len() || length < space + 3 {
            return Err("a PAX record's length does not fit its header");
        }
        let (record, rest) = bytes.split_at(length);
        let (last, record) = record.split_last().ok_or("a PAX record is empty")?;
        if *last != b'\n' {
            return Err("a PAX record does not end where its length says");
        }
        let record = &record[space + 1..];
        let equals = memchr::memchr(b'=', record).ok_or("a PAX record has no '='")?;
        if equals == 0 {
            return Err("a PAX record has no key");
        }
        records.push((&record[..equals], &record[equals + 1..]));
        bytes = rest;
    }
    Ok(records)
}

/// Reads the records that matter; unknown keys are passed over, a key given twice is refused.
pub(super) fn parse(bytes: &[u8]) -> std::result::Result<Records, &'static str> {
    fn once<T>(slot: &mut Option<T>, value: T) -> std::result::Result<(), &'static str> {
        if slot.replace(value).is_some() { Err("a PAX key is given twice") } else { Ok(()) }
    }
    fn name(value: &[u8]) -> std::result::Result<Vec<u8>, &'static str> {
        if value.is_empty() || memchr::memchr(0, value).is_some() {
            return Err("a PAX name is empty or holds a NUL");
        }
        Ok(value.to_vec())
    }
    fn count(value: &[u8]) -> std::result::Result<u64, &'static str> {
        decimal(value).ok_or("a PAX number is not one")
    }
    let mut out = Records::default();
    for (key, value) in split(bytes)? {
        match key {
            b"path" => once(&mut out.path, name(value)?)?,
            b"linkpath" => once(&mut out.link, name(value)?)?,
            b"size" => once(&mut out.size, count(value)?)?,
            b"uid" => once(&mut out.uid, count(value)?)?,
            b"gid" => once(&mut out.gid, count(value)?)?,
            b"uname" => once(&mut out.uname, value.to_vec())?,
            b"gname" => once(&mut out.gname, value.to_vec())?,
            b"mtime" => once(&mut out.mtime, time(value).ok_or("a PAX mtime is not a time")?)?,
            b"GNU.sparse.major" => once(&mut out.sparse_major, count(value)?)?,
            b"GNU.sparse.minor" => once(&mut out.sparse_minor, count(value)?)?,
            b"GNU.sparse.name" => once(&mut out.sparse_name, name(value)?)?,
            b"GNU.sparse.realsize" => once(&mut out.sparse_size, count(value)?)?,
            _ if key.starts_with(b"GNU.sparse.") => return Err("the sparse format is older than 1.0"),
            _ => {
                if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
                    let attribute = unescape(attribute);
                    if out.xattrs.iter().any(|(name, _)| *name == attribute) {
                        return Err("an extended attribute is given twice");
                    }
                    out.xattrs.push((attribute, value.to_vec()));
                }
            }
        }
    }
    Ok(out)
}

/// Appends one record. The length counts its own digits.
pub(super) fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Attribute names may hold `=`, keys may not: `%` and `=` are written as GNU tar writes them.
pub(super) fn escape(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for b in name {
        match b {
            b'%' => out.extend_from_slice(b"%25"),
            b'=' => out.extend_from_slice(b"%3D"),
            _ => out.push(*b),
        }
    }
    out
}

fn unescape(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match rest.get(..3) {
            Some(b"%25") => (b'%', &rest[3..]),
            Some(b"%3D") => (b'=', &rest[3..]),
            _ => (*first, tail),
        };
        out.push(byte);
        rest = tail;
    }
    out
}

/// Digits only, at most 19 of them; within `i64`.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let value = digits.iter().try_fold(0u64, |value, b| {
        if !b.is_ascii_digit() {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(b - b'0'))
    })?;
    (value <= i64::MAX as u64).then_some(value)
}

/// `-12.5` as whole seconds rounded down and nanoseconds; digits after the ninth are cut off.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match memchr::memchr(b'.', text) {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    if fraction.iter().any(|b| !b.is_ascii_digit()) {
        return None;
    }
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let nanoseconds = (0..9).fold(0u32, |value, i| value * 10 + fraction.get(i).map_or(0, |b| u32::from(b - b'0')));
    match (negative, nanoseconds) {
        (false, _) => Some((seconds, nanoseconds)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanoseconds)),
    }
}

/// The value of an `mtime` record.
pub(super) fn time_text(seconds: i64, nanoseconds: u32) -> String {
    if seconds < 0 && nanoseconds > 0 {
        format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
    } else if nanoseconds > 0 {
        format!("{seconds}.{nanoseconds:09}")
    } else {
        seconds.to_string()
    }
}

/// A global header (`g`) would change every entry that follows: only remarks are let through.
pub(super) fn check_global(bytes: &[u8]) -> Result<()> {
    let records = split(bytes).map_err(Error::corrupt)?;
    match records.iter().find(|(key, _)| *key != b"comment") {
        Some((key, _)) => {
            Err(Error::corrupt(format!("a global PAX header sets '{}' for all entries", String::from_utf8_lossy(key).escape_debug())))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn broken_records_are_refused() {
        for bad in [
            &b"x"[..],
            b"5 a=b\n6 a=",
            b"7 a=b\n",
            b"5 a=b\n",
            b"99 a=b\n",
            b"0 a=b\n",
            b"3 \n",
            b"5 ab\n",
            b"5 =bc\n",
            b"-6 a=b\n",
            b"99999999999999999999 a=b\n",
            b"9 size=x\n",
            b"10 size=-1\n",
            b"8 path=\n",
            b"8 size=1\n8 size=2\n",
            b"\0\0\0\0",
            b"21 GNU.sparse.map=1,2\n",
        ] {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times() {
        for (text, value) in [
            ("0", Some((0, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.0000000019", Some((1, 1))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-2", Some((-2, 0))),
            ("1e3", None),
            ("", None),
            (".5", None),
            ("1.x", None),
        ] {
            assert_eq!(time(text.as_bytes()), value, "{text}");
        }
    }

    proptest! {
        #[test]
        fn records_round_trip(key in "[a-zA-Z.]{1,40}", value in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let mut out = Vec::new();
            put(&mut out, key.as_bytes(), &value);
            prop_assert_eq!(split(&out).unwrap(), vec![(key.as_bytes(), value.as_slice())]);
        }

        #[test]
        fn times_round_trip(seconds in -10_000_000_000i64..10_000_000_000, nanoseconds in 0u32..1_000_000_000) {
            prop_assert_eq!(time(time_text(seconds, nanoseconds).as_bytes()), Some((seconds, nanoseconds)));
        }

        #[test]
        fn attribute_names_round_trip(name in proptest::collection::vec(any::<u8>(), 1..40)) {
            prop_assert_eq!(unescape(&escape(&name)), name);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
