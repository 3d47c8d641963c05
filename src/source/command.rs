//! The standard output of any program as one artifact. Its exit status decides; there is no shell between.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;

use crate::error::{Error, Kind, Result};
use crate::model::ArtifactFormat;
use crate::model::Secret;
use crate::model::artifact::{Consistency, Tool};
use crate::pipeline::plain::PlainSender;
use crate::process::{Command, Limits, lookup};
use crate::source::{ArtifactPlan, DumpEnd, Preflight, RunContext, Session, Source};

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSettings {
    /// A path, or a name looked for in `PATH`.
    pub program: String,
    /// Its arguments; every user of the machine can read them.
    pub args: Vec<String>,
    /// Variables set for it; their values are kept out of every message.
    pub env: BTreeMap<String, Secret>,
    /// The folder it runs in; absent: drctl's own.
    pub folder: Option<PathBuf>,
    /// Name of the artifact.
    pub artifact: String,
    /// Extension of the artifact's file, without a dot; absent: `raw`.
    pub extension: Option<String>,
    /// Writing nothing is as it should be.
    pub allow_empty: bool,
    /// When to give up.
    pub limits: Limits,
}

impl CommandSettings {
    /// A program with arguments, its artifact named `output`.
    pub fn of(program: impl Into<String>, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        CommandSettings {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            folder: None,
            artifact: "output".to_owned(),
            extension: None,
            allow_empty: false,
            limits: Limits::default(),
        }
    }
}

/// A program of the user's.
pub struct CommandSource {
    name: String,
    settings: CommandSettings,
}

impl CommandSource {
    /// A source.
    pub fn new(name: impl Into<String>, settings: CommandSettings) -> Self {
        CommandSource { name: name.into(), settings }
    }

    fn program(&self) -> Result<PathBuf> {
        let wanted = &self.settings.program;
        let found = if wanted.contains('/') {
            std::path::absolute(wanted).ok().filter(|path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
        } else {
            lookup::find(wanted, &lookup::path_folders()).tools.into_iter().next()
        };
        found.ok_or_else(|| {
            Error::new(
                Kind::Preflight,
                format!("program '{}' of source {} was not found, or may not be run", self.settings.program, self.name),
            )
            .hint("give its full path in `command.program`")
        })
    }
}

#[async_trait]
impl Source for CommandSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "command"
    }

    async fn preflight(&self, _context: &RunContext) -> Result<Preflight> {
        let program = self.program()?;
        Ok(Preflight { summary: program.display().to_string(), ..Preflight::default() })
    }

    async fn open(&self, context: &RunContext) -> Result<Box<dyn Session>> {
        let program = self.program()?;
        Ok(Box::new(CommandSession { source: self.name.clone(), program, settings: self.settings.clone(), as_of: context.clock.now() }))
    }
}

struct CommandSession {
    source: String,
    program: PathBuf,
    settings: CommandSettings,
    as_of: Timestamp,
}

#[async_trait]
impl Session for CommandSession {
    fn identity(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("program".to_owned(), self.settings.program.clone())])
    }

    fn artifacts(&self) -> Vec<ArtifactPlan> {
        vec![ArtifactPlan {
            name: self.settings.artifact.clone(),
            format: ArtifactFormat::Raw,
            extension: self.settings.extension.clone(),
            expected_bytes: None,
            secret: false,
        }]
    }

    async fn dump(&mut self, _artifact: &ArtifactPlan, out: PlainSender, context: &RunContext) -> Result<DumpEnd> {
        self.as_of = context.clock.now();
        let settings = &self.settings;
        let what = format!("command of source {}", self.source);
        let mut command = Command::new(&what, &self.program).args(&settings.args).limits(settings.limits);
        for (name, value) in &settings.env {
            command = command.env(name, value.expose()).secret(value);
        }
        if let Some(folder) = &settings.folder {
            command = command.folder(folder);
        }
        // Bytes go straight from the reading thread to the pipeline.
        let sent = Arc::new(AtomicU64::new(0));
        let counted = sent.clone();
        let sink = move |bytes: bytes::Bytes| {
            counted.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            fail::fail_point!("command::bytes");
            out.blocking_data(bytes)
        };
        command.stream(&context.cancel, sink).await?;
        let bytes = sent.load(Ordering::Relaxed);
        if bytes == 0 && !settings.allow_empty {
            return Err(
                Error::failed(format!("{what} exited 0 but wrote nothing")).hint("if that is as it should be, set `allow_empty: true`")
            );
        }
        let name = self.program.file_name().map_or_else(|| settings.program.clone(), |n| n.to_string_lossy().into_owned());
        Ok(DumpEnd {
            exit_status: Some(0),
            tool: Some(Tool { name, version: "unknown".to_owned() }),
            consistency: Consistency::Fuzzy,
            expected_totals: BTreeMap::from([("bytes".to_owned(), bytes)]),
        })
    }

    fn details(&self) -> serde_json::Value {
        // Arguments stay out: someone may have put a password there.
        json!({ "program": self.settings.program })
    }

    fn as_of(&self) -> Timestamp {
        self.as_of
    }
}
