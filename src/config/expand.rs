//! `${NAME}` and `${NAME:-default}` in scalars, after the YAML was parsed: a value can never change the file's structure.

use crate::config::environment::Environment;

/// Longest text that an expansion may give.
const LIMIT: usize = 1 << 20;

/// Puts in the values of variables. `$${` stands for `${`; a `$` before anything else stands for itself.
///
/// `None` when there was nothing to put in. Errors are whole messages and name the variable, never a value.
pub fn expand(text: &str, environment: &Environment) -> Result<Option<String>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let body = &rest[at + 2..];
        let end = body.find('}').ok_or("a '${' without its '}'; write '$${' for the characters themselves")?;
        out.push_str(value(&body[..end], environment)?);
        if out.len() > LIMIT {
            return Err("too long once its variables are put in".to_owned());
        }
        rest = &body[end + 1..];
    }
    out.push_str(rest);
    Ok(Some(out))
}

fn value<'a>(body: &'a str, environment: &'a Environment) -> Result<&'a str, String> {
    let (name, default) = match body.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (body, None),
    };
    let named = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !named {
        // The body is not repeated: it may be part of a secret that holds "${" by chance.
        return Err("a '${…}' that is neither ${NAME} nor ${NAME:-default}; write '$${' for the characters themselves".to_owned());
    }
    match (environment.get_raw(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default),
        (None, None) => Err(format!("environment variable {name} is not set; set it, or write ${{{name}:-default}}")),
    }
}

/// The text as written, with defaults hidden: what may be shown of a secret that came by expansion. `None` unless the whole
/// text is variables and nothing else, since other characters may be part of the secret.
pub fn reference_only(written: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = written;
    while !rest.is_empty() {
        let body = rest.strip_prefix("${")?;
        let end = body.find('}')?;
        match body[..end].split_once(":-") {
            Some((name, _)) => out.push_str(&format!("${{{name}:-***}}")),
            None => out.push_str(&format!("${{{}}}", &body[..end])),
        }
        rest = &body[end + 1..];
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Environment {
        Environment::of("/", [("A", "1"), ("EMPTY", ""), ("NEST", "${A}")])
    }

    #[test]
    fn expansion_table() {
        for (text, want) in [
            ("${A}", "1"),
            ("x${A}y${A}", "x1y1"),
            ("${B:-two}", "two"),
            ("${EMPTY:-two}", "two"),
            ("${EMPTY}", ""),
            ("${A:-two}", "1"),
            ("${B:-}", ""),
            ("$${A}", "${A}"),
            ("p$a$${A}${A}", "p$a${A}1"),
            // What a variable holds is not expanded again.
            ("${NEST}", "${A}"),
        ] {
            assert_eq!(expand(text, &env()).unwrap().as_deref(), Some(want), "{text}");
        }
        assert_eq!(expand("pa$$word$", &env()), Ok(None));
        for (text, part) in [("${B}", "variable B is not set"), ("${", "without its '}'"), ("${1x}", "neither"), ("${A?e}", "neither")] {
            assert!(expand(text, &env()).unwrap_err().contains(part), "{text}");
        }
    }

    #[test]
    fn only_pure_references_are_shown() {
        assert_eq!(reference_only("${A}").as_deref(), Some("${A}"));
        assert_eq!(reference_only("${A:-hunter2}").as_deref(), Some("${A:-***}"));
        for secret in ["hunter2${A}", "${A}x", "", "x"] {
            assert_eq!(reference_only(secret), None, "{secret}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[${}:A\\-é]{0,40}") {
            let _ = expand(&text, &env());
            let _ = reference_only(&text);
        }
    }
}
