//! Values that may be written in more than one way. Their schemas list the types side by side instead of `oneOf`, so that messages
//! are about the value and not about alternatives.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A value fetched from elsewhere: exactly one of these.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawReference {
    /// Environment variable.
    pub env: Option<String>,
    /// File.
    pub file: Option<String>,
    /// Program and arguments.
    pub cmd: Option<Vec<Option<String>>>,
    /// Name of a systemd credential.
    pub cred: Option<String>,
}

/// Properties of [`RawReference`], written once for every type that takes one.
fn reference_properties() -> Value {
    serde_json::json!({
        "env": { "type": "string", "description": "Name of an environment variable; <name>_FILE may name a file instead." },
        "file": { "type": "string", "description": "A file that only its owner can read; relative names start from the configuration file." },
        "cmd": {
            "type": "array", "minItems": 1, "items": { "type": "string" },
            "description": "Program and arguments; what it prints is the value."
        },
        "cred": { "type": "string", "description": "Name of a systemd credential (LoadCredential=)." }
    })
}

fn union(types: &[&str], properties: Value, description: &str) -> Schema {
    json_schema!({
        "description": description, "type": types, "properties": properties,
        "additionalProperties": false, "minProperties": 1, "maxProperties": 1
    })
}

fn inner<T: DeserializeOwned, E: serde::de::Error>(value: Value) -> Result<T, E> {
    serde_json::from_value(value).map_err(E::custom)
}

/// Text, or where to fetch it.
#[derive(Debug)]
pub enum RawText {
    /// As it stands.
    Plain(String),
    /// From elsewhere.
    By(RawReference),
}

impl<'de> Deserialize<'de> for RawText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(RawText::Plain(text)),
            value @ Value::Object(_) => inner(value).map(RawText::By),
            _ => Err(D::Error::custom("neither text nor a reference")),
        }
    }
}

impl JsonSchema for RawText {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        union(&["string", "object"], reference_properties(), "Text, or one of env, file, cmd, cred to fetch it from.")
    }
}

/// Databases: `all`, a name, a list of names, or where to fetch a name.
#[derive(Debug)]
pub enum RawDatabases {
    /// `all` or a name.
    One(String),
    /// Names.
    List(Vec<Option<String>>),
    /// A name from elsewhere.
    By(RawReference),
}

impl<'de> Deserialize<'de> for RawDatabases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(RawDatabases::One(text)),
            value @ Value::Array(_) => inner(value).map(RawDatabases::List),
            value @ Value::Object(_) => inner(value).map(RawDatabases::By),
            _ => Err(D::Error::custom("neither a name nor a list of names")),
        }
    }
}

impl JsonSchema for RawDatabases {
    fn schema_name() -> Cow<'static, str> {
        "Databases".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let description = "`all` (every database, asked anew at each run), a name, a list of names, or one of env, file, cmd, cred.";
        let mut schema = union(&["string", "array", "object"], reference_properties(), description);
        schema.insert("items".to_owned(), serde_json::json!({ "type": "string" }));
        schema.insert("minItems".to_owned(), 1.into());
        schema
    }
}

/// `zstd`, `gzip`, `none`, or one of the first two with a level.
#[derive(Debug)]
pub enum RawCodec {
    /// By name.
    Name(String),
    /// By name with a level.
    Level(RawCodecLevel),
}

/// A codec with its level.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCodecLevel {
    /// zstd.
    pub zstd: Option<u32>,
    /// gzip.
    pub gzip: Option<u32>,
}

impl<'de> Deserialize<'de> for RawCodec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(RawCodec::Name(text)),
            value @ Value::Object(_) => inner(value).map(RawCodec::Level),
            _ => Err(D::Error::custom("neither a codec's name nor a codec with its level")),
        }
    }
}

impl JsonSchema for RawCodec {
    fn schema_name() -> Cow<'static, str> {
        "Codec".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let properties = serde_json::json!({
            "zstd": { "type": "integer", "minimum": 1, "maximum": 19, "description": "zstd with this level." },
            "gzip": { "type": "integer", "minimum": 1, "maximum": 9, "description": "gzip with this level." }
        });
        union(&["string", "object"], properties, "`zstd`, `gzip` or `none`, or a map with codec and level.")
    }
}

/// Where the variables of an environment source come from: `self`, or one of these.
#[derive(Debug)]
pub enum RawFrom {
    /// `self`.
    Name(String),
    /// Somewhere else.
    Of(RawFromPlace),
}

/// Somewhere else.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawFromPlace {
    /// An env file.
    pub file: Option<String>,
    /// A container (later).
    pub container: Option<String>,
    /// A systemd unit (later).
    pub unit: Option<String>,
    /// A pod (later).
    pub pod: Option<String>,
}

impl<'de> Deserialize<'de> for RawFrom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(RawFrom::Name(text)),
            value @ Value::Object(_) => inner(value).map(RawFrom::Of),
            _ => Err(D::Error::custom("neither 'self' nor a place")),
        }
    }
}

impl JsonSchema for RawFrom {
    fn schema_name() -> Cow<'static, str> {
        "EnvironmentFrom".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let properties = serde_json::json!({
            "file": { "type": "string", "description": "A file with lines of NAME=value." },
            "container": { "type": "string", "description": "A container (comes with a later version)." },
            "unit": { "type": "string", "description": "A systemd unit (comes with a later version)." },
            "pod": { "type": "string", "description": "A Kubernetes pod (comes with a later version)." }
        });
        union(&["string", "object"], properties, "`self` (the environment of drctl), or one of file, container, unit, pod.")
    }
}

/// How a server is got at: `direct`, or by one of these.
#[derive(Debug)]
pub enum RawReach {
    /// `direct`.
    Name(String),
    /// By something in between.
    Of(RawReachBy),
}

/// Exactly one of these.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawReachBy {
    /// A container or compose service.
    pub docker: Option<String>,
    /// A host.
    pub ssh: Option<RawSsh>,
    /// A pod (later).
    pub kubernetes: Option<Value>,
}

/// A host that ssh gets at: `user@host`, or a map.
#[derive(Debug)]
pub enum RawSsh {
    /// The host alone.
    Host(String),
    /// With more.
    Of(RawSshHost),
}

/// A host, and how to ssh to it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawSshHost {
    /// `host`, `user@host`, or a name of the ssh configuration.
    pub host: Option<String>,
    /// Another configuration file than the user's.
    pub config: Option<String>,
    /// The private key to use.
    pub identity: Option<String>,
}

impl<'de> Deserialize<'de> for RawSsh {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(RawSsh::Host(text)),
            value @ Value::Object(_) => inner(value).map(RawSsh::Of),
            _ => Err(D::Error::custom("neither a host nor a map with one")),
        }
    }
}

impl<'de> Deserialize<'de> for RawReach {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(RawReach::Name(text)),
            value @ Value::Object(_) => inner(value).map(RawReach::Of),
            _ => Err(D::Error::custom("neither 'direct' nor a way")),
        }
    }
}

impl JsonSchema for RawReach {
    fn schema_name() -> Cow<'static, str> {
        "Reach".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let properties = serde_json::json!({
            "docker": { "type": "string", "description": "A container by its name, or a compose service, by the user's own docker." },
            "kubernetes": { "type": "object", "description": "A pod and container (comes with a later version)." },
            "ssh": {
                "type": ["string", "object"],
                "additionalProperties": false,
                "required": ["host"],
                "description": "A host, by the user's own ssh: `user@host`, or a map.",
                "properties": {
                    "host": { "type": "string", "description": "`host`, `user@host`, or a name of the ssh configuration." },
                    "config": { "type": "string", "description": "Another configuration file than the user's (ssh -F)." },
                    "identity": { "type": "string", "description": "The private key to use, and no other (ssh -i)." }
                }
            }
        });
        union(&["string", "object"], properties, "How the server is got at: `direct` (default), or one of docker, kubernetes, ssh.")
    }
}

/// Settings of something that comes with a later version: any map, not looked at.
#[derive(Debug, Default, Deserialize)]
pub struct Later {}

impl JsonSchema for Later {
    fn schema_name() -> Cow<'static, str> {
        "Later".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "description": "Comes with a later version." })
    }
}

/// Whether artifacts are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawEncryption {
    // One age file per artifact, for X25519 recipients.
    Age,
    // In clear, by explicit choice.
    None,
}

/// libpq's sslmode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawSslMode {
    // Never TLS.
    Disable,
    // TLS only if the server insists.
    Allow,
    // TLS if the server offers it.
    Prefer,
    // TLS, whoever answers.
    Require,
    // TLS, the certificate checked.
    VerifyCa,
    // TLS, the certificate and its name checked.
    VerifyFull,
}

/// Whose pg_dump and pg_restore are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawTools {
    // Those of this machine where they are new enough, else those beside the server.
    Auto,
    // Those of this machine.
    Here,
    // Those beside the server.
    There,
}
