//! Who is told: names, addresses, secrets.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use url::Url;

use super::reference::{in_the_file, reference, secret, shown};
use super::{Scope, check_name, items};
use crate::config::notify::{DIGEST, NotifierConfig, NotifierKind, SLACK_API, Success};
use crate::config::problem::shorten;
use crate::config::raw::{RawHealthchecks, RawNotify, RawSeverity, RawSlack, RawSuccess, RawText, RawWebhook};
use crate::config::secret::{Reference, SecretRef};
use crate::config::values::CronSchedule;
use crate::model::{Secret, Severity};

/// Headers that belong to the message itself.
const OWN_HEADERS: [&str; 6] = ["host", "content-type", "content-length", "transfer-encoding", "connection", "user-agent"];

/// Keys of `slack` besides the two ways there.
const SLACK_OTHERS: [&str; 6] = ["channel", "api", "name", "least", "success", "digest"];

/// Names given so far, each with the place that gave it.
#[derive(Default)]
pub struct Names(RefCell<BTreeMap<String, String>>);

impl Names {
    /// Takes the names that are written down, before any is made up.
    pub fn written(&self, scope: &Scope<'_>, raw: &Option<Vec<Option<RawNotify>>>) {
        for (i, entry) in items(raw) {
            let (kind, name) = match entry {
                RawNotify { slack: Some(raw), .. } => ("slack", &raw.name),
                RawNotify { webhook: Some(raw), .. } => ("webhook", &raw.name),
                RawNotify { healthchecks: Some(raw), .. } => ("healthchecks", &raw.name),
                _ => continue,
            };
            let Some(name) = name else { continue };
            let scope = scope.index(i).key(kind).key("name");
            let mut names = self.0.borrow_mut();
            match names.get(name) {
                Some(first) => scope.error(format!("'{}' names two notifiers, first at {first}", shorten(name))),
                None => {
                    names.insert(name.clone(), scope.place());
                }
            }
        }
    }

    /// A name that nobody has: `slack`, `slack-2` …
    fn made(&self, scope: &Scope<'_>, stem: &str) -> String {
        let mut names = self.0.borrow_mut();
        let numbered = |n: u32| if n == 1 { stem.to_owned() } else { format!("{stem}-{n}") };
        let name = (1..).map(numbered).find(|name| !names.contains_key(name)).unwrap_or_else(|| stem.to_owned());
        names.insert(name.clone(), scope.place());
        name
    }
}

/// The notifiers of the whole configuration, or of a job. What cannot be read is told and left out.
pub fn notify(scope: &Scope<'_>, raw: &Option<Vec<Option<RawNotify>>>, job: Option<&str>, names: &Names) -> Vec<NotifierConfig> {
    items(raw).filter_map(|(i, entry)| notifier(&scope.index(i), entry, job, names)).collect()
}

fn notifier(scope: &Scope<'_>, raw: &RawNotify, job: Option<&str>, names: &Names) -> Option<NotifierConfig> {
    let (kind, common) = match raw {
        RawNotify { slack: Some(raw), .. } => ("slack", Common::new(&raw.name, raw.least, raw.success, &raw.digest)),
        RawNotify { webhook: Some(raw), .. } => ("webhook", Common::new(&raw.name, raw.least, raw.success, &raw.digest)),
        // It hears of every run, good or bad, and of nothing else.
        RawNotify { healthchecks: Some(raw), .. } => ("healthchecks", Common::new(&raw.name, None, None, &None)),
        _ => return None,
    };
    let scope = scope.key(kind);
    let name = match common.name {
        Some(name) => check_name(&scope.key("name"), name).then(|| name.clone()),
        // Cut so that it is a name as it is shown, and loads again.
        None => Some(names.made(&scope, &job.map_or_else(|| kind.to_owned(), |job| format!("{job:.40}.{kind}")))),
    };
    let digest = if kind == "healthchecks" { Some(None) } else { common.digest(&scope) };
    let made = match raw {
        RawNotify { slack: Some(raw), .. } => slack(&scope, raw),
        RawNotify { webhook: Some(raw), .. } => webhook(&scope, raw),
        RawNotify { healthchecks: Some(raw), .. } => healthchecks(&scope, raw),
        _ => None,
    };
    Some(NotifierConfig { name: name?, least: common.least, success: common.success, digest: digest?, kind: made? })
}

/// What every notifier has.
struct Common<'r> {
    name: &'r Option<String>,
    least: Severity,
    success: Success,
    digest: &'r Option<String>,
}

impl<'r> Common<'r> {
    fn new(name: &'r Option<String>, least: Option<RawSeverity>, success: Option<RawSuccess>, digest: &'r Option<String>) -> Self {
        let least = match least {
            None | Some(RawSeverity::Info) => Severity::Info,
            Some(RawSeverity::Warning) => Severity::Warning,
            Some(RawSeverity::Critical) => Severity::Critical,
        };
        let success = if success == Some(RawSuccess::Each) { Success::Each } else { Success::Quiet };
        Common { name, least, success, digest }
    }

    /// A notifier that is for what is severe gets no digest unless one was asked for: a pager must not ring every Monday.
    fn digest(&self, scope: &Scope<'_>) -> Option<Option<CronSchedule>> {
        match self.digest.as_deref() {
            Some("never") => Some(None),
            Some(text) => scope.key("digest").take(CronSchedule::parse(text)).map(Some),
            None if self.least > Severity::Info => Some(None),
            None => Some(CronSchedule::parse(DIGEST).ok()),
        }
    }
}

fn slack(scope: &Scope<'_>, raw: &RawSlack) -> Option<NotifierKind> {
    match (&raw.webhook, &raw.token) {
        (Some(_), Some(_)) => {
            scope.error("takes webhook or token, not both; a token gives one thread for each incident");
            None
        }
        (None, None) => {
            // A key that was refused was meant to be one of them.
            let refused = scope.root.at(&scope.path).is_some_and(|node| match node.to_json() {
                serde_json::Value::Object(map) => map.keys().any(|key| !SLACK_OTHERS.contains(&key.as_str())),
                _ => false,
            });
            if refused {
                return None;
            }
            scope.error("needs webhook (the URL of an incoming webhook), or token and channel (a bot)");
            None
        }
        (Some(webhook), None) => {
            for (key, given) in [("channel", raw.channel.is_some()), ("api", raw.api.is_some())] {
                if given {
                    scope.key(key).error("goes with token; a webhook has its own channel and address");
                }
            }
            let url = url(&scope.key("webhook"), webhook, true)?;
            Some(NotifierKind::SlackWebhook { url })
        }
        (None, Some(token)) => {
            let token = secret(&scope.key("token"), Some(token));
            let channel = match raw.channel.as_deref() {
                Some("") => {
                    scope.key("channel").error("must not be empty");
                    None
                }
                Some(channel) => Some(channel.to_owned()),
                None => {
                    scope.error("a token needs channel: the channel's #name or id");
                    None
                }
            };
            let api = match &raw.api {
                None => Some(SLACK_API.to_owned()),
                Some(text) => {
                    let scope = scope.key("api");
                    scope.take(check_url(text, true)).map(|_| text.trim_end_matches('/').to_owned())
                }
            };
            Some(NotifierKind::SlackToken { token: token?, channel: channel?, api: api? })
        }
    }
}

fn webhook(scope: &Scope<'_>, raw: &RawWebhook) -> Option<NotifierKind> {
    let url = raw.url.as_ref().and_then(|raw| url(&scope.key("url"), raw, false));
    let mut headers = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut whole = true;
    for (name, value) in raw.headers.iter().flatten() {
        let scope = scope.key("headers").key(name);
        let lower = name.to_ascii_lowercase();
        // RFC 9110, section 5.6.2: a token.
        let token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        if !token {
            scope.error(format!("'{}' cannot name a header", shorten(name)));
            whole = false;
        } else if OWN_HEADERS.contains(&lower.as_str()) {
            scope.error("is set by drctl itself");
            whole = false;
        } else if !seen.insert(lower) {
            scope.error("stands twice, in other letters");
            whole = false;
        }
        match secret(&scope, value.as_ref()) {
            Some(value) => {
                headers.insert(name.clone(), value);
            }
            None => whole = false,
        }
    }
    let url = url?;
    whole.then_some(NotifierKind::Webhook { url, headers })
}

fn healthchecks(scope: &Scope<'_>, raw: &RawHealthchecks) -> Option<NotifierKind> {
    let url = raw.url.as_ref().and_then(|raw| url(&scope.key("url"), raw, false))?;
    Some(NotifierKind::Healthchecks { url, log: raw.log.unwrap_or(false) })
}

/// An address that is a secret as a whole. One that is at hand is looked at now.
fn url(scope: &Scope<'_>, raw: &RawText, safe: bool) -> Option<SecretRef> {
    match raw {
        RawText::Plain(text) if text.is_empty() => {
            scope.error("must not be empty");
            None
        }
        // A variable that is not set; that has been told.
        RawText::Plain(text) if text.starts_with("${") => None,
        RawText::Plain(text) => {
            let checked = scope.take(check_url(text, safe))?;
            let shown = shown(scope).or_else(|| {
                in_the_file(scope, "an address that is a secret");
                // Loads again, and says where to without the key in it.
                Some(format!("{}://{}/***", checked.scheme(), host(&checked)))
            });
            Some(SecretRef::Plain { value: Secret::new(text.as_str()), shown })
        }
        RawText::By(raw) => {
            let reference = reference(scope, raw)?;
            if let Reference::Env(name) = &reference
                && let Some(text) = scope.world.environment.get(name)
            {
                scope.key("env").take(check_url(text, safe).map_err(|why| format!("the address in {name} {why}")))?;
            }
            Some(SecretRef::By(reference))
        }
    }
}

/// Host and port as they stand in an address.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// An address of HTTP; `safe`: without TLS on this machine only. Errors are whole messages and never hold the address.
fn check_url(text: &str, safe: bool) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("is no URL ({e}); it begins with https://"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("is no URL of a web server; it begins with https://".to_owned());
    }
    let here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if safe && url.scheme() == "http" && !here {
        return Err("must begin with https://: it is a secret and would go over the network in clear".to_owned());
    }
    Ok(url)
}

/// One check for several jobs says nothing: the good run of one hides the failure of another.
pub fn shared_checks(scope: &Scope<'_>, notifiers: &[NotifierConfig], jobs: usize) {
    if jobs > 1 && notifiers.iter().any(|n| matches!(n.kind, NotifierKind::Healthchecks { .. })) {
        scope.warn("a check that all jobs share goes green with the good run of any of them; give each job a check of its own");
    }
}
