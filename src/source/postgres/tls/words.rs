//! What goes wrong with TLS, in words that lead on.

use rustls::{AlertDescription, CertificateError, Error as Tls};

use crate::error::{Error, Kind};

/// The error of rustls inside another; an I/O error hides what it wraps from `source`.
fn inner<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Tls> {
    let mut next = Some(error);
    while let Some(error) = next {
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        if let Some(found) = error.downcast_ref::<Tls>().or_else(|| wrapped?.downcast_ref::<Tls>()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// tokio-postgres tells the kind of its errors by their words only.
fn is_handshake(error: &tokio_postgres::Error) -> bool {
    error.to_string().starts_with("error performing TLS handshake")
}

/// Whether TLS itself failed, not what was said over it.
pub(in crate::source::postgres) fn is_tls(error: &tokio_postgres::Error) -> bool {
    is_handshake(error) || inner(error).is_some()
}

/// The error of a connection that failed because of TLS; `None` when it is none of those. `what` is what was being done.
pub(in crate::source::postgres) fn explain(what: &str, error: &tokio_postgres::Error) -> Option<Error> {
    let made = |words: &str, hint: &str| Some(Error::new(Kind::Preflight, format!("{what}: {words}")).hint(hint));
    let Some(tls) = inner(error) else {
        if !is_handshake(error) {
            return None;
        }
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        if cause == "server does not support TLS" {
            let hint = "set ssl = on in its postgresql.conf, or sslmode prefer where the way to it is safe without TLS";
            return made("the server offers no TLS", hint);
        }
        // Cut off in the middle: a fault of the network, a program in between, or no PostgreSQL at all.
        return Some(Error::new(Kind::Unreachable, format!("{what}: the TLS handshake failed: {cause}")));
    };
    match tls {
        Tls::InvalidCertificate(bad) => {
            let (words, hint) = certificate(bad);
            made(&words, hint)
        }
        Tls::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied => made(
                &format!("the server refuses our client certificate ({alert:?})"),
                "is it signed by the authority in the server's ssl_ca_file, and still valid? sslcert and sslkey name it",
            ),
            AlertDescription::CertificateRequired => {
                made("the server demands a client certificate", "name one in sslcert, and its key in sslkey")
            }
            alert => made(&format!("the server broke off TLS: {alert:?}"), "the server's log says why"),
        },
        other => {
            made(&format!("TLS: {other}"), "does the server speak TLS 1.2 or later? see ssl_min_protocol_version and ssl_ciphers there")
        }
    }
}

fn certificate(bad: &CertificateError) -> (String, &'static str) {
    match bad {
        CertificateError::UnknownIssuer => (
            "the server's certificate is signed by no authority that drctl knows".into(),
            "name a file with the certificate of its authority (or its own, when self-signed) in sslrootcert",
        ),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ").escape_debug().to_string() };
            (
                format!("the server's certificate is for {names}, not for {}", expected.to_str()),
                "connect by a name that stands in the certificate, or have one made for this name; verify-ca does not look at names",
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            (format!("the server's certificate has expired ({bad})"), "renew it, then reload the server; is the clock here right?")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            (format!("the server's certificate is not valid yet ({bad})"), "is the clock right, here and where it was made?")
        }
        CertificateError::BadSignature => (
            "the server's certificate is not signed by the authority that it names".into(),
            "was the authority made anew under the same name? sslrootcert must hold the one that signed it",
        ),
        other => (
            format!("the server's certificate cannot be accepted: {other}"),
            "make it anew: RSA of 2048 bits or more, ECDSA P-256 or P-384, or Ed25519, signed with SHA-256 or better",
        ),
    }
}
