//! Slack: by an incoming webhook (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>), or by a bot's token with
//! `chat.postMessage` and `chat.update`, which gives one thread for each incident.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value, json};

use crate::config::SecretRef;
use crate::config::environment::Environment;
use crate::error::{Error, Kind};
use crate::model::Secret;
use crate::notify::http::{Answer, Http};
use crate::notify::slack_blocks::render;
use crate::notify::ways::resolve;
use crate::notify::{Clean, Delivered, Notifier, Undelivered, What};

const JSON: &str = "application/json; charset=utf-8";

/// By webhook.
pub struct SlackWebhook {
    pub(super) http: Arc<Http>,
    pub(super) environment: Environment,
    pub(super) url: SecretRef,
}

#[async_trait]
impl Notifier for SlackWebhook {
    async fn deliver(&self, message: &Clean, _thread: Option<&str>) -> Result<Delivered, Undelivered> {
        let url = resolve(&self.url, &self.environment).await?;
        let (text, blocks) = render(message);
        let body = json!({ "text": text, "blocks": blocks, "unfurl_links": false }).to_string().into_bytes();
        let answer = self.http.send("Slack", Method::POST, &url, &[], Some((JSON, body))).await?;
        if answer.is_good() {
            // `ok` is what Slack says.
            return match serde_json::from_str::<Value>(&answer.body) {
                Ok(value) if value["ok"] == Value::Bool(false) => Err(refused(&value, &answer, "the channel")),
                // A page is of something in between.
                _ if answer.body.trim_start().starts_with('<') => Err(not_slack(&answer)),
                _ => Ok(Delivered { thread: None, status: Some(answer.status) }),
            };
        }
        let word = word_of(answer.body.trim());
        let hint = word.as_deref().and_then(|word| next_step(word, "the channel"));
        Err(answer.undelivered("Slack", word, hint))
    }
}

/// By token.
pub struct SlackToken {
    pub(super) http: Arc<Http>,
    pub(super) environment: Environment,
    pub(super) token: SecretRef,
    pub(super) channel: String,
    pub(super) api: String,
}

/// Slack's words for a thread that is not there any more.
const NO_THREAD: [&str; 4] = ["thread_not_found", "message_not_found", "cannot_reply_to_message", "invalid_thread_ts"];

#[async_trait]
impl Notifier for SlackToken {
    async fn deliver(&self, message: &Clean, thread: Option<&str>) -> Result<Delivered, Undelivered> {
        let (text, blocks) = render(message);
        // The id of the channel and the time stamp of the first message: an update wants the id, whatever the channel is called by now.
        let Some((channel, ts)) = thread.and_then(|thread| thread.split_once('/')) else {
            return self.post(json!({ "channel": self.channel, "text": text, "blocks": blocks, "unfurl_links": false })).await;
        };
        if message.what == What::IncidentRecovered {
            // First, for it can be done twice without being seen twice.
            let update = json!({ "channel": channel, "ts": ts, "text": text, "blocks": blocks });
            match self.call("chat.update", update).await {
                // A message that may no longer be changed is no reason not to say that it is over.
                Err(error) if !error.is_permanent() => return Err(error),
                _ => {}
            }
        }
        let reply = json!({ "channel": channel, "thread_ts": ts, "text": text, "blocks": blocks, "unfurl_links": false });
        match self.post(reply).await {
            Err(error) if error.word.as_deref().is_some_and(|word| NO_THREAD.contains(&word)) => {
                self.post(json!({ "channel": self.channel, "text": text, "blocks": blocks, "unfurl_links": false })).await
            }
            other => other,
        }
    }
}

impl SlackToken {
    async fn post(&self, body: Value) -> Result<Delivered, Undelivered> {
        let (status, answer) = self.call("chat.postMessage", body).await?;
        let thread = match (answer["channel"].as_str(), answer["ts"].as_str()) {
            (Some(channel), Some(ts)) => Some(format!("{channel}/{ts}")),
            _ => None,
        };
        Ok(Delivered { thread, status: Some(status) })
    }

    async fn call(&self, method: &str, body: Value) -> Result<(u16, Value), Undelivered> {
        let token = resolve(&self.token, &self.environment).await?;
        let headers = [("authorization".to_owned(), Secret::new(format!("Bearer {}", token.expose())))];
        let url = Secret::new(format!("{}/{method}", self.api));
        let answer = self.http.send("Slack", Method::POST, &url, &headers, Some((JSON, body.to_string().into_bytes()))).await?;
        self.judge(answer)
    }

    /// Slack says no with status 200, too.
    fn judge(&self, answer: Answer) -> Result<(u16, Value), Undelivered> {
        let value: Option<Value> = serde_json::from_str(&answer.body).ok();
        let word = value.as_ref().and_then(|v| word_of(v["error"].as_str()?));
        if !answer.is_good() {
            let hint = word.as_deref().and_then(|word| next_step(word, &self.channel));
            return Err(answer.undelivered("Slack", word, hint));
        }
        match value {
            Some(value) if value["ok"] == Value::Bool(true) => Ok((answer.status, value)),
            Some(value) => Err(refused(&value, &answer, &self.channel)),
            None => Err(not_slack(&answer)),
        }
    }
}

/// Slack says no, and why.
fn refused(value: &Value, answer: &Answer, channel: &str) -> Undelivered {
    let word = value["error"].as_str().and_then(word_of).unwrap_or_else(|| "no word".to_owned());
    let kind = if PASSING.contains(&word.as_str()) { Kind::Unreachable } else { Kind::Denied };
    let mut error = Error::new(kind, format!("Slack refused: {word}"));
    if let Some(hint) = next_step(&word, channel) {
        error = error.hint(hint);
    }
    Undelivered { error, status: Some(answer.status), word: Some(word), retry_after: answer.retry_after }
}

/// Something in between answered in its place.
fn not_slack(answer: &Answer) -> Undelivered {
    let error = Error::new(Kind::Unreachable, "what answered does not speak like Slack").hint("is there a proxy in between?");
    Undelivered { error, status: Some(answer.status), word: None, retry_after: answer.retry_after }
}

/// Words of Slack's for what passes by itself.
const PASSING: [&str; 8] = [
    "ratelimited",
    "rate_limited",
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "team_added_to_org",
    "accesslimited",
];

/// An error word: nothing else of an answer is repeated.
fn word_of(text: &str) -> Option<String> {
    let word = !text.is_empty() && text.len() <= 60 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    word.then(|| text.to_owned())
}

/// What helps with a word of Slack's.
fn next_step(word: &str, channel: &str) -> Option<String> {
    Some(match word {
        "channel_not_found" => format!("there is no {channel}, or it is private: invite the bot there with /invite @its-name, or give the channel's id"),
        "not_in_channel" => format!("in {channel} type /invite @its-name"),
        "is_archived" | "channel_is_archived" => format!("{channel} is archived: name another one"),
        "invalid_auth" | "not_authed" | "token_revoked" | "token_expired" | "account_inactive" | "invalid_token" => {
            "the token or webhook is not valid any more: make a new one at api.slack.com/apps and put it where the configuration takes it from"
                .to_owned()
        }
        "missing_scope" | "not_allowed_token_type" => {
            "it must be a bot's token (xoxb-) with the scope chat:write: add the scope at api.slack.com/apps, install the app again".to_owned()
        }
        "no_service" | "no_service_id" | "no_active_hooks" | "no_team" | "team_disabled" | "user_not_found" => {
            "the webhook was taken away: make a new one at api.slack.com/apps".to_owned()
        }
        "action_prohibited" | "posting_to_general_channel_denied" | "restricted_action" => {
            "an admin of Slack does not allow this app to write there: ask, or name another channel".to_owned()
        }
        "invalid_payload" | "invalid_blocks" | "invalid_blocks_format" | "msg_too_long" | "msg_blocks_too_long" => {
            "this is a bug in drctl: please report it".to_owned()
        }
        _ => return None,
    })
}
