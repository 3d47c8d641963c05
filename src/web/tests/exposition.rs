//! A reader of the text format 0.0.4, strict where Prometheus is, and stricter: HELP and TYPE before the samples, no series twice.

use std::collections::{BTreeMap, BTreeSet};

/// A sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Every sample of a page, or why it is none.
pub fn read(page: &str) -> Result<Vec<Sample>, String> {
    if !page.is_empty() && !page.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    let (mut samples, mut seen) = (Vec::new(), BTreeSet::new());
    let (mut helped, mut typed) = (BTreeSet::new(), None::<String>);
    for line in page.split_terminator('\n') {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, _) = rest.split_once(' ').ok_or("a HELP without text")?;
            if !is_name(name) || !helped.insert(name.to_owned()) {
                return Err(format!("HELP of {name}"));
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("a TYPE without kind")?;
            if kind != "gauge" || !helped.contains(name) {
                return Err(format!("TYPE of {name}: {kind}"));
            }
            typed = Some(name.to_owned());
        } else {
            let sample = sample(line)?;
            if typed.as_ref() != Some(&sample.name) {
                return Err(format!("{} stands outside of its family", sample.name));
            }
            if !seen.insert(format!("{}{:?}", sample.name, sample.labels)) {
                return Err(format!("a series stands twice: {sample:?}"));
            }
            samples.push(sample);
        }
    }
    Ok(samples)
}

fn sample(line: &str) -> Result<Sample, String> {
    let bad = |why: &str| format!("{why}: {line:?}");
    let end = line.find(['{', ' ']).ok_or_else(|| bad("no value"))?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return Err(bad("the name"));
    }
    let mut labels = BTreeMap::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inner.split_once("=\"").ok_or_else(|| bad("a label"))?;
            if !is_name(label) || label.contains(':') {
                return Err(bad("a label's name"));
            }
            let (value, after) = quoted(after).ok_or_else(|| bad("a label's value"))?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err(bad("a label twice"));
            }
            match after.strip_prefix(',') {
                Some(more) => inner = more,
                None => {
                    rest = after.strip_prefix('}').ok_or_else(|| bad("labels without end"))?;
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or_else(|| bad("no blank before the value"))?;
    let value = value.parse().map_err(|_| bad("the value"))?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\n' => return None,
            '\\' => out.push(match chars.next()?.1 {
                '\\' => '\\',
                '"' => '"',
                'n' => '\n',
                _ => return None,
            }),
            c => out.push(c),
        }
    }
    None
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

#[test]
fn the_reader_is_not_blind() {
    let head = "# HELP a x\n# TYPE a gauge\n";
    assert_eq!(read(&format!("{head}a{{b=\"\\\\\\\"\\n\"}} 1\n")).unwrap()[0].labels["b"], "\\\"\n");
    for bad in [
        "a 1\n",
        "# TYPE a gauge\na 1\n",
        &format!("{head}a"),
        &format!("{head}a 1"),
        &format!("{head}a x\n"),
        &format!("{head}a 1\na 2\n"),
        &format!("{head}b 1\n"),
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
    for bad in
        ["a{b=\"\"\"} 1", "a{b=\"\\x\"} 1", "a{b=\"x} 1", "a{b=\"x\"}1", "a{=\"x\"} 1", "a{b=\"x\",b=\"y\"} 1", "1a 1", "a{b=\"x\" 1"]
    {
        assert!(read(&format!("{head}{bad}\n")).is_err(), "{bad}");
    }
}
