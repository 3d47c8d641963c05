//! Requests of notifiers: one client, bounded in time and size, that gives no address away.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, Kind, Result};
use crate::model::{Clock, Secret};
use crate::notify::Undelivered;

/// Longest time a request may take, from the first look-up to the last byte of the answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const ANSWER: usize = 64 << 10;
/// Longest pause that a receiver may ask for.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its beginning.
    pub body: String,
    /// The pause it asks for.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// Whether the status says yes.
    pub fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What this answer means for a message that was not taken: too many, a time-out and errors of the server may pass, the rest does not.
    pub fn undelivered(&self, to: &str, word: Option<String>, hint: Option<String>) -> Undelivered {
        let passing = matches!(self.status, 408 | 425 | 429 | 500..=599);
        let kind = if passing { Kind::Unreachable } else { Kind::Denied };
        let says = word.as_ref().map(|word| format!(" ({word})")).unwrap_or_default();
        let mut error = Error::new(kind, format!("{to} answered {}{says}", self.status));
        let usual = match self.status {
            429 => Some("it is tried again when the receiver allows it"),
            300..=399 => Some("the address leads elsewhere: put the final one into the configuration"),
            401 | 403 => Some("is the secret still valid? make a new one and put it where the configuration takes it from"),
            404 | 410 => Some("is the address still valid? make a new one and put it where the configuration takes it from"),
            _ => None,
        };
        if let Some(hint) = hint.or_else(|| usual.map(str::to_owned)) {
            error = error.hint(hint);
        }
        Undelivered { error, status: Some(self.status), word, retry_after: self.retry_after }
    }
}

/// The client of all notifiers.
pub struct Http {
    clock: Arc<dyn Clock>,
    limit: Duration,
    /// Made when it is first used: it reads the authorities of the system.
    client: OnceLock<std::result::Result<Client, String>>,
}

impl Http {
    /// A client that takes proxies from the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY).
    pub fn new(clock: Arc<dyn Clock>) -> Http {
        Http::with_limit(clock, LIMIT)
    }

    /// The same with another time limit, for tests.
    pub fn with_limit(clock: Arc<dyn Clock>, limit: Duration) -> Http {
        Http { clock, limit, client: OnceLock::new() }
    }

    fn client(&self) -> Result<&Client> {
        let made = self.client.get_or_init(|| {
            let builder = Client::builder()
                .user_agent(concat!("drctl/", env!("CARGO_PKG_VERSION")))
                .timeout(self.limit)
                .connect_timeout(self.limit)
                // An idle connection may be dead by the next message, hours later.
                .pool_idle_timeout(Duration::from_secs(20))
                .redirect(redirects())
                .referer(false);
            builder.tls_backend_preconfigured(tls()?).build().map_err(|e| e.without_url().to_string())
        });
        made.as_ref().map_err(|why| Error::failed(format!("set up HTTP: {why}")))
    }

    /// Sends a request. `to` is what the receiver is called in errors; they never hold the address.
    pub async fn send(
        &self,
        to: &str,
        method: Method,
        url: &Secret,
        headers: &[(String, Secret)],
        body: Option<(&'static str, Vec<u8>)>,
    ) -> std::result::Result<Answer, Undelivered> {
        let wrong =
            |what: &str| Undelivered::from(Error::new(Kind::Config, format!("the address of {to} {what}")).hint("drctl config check"));
        let url = Url::parse(url.expose()).map_err(|_| wrong("is no URL"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong("is no URL of a web server"));
        }
        let mut request = self.client()?.request(method, url);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("has a header whose name cannot be sent"))?;
            let bad = || Error::new(Kind::Config, format!("the header {name} for {to} cannot be sent: it holds a line break or worse"));
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| bad())?;
            value.set_sensitive(true);
            map.insert(name, value);
        }
        if let Some((kind, bytes)) = body {
            map.insert(reqwest::header::CONTENT_TYPE, HeaderValue::from_static(kind));
            request = request.body(bytes);
        }
        let mut response = request.headers(map).send().await.map_err(|e| self.failed(to, e))?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|text| self.pause(text));
        let mut bytes = Vec::new();
        while bytes.len() < ANSWER {
            match response.chunk().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk[..chunk.len().min(ANSWER - bytes.len())]),
                Ok(None) => break,
                Err(e) => return Err(self.failed(to, e)),
            }
        }
        Ok(Answer { status, body: String::from_utf8_lossy(&bytes).into_owned(), retry_after })
    }

    /// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
    fn pause(&self, text: &str) -> Option<Duration> {
        let pause = match text.trim().parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
                Duration::try_from(until.duration_since(self.clock.now())).unwrap_or_default()
            }
        };
        Some(pause.min(LONGEST_PAUSE))
    }

    fn failed(&self, to: &str, error: reqwest::Error) -> Undelivered {
        let error = error.without_url();
        let what = if error.is_timeout() {
            format!("{to} gave no answer within {} s", self.limit.as_secs_f64())
        } else if error.is_connect() {
            format!("connect to {to}: {}", innermost(&error))
        } else {
            format!("send to {to}: {}", innermost(&error))
        };
        let tls = innermost(&error).contains("certificate");
        let hint = match tls {
            true => "install ca-certificates, or name a bundle of authorities in SSL_CERT_FILE",
            false => "is the network there, is a proxy needed (HTTPS_PROXY)? it is tried again",
        };
        Error::new(Kind::Unreachable, what).hint(hint).into()
    }
}

/// The words of the last cause: those before it repeat what was being done.
fn innermost(error: &reqwest::Error) -> String {
    let mut at: &dyn std::error::Error = error;
    while let Some(next) = at.source() {
        at = next;
    }
    at.to_string()
}

/// Within one server and with the method kept (307, 308). Elsewhere a secret would be given away; with another method the message is lost.
fn redirects() -> Policy {
    Policy::custom(|attempt| {
        let same = |a: &Url, b: &Url| {
            a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
        };
        let keeps = matches!(attempt.status().as_u16(), 307 | 308);
        let from = attempt.previous().last();
        let stays = keeps && attempt.previous().len() <= 3 && from.is_some_and(|from| same(from, attempt.url()));
        if stays { attempt.follow() } else { attempt.stop() }
    })
}

/// TLS 1.2 and 1.3 with the authorities of the system, or of `SSL_CERT_FILE`.
fn tls() -> std::result::Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let file = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from).or_else(|| openssl_probe::probe().cert_file);
    // Without any, an address without TLS still works; with TLS the error names the certificate.
    if let Some(found) = file.and_then(|file| CertificateDer::pem_file_iter(file).ok()) {
        roots.add_parsable_certificates(found.filter_map(std::result::Result::ok));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
