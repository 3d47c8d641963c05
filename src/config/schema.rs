//! The JSON Schema of the configuration, and what is wrong with a tree by it: every finding, each with its place.

use std::sync::LazyLock;

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind as Kind;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::config::problem::{KeyPath, Problem, Step, shorten, suggestion};
use crate::config::raw::{RawJob, RawMain};
use crate::config::tree::{Data, Node, resolve};

/// Most unknown keys of one map that are told one by one.
const UNKNOWN_KEYS: usize = 50;

/// A schema and its compiled form.
pub struct Schema {
    /// As `drctl config schema` prints it.
    pub value: Value,
    /// `None` when it could not be compiled, which a test rules out.
    validator: Option<Validator>,
}

/// The schema of `drctl.yaml`.
pub static MAIN: LazyLock<Schema> = LazyLock::new(|| build::<RawMain>("drctl.yaml"));
/// The schema of a file in `jobs/`.
pub static JOB: LazyLock<Schema> = LazyLock::new(|| build::<RawJob>("jobs/*.yaml of drctl"));

fn build<T: JsonSchema>(title: &str) -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let mut value = settings.into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut value);
    value["title"] = json!(title);
    let validator = jsonschema::validator_for(&value).ok();
    Schema { value, validator }
}

/// Makes the schema say what messages need: no `null` beside a type (a key without a value is a mistake here), no `oneOf` of
/// constants where `enum` does.
fn tidy(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(map) => {
            // What serde will take; the format's name itself says nothing to a validator.
            if map.get("format").is_some_and(|f| f == "uint32") {
                map.entry("maximum").or_insert_with(|| json!(u32::MAX));
            }
            map.retain(|key, v| !((key == "default" && v.is_null()) || key == "format"));
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|t| t != "null");
                if types.len() == 1 {
                    let only = types.remove(0);
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(options)) = map.get_mut("enum") {
                options.retain(|o| !o.is_null());
            }
            if let Some(Value::Array(mut any)) = map.remove("anyOf") {
                any.retain(|schema| schema["type"] != "null");
                if let [Value::Object(only)] = any.as_mut_slice() {
                    for (key, v) in std::mem::take(only) {
                        map.entry(key).or_insert(v);
                    }
                } else {
                    map.insert("anyOf".to_owned(), Value::Array(any));
                }
                // What was merged in may itself need it.
                let mut merged = Value::Object(std::mem::take(map));
                tidy_children(&mut merged);
                *value = merged;
                return;
            }
            tidy_children(value);
        }
        _ => {}
    }
}

fn tidy_children(value: &mut Value) {
    let Value::Object(map) = value else { return };
    require(map);
    for (key, child) in map.iter_mut() {
        match (key.as_str(), child) {
            // Keys of `properties` are names of the user's keys, not words of the schema.
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(tidy),
            (_, child) => tidy(child),
        }
    }
}

/// Moves the mark of required keys to where JSON Schema has it: serde's `default`, which lets the rest be read when a key is missing,
/// would make all of them optional.
fn require(map: &mut Map<String, Value>) {
    let Some(Value::Object(properties)) = map.get_mut("properties") else { return };
    let mut required = Vec::new();
    for (key, schema) in properties {
        if schema.as_object_mut().and_then(|s| s.remove("x-required")).is_some() {
            required.push(Value::String(key.clone()));
        }
    }
    if !required.is_empty() {
        map.insert("required".to_owned(), Value::Array(required));
    }
}

/// A tree as JSON after the check, with everything that was refused taken out.
pub struct Checked {
    /// What is left: it fits the raw types.
    pub value: Value,
    /// What was refused.
    pub problems: Vec<Problem>,
}

/// Checks a tree.
///
/// A plain scalar becomes text where only text fits (`database: 2024`), as it was written; a quoted scalar with variables in it becomes
/// a number or boolean where only that fits (`port: "${PGPORT}"`).
pub fn check(schema: &Schema, root: &Node) -> Checked {
    let mut value = root.to_json();
    let Some(validator) = &schema.validator else {
        let problem = Problem { origin: None, path: KeyPath::default(), what: "the built-in schema cannot be used".to_owned() };
        return Checked { value, problems: vec![problem] };
    };
    let misfits: Vec<(KeyPath, Value)> = validator
        .iter_errors(&value)
        .filter(|e| matches!(e.kind(), Kind::Type { .. }))
        .filter_map(|e| {
            let path = path_of(e.instance_path().as_str(), root);
            let fitted = fit(&expected(schema, e.schema_path().as_str()), root.at(&path)?)?;
            Some((path, fitted))
        })
        .collect();
    for (path, fitted) in misfits {
        if let Some(place) = slot(&mut value, &path) {
            *place = fitted;
        }
    }
    let mut problems = Vec::new();
    let mut refused: Vec<KeyPath> = Vec::new();
    for error in validator.iter_errors(&value) {
        let path = path_of(error.instance_path().as_str(), root);
        let parent = parent_schema(schema, error.schema_path().as_str());
        let mut add = |path: &KeyPath, what: String| {
            problems.push(Problem { origin: Some(root.origin_of(path)), path: path.clone(), what });
        };
        match error.kind() {
            Kind::AdditionalProperties { unexpected } => {
                let known = names(parent.get("properties"));
                for (i, key) in unexpected.iter().enumerate() {
                    let key_path = path.key(key);
                    // A file of another sort has nothing but unknown keys.
                    match i {
                        0..UNKNOWN_KEYS => add(&key_path, format!("unknown key{}", suggestion(key, &known))),
                        UNKNOWN_KEYS => add(&path, format!("{} more unknown keys", unexpected.len() - UNKNOWN_KEYS)),
                        _ => {}
                    }
                    refused.push(key_path);
                }
            }
            Kind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                let about = parent["properties"][key]["description"].as_str().map(|d| format!(": {}", first_sentence(d)));
                add(&path.key(key), format!("missing{}", about.unwrap_or_default()));
            }
            // Keys that do not exist are told by themselves.
            Kind::MaxProperties { .. } if known_keys(&parent, path_value(&value, &path)) < 2 => {}
            kind => {
                let found = path_value(&value, &path);
                add(&path, message(kind, &parent, found));
                refused.push(path);
            }
        }
    }
    for path in refused {
        remove(&mut value, &path);
    }
    Checked { value, problems }
}

fn message(kind: &Kind, schema: &Map<String, Value>, found: &Value) -> String {
    match kind {
        Kind::Type { .. } => {
            let wanted = wanted(schema);
            match found {
                Value::Null => format!("has no value; it must be {wanted}"),
                Value::String(text) if wanted.contains("true or false") && matches!(text.as_str(), "yes" | "no" | "on" | "off") => {
                    format!("must be {wanted}, not '{text}'")
                }
                other => format!("must be {wanted}, not {}", type_name(other)),
            }
        }
        Kind::Enum { options } => {
            let options: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let text = found.as_str().unwrap_or_default();
            match crate::config::problem::nearest(text, options.iter().copied()) {
                Some(near) => format!("'{}' is not one of {}; did you mean '{near}'?", shorten(text), options.join(", ")),
                None => format!("'{}' is not one of {}", shorten(text), options.join(", ")),
            }
        }
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::MinItems { .. } => "must have at least one entry".to_owned(),
        Kind::MinLength { .. } => "must not be empty".to_owned(),
        Kind::MinProperties { .. } => format!("must have one of the keys {}", names(schema.get("properties")).join(", ")),
        Kind::MaxProperties { .. } => {
            let found: Vec<&str> = found.as_object().map(|m| m.keys().map(String::as_str).collect()).unwrap_or_default();
            format!("takes one key only, and has {}; write one entry for each", found.join(", "))
        }
        // The validator's own words may repeat the value, which may be a secret.
        other => format!("does not fit the schema ({})", other.keyword()),
    }
}

fn wanted(schema: &Map<String, Value>) -> String {
    let one = |t: &str| match t {
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a map",
        _ => "something else",
    };
    match schema.get("type") {
        Some(Value::String(t)) => one(t).to_owned(),
        Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).map(one).collect::<Vec<_>>().join(" or "),
        _ => "something else".to_owned(),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(n) if n.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn first_sentence(text: &str) -> &str {
    let text = text.lines().next().unwrap_or_default();
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.')
}

fn known_keys(schema: &Map<String, Value>, found: &Value) -> usize {
    let known = names(schema.get("properties"));
    found.as_object().map_or(0, |m| m.keys().filter(|k| known.contains(&k.as_str())).count())
}

fn names(properties: Option<&Value>) -> Vec<&str> {
    properties.and_then(Value::as_object).map(|m| m.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// A scalar as the type that is expected, where it can be meant so.
fn fit(types: &[&str], node: &Node) -> Option<Value> {
    let Data::Scalar(scalar) = &node.data else { return None };
    let has = |t: &str| types.contains(&t);
    if has("string") {
        return (scalar.plain && !resolve(&scalar.text).is_null()).then(|| Value::String(scalar.text.clone()));
    }
    let value = resolve(&scalar.text);
    let fits = (has("integer") && (value.is_i64() || value.is_u64())) || (has("boolean") && value.is_boolean());
    (scalar.written.is_some() && fits).then_some(value)
}

/// The schema that holds the keyword at `pointer`.
fn parent_schema(schema: &Schema, pointer: &str) -> Map<String, Value> {
    let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
    schema.value.pointer(parent).and_then(Value::as_object).cloned().unwrap_or_default()
}

fn expected(schema: &Schema, pointer: &str) -> Vec<&'static str> {
    const ALL: [&str; 6] = ["string", "integer", "number", "boolean", "array", "object"];
    let parent = parent_schema(schema, pointer);
    let is = |t: &&&str| match parent.get("type") {
        Some(Value::String(one)) => one == **t,
        Some(Value::Array(types)) => types.iter().any(|x| x == **t),
        _ => false,
    };
    ALL.iter().filter(is).copied().collect()
}

/// A JSON pointer as a path; the tree tells lists from maps.
fn path_of(pointer: &str, root: &Node) -> KeyPath {
    let mut path = KeyPath::default();
    let mut node = Some(root);
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        let step = match (node.map(|n| &n.data), part.parse()) {
            (Some(Data::List(_)), Ok(index)) => Step::Index(index),
            _ => Step::Key(part),
        };
        path.0.push(step);
        node = root.at(&path);
    }
    path
}

fn path_value<'v>(value: &'v Value, path: &KeyPath) -> &'v Value {
    path.0.iter().fold(value, |value, step| match step {
        Step::Key(key) => &value[key.as_str()],
        Step::Index(index) => &value[*index],
    })
}

fn slot<'v>(value: &'v mut Value, path: &KeyPath) -> Option<&'v mut Value> {
    path.0.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get_mut(key.as_str()),
        Step::Index(index) => value.get_mut(*index),
    })
}

/// Takes a value out. An entry of a list becomes null, so that those behind it keep their numbers.
fn remove(value: &mut Value, path: &KeyPath) {
    let Some(parent) = path.parent() else {
        *value = json!({});
        return;
    };
    match (slot(value, &parent), path.0.last()) {
        (Some(Value::Object(map)), Some(Step::Key(key))) => {
            map.remove(key);
        }
        (Some(Value::Array(items)), Some(Step::Index(index))) => {
            if let Some(item) = items.get_mut(*index) {
                *item = Value::Null;
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(value: &Value, at: &str, each: &mut dyn FnMut(&str, &Map<String, Value>)) {
        match value {
            Value::Object(map) => {
                each(at, map);
                for (key, child) in map {
                    walk(child, &format!("{at}/{key}"), each);
                }
            }
            Value::Array(items) => items.iter().enumerate().for_each(|(i, child)| walk(child, &format!("{at}/{i}"), each)),
            _ => {}
        }
    }

    #[test]
    fn the_schema_compiles_and_has_no_alternatives() {
        for schema in [&*MAIN, &*JOB] {
            assert!(schema.validator.is_some());
            walk(&schema.value, "", &mut |at, map| {
                for word in ["anyOf", "oneOf", "$ref", "$defs"] {
                    assert!(!map.contains_key(word), "{at}/{word}: messages about alternatives are of no use");
                }
            });
        }
    }

    #[test]
    fn required_keys_are_required() {
        let at = |pointer: &str| MAIN.value.pointer(pointer).unwrap()["required"].clone();
        assert_eq!(at(""), json!(["repository"]));
        assert_eq!(at("/properties/repository"), json!(["id", "root_key", "signing_key", "stores"]));
        assert_eq!(at("/properties/jobs/items"), json!(["job", "sources"]));
        assert_eq!(JOB.value["required"], json!(["job", "sources"]));
    }

    #[test]
    fn every_key_is_described() {
        walk(&MAIN.value, "", &mut |at, map| {
            if let Some(Value::Object(properties)) = map.get("properties").filter(|_| !at.ends_with("/properties")) {
                assert!(!map.contains_key("x-required"), "{at}");
                for (key, schema) in properties {
                    assert!(schema["description"].as_str().is_some_and(|d| !d.is_empty()), "{at}/{key}");
                    assert!(schema.get("type").is_some() || schema.get("enum").is_some(), "{at}/{key}: {schema}");
                }
            }
        });
    }
}
