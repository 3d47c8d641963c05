//! Text of others without secrets: those that are known, and what looks like one.

use crate::model::Secret;

/// Replaces known secrets with `***`, as they are and as URLs and JSON write them, and makes control characters harmless.
#[derive(Clone, Default)]
pub struct Redactor {
    needles: Vec<Secret>,
    longest: usize,
}

impl Redactor {
    /// A redactor for these secrets; empty ones are ignored.
    pub fn new(secrets: &[Secret]) -> Self {
        let mut needles: Vec<Secret> = Vec::new();
        for secret in secrets.iter().filter(|s| !s.expose().is_empty()) {
            needles.push(secret.clone());
            let encoded: String = url::form_urlencoded::byte_serialize(secret.expose().as_bytes()).collect();
            let percent = encoded.replace('+', "%20");
            let json = serde_json::Value::from(secret.expose()).to_string();
            let json = json.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned();
            for form in [encoded, percent, json] {
                if form != secret.expose() && !form.is_empty() {
                    needles.push(Secret::new(form));
                }
            }
        }
        // The longest first: a secret that is part of another must not leave the rest of it behind.
        needles.sort_by_key(|n| std::cmp::Reverse(n.expose().len()));
        let longest = needles.first().map_or(0, |n| n.expose().len());
        Redactor { needles, longest }
    }

    /// Bytes of the longest text that is looked for.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The text without known secrets; those that go over several lines are found too.
    pub fn hide(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for needle in &self.needles {
            if out.contains(needle.expose()) {
                out = out.replace(needle.expose(), "***");
            }
        }
        out
    }

    /// The text without known secrets; control characters are escaped.
    pub fn redact(&self, text: &str) -> String {
        let out = self.hide(text);
        if !out.chars().any(|c| c.is_control() && c != '\t') {
            return out;
        }
        out.chars().fold(String::with_capacity(out.len()), |mut kept, c| {
            if c.is_control() && c != '\t' {
                kept.extend(c.escape_default())
            } else {
                kept.push(c)
            }
            kept
        })
    }
}

/// The text without what looks like a secret: private keys, passwords in URLs, values of keys that are named after secrets (`password=…`,
/// `"token": "…"`, `Authorization: …`, `--password …`, `PASSWORD '…'`), tokens of well-known services. What is taken too much does no harm.
pub fn hide_likely(text: &str) -> String {
    tokens(&named_values(&url_passwords(&private_keys(text))))
}

/// PEM blocks of private keys; one without an end reaches to the end of the text.
fn private_keys(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let label = &rest[at + BEGIN.len()..];
        let line = label.split(['\n', '\\']).next().unwrap_or_default();
        // `PRIVATE KEY`, `RSA PRIVATE KEY`, `OPENSSH PRIVATE KEY` … stand at once behind BEGIN.
        let key = line.find("PRIVATE KEY").is_some_and(|key| key < 40);
        let body = at + BEGIN.len();
        if !key {
            out.push_str(&rest[..body]);
            rest = &rest[body..];
            continue;
        }
        out.push_str(&rest[..at]);
        out.push_str("*** (a private key)");
        let end = rest[body..].find("-----END ").map(|end| body + end + "-----END ".len());
        rest = match end.and_then(|end| rest[end..].find("-----").map(|more| end + more + 5)) {
            Some(end) => &rest[end..],
            None => "",
        };
    }
    out.push_str(rest);
    out
}

/// `scheme://user:password@host`. A password with a raw `/`, `?` or `#` in it is found too: the last `@` of the word counts.
fn url_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, after) = rest.split_at(at + 3);
        out.push_str(head);
        let word = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>')).unwrap_or(after.len());
        let (url, tail) = after.split_at(word);
        match (url.find(':'), url.rfind('@')) {
            (Some(colon), Some(host)) if colon < host => {
                out.push_str(&url[..=colon]);
                out.push_str("***");
                // Its rest may hold parameters; they are looked at by name.
                out.push_str(&url[host..]);
            }
            _ => out.push_str(url),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// What a key's name must hold to be named after a secret, without `_`, `-` and `.`, in lower case.
const IN_NAMES: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "authorization",
    "credential",
    "cookie",
    "signature",
];
/// Whole names.
const NAMES: [&str; 6] = ["pwd", "pass", "key", "sig", "auth", "pgpass"];
/// Words that stand before the secret itself.
const SCHEMES: [&str; 5] = ["bearer", "basic", "token", "digest", "apikey"];

fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn is_secret_name(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    IN_NAMES.iter().any(|part| plain.contains(part)) || NAMES.contains(&plain.as_str()) || plain.ends_with("pwd")
}

fn named_values(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    // Everything before `kept` is written.
    let (mut kept, mut at) = (0, 0);
    while at < bytes.len() {
        if !in_name(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && in_name(bytes[at]) {
            at += 1;
        }
        let name = &text[start..at];
        let parameter = start > 0 && matches!(bytes[start - 1], b'?' | b'&');
        let bearer = name.eq_ignore_ascii_case("bearer");
        if !bearer && !is_secret_name(name) {
            continue;
        }
        let Some((from, to)) = value(text, at, name.starts_with("--"), bearer, parameter) else { continue };
        out.push_str(&text[kept..from]);
        out.push_str("***");
        (kept, at) = (to, to);
    }
    out.push_str(&text[kept..]);
    out
}

/// Where the value begins and ends that belongs to a name ending at `at`; `None` when there is none.
fn value(text: &str, mut at: usize, flag: bool, bearer: bool, parameter: bool) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let get = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let blanks = |mut at: usize| {
        while matches!(get(at), b' ' | b'\t') {
            at += 1;
        }
        at
    };
    // `"password": …`, also within a JSON text that stands in a JSON text.
    while matches!(get(at), b'"' | b'\'' | b'\\') {
        at += 1;
    }
    let sign = blanks(at);
    let from = match get(sign) {
        b'=' | b':' => {
            let past = if get(sign + 1) == b'>' || (get(sign) == b':' && get(sign + 1) == b'=') { sign + 2 } else { sign + 1 };
            blanks(past)
        }
        // `--password hunter2`, `Bearer abc`, `PASSWORD 'abc'`.
        _ if sign > at && (flag || bearer || get(sign) == b'\'') => sign,
        _ => return None,
    };
    let to = word_end(text, from, parameter);
    let word = text.get(from..to)?.to_ascii_lowercase();
    if SCHEMES.contains(&word.as_str()) {
        let from = blanks(to);
        let to = word_end(text, from, parameter);
        return (to > from).then_some((from, to));
    }
    (to > from).then_some((from, to))
}

/// The end of a value: of what is quoted, with its quotes; else of the word.
fn word_end(text: &str, from: usize, parameter: bool) -> usize {
    let bytes = text.as_bytes();
    // What was taken out before.
    if text[from..].starts_with("***") && !bytes.get(from + 3).is_some_and(u8::is_ascii_alphanumeric) {
        return from + 3;
    }
    let mut at = from;
    let escaped = bytes.get(at) == Some(&b'\\');
    if escaped {
        at += 1;
    }
    if let Some(quote @ (b'"' | b'\'' | b'`')) = bytes.get(at).copied() {
        let mut end = at + 1;
        while end < bytes.len() && bytes[end] != quote && bytes[end] != b'\n' {
            // Within a text that is itself quoted, `\"` is the end.
            end += if bytes[end] == b'\\' && !escaped { 2 } else { 1 };
        }
        let end = end.min(bytes.len());
        let end = if bytes.get(end) == Some(&quote) { end + 1 } else { end };
        return (end..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
    }
    let stops = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`') || (parameter && c == '&');
    text[from..].find(stops).map_or(text.len(), |length| from + length)
}

/// How tokens of well-known services begin; the second is what must follow at least, in bytes.
const PREFIXES: [(&str, usize); 29] = [
    ("xoxb-", 6),
    ("xoxp-", 6),
    ("xoxa-", 6),
    ("xoxr-", 6),
    ("xoxs-", 6),
    ("xoxe-", 6),
    ("xoxe.", 6),
    ("xapp-", 6),
    ("hooks.slack.com/", 1),
    ("hc-ping.com/", 1),
    ("discord.com/api/webhooks/", 1),
    ("ghp_", 16),
    ("gho_", 16),
    ("ghu_", 16),
    ("ghs_", 16),
    ("ghr_", 16),
    ("github_pat_", 16),
    ("glpat-", 16),
    ("AKIA", 16),
    ("ASIA", 16),
    ("AGE-SECRET-KEY-", 8),
    ("SCRAM-SHA-256$", 8),
    ("eyJ", 24),
    ("sk-", 20),
    ("sk_live_", 16),
    ("rk_live_", 16),
    ("hvs.", 16),
    ("AIza", 30),
    ("dckr_pat_", 16),
];

fn tokens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before: Option<char> = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let starts = before.is_none_or(|b| !b.is_ascii_alphanumeric());
        let found = starts.then(|| PREFIXES.iter().find(|(prefix, _)| rest.starts_with(prefix))).flatten();
        if let Some((prefix, least)) = found {
            let body = &rest[prefix.len()..];
            let in_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '+' | '=' | ':' | '$' | '~');
            let length = body.find(|c| !in_token(c)).unwrap_or(body.len());
            if length >= *least {
                out.push_str(prefix);
                out.push_str("***");
                rest = &body[length..];
                before = Some('*');
                continue;
            }
        }
        out.push(c);
        before = Some(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn f64_what_looks_like_a_secret_goes() {
        for (text, want) in [
            ("connect postgres://app:hunter2@db:5432/x failed", "connect postgres://app:***@db:5432/x failed"),
            ("redis://:hunter2@cache and (amqp://a:hun@ter2@mq)", "redis://:***@cache and (amqp://a:***@mq)"),
            ("postgres://app:hun/te?r#2@db/x", "postgres://app:***@db/x"),
            ("postgres://app@db/x and https://h:8080/y", "postgres://app@db/x and https://h:8080/y"),
            ("PGPASSWORD=hunter2 pg_dump", "PGPASSWORD=*** pg_dump"),
            ("host=db password='hun ter2' user=app", "host=db password=*** user=app"),
            (r#"{"user":"a","api_key": "hun\"ter2","n":1}"#, r#"{"user":"a","api_key": ***,"n":1}"#),
            (r#"said "{\"password\":\"hunter2\",\"n\":1}""#, r#"said "{\"password\":***,\"n\":1}""#),
            ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
            ("x-api-key: hunter2", "x-api-key: ***"),
            ("sent bearer abc to it", "sent bearer *** to it"),
            ("mysqldump --password hunter2 --host x", "mysqldump --password *** --host x"),
            ("--password=hunter2,x y", "--password=*** y"),
            ("GET /x?key=hunter2&y=1", "GET /x?key=***&y=1"),
            ("ALTER ROLE app PASSWORD 'hunter2';", "ALTER ROLE app PASSWORD ***;"),
            ("secret := hunter2", "secret := ***"),
            ("password authentication failed for user \"app\"", "password authentication failed for user \"app\""),
            ("fe_sendauth: no password supplied", "fe_sendauth: no password supplied"),
            ("token xoxb-123456-abcdef.", "token xoxb-***"),
            ("https://hooks.slack.com/services/T0/B0/abc died", "https://hooks.slack.com/*** died"),
            ("AKIAIOSFODNN7EXAMPLE", "AKIA***"),
            ("key AGE-SECRET-KEY-1QQQQQQQQ", "key AGE-SECRET-KEY-***"),
            ("-----BEGIN CERTIFICATE-----\nx", "-----BEGIN CERTIFICATE-----\nx"),
            ("a\n-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nb", "a\n*** (a private key)\nb"),
            ("-----BEGIN PRIVATE KEY-----\nabc", "*** (a private key)"),
            ("pässword=ü password=üü ü", "pässword=ü password=*** ü"),
        ] {
            assert_eq!(hide_likely(text), want);
            assert_eq!(hide_likely(want), want, "done twice");
        }
    }

    #[test]
    fn a_known_secret_goes_in_every_writing_and_over_lines() {
        let redactor = Redactor::new(&[Secret::new("p\"q/ r"), Secret::new("two\nlines"), Secret::new("")]);
        assert_eq!(redactor.redact("p\"q/ r p%22q%2F%20r p%22q%2F+r p\\\"q/ r x\u{1b}"), "*** *** *** *** x\\u{1b}");
        assert_eq!(redactor.hide("a two\nlines b two\\nlines"), "a *** b ***");
    }

    proptest! {
        #[test]
        fn f64_any_text_is_answered(text in "\\PC{0,200}", parts in prop::collection::vec("(password|token|key|://|:|=|@|\"|'|\\\\| |\n|é|bearer|-----BEGIN |PRIVATE KEY|xoxb-|eyJ|a){0,12}", 0..4)) {
            let _ = hide_likely(&text);
            let _ = hide_likely(&parts.concat());
        }

        /// Whatever stands around it, the value of a key that is named after a secret is gone.
        #[test]
        fn f64_values_of_secret_names_never_stay(
            before in "[ -~]{0,40}[ \n]", name in "(PG|db_|X-)?(PASSWORD|password|secret|api_key|auth_token)", sign in "(=|: |:|= )", after in "[ \n][ -~]{0,40}"
        ) {
            let text = format!("{before}{name}{sign}canary7canary{after}");
            prop_assert!(!hide_likely(&text).contains("canary7canary"), "{}", hide_likely(&text));
            let url = format!("{before}postgres://u:canary7canary@h{after}");
            prop_assert!(!hide_likely(&url).contains("canary7canary"), "{}", hide_likely(&url));
        }
    }
}
