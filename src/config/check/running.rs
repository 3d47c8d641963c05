//! Limits, hooks, the agent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::reference::{reference, secret, shown};
use super::{Scope, items};
use crate::config::problem::shorten;
use crate::config::raw::{RawAgent, RawHook, RawHooks, RawLimits, RawText};
use crate::config::running::{AgentConfig, Hook, Hooks, Limits};
use crate::config::secret::SecretRef;
use crate::config::values;
use crate::model::Secret;

/// Limits; what is not said stays as in `base`.
pub fn limits(scope: &Scope<'_>, raw: &RawLimits, base: Limits) -> Limits {
    let or = |key: &str, text: &Option<String>, base: Duration| scope.duration(key, text.as_ref()).unwrap_or(base);
    Limits {
        step: or("step", &raw.step, base.step),
        no_progress: or("no_progress", &raw.no_progress, base.no_progress),
        total: or("total", &raw.total, base.total),
    }
}

/// Hooks; those that cannot be read are told and left out.
pub fn hooks(scope: &Scope<'_>, raw: &RawHooks) -> Hooks {
    let list = |key: &str, list| {
        let scope = scope.key(key);
        items(list).filter_map(|(i, raw)| hook(&scope.index(i), raw)).collect()
    };
    Hooks { before: list("before", &raw.before), after: list("after", &raw.after) }
}

fn hook(scope: &Scope<'_>, raw: &RawHook) -> Option<Hook> {
    let timeout = scope.duration("timeout", raw.timeout.as_ref()).unwrap_or(Hook::TIMEOUT);
    let env = variables(&scope.key("env"), &raw.env);
    let run = program(&scope.key("run"), &raw.run)?;
    Some(Hook { run, timeout, env })
}

/// Program and arguments; `None` when there is none.
pub fn program(scope: &Scope<'_>, raw: &Option<Vec<Option<String>>>) -> Option<Vec<String>> {
    let run: Vec<String> = items(raw).map(|(_, text)| text.clone()).collect();
    let program = run.first()?;
    if program.is_empty() || program.contains(char::is_whitespace) {
        let hint = "the first entry is the program alone; arguments are entries of their own, as in [sh, -c, \"…\"]";
        scope.index(0).error(hint);
    }
    Some(run)
}

/// Variables for a program.
pub fn variables(scope: &Scope<'_>, raw: &Option<BTreeMap<String, Option<RawText>>>) -> BTreeMap<String, SecretRef> {
    let mut env = BTreeMap::new();
    for (key, value) in raw.iter().flatten() {
        let scope = scope.key(key);
        if key.is_empty() || key.contains(['=', '\0']) {
            scope.error(format!("'{}' cannot name an environment variable", shorten(key)));
        }
        // Whether it is a secret nobody can tell: it is treated as one, without a warning.
        let value = match value {
            Some(RawText::Plain(text)) => Some(SecretRef::Plain { value: Secret::new(text.as_str()), shown: shown(&scope) }),
            Some(RawText::By(raw)) => reference(&scope, raw).map(SecretRef::By),
            None => None,
        };
        if let Some(value) = value {
            env.insert(key.clone(), value);
        }
    }
    env
}

/// The agent's settings; what cannot be read is told and stays as it is by default.
pub fn agent(scope: &Scope<'_>, raw: &RawAgent) -> AgentConfig {
    let default = AgentConfig::default();
    let allow_remote = raw.allow_remote.unwrap_or(false);
    AgentConfig {
        listen: match &raw.listen {
            Some(text) => listen(&scope.key("listen"), text, allow_remote),
            None => default.listen,
        },
        allow_remote,
        hosts: hosts(scope, raw),
        token: secret(&scope.key("token"), raw.token.as_ref()),
        textfile: raw.textfile.as_ref().and_then(|text| scope.key("textfile").path(text)),
        bandwidth: raw.bandwidth.as_ref().and_then(|text| scope.key("bandwidth").take(values::size(text))),
        nice: raw.nice,
        stop_within: scope.duration("stop_within", raw.stop_within.as_ref()).unwrap_or(default.stop_within),
    }
}

/// A `Host` header's name, which is compared as it stands: a port, a scheme or a pattern would never match.
fn hosts(scope: &Scope<'_>, raw: &RawAgent) -> Vec<String> {
    let names = scope.texts("hosts", &raw.hosts);
    let is_name = |name: &str| name.len() <= 253 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    for name in names.iter().filter(|name| !is_name(name)) {
        scope
            .key("hosts")
            .error(format!("'{}' is not the name of a machine: without scheme, port and path, and no pattern", shorten(name)));
    }
    names
}

fn listen(scope: &Scope<'_>, text: &str, allow_remote: bool) -> Option<SocketAddr> {
    if text == "none" {
        return None;
    }
    let Ok(address) = text.parse::<SocketAddr>() else {
        scope.error(format!("'{}' is not an address with a port, like 127.0.0.1:9180, and not none", shorten(text)));
        return None;
    };
    if !address.ip().to_canonical().is_loopback() && !allow_remote {
        scope.error(format!(
            "other machines could connect to {address}; listen on 127.0.0.1 and let a proxy stand in front, or write allow_remote: true"
        ));
    }
    Some(address)
}
