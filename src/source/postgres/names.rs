//! Names as servers have them: PostgreSQL does not say in which encoding the names of roles and databases are, and a server of encoding
//! SQL_ASCII takes any bytes. A byte that is no UTF-8 becomes a character of its own (U+F780 to U+F7FF), so that nothing is lost: it is shown
//! as `\xfc`, and goes back to the server as the byte it was.

use std::error::Error as StdError;

use tokio_postgres::types::{FromSql, Kind, Type};

/// The character of byte 0; those of 0x80 to 0xff are in use.
const FIRST: u32 = 0xf700;

fn escaped(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character stands for, if it is none of a name itself.
fn byte_of(c: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(c).checked_sub(FIRST)?).ok()?;
    (byte >= 0x80).then_some(byte)
}

/// Text from bytes of any kind. A character that could be taken for an escaped byte is escaped itself.
pub(super) fn decode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte_of(c) {
                None => text.push(c),
                Some(_) => text.extend(c.encode_utf8(&mut [0; 4]).bytes().map(escaped)),
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| escaped(*byte)));
    }
    text
}

/// The bytes at the server.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    let of = |c: char| byte_of(c).map_or_else(|| c.to_string().into_bytes(), |byte| vec![byte]);
    text.chars().flat_map(of).collect()
}

/// Whether something of it is no UTF-8 at the server.
pub(super) fn is_raw(text: &str) -> bool {
    text.chars().any(|c| byte_of(c).is_some())
}

/// For people: `m\xfcller`. Control characters are escaped, too.
pub(super) fn shown(text: &str) -> String {
    let one = |c: char| match byte_of(c) {
        Some(byte) => format!("\\x{byte:02x}"),
        None => c.escape_debug().to_string(),
    };
    text.chars().map(one).collect()
}

/// SQL as it can be sent: with bytes that are no UTF-8 it goes as an escaped text to be executed there.
pub(super) fn sendable(sql: &str) -> String {
    if !is_raw(sql) {
        return sql.to_owned();
    }
    let mut text = String::new();
    for c in sql.chars() {
        match (byte_of(c), c) {
            (Some(byte), _) => text.push_str(&format!("\\{byte:03o}")),
            (None, '\'') => text.push_str("\\047"),
            (None, '\\') => text.push_str("\\\\"),
            // So that no `$` can end the block around it.
            (None, '$') => text.push_str("\\044"),
            (None, c) => text.push(c),
        }
    }
    format!("DO $$ BEGIN EXECUTE E'{text}'; END $$")
}

/// A text of the server, whatever its bytes are.
pub(super) struct Text(pub(super) String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Text(decode(raw)))
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::TEXT | Type::NAME | Type::VARCHAR | Type::BPCHAR | Type::UNKNOWN) && *ty.kind() == Kind::Simple
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_utf8_are_kept_and_shown() {
        for (bytes, shown_as) in [
            (&b"m\xfcller"[..], "m\\xfcller"),
            ("müller".as_bytes(), "müller"),
            (b"\xe2\x82", "\\xe2\\x82"),
            ("\u{f7fc}".as_bytes(), "\\xef\\x9f\\xbc"),
            (b"a\nb", "a\\nb"),
        ] {
            let text = decode(bytes);
            assert_eq!((super::bytes(&text).as_slice(), shown(&text).as_str()), (bytes, shown_as));
        }
        assert!(!is_raw("müller €\u{f6ff}\u{f800}") && is_raw(&decode(b"\x80")));
    }

    #[test]
    fn sql_with_such_bytes_is_sent_as_an_escaped_text() {
        assert_eq!(sendable("CREATE ROLE \"müller\""), "CREATE ROLE \"müller\"");
        let sql = format!("COMMENT ON ROLE \"{}\" IS E'a\\\\b''c$$'", decode(b"m\xfc"));
        assert_eq!(
            sendable(&sql),
            "DO $$ BEGIN EXECUTE E'COMMENT ON ROLE \"m\\374\" IS E\\047a\\\\\\\\b\\047\\047c\\044\\044\\047'; END $$"
        );
    }
}
