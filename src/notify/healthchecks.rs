//! Dead-man switches in the manner of healthchecks.io (<https://healthchecks.io/docs/http_api/>): pinged when a run begins and ends, so that
//! silence alarms there.
//!
//! A ping says "now". One that waited is therefore not sent as a success any more: it is logged there, and the switch goes its way.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use url::Url;

use crate::config::SecretRef;
use crate::config::environment::Environment;
use crate::error::{Error, Kind};
use crate::model::{Clock, Secret, Severity, Sha256};
use crate::notify::clean::cut;
use crate::notify::http::Http;
use crate::notify::ways::resolve;
use crate::notify::{Clean, Delivered, Message, Notifier, Undelivered, What};

/// Bytes of a body that are looked at there.
const BODY: usize = 100_000;
/// A beginning or a success that is older says nothing about now.
const FRESH: Duration = Duration::from_secs(15 * 60);

/// A check.
pub struct Healthchecks {
    pub(super) http: Arc<Http>,
    pub(super) environment: Environment,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) url: SecretRef,
    pub(super) log: bool,
}

#[async_trait]
impl Notifier for Healthchecks {
    async fn deliver(&self, message: &Clean, _thread: Option<&str>) -> Result<Delivered, Undelivered> {
        let late = self.clock.now().duration_since(message.at).unsigned_abs() > FRESH;
        let Some(path) = path(message, late) else { return Ok(Delivered::default()) };
        let base = resolve(&self.url, &self.environment).await?;
        let url = address(&base, &path, message.run.as_deref())?;
        let body = self.log.then(|| ("text/plain; charset=utf-8", cut(&message.to_text(), BODY).into_bytes()));
        let answer = self.http.send("the check", Method::POST, &url, &[], body).await?;
        let word = answer.body.lines().next().unwrap_or_default().trim();
        match word {
            // With status 200.
            "OK (not found)" => {
                let error =
                    Error::new(Kind::Denied, "the check is not there any more").hint("is its address still valid? make a new check");
                Err(Undelivered { error, status: Some(answer.status), word: Some("not found".into()), retry_after: None })
            }
            "OK (rate limited)" => {
                let error = Error::new(Kind::Unreachable, "the check is pinged too often");
                let retry_after = Some(Duration::from_secs(60));
                Err(Undelivered { error, status: Some(answer.status), word: Some("rate limited".into()), retry_after })
            }
            _ if answer.is_good() => Ok(Delivered { thread: None, status: Some(answer.status) }),
            _ => Err(answer.undelivered("the check", None, None)),
        }
    }
}

/// What comes behind the check's address; `None`: this message is not for it.
fn path(message: &Message, late: bool) -> Option<String> {
    let bad = message.exit_code.is_some_and(|code| code != 0);
    match message.what {
        What::RunStarted if late => None,
        What::RunStarted => Some("start".to_owned()),
        // `/0` is a success, any other number a failure.
        What::RunReport if bad || !late => Some(message.exit_code.map_or_else(|| "fail".to_owned(), |code| code.to_string())),
        What::RunReport => Some("log".to_owned()),
        // What no run would tell: lost state, a clock that jumped, a restore point that is too old. The next good run sets it right.
        What::IncidentOpened if message.severity == Severity::Critical && message.exit_code.is_none() => Some("fail".to_owned()),
        What::Test => Some("log".to_owned()),
        What::IncidentOpened | What::IncidentOpen | What::IncidentRecovered | What::Digest | What::Done => None,
    }
}

/// The check's address with a path behind its own, and the run that pairs beginning and end.
fn address(base: &Secret, path: &str, run: Option<&str>) -> Result<Secret, Error> {
    let wrong = || Error::new(Kind::Config, "the address of the check is no URL").hint("drctl config check");
    let mut url = Url::parse(base.expose()).map_err(|_| wrong())?;
    url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().push(path);
    if let Some(run) = run {
        url.query_pairs_mut().append_pair("rid", &run_id(run));
    }
    Ok(Secret::new(String::from(url)))
}

/// The same UUID for the same run (RFC 9562, version 8: of our own making).
fn run_id(run: &str) -> String {
    let digest = Sha256::of(run.as_bytes()).to_string();
    let hex = |from: usize, to: usize| digest.get(from..to).unwrap_or("0").to_owned();
    format!("{}-{}-8{}-8{}-{}", hex(0, 8), hex(8, 12), hex(12, 15), hex(15, 18), hex(18, 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_what_they_had() {
        for (base, want) in [
            ("https://hc-ping.com/abc", "https://hc-ping.com/abc/start?rid="),
            ("https://hc-ping.com/abc/", "https://hc-ping.com/abc/start?rid="),
            ("https://hc/ping/key/slug?create=1", "https://hc/ping/key/slug/start?create=1&rid="),
        ] {
            let made = address(&Secret::new(base), "start", Some("7")).unwrap();
            assert!(made.expose().starts_with(want), "{}", made.expose());
        }
        assert_eq!(run_id("7"), run_id("7"));
        assert_eq!(run_id("7").split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_ne!(run_id("7"), run_id("8"));
    }

    #[test]
    fn f63_what_is_late_never_says_that_all_is_well() {
        let at = "2025-01-01T00:00:00Z".parse().unwrap();
        let of = |what, exit_code, severity| Message { exit_code, ..Message::new(what, severity, "t", at) };
        let info = Severity::Info;
        for (what, code, severity, now, late) in [
            (What::RunStarted, None, info, Some("start"), None),
            (What::RunReport, Some(0), info, Some("0"), Some("log")),
            (What::RunReport, Some(3), info, Some("3"), Some("3")),
            (What::RunReport, None, info, Some("fail"), Some("log")),
            (What::Test, None, info, Some("log"), Some("log")),
            (What::Digest, None, info, None, None),
            (What::IncidentOpened, None, Severity::Critical, Some("fail"), Some("fail")),
            (What::IncidentOpened, None, Severity::Warning, None, None),
            // The report of the run tells that one.
            (What::IncidentOpened, Some(1), Severity::Critical, None, None),
            (What::IncidentRecovered, None, info, None, None),
        ] {
            let message = of(what, code, severity);
            assert_eq!(path(&message, false).as_deref(), now, "{what:?} {code:?}");
            assert_eq!(path(&message, true).as_deref(), late, "{what:?} {code:?}");
        }
    }
}
