//! From the configuration to the ways of telling.

use std::sync::Arc;

use crate::config::environment::Environment;
use crate::config::{NotifierConfig, NotifierKind, SecretRef};
use crate::error::{Error, Kind, Result};
use crate::model::{Clock, Secret};
use crate::notify::Notifier;
use crate::notify::healthchecks::Healthchecks;
use crate::notify::http::Http;
use crate::notify::policy::Pace;
use crate::notify::slack::{SlackToken, SlackWebhook};
use crate::notify::webhook::Webhook;

/// The way that a notifier of the configuration describes, and how often it may speak.
pub fn way(config: &NotifierConfig, http: &Arc<Http>, environment: &Environment, clock: &Arc<dyn Clock>) -> (Arc<dyn Notifier>, Pace) {
    let (http, environment) = (http.clone(), environment.clone());
    match &config.kind {
        NotifierKind::SlackWebhook { url } => (Arc::new(SlackWebhook { http, environment, url: url.clone() }), Pace::Single),
        NotifierKind::SlackToken { token, channel, api } => {
            let (token, channel, api) = (token.clone(), channel.clone(), api.clone());
            (Arc::new(SlackToken { http, environment, token, channel, api }), Pace::Thread)
        }
        NotifierKind::Webhook { url, headers } => {
            (Arc::new(Webhook { http, environment, url: url.clone(), headers: headers.clone() }), Pace::Single)
        }
        NotifierKind::Healthchecks { url, log } => {
            (Arc::new(Healthchecks { http, environment, clock: clock.clone(), url: url.clone(), log: *log }), Pace::Runs)
        }
    }
}

/// Fetches a secret off the async threads: it may be a file or a program. It is fetched each time, so that a new one is taken at once.
pub async fn resolve(secret: &SecretRef, environment: &Environment) -> Result<Secret> {
    let (secret, environment) = (secret.clone(), environment.clone());
    let fetched = tokio::task::spawn_blocking(move || secret.resolve_in(&environment)).await;
    // Whatever stands in the way here, a file's rights too, is not the receiver's word: it is tried again.
    fetched.map_err(|e| Error::failed("fetch a secret").because(e))?.map_err(|e| e.with_kind(Kind::Config))
}
