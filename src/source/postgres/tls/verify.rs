//! Whether the server is who it should be. The rules of libpq, which is less strict than the web: a server may present the very
//! certificate that is trusted, one with its name in the common name only, or one of X.509 version 1, as `openssl x509 -req` of OpenSSL
//! before 3.2 makes them and PostgreSQL's manual long told people to.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{AlgorithmIdentifier, CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::{PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::CN;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Who is trusted.
#[derive(Debug)]
pub(super) enum Trust {
    /// Whoever answers.
    Anyone,
    /// Those whom one of these authorities vouches for.
    Authorities {
        roots: RootCertStore,
        /// The same authorities, as they stood in the file.
        certificates: Vec<CertificateDer<'static>>,
        /// The name must be right too.
        name: bool,
    },
}

/// Checks a server's certificate. The handshake's signature is checked in every mode: channel binding needs the server to own the key.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(super) fn new(trust: Trust, provider: Arc<CryptoProvider>) -> Self {
        Verifier { trust, provider }
    }

    /// Whether a certificate of version 1 is signed by one of the authorities itself. Such a certificate has no extensions, so nothing
    /// in it can forbid its use.
    fn signed_directly(&self, parsed: &Certificate, certificates: &[CertificateDer<'_>]) -> Result<(), Error> {
        let unreadable = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
        let message = parsed.tbs_certificate.to_der().map_err(unreadable)?;
        let issuer = parsed.tbs_certificate.issuer.to_der().map_err(unreadable)?;
        let algorithm = parsed.signature_algorithm.to_der().map_err(unreadable)?;
        let signature = parsed.signature.as_bytes().ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let mut known = false;
        for root in certificates.iter().filter_map(|c| Certificate::from_der(c).ok()) {
            let root = root.tbs_certificate;
            if root.subject.to_der().ok().as_ref() != Some(&issuer) {
                continue;
            }
            known = true;
            let Ok(key_algorithm) = root.subject_public_key_info.algorithm.to_der() else { continue };
            let Some(key) = root.subject_public_key_info.subject_public_key.as_bytes() else { continue };
            let fitting =
                self.provider.signature_verification_algorithms.all.iter().filter(|candidate| {
                    is(&candidate.public_key_alg_id(), &key_algorithm) && is(&candidate.signature_alg_id(), &algorithm)
                });
            if fitting.into_iter().any(|candidate| candidate.verify_signature(key, &message, signature).is_ok()) {
                return Ok(());
            }
        }
        Err(Error::InvalidCertificate(if known { CertificateError::BadSignature } else { CertificateError::UnknownIssuer }))
    }
}

/// `id` holds what stands inside the SEQUENCE of the encoded AlgorithmIdentifier, whose header has two bytes at these lengths.
fn is(id: &AlgorithmIdentifier, encoded: &[u8]) -> bool {
    encoded.len() < 130 && encoded.get(2..) == Some(id.as_ref())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Trust::Authorities { roots, certificates, name } = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let parsed = Certificate::from_der(end_entity).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if certificates.contains(end_entity) {
            in_time(&parsed, now)?;
        } else if parsed.tbs_certificate.version == Version::V1 {
            in_time(&parsed, now)?;
            self.signed_directly(&parsed, certificates)?;
        } else {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let checked = ParsedCertificate::try_from(end_entity)
                .and_then(|entity| verify_server_cert_signed_by_trust_anchor(&entity, roots, intermediates, now, algorithms));
            checked.map_err(|error| match error {
                // Said of what most servers have that nobody vouches for: one made by `openssl req -x509`, marked as an authority.
                Error::InvalidCertificate(CertificateError::Other(_))
                    if parsed.tbs_certificate.issuer == parsed.tbs_certificate.subject =>
                {
                    Error::InvalidCertificate(CertificateError::UnknownIssuer)
                }
                error => error,
            })?;
        }
        if *name {
            named(end_entity, &parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    /// By the key alone: the rest of a certificate of version 1 is not understood by the usual way.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = Certificate::from_der(cert).and_then(|c| c.tbs_certificate.subject_public_key_info.to_der());
        let key = key.map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let key = SubjectPublicKeyInfoDer::from(key.as_slice());
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn in_time(certificate: &Certificate, now: UnixTime) -> Result<(), Error> {
    let validity = &certificate.tbs_certificate.validity;
    let (from, to) = (validity.not_before.to_unix_duration().as_secs(), validity.not_after.to_unix_duration().as_secs());
    let at = UnixTime::since_unix_epoch;
    let seconds = std::time::Duration::from_secs;
    if now.as_secs() > to {
        return Err(Error::InvalidCertificate(CertificateError::ExpiredContext { time: now, not_after: at(seconds(to)) }));
    }
    if now.as_secs() < from {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { time: now, not_before: at(seconds(from)) }));
    }
    Ok(())
}

/// The name must stand among the alternative names; where there are none, in the common name.
fn named(der: &CertificateDer<'_>, parsed: &Certificate, wanted: &ServerName<'_>) -> Result<(), Error> {
    let (names, alternative) = names(parsed);
    let fits = match alternative {
        true => ParsedCertificate::try_from(der).and_then(|entity| verify_server_name(&entity, wanted)).is_ok(),
        false => names.iter().any(|name| common_name_fits(name, &wanted.to_str(), matches!(wanted, ServerName::IpAddress(_)))),
    };
    if fits {
        return Ok(());
    }
    Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected: wanted.to_owned(), presented: names }))
}

/// The names and addresses of a certificate, and whether they are alternative names.
fn names(certificate: &Certificate) -> (Vec<String>, bool) {
    let alternative = certificate.tbs_certificate.get::<SubjectAltName>().ok().flatten().map(|(_, names)| names.0);
    let known = alternative.iter().flatten().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => address(bytes.as_bytes()),
        _ => None,
    });
    let known: Vec<String> = known.collect();
    if !known.is_empty() {
        return (known, true);
    }
    let parts = certificate.tbs_certificate.subject.0.iter().flat_map(|set| set.0.iter()).filter(|part| part.oid == CN);
    let text = parts.filter_map(|part| {
        let value = &part.value;
        let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|s| s.as_str().to_owned());
        let printable = || value.decode_as::<PrintableStringRef<'_>>().map(|s| s.as_str().to_owned());
        utf8.or_else(|_| printable()).or_else(|_| value.decode_as::<TeletexStringRef<'_>>().map(|s| s.as_str().to_owned())).ok()
    });
    (text.collect(), false)
}

fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(|b| std::net::Ipv4Addr::from(b).to_string());
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(|b| std::net::Ipv6Addr::from(b).to_string())).ok()
}

/// libpq's rule: letters of either case; a leading `*.` stands for exactly one label of a name, never for a part of an address.
fn common_name_fits(pattern: &str, host: &str, is_address: bool) -> bool {
    if pattern.contains('\0') {
        return false;
    }
    let wild = pattern.strip_prefix("*.").filter(|rest| rest.contains('.') && !is_address);
    match (wild, host.split_once('.')) {
        (Some(rest), Some((label, domain))) => !label.is_empty() && rest.eq_ignore_ascii_case(domain),
        _ => pattern.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_names() {
        let cases = [
            ("db.example.com", "DB.example.com", true),
            ("*.example.com", "db.example.com", true),
            ("*.example.com", "a.db.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.com", "example.com", false),
            ("*", "db", false),
            ("*.0.0.1", "127.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("db.example.com\0.evil.com", "db.example.com", false),
            ("", "db", false),
        ];
        for (pattern, host, fits) in cases {
            assert_eq!(common_name_fits(pattern, host, host.starts_with("127.")), fits, "{pattern} {host}");
        }
    }
}
