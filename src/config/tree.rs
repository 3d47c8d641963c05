//! YAML text → tree in which every key and scalar knows its line and column.
//!
//! The text is not trusted: its size, depth and number of nodes (aliases counted where they are used) are bounded. Findings that do
//! not stop the reading (a key that stands twice, an unset variable) are collected, so that the rest is looked at too.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Number, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::config::environment::Environment;
use crate::config::expand;
use crate::config::problem::{KeyPath, Origin, Problem, Step};

/// Largest file that is read, in bytes.
pub const FILE_LIMIT: u64 = 1 << 20;
/// Most nodes of one file, aliases counted where they are used: an alias bomb ends here.
const NODE_LIMIT: usize = 50_000;
/// Text counts too, so many bytes as one node: what a few long texts grow to by aliases and variables is bounded as well.
const TEXT_PER_NODE: usize = 64;
/// Deepest nesting; a whole configuration needs about 10.
const DEPTH_LIMIT: usize = 40;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub origin: Origin,
    /// What it is.
    pub data: Data,
}

/// The value of a [`Node`].
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Text, number, boolean or nothing.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file; no key twice.
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub origin: Origin,
    /// Its value.
    pub node: Node,
}

/// A scalar as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// The text, variables put in.
    pub text: String,
    /// Without quotes: it may be a number, a boolean or nothing.
    pub plain: bool,
    /// The text before variables were put in, where there were any.
    pub written: Option<String>,
}

impl Node {
    /// Text from outside any file.
    pub fn named(name: &str, text: &str) -> Node {
        let data = Data::Scalar(Scalar { text: text.to_owned(), plain: true, written: None });
        Node { origin: Origin::Named(name.into()), data }
    }

    /// The value of a key, when this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// The node at `path`.
    pub fn at(&self, path: &KeyPath) -> Option<&Node> {
        path.0.iter().try_fold(self, |node, step| match (step, &node.data) {
            (Step::Key(key), _) => Some(&node.get(key)?.node),
            (Step::Index(index), Data::List(items)) => items.get(*index),
            _ => None,
        })
    }

    /// Where to point for `path`: at its key; at the nearest thing above it when it is not there.
    pub fn origin_of(&self, path: &KeyPath) -> Origin {
        let mut node = self;
        let mut origin = &self.origin;
        for step in &path.0 {
            match (step, &node.data) {
                (Step::Key(key), _) => match node.get(key) {
                    Some(entry) => (node, origin) = (&entry.node, &entry.origin),
                    None => break,
                },
                (Step::Index(index), Data::List(items)) => match items.get(*index) {
                    Some(item) => (node, origin) = (item, &item.origin),
                    None => break,
                },
                _ => break,
            }
            // A value from a flag or the environment points there, not at the key it stands for.
            if matches!(node.origin, Origin::Named(_)) {
                origin = &node.origin;
            }
        }
        origin.clone()
    }

    /// Puts a node at a path of keys, making maps on the way; what stands there is replaced.
    pub fn put(&mut self, keys: &[&str], node: Node) {
        let Some((key, rest)) = keys.split_first() else {
            *self = node;
            return;
        };
        if !matches!(self.data, Data::Map(_)) {
            self.data = Data::Map(Vec::new());
        }
        let Data::Map(entries) = &mut self.data else { return };
        let found = entries.iter().position(|e| e.key == *key).unwrap_or_else(|| {
            let empty = Node { origin: node.origin.clone(), data: Data::Map(Vec::new()) };
            entries.push(Entry { key: (*key).to_owned(), origin: node.origin.clone(), node: empty });
            entries.len() - 1
        });
        entries[found].node.put(rest, node);
    }

    /// The tree as JSON, scalars resolved by YAML 1.2's core schema.
    pub fn to_json(&self) -> Value {
        match &self.data {
            Data::Scalar(scalar) if scalar.plain => resolve(&scalar.text),
            Data::Scalar(scalar) => Value::String(scalar.text.clone()),
            Data::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Data::Map(entries) => Value::Object(entries.iter().map(|e| (e.key.clone(), e.node.to_json())).collect()),
        }
    }

    /// Every scalar with its path.
    pub fn leaves(&self, base: &KeyPath, each: &mut dyn FnMut(&KeyPath, &Origin)) {
        match &self.data {
            Data::Scalar(_) => each(base, &self.origin),
            Data::List(items) => items.iter().enumerate().for_each(|(i, item)| item.leaves(&base.index(i), each)),
            Data::Map(entries) => entries.iter().for_each(|e| e.node.leaves(&base.key(&e.key), each)),
        }
    }
}

/// A plain scalar's meaning in YAML 1.2's core schema (chapter 10.3.2).
pub fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        let bare = text.strip_prefix('+').unwrap_or(text);
        if let Ok(number) = bare.parse::<i64>() {
            return Value::Number(number.into());
        }
        return bare.parse::<u64>().map_or_else(|_| Value::String(text.to_owned()), |n| Value::Number(n.into()));
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(number) = text.strip_prefix(prefix).filter(|d| !d.starts_with('+')).and_then(|d| u64::from_str_radix(d, radix).ok()) {
            return Value::Number(number.into());
        }
    }
    let float = digits.bytes().next().is_some_and(|b| b.is_ascii_digit() || b == b'.')
        && digits.bytes().any(|b| b.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
    if float && let Some(number) = text.parse::<f64>().ok().filter(|n| n.is_finite()) {
        // JSON Schema takes 3.0 for a whole number, serde does not: it becomes one here. 2^53 is the last that a float holds exactly.
        if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
            return Value::Number((number as i64).into());
        }
        return Number::from_f64(number).map_or_else(|| Value::String(text.to_owned()), Value::Number);
    }
    Value::String(text.to_owned())
}

/// Reads one document. What is wrong goes into `problems`; `None` when nothing can be made of the text.
pub fn parse(text: &str, file: &Arc<str>, environment: &Environment, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut reader = Reader { file, environment, problems, anchors: HashMap::new(), nodes: 0 };
    let mut parser = Parser::new_from_str(text);
    match reader.document(&mut parser) {
        Ok(node) => Some(node),
        Err((origin, mut what)) => {
            let line = if let Origin::File { line, .. } = &origin { *line as usize } else { 0 };
            // Braces end a plain scalar inside of braces: the most likely mistake on such a line.
            if what.starts_with("not YAML") && text.lines().nth(line.saturating_sub(1)).is_some_and(|l| l.contains("${")) {
                what.push_str("; inside of { } and [ ] a ${NAME} needs quotes: \"${NAME}\"");
            }
            problems.push(Problem { origin: Some(origin), path: KeyPath::default(), what });
            None
        }
    }
}

/// A finding after which the rest of the text cannot be read.
type Fatal = (Origin, String);
type Events<'t> = Parser<'t, serde_saphyr::granit_parser::StrInput<'t>>;

struct Reader<'a> {
    file: &'a Arc<str>,
    environment: &'a Environment,
    problems: &'a mut Vec<Problem>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl Reader<'_> {
    fn origin(&self, line: usize, column: usize) -> Origin {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Origin::File { file: self.file.clone(), line: count(line), column: count(column.saturating_add(1)) }
    }

    fn place(&self, span: &Span) -> Origin {
        self.origin(span.start.line(), span.start.col())
    }

    fn next<'t>(&self, parser: &mut Events<'t>) -> Result<(Event<'t>, Span), Fatal> {
        loop {
            match parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(next)) => return Ok(next),
                Some(Err(e)) => {
                    let place = self.origin(e.marker().line(), e.marker().col());
                    return Err((place, format!("not YAML: {}", e.kind())));
                }
                None => return Err((self.origin(1, 0), "not YAML: the text ends too soon".to_owned())),
            }
        }
    }

    fn document(&mut self, parser: &mut Events<'_>) -> Result<Node, Fatal> {
        let empty = Node { origin: self.origin(1, 0), data: Data::Map(Vec::new()) };
        loop {
            match self.next(parser)? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                (Event::StreamEnd, _) => return Ok(empty),
                (event, span) => {
                    let node = self.node(parser, event, &span, &KeyPath::default())?;
                    loop {
                        match self.next(parser)? {
                            (Event::DocumentEnd, _) => {}
                            (Event::StreamEnd, _) => return Ok(node),
                            (_, span) => {
                                return Err((self.place(&span), "a second document ('---'); one file holds one".to_owned()));
                            }
                        }
                    }
                }
            }
        }
    }

    fn count(&mut self, more: usize, at: &Origin) -> Result<(), Fatal> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > NODE_LIMIT {
            return Err((at.clone(), format!("more than {NODE_LIMIT} values, aliases counted where they are used")));
        }
        Ok(())
    }

    fn node(&mut self, parser: &mut Events<'_>, event: Event<'_>, span: &Span, path: &KeyPath) -> Result<Node, Fatal> {
        let origin = self.place(span);
        if path.0.len() > DEPTH_LIMIT {
            return Err((origin, format!("nested deeper than {DEPTH_LIMIT} levels")));
        }
        self.count(1, &origin)?;
        match event {
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err((origin, "an alias inside of its own anchor".to_owned()));
                };
                self.count(size(&node), &origin)?;
                if path.0.len() + depth(&node) > DEPTH_LIMIT {
                    return Err((origin, format!("nested deeper than {DEPTH_LIMIT} levels")));
                }
                Ok(node)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let string = self.tag(tag.as_deref(), "str", &origin, path);
                let scalar = self.scalar(&text, style == ScalarStyle::Plain && !string, &origin, path);
                self.count(scalar.text.len() / TEXT_PER_NODE, &origin)?;
                let data = Data::Scalar(scalar);
                Ok(self.keep(anchor, Node { origin, data }))
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), "seq", &origin, path);
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.next(parser)?;
                    if matches!(event, Event::SequenceEnd) {
                        break;
                    }
                    let path = path.index(items.len());
                    items.push(self.node(parser, event, &span, &path)?);
                }
                Ok(self.keep(anchor, Node { origin, data: Data::List(items) }))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), "map", &origin, path);
                let entries = self.entries(parser, path)?;
                Ok(self.keep(anchor, Node { origin, data: Data::Map(entries) }))
            }
            _ => Err((origin, "not YAML that drctl reads".to_owned())),
        }
    }

    fn keep(&mut self, anchor: usize, node: Node) -> Node {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        node
    }

    /// Whether the tag is the core schema's `own`; any other one is a finding.
    fn tag(&mut self, tag: Option<&Tag>, own: &str, origin: &Origin, path: &KeyPath) -> bool {
        let Some(tag) = tag else { return false };
        if tag.is_yaml_core_schema_tag(own) {
            return true;
        }
        // Not repeated: it may be a password that begins with '!'.
        let what = "a tag ('!…') has no meaning here; text that begins with '!' needs quotes".to_owned();
        self.problems.push(Problem { origin: Some(origin.clone()), path: path.clone(), what });
        false
    }

    fn scalar(&mut self, text: &str, plain: bool, origin: &Origin, path: &KeyPath) -> Scalar {
        match expand::expand(text, self.environment) {
            Ok(None) => Scalar { text: text.to_owned(), plain, written: None },
            Ok(Some(expanded)) => Scalar { text: expanded, plain, written: Some(text.to_owned()) },
            Err(what) => {
                self.problems.push(Problem { origin: Some(origin.clone()), path: path.clone(), what });
                // Kept as written, so that what else is wrong with the file is still found; the finding stands anyway.
                Scalar { text: text.to_owned(), plain: false, written: Some(text.to_owned()) }
            }
        }
    }

    fn entries(&mut self, parser: &mut Events<'_>, path: &KeyPath) -> Result<Vec<Entry>, Fatal> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut places: BTreeMap<String, Origin> = BTreeMap::new();
        let mut merged: Vec<(Node, Origin)> = Vec::new();
        loop {
            let (event, span) = self.next(parser)?;
            let origin = self.place(&span);
            let (key, merge) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, 0, None) => (text.into_owned(), style == ScalarStyle::Plain),
                _ => return Err((origin, "a key must be plain text".to_owned())),
            };
            self.count(1, &origin)?;
            let (event, span) = self.next(parser)?;
            let key_path = path.key(&key);
            let node = self.node(parser, event, &span, &key_path)?;
            if merge && key == "<<" {
                merged.push((node, origin));
                continue;
            }
            if let Some(first) = places.get(&key) {
                let what = match first {
                    Origin::File { line, .. } => format!("this key stands twice, first on line {line}"),
                    Origin::Named(_) => "this key stands twice".to_owned(),
                };
                self.problems.push(Problem { origin: Some(origin), path: key_path, what });
                continue;
            }
            places.insert(key.clone(), origin.clone());
            entries.push(Entry { key, origin, node });
        }
        for (node, origin) in merged {
            self.merge(&mut entries, &mut places, node, &origin, path);
        }
        Ok(entries)
    }

    /// `<<: *base` or `<<: [*one, *two]`: keys that are there already win.
    fn merge(&mut self, entries: &mut Vec<Entry>, places: &mut BTreeMap<String, Origin>, node: Node, origin: &Origin, path: &KeyPath) {
        let maps = match node.data {
            Data::Map(map) => vec![map],
            Data::List(items) if items.iter().all(|i| matches!(i.data, Data::Map(_))) => {
                items.into_iter().filter_map(|i| if let Data::Map(map) = i.data { Some(map) } else { None }).collect()
            }
            _ => {
                let what = "'<<' takes a map, or a list of maps".to_owned();
                self.problems.push(Problem { origin: Some(origin.clone()), path: path.key("<<"), what });
                return;
            }
        };
        for entry in maps.into_iter().flatten() {
            if !places.contains_key(&entry.key) {
                places.insert(entry.key.clone(), entry.origin.clone());
                entries.push(entry);
            }
        }
    }
}

fn size(node: &Node) -> usize {
    match &node.data {
        Data::Scalar(scalar) => 1 + scalar.text.len() / TEXT_PER_NODE,
        Data::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Data::Map(entries) => 1 + entries.iter().map(|e| 1 + size(&e.node)).sum::<usize>(),
    }
}

fn depth(node: &Node) -> usize {
    match &node.data {
        Data::Scalar(_) => 0,
        Data::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Data::Map(entries) => 1 + entries.iter().map(|e| depth(&e.node)).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<String>) {
        let env = Environment::of("/", [("PORT", "5432"), ("COLON", "a: b")]);
        let mut problems = Vec::new();
        let node = parse(text, &"f.yaml".into(), &env, &mut problems);
        (node, problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn every_key_and_scalar_knows_its_place() {
        let (node, problems) = read("a: 1\nb:\n  - c: x\n    d: [1, two]\n");
        assert!(problems.is_empty());
        let node = node.unwrap();
        assert_eq!(node.to_json(), json!({"a": 1, "b": [{"c": "x", "d": [1, "two"]}]}));
        let path = KeyPath::default().key("b").index(0).key("d");
        assert_eq!(node.origin_of(&path).to_string(), "f.yaml:4:5");
        assert_eq!(node.origin_of(&path.index(1)).to_string(), "f.yaml:4:12");
        assert_eq!(node.origin_of(&path.index(9)).to_string(), "f.yaml:4:5");
        assert_eq!(node.origin_of(&KeyPath::default().key("nope")).to_string(), "f.yaml:1:1");
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        for (text, want) in [
            ("1", json!(1)),
            ("-7", json!(-7)),
            ("010", json!(10)),
            ("0x1f", json!(31)),
            ("0o17", json!(15)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000)),
            ("3.0", json!(3)),
            ("1e99", json!(1e99)),
            ("1e999", json!("1e999")),
            ("yes", json!("yes")),
            ("off", json!("off")),
            ("12:30", json!("12:30")),
            ("~", json!(null)),
            ("TRUE", json!(true)),
            ("1-2", json!("1-2")),
            ("18446744073709551616", json!("18446744073709551616")),
            ("'1'", json!("1")),
            ("!!str 1", json!("1")),
        ] {
            let (node, problems) = read(&format!("k: {text}"));
            assert_eq!(node.unwrap().to_json()["k"], want, "{text}");
            assert!(problems.is_empty());
        }
    }

    #[test]
    fn variables_are_put_in_after_parsing() {
        let (node, problems) = read("a: ${PORT}\nb: \"${PORT}\"\nc: ${COLON}\nd: ${NOPE}\ne: ${NOPE:-x}\n");
        assert_eq!(node.unwrap().to_json(), json!({"a": 5432, "b": "5432", "c": "a: b", "d": "${NOPE}", "e": "x"}));
        assert_eq!(problems, ["f.yaml:4:4: d: environment variable NOPE is not set; set it, or write ${NOPE:-default}"]);
    }

    #[test]
    fn f62_a_key_that_stands_twice_is_told_with_both_lines() {
        let (_, problems) = read("a: 1\nb: 2\na: 3\n");
        assert_eq!(problems, ["f.yaml:3:1: a: this key stands twice, first on line 1"]);
    }

    #[test]
    fn anchors_aliases_and_merges() {
        let (node, problems) = read("x: &b {k: 1, l: 2}\ny: {<<: *b, k: 3}\nz: *b\n");
        assert_eq!(node.unwrap().to_json(), json!({"x": {"k": 1, "l": 2}, "y": {"k": 3, "l": 2}, "z": {"k": 1, "l": 2}}));
        assert!(problems.is_empty());
    }

    #[test]
    fn bombs_and_strange_texts_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..9 {
            let refs = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 1000].join(", "));
        let deep = format!("a: {}{}", "[".repeat(60), "]".repeat(60));
        for (text, part) in [
            (bomb.as_str(), "more than 50000 values"),
            (long.as_str(), "more than 50000 values"),
            (deep.as_str(), "nested deeper than 40"),
            ("a: &x [*x]", "an alias inside of its own anchor"),
            ("a: *hunter2", "not YAML"),
            ("a: 1\n---\nb: 2\n", "a second document"),
            ("? [a]\n: b\n", "a key must be plain text"),
            ("a: [1", "not YAML"),
            ("a: !!binary x", "has no meaning here"),
            ("a: !hunter2", "needs quotes"),
            ("a: b: c", "not YAML"),
            ("<<: 3", "'<<' takes a map"),
        ] {
            let (_, problems) = read(text);
            assert!(problems.iter().any(|p| p.contains(part)), "{part}: {problems:?}");
            assert!(problems.iter().all(|p| !p.contains("hunter2")), "{problems:?}");
        }
        assert_eq!(read("").0.unwrap().to_json(), json!({}));
        assert_eq!(read("# only a comment\n").0.unwrap().to_json(), json!({}));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[a-c:\\- \n\\[\\]{}&*<!|>'\"#${}?,%]{0,80}") {
            let _ = read(&text);
        }
    }
}
