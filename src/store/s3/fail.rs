//! From the SDK's errors to ours: what went wrong, to which object, whether trying again can help, and what to do next.
//!
//! Nothing but the code in the answer's body says that an *object* is not there: a missing bucket, a wrong address and a proxy's error page
//! answer 404 as well, and none of these may ever read as "the log has no such record".

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use jiff::Timestamp;

use crate::error::{Error, Kind};

/// What a failed step means for the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Trying again cannot help.
    Final,
    /// It may pass; whether the store did what was asked is unknown.
    Passing,
    /// The store asks for less; it did nothing.
    Slow,
    /// The clocks differ too much; the store's date.
    Skewed(Timestamp),
    /// The keys ran out.
    Expired,
    /// The store got other bytes than were sent.
    Garbled,
    /// There is something under this key already.
    Taken,
    /// There is no such object.
    Missing,
    /// There is no such multipart upload.
    NoUpload,
}

/// A failed step.
#[derive(Debug)]
pub struct Failure {
    /// In our words.
    pub error: Error,
    /// What it means for the next try.
    pub class: Class,
}

impl Failure {
    /// An error of our own.
    pub fn new(class: Class, error: Error) -> Failure {
        Failure { error, class }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        failure.error
    }
}

/// A step: what is done to what, and the permission it takes.
#[derive(Clone, Copy, Debug)]
pub struct Doing<'a> {
    /// `store`, `read` …
    pub verb: &'a str,
    /// `jobs/…/x.age`.
    pub object: &'a str,
    /// `s3://bucket/prefix`.
    pub place: &'a str,
    /// `s3:PutObject`.
    pub permission: &'a str,
}

impl Doing<'_> {
    /// For messages and events.
    pub fn text(&self) -> String {
        match self.object {
            "" => format!("{} {}", self.verb, self.place),
            object => format!("{} {object} at {}", self.verb, self.place),
        }
    }
}

/// A code of the protocol, its kind, its class, and what to do.
type Row = (&'static str, Kind, Class, &'static str);

const CLOCK: &str = "set this machine's clock: timedatectl set-ntp true";
const KEYS: &str = "are the store's keys right? access_key and secret_key in the configuration, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile";
const BUCKET: &str = "check bucket, region and endpoint in the configuration; drctl makes no bucket";
const REGION: &str = "set region in the store's configuration (or AWS_REGION) to the bucket's own";
const NOTHING: &str = "";

/// S3's error codes ("Error responses" of the S3 API reference) and those of the look-alikes.
const CODES: &[Row] = &[
    ("NoSuchKey", Kind::NotFound, Class::Missing, NOTHING),
    ("NoSuchVersion", Kind::NotFound, Class::Missing, NOTHING),
    ("NoSuchUpload", Kind::Failed, Class::NoUpload, NOTHING),
    ("NoSuchBucket", Kind::Unreachable, Class::Final, BUCKET),
    ("PreconditionFailed", Kind::Exists, Class::Taken, NOTHING),
    ("ConditionalRequestConflict", Kind::Unreachable, Class::Passing, NOTHING),
    ("OperationAborted", Kind::Unreachable, Class::Passing, NOTHING),
    ("AllAccessDisabled", Kind::Denied, Class::Final, NOTHING),
    ("AccountProblem", Kind::Denied, Class::Final, NOTHING),
    ("InvalidAccessKeyId", Kind::Denied, Class::Final, KEYS),
    ("SignatureDoesNotMatch", Kind::Denied, Class::Final, KEYS),
    ("InvalidSecurity", Kind::Denied, Class::Final, KEYS),
    ("UnauthorizedAccess", Kind::Denied, Class::Final, KEYS),
    ("ExpiredToken", Kind::Denied, Class::Expired, "the temporary keys ran out and could not be renewed"),
    ("ExpiredTokenException", Kind::Denied, Class::Expired, "the temporary keys ran out and could not be renewed"),
    ("TokenRefreshRequired", Kind::Denied, Class::Expired, "the temporary keys ran out and could not be renewed"),
    ("InvalidToken", Kind::Denied, Class::Expired, KEYS),
    ("PermanentRedirect", Kind::Config, Class::Final, REGION),
    ("TemporaryRedirect", Kind::Unreachable, Class::Passing, REGION),
    ("AuthorizationHeaderMalformed", Kind::Config, Class::Final, REGION),
    ("IllegalLocationConstraintException", Kind::Config, Class::Final, REGION),
    ("InvalidBucketName", Kind::Config, Class::Final, BUCKET),
    ("SlowDown", Kind::Unreachable, Class::Slow, NOTHING),
    ("ServiceUnavailable", Kind::Unreachable, Class::Slow, NOTHING),
    ("Throttling", Kind::Unreachable, Class::Slow, NOTHING),
    ("ThrottlingException", Kind::Unreachable, Class::Slow, NOTHING),
    ("RequestLimitExceeded", Kind::Unreachable, Class::Slow, NOTHING),
    ("BandwidthLimitExceeded", Kind::Unreachable, Class::Slow, NOTHING),
    ("TooManyRequests", Kind::Unreachable, Class::Slow, NOTHING),
    ("InternalError", Kind::Unreachable, Class::Passing, NOTHING),
    ("RequestTimeout", Kind::Unreachable, Class::Passing, NOTHING),
    ("IncompleteBody", Kind::Unreachable, Class::Passing, NOTHING),
    ("BadDigest", Kind::Corrupt, Class::Garbled, NOTHING),
    ("XAmzContentSHA256Mismatch", Kind::Corrupt, Class::Garbled, NOTHING),
    ("XAmzContentChecksumMismatch", Kind::Corrupt, Class::Garbled, NOTHING),
    ("QuotaExceeded", Kind::Full, Class::Final, "make room or raise the quota"),
    ("XMinioStorageFull", Kind::Full, Class::Final, "make room on the store's disks"),
    ("XMinioAdminBucketQuotaExceeded", Kind::Full, Class::Final, "make room or raise the quota"),
    ("InsufficientStorage", Kind::Full, Class::Final, "make room on the store's disks"),
    (
        "InvalidObjectState",
        Kind::Failed,
        Class::Final,
        "the object lies in an archive class; bring it back there first, and keep lifecycle rules off this prefix",
    ),
    ("NotImplemented", Kind::Unsupported, Class::Final, "does provider in the store's configuration name the right one?"),
    ("InvalidRange", Kind::Corrupt, Class::Final, NOTHING),
];

/// What a status alone means, where no code is known.
fn by_status(status: u16) -> (Kind, Class, &'static str) {
    match status {
        301 | 308 => (Kind::Config, Class::Final, REGION),
        401 => (Kind::Denied, Class::Final, KEYS),
        403 => (Kind::Denied, Class::Final, NOTHING),
        // Not the words of S3: nobody says here that an object is missing.
        404 => (Kind::Unreachable, Class::Final, BUCKET),
        408 => (Kind::Unreachable, Class::Passing, NOTHING),
        409 => (Kind::Unreachable, Class::Passing, NOTHING),
        412 => (Kind::Exists, Class::Taken, NOTHING),
        416 => (Kind::Corrupt, Class::Final, NOTHING),
        429 | 503 => (Kind::Unreachable, Class::Slow, NOTHING),
        501 => (Kind::Unsupported, Class::Final, "does provider in the store's configuration name the right one?"),
        507 => (Kind::Full, Class::Final, "make room on the store's disks"),
        // An error told with status 200 has already been begun: it is one of the store's own.
        200..=299 | 500..=599 => (Kind::Unreachable, Class::Passing, NOTHING),
        _ => (Kind::Failed, Class::Final, NOTHING),
    }
}

/// Our error for the SDK's.
pub fn failure<E>(error: SdkError<E, HttpResponse>, doing: &Doing<'_>) -> Failure
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    match &error {
        SdkError::ServiceError(service) => answered(service.err().code(), service.err().message(), service.raw(), doing),
        SdkError::ResponseError(response) => {
            // A body that broke off, or that is none of S3's: it may say anything, so its status is not believed either.
            let why = format!("{}: the answer cannot be understood ({}): {}", doing.text(), response.raw().status(), chain(&error));
            Failure::new(Class::Passing, Error::new(Kind::Unreachable, why).hint(BUCKET))
        }
        _ => unanswered(&error, doing),
    }
}

/// The store answered with an error.
fn answered(code: Option<&str>, message: Option<&str>, raw: &HttpResponse, doing: &Doing<'_>) -> Failure {
    let status = raw.status().as_u16();
    let date = raw.headers().get("date").and_then(http_date);
    let row = code.and_then(|code| CODES.iter().find(|row| row.0 == code));
    let (kind, class, hint) = row.map_or_else(|| by_status(status), |row| (row.1, row.2, row.3));
    let mut text = format!(
        "{}: {}",
        doing.text(),
        code.filter(|c| !c.is_empty()).map_or_else(|| format!("status {status}"), |c| format!("{c} ({status})"))
    );
    if let Some(message) = message.map(shorten).filter(|m| !m.is_empty()) {
        text.push_str(": ");
        text.push_str(&message);
    }
    if let Some(id) = raw.headers().get("x-amz-request-id").map(shorten) {
        text.push_str(&format!(" [request {id}]"));
    }
    let skewed = matches!(code, Some("RequestTimeTooSkewed" | "RequestExpired"));
    // The answer to a HEAD has no body, hence no code: the date says it.
    let far = date.filter(|d| d.as_second().abs_diff(Timestamp::now().as_second()) > SKEW_ALLOWED_SECONDS);
    match (skewed, status, date, far) {
        (true, _, Some(date), _) | (false, 403, _, Some(date)) => {
            let error = Error::new(Kind::Denied, format!("{text}; the store's clock says {date}")).hint(CLOCK);
            return Failure::new(Class::Skewed(date), error);
        }
        (true, ..) => return Failure::new(Class::Final, Error::new(Kind::Denied, text).hint(CLOCK)),
        _ => {}
    }
    let mut error = Error::new(kind, text);
    error = match (kind, hint) {
        (Kind::Denied, "") => error.hint(format!("the store's user needs {} here", doing.permission)),
        _ => hinted(error, hint),
    };
    if hint == REGION
        && let Some(region) = raw.headers().get("x-amz-bucket-region")
    {
        error = error.hint(format!("the bucket lies in region {}: {REGION}", shorten(region)));
    }
    Failure::new(class, error)
}

/// S3 refuses requests whose date is more than 15 minutes off (RequestTimeTooSkewed).
const SKEW_ALLOWED_SECONDS: u64 = 14 * 60;

/// No answer came.
fn unanswered<E>(error: &SdkError<E, HttpResponse>, doing: &Doing<'_>) -> Failure
where
    E: StdError + Send + Sync + 'static,
{
    let why = format!("{}: {}", doing.text(), chain(error));
    if let Some(credentials) = find::<CredentialsError>(error) {
        let class = match credentials {
            CredentialsError::ProviderTimedOut(_) => Class::Passing,
            _ => Class::Final,
        };
        return Failure::new(class, Error::new(Kind::Denied, why).hint(KEYS));
    }
    if let Some(tls) = find::<rustls::Error>(error)
        && matches!(tls, rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    {
        let error = Error::new(Kind::Unreachable, why).hint("if the store has a certificate of its own, name the file of its CA: ca_file");
        return Failure::new(Class::Final, error);
    }
    match error {
        SdkError::ConstructionFailure(_) => Failure::new(Class::Final, Error::new(Kind::Config, why).hint(BUCKET)),
        SdkError::DispatchFailure(dispatch) if dispatch.is_user() => Failure::new(Class::Final, Error::failed(why)),
        _ => Failure::new(
            Class::Passing,
            Error::new(Kind::Unreachable, why).hint("is the store up, and reachable from here? check endpoint, DNS, proxy, firewall"),
        ),
    }
}

fn hinted(error: Error, hint: &str) -> Error {
    if hint.is_empty() { error } else { error.hint(hint) }
}

/// The first error of type `T` in a chain, also inside of an [`std::io::Error`].
fn find<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    // Chains of a hostile peer's making do not exist, but a loop would hang us.
    for _ in 0..20 {
        let here = next?;
        if let Some(found) = here.downcast_ref::<T>() {
            return Some(found);
        }
        if let Some(inner) = here.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && let Some(found) = find_in(inner)
        {
            return Some(found);
        }
        next = here.source();
    }
    None
}

fn find_in<'e, T: StdError + 'static>(error: &'e (dyn StdError + Send + Sync + 'static)) -> Option<&'e T> {
    let plain: &(dyn StdError + 'static) = error;
    find(plain)
}

const LAYERS: [&str; 4] = ["dispatch failure", "io error", "client error (Connect)", "unhandled error"];

/// The words of a chain, each once.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(here) = next.filter(|_| words.len() < 8) {
        let text = shorten(&here.to_string());
        // Names of layers, which tell nobody anything as long as something follows.
        let layer = here.source().is_some() && LAYERS.iter().any(|layer| text == *layer);
        if !layer && !words.iter().any(|w| w.contains(&text)) {
            words.push(text);
        }
        next = here.source();
    }
    words.join(": ")
}

/// Text from outside, fit for one line.
fn shorten(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    clean.trim().to_owned()
}

/// A date of HTTP (RFC 9110, 5.6.7).
pub fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::error::ErrorMetadata;
    use aws_sdk_s3::operation::put_object::PutObjectError;
    use aws_sdk_s3::primitives::SdkBody;

    use super::*;

    const DOING: Doing<'_> = Doing { verb: "store", object: "a/b", place: "s3://bucket/p", permission: "s3:PutObject" };

    fn answer(status: u16, headers: &[(&'static str, &'static str)], code: Option<&str>, message: &str) -> Failure {
        let mut raw = HttpResponse::new(status.try_into().unwrap(), SdkBody::empty());
        for (name, value) in headers {
            raw.headers_mut().insert(*name, *value);
        }
        let mut meta = ErrorMetadata::builder().message(message);
        if let Some(code) = code {
            meta = meta.code(code);
        }
        failure(SdkError::service_error(PutObjectError::generic(meta.build()), raw), &DOING)
    }

    #[test]
    fn every_code_has_its_kind_and_class() {
        for (status, code, kind, class) in [
            (404, Some("NoSuchKey"), Kind::NotFound, Class::Missing),
            (404, Some("NoSuchBucket"), Kind::Unreachable, Class::Final),
            (404, None, Kind::Unreachable, Class::Final),
            (404, Some("NotFound"), Kind::Unreachable, Class::Final),
            (404, Some("NoSuchUpload"), Kind::Failed, Class::NoUpload),
            (403, Some("AccessDenied"), Kind::Denied, Class::Final),
            (403, Some("ExpiredToken"), Kind::Denied, Class::Expired),
            (400, Some("BadDigest"), Kind::Corrupt, Class::Garbled),
            (412, Some("PreconditionFailed"), Kind::Exists, Class::Taken),
            (412, None, Kind::Exists, Class::Taken),
            (409, Some("ConditionalRequestConflict"), Kind::Unreachable, Class::Passing),
            (503, Some("SlowDown"), Kind::Unreachable, Class::Slow),
            (500, None, Kind::Unreachable, Class::Passing),
            (200, Some("InternalError"), Kind::Unreachable, Class::Passing),
            (200, Some("Strange"), Kind::Unreachable, Class::Passing),
            (301, None, Kind::Config, Class::Final),
            (400, Some("AuthorizationHeaderMalformed"), Kind::Config, Class::Final),
            (400, Some("InvalidArgument"), Kind::Failed, Class::Final),
            (507, None, Kind::Full, Class::Final),
        ] {
            let failure = answer(status, &[], code, "why");
            assert_eq!((failure.error.kind(), failure.class), (kind, class), "{status} {code:?}");
        }
        for (i, row) in CODES.iter().enumerate() {
            assert_eq!(CODES.iter().position(|r| r.0 == row.0), Some(i), "{} stands once", row.0);
            assert!(row.2 != Class::Passing || row.1.retryable(), "{}", row.0);
        }
    }

    #[test]
    fn an_error_names_object_place_code_request_and_what_to_do() {
        let failure = answer(403, &[("x-amz-request-id", "R1")], Some("AccessDenied"), "Access\nDenied");
        assert_eq!(failure.error.to_string(), "store a/b at s3://bucket/p: AccessDenied (403): Access Denied [request R1]");
        assert_eq!(failure.error.hint_text(), Some("the store's user needs s3:PutObject here"));
        let failure = answer(301, &[("x-amz-bucket-region", "eu-west-3")], Some("PermanentRedirect"), "");
        assert!(failure.error.hint_text().unwrap().contains("region eu-west-3"));
    }

    #[test]
    fn f17_a_skewed_clock_is_known_by_code_and_by_date() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (status, code) in [(403, Some("RequestTimeTooSkewed")), (400, Some("RequestTimeTooSkewed")), (403, None)] {
            let failure = answer(status, &[("date", date)], code, "");
            assert_eq!(failure.class, Class::Skewed("1994-11-06T08:49:37Z".parse().unwrap()), "{status} {code:?}");
            assert!(failure.error.to_string().contains("the store's clock says 1994-11-06"));
        }
        assert_eq!(answer(403, &[], Some("RequestTimeTooSkewed"), "").class, Class::Final);
    }

    #[test]
    fn dates_of_http() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some("1994-11-06T08:49:37Z".parse().unwrap()));
        assert_eq!(http_date("yesterday"), None);
    }
}
