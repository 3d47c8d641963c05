//! How jobs are run, typed: limits, hooks, the agent.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::secret::SecretRef;

/// When a run is given up: it ends as failed, and nothing of it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest time for one artifact.
    pub step: Duration,
    /// Longest time in which no byte moves.
    pub no_progress: Duration,
    /// Longest time for the whole run.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        Limits { step: hours(2), no_progress: Duration::from_secs(30 * 60), total: hours(12) }
    }
}

/// Programs run before and after each run of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hooks {
    /// Before the first source, in this order; when one fails the run does not happen.
    pub before: Vec<Hook>,
    /// After the last source, in this order, also after a failure.
    pub after: Vec<Hook>,
}

/// One program.
#[derive(Clone, Debug, PartialEq)]
pub struct Hook {
    /// Program and arguments. Never empty. It runs in the configuration's folder; no shell is involved.
    pub run: Vec<String>,
    /// Longest time it may take.
    pub timeout: Duration,
    /// Variables set for it; treated as secrets.
    pub env: BTreeMap<String, SecretRef>,
}

impl Hook {
    /// Time limit of a hook without one of its own.
    pub const TIMEOUT: Duration = Duration::from_secs(5 * 60);
}

/// Settings of `drctl agent`.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    /// Address of health, metrics and dashboard; `None`: no HTTP.
    pub listen: Option<SocketAddr>,
    /// Said where `listen` is no loopback address; never needed otherwise.
    pub allow_remote: bool,
    /// Names under which this machine is asked besides addresses, `localhost` and its own.
    pub hosts: Vec<String>,
    /// What a caller of the JSON API must show; `None`: there is no JSON API.
    pub token: Option<SecretRef>,
    /// File that metrics are written to as well. Absolute.
    pub textfile: Option<PathBuf>,
    /// Most bytes a second to stores.
    pub bandwidth: Option<u64>,
    /// Niceness of the agent and its tools, 0 to 19.
    pub nice: Option<u32>,
    /// How long a stopping agent lets work finish before it is aborted.
    pub stop_within: Duration,
}

impl AgentConfig {
    /// Where the agent listens unless told otherwise.
    pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);
}

impl Default for AgentConfig {
    fn default() -> Self {
        AgentConfig {
            listen: Some(Self::LISTEN),
            allow_remote: false,
            hosts: Vec::new(),
            token: None,
            textfile: None,
            bandwidth: None,
            nice: None,
            stop_within: Duration::from_secs(60),
        }
    }
}
