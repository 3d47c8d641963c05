//! Who is told, as the rest of drctl sees it.

use std::collections::BTreeMap;

use crate::config::environment::Environment;
use crate::config::secret::{Reference, SecretRef};
use crate::config::typed::{Config, SourceKind, StorePlace};
use crate::config::values::CronSchedule;
use crate::model::{Secret, Severity};

/// When the digest goes out where nothing is said of it: Monday, 09:00.
pub const DIGEST: &str = "0 9 * * 1";
/// Slack's API (<https://docs.slack.dev/apis/web-api/>).
pub const SLACK_API: &str = "https://slack.com/api";

/// One way to tell somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifierConfig {
    /// Its name, unique in the whole configuration: the queue on the disk goes by it.
    pub name: String,
    /// What is less severe is not told.
    pub least: Severity,
    /// Whether good runs are told.
    pub success: Success,
    /// When the digest is sent, in the machine's zone; `None`: never.
    pub digest: Option<CronSchedule>,
    /// What it is.
    pub kind: NotifierKind,
}

/// What is said of a good run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Success {
    /// Nothing; one that ends an incident is told as its end.
    #[default]
    Quiet,
    /// Its report.
    Each,
}

impl Success {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Success::Quiet => "quiet",
            Success::Each => "each",
        }
    }
}

/// What a notifier is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotifierKind {
    /// Slack, by an incoming webhook: one channel, no threads.
    SlackWebhook {
        /// The webhook's URL, a secret as a whole.
        url: SecretRef,
    },
    /// Slack, by a bot's token: one thread for each incident.
    SlackToken {
        /// The token (`xoxb-…`).
        token: SecretRef,
        /// The channel: `#name` or its id.
        channel: String,
        /// Where Slack's API is, without a slash at the end.
        api: String,
    },
    /// A POST of JSON.
    Webhook {
        /// Where to; a secret as a whole, for many have a key in it.
        url: SecretRef,
        /// Headers besides those of the content.
        headers: BTreeMap<String, SecretRef>,
    },
    /// A dead-man switch in the manner of healthchecks.io.
    Healthchecks {
        /// The check's own address, without `/start` and the like; a secret as a whole.
        url: SecretRef,
        /// Send what would be told as the body of the ping, too.
        log: bool,
    },
}

impl NotifierKind {
    /// `slack`, `webhook`, `healthchecks`.
    pub fn name(&self) -> &'static str {
        match self {
            NotifierKind::SlackWebhook { .. } | NotifierKind::SlackToken { .. } => "slack",
            NotifierKind::Webhook { .. } => "webhook",
            NotifierKind::Healthchecks { .. } => "healthchecks",
        }
    }

    fn secrets(&self) -> Vec<&SecretRef> {
        match self {
            NotifierKind::SlackWebhook { url } | NotifierKind::Healthchecks { url, .. } => vec![url],
            NotifierKind::SlackToken { token, .. } => vec![token],
            NotifierKind::Webhook { url, headers } => std::iter::once(url).chain(headers.values()).collect(),
        }
    }
}

impl Config {
    /// Every notifier: those of the whole configuration, then those of jobs with their job's name.
    pub fn notifiers(&self) -> impl Iterator<Item = (Option<&crate::model::JobName>, &NotifierConfig)> {
        let own = self.notify.iter().map(|notifier| (None, notifier));
        own.chain(self.jobs.iter().flat_map(|job| job.notify.iter().map(move |notifier| (Some(&job.name), notifier))))
    }

    /// The values of the configuration's secrets, as far as they are at hand: what must not stand in a message. One that a program gives is
    /// not asked for, and one that cannot be had now is left out. Reads files: call it off the async threads.
    pub fn known_secrets(&self, environment: &Environment) -> Vec<Secret> {
        let mut refs: Vec<&SecretRef> = self.notifiers().flat_map(|(_, notifier)| notifier.kind.secrets()).collect();
        for source in self.jobs.iter().flat_map(|job| &job.sources) {
            match &source.kind {
                SourceKind::Postgres(postgres) => refs.extend(postgres.url.iter().chain(&postgres.password)),
                SourceKind::Command(command) => refs.extend(command.env.values()),
                SourceKind::Files(_) | SourceKind::Environment(_) | SourceKind::Compose(_) => {}
            }
        }
        for store in &self.repository.stores {
            if let StorePlace::S3(place) = &store.place
                && let Some(keys) = &place.keys
            {
                refs.push(&keys.secret_key);
                refs.extend(&keys.session_token);
            }
        }
        let at_hand = refs.into_iter().filter(|secret| !matches!(secret, SecretRef::By(Reference::Cmd(_))));
        let mut found: Vec<Secret> = at_hand.filter_map(|secret| secret.resolve_in(environment).ok()).collect();
        // Those that tools take from the environment by themselves.
        for name in ["PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            found.extend(environment.get(name).map(Secret::new));
        }
        found
    }
}
