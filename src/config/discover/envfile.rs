//! Lines of `NAME=value`, as compose and most libraries read them.

/// The variables of an env file, in order; a later line wins where both are put into a map. `export ` in front, quotes around a value
/// and a comment behind it (after a space) are taken off; in double quotes `\n`, `\"` and `\\` are what they are elsewhere. Lines that
/// are none are passed over.
pub fn parse_env_file(text: &str) -> Vec<(String, String)> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let named = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !named {
        return None;
    }
    let value = value.trim();
    let value = match value.chars().next() {
        Some('\'') => value[1..].split('\'').next().unwrap_or_default().to_owned(),
        Some('"') => double_quoted(&value[1..]),
        _ => value.split(" #").next().unwrap_or_default().trim_end().to_owned(),
    };
    Some((name.to_owned(), value))
}

fn double_quoted(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = "# c\nA=1\nexport B = two # c\nC='x # y'\nD=\"a\\\"b\\n\"\nE=\n1F=x\nnothing\nG=a#b\n";
        let want = [("A", "1"), ("B", "two"), ("C", "x # y"), ("D", "a\"b\n"), ("E", ""), ("G", "a#b")];
        assert_eq!(parse_env_file(text), want.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
