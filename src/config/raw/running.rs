//! How jobs are run, as it is written: limits, hooks, the agent.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::RawText;

/// When a run is given up: it ends as failed, and nothing of it is kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// Longest time for one artifact (default 2h).
    pub step: Option<String>,
    /// Longest time in which no byte moves (default 30m).
    pub no_progress: Option<String>,
    /// Longest time for the whole run (default 12h).
    pub total: Option<String>,
}

/// Programs run before and after each run of a job, one after the other, without a shell.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawHooks {
    /// Before the first source. When one fails the run does not happen.
    pub before: Option<Vec<Option<RawHook>>>,
    /// After the last source, also after a failure. One that fails is a warning.
    pub after: Option<Vec<Option<RawHook>>>,
}

/// One program. It gets DRCTL_JOB, DRCTL_GROUP, DRCTL_SET, DRCTL_OUTCOME and DRCTL_EXIT_CODE.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawHook {
    /// Program and arguments. No shell is involved unless you name one: `[sh, -c, "…"]`.
    #[schemars(extend("x-required" = true), length(min = 1))]
    pub run: Option<Vec<Option<String>>>,
    /// Longest time it may take (default 5m).
    pub timeout: Option<String>,
    /// Variables for the program. Text, or one of env, file, cmd, cred.
    pub env: Option<BTreeMap<String, Option<RawText>>>,
}

/// Settings of `drctl agent`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawAgent {
    /// Address of health, metrics and dashboard (default `127.0.0.1:9180`), or `none`.
    pub listen: Option<String>,
    /// Listen where other machines can connect, too (default false).
    pub allow_remote: Option<bool>,
    /// Names under which this machine is asked besides its own, as by a proxy or from another container: `[drctl]`.
    pub hosts: Option<Vec<Option<String>>>,
    /// What a caller of the JSON API must show; without it there is no JSON API. Text, or one of env, file, cmd, cred.
    pub token: Option<RawText>,
    /// File that metrics are written to as well, for the textfile collector of node_exporter.
    #[schemars(length(min = 1))]
    pub textfile: Option<String>,
    /// Most bytes a second to stores: `20MiB`.
    pub bandwidth: Option<String>,
    /// Niceness of the agent and its tools, 0 to 19.
    #[schemars(range(min = 0, max = 19))]
    pub nice: Option<u32>,
    /// How long a stopping agent lets work finish before it is aborted (default 60s).
    pub stop_within: Option<String>,
}
