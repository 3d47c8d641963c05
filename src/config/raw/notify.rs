//! Notifiers as they are written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::RawText;

/// Who is told: one of these per entry.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct RawNotify {
    /// Slack, by webhook or bot token.
    pub slack: Option<RawSlack>,
    /// Any HTTP endpoint.
    pub webhook: Option<RawWebhook>,
    /// healthchecks.io or alike: pinged when a run begins and ends, so that silence alarms there.
    pub healthchecks: Option<RawHealthchecks>,
}

/// Slack: exactly one of `webhook` and `token`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawSlack {
    /// URL of an incoming webhook, best as one of env, file, cmd, cred.
    pub webhook: Option<RawText>,
    /// A bot's token (xoxb-…) with the scope chat:write, best as one of env, file, cmd, cred. Needs `channel`.
    pub token: Option<RawText>,
    /// With a token: the channel, `#name` or its id. The bot must be in it.
    pub channel: Option<String>,
    /// With a token: where Slack's API is (default `https://slack.com/api`).
    pub api: Option<String>,
    /// Its name, unique in the configuration (default `slack`, that of a job `JOB.slack`).
    pub name: Option<String>,
    /// Least severity that is told: `info` (default), `warning` or `critical`.
    pub least: Option<RawSeverity>,
    /// `quiet` (default): a good run is not told; `each`: every good run is.
    pub success: Option<RawSuccess>,
    /// When the digest is sent: a cron expression in the machine's zone (default Monday 09:00 where `least` is info), or `never`.
    pub digest: Option<String>,
}

/// A POST of JSON (`schema: drctl.v1`).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawWebhook {
    /// Where to, best as one of env, file, cmd, cred.
    #[schemars(extend("x-required" = true))]
    pub url: Option<RawText>,
    /// Headers to send, such as Authorization; each best as one of env, file, cmd, cred.
    pub headers: Option<BTreeMap<String, Option<RawText>>>,
    /// Its name, unique in the configuration (default `webhook`, that of a job `JOB.webhook`).
    pub name: Option<String>,
    /// Least severity that is told: `info` (default), `warning` or `critical`.
    pub least: Option<RawSeverity>,
    /// `quiet` (default): a good run is not told; `each`: every good run is.
    pub success: Option<RawSuccess>,
    /// When the digest is sent: a cron expression in the machine's zone (default Monday 09:00 where `least` is info), or `never`.
    pub digest: Option<String>,
}

/// A check of healthchecks.io or alike.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawHealthchecks {
    /// The check's ping URL, best as one of env, file, cmd, cred.
    #[schemars(extend("x-required" = true))]
    pub url: Option<RawText>,
    /// Send the report as the body of the ping, too (default false).
    pub log: Option<bool>,
    /// Its name, unique in the configuration (default `healthchecks`, that of a job `JOB.healthchecks`).
    pub name: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawSeverity {
    // Good to know.
    Info,
    // To be looked at.
    Warning,
    // To be acted on now.
    Critical,
}

/// What is said of a good run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawSuccess {
    // Nothing.
    Quiet,
    // Its report.
    Each,
}
