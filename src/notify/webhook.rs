//! Any HTTP endpoint: a POST of one JSON object.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value, json};

use crate::config::SecretRef;
use crate::config::environment::Environment;
use crate::notify::http::Http;
use crate::notify::ways::resolve;
use crate::notify::{Clean, Delivered, Notifier, Undelivered};

/// Name of the shape, as on the command line.
const SCHEMA: &str = "drctl.v1";

/// A webhook.
pub struct Webhook {
    pub(super) http: Arc<Http>,
    pub(super) environment: Environment,
    pub(super) url: SecretRef,
    pub(super) headers: BTreeMap<String, SecretRef>,
}

#[async_trait]
impl Notifier for Webhook {
    async fn deliver(&self, message: &Clean, _thread: Option<&str>) -> Result<Delivered, Undelivered> {
        let url = resolve(&self.url, &self.environment).await?;
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            headers.push((name.clone(), resolve(value, &self.environment).await?));
        }
        let body = body(message).to_string().into_bytes();
        let answer = self.http.send("the webhook", Method::POST, &url, &headers, Some(("application/json", body))).await?;
        if answer.is_good() {
            return Ok(Delivered { thread: None, status: Some(answer.status) });
        }
        Err(answer.undelivered("the webhook", None, None))
    }
}

/// The message as JSON.
pub fn body(message: &Clean) -> Value {
    let facts: Vec<Value> = message.facts.iter().map(|fact| json!({ "label": fact.label, "value": fact.value })).collect();
    json!({
        "schema": SCHEMA,
        "message": {
            "id": message.id,
            "what": message.what.name(),
            "severity": message.severity.name(),
            "incident": message.incident,
            "job": message.job,
            "host": message.host,
            "title": message.title,
            "lines": message.lines,
            "next": message.next,
            "facts": facts,
            "at": message.at.to_string(),
            "run": message.run,
            "exit_code": message.exit_code,
            "dropped": message.dropped,
        },
    })
}
