//! TLS of drctl's own connections, by libpq's rules, and the same files for libpq's programs.
//!
//! Sources of the rules: PostgreSQL manual, "SSL Support" of libpq. Where drctl is stricter: a file that is named and missing is an
//! error, never a reason to check less. Where it goes further: `verify-full` without a file of authorities takes those of the operating
//! system, as `sslrootcert=system` of libpq 16 does.

mod verify;
mod words;

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::environment::Environment;
use crate::config::postgres::SYSTEM_ROOTS as SYSTEM;
use crate::error::{Context, Error, Kind, Result};
use crate::source::postgres::settings::{PostgresSettings, SslMode};

pub(super) use words::{explain, is_tls};

/// Largest file of certificates or keys that is read, in bytes; a whole bundle of public authorities has about 250 KB.
const FILE_LIMIT: u64 = 8 << 20;

/// The files that a connection uses; none for a Unix socket and without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    /// Certificates of the authorities that the server's is checked against; without one nothing is checked.
    pub(super) roots: Option<PathBuf>,
    /// The client's certificate, and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

/// Whether a connection by these settings may use TLS at all: like libpq, never over a Unix socket.
pub(super) fn wanted(settings: &PostgresSettings) -> bool {
    settings.sslmode != SslMode::Disable && !settings.host.starts_with('/')
}

impl TlsFiles {
    /// The files of these settings: those that are named there, else by `PGSSLROOTCERT`, `PGSSLCERT` and `PGSSLKEY`, else those of
    /// `~/.postgresql` that are there.
    pub(super) fn of(settings: &PostgresSettings, environment: &Environment) -> Result<TlsFiles> {
        if !wanted(settings) {
            return Ok(TlsFiles::default());
        }
        let named = |setting: &Option<PathBuf>, variable: &str| {
            setting.clone().or_else(|| environment.get(variable).map(PathBuf::from)).filter(|path| !path.as_os_str().is_empty())
        };
        let usual = |name: &str| environment.home().map(|home| home.join(".postgresql").join(name)).filter(|path| path.exists());
        let full = settings.sslmode == SslMode::VerifyFull;
        let roots = match named(&settings.sslrootcert, "PGSSLROOTCERT") {
            Some(path) if path == Path::new(SYSTEM) && !full => {
                let mode = settings.sslmode.name();
                return Err(Error::new(
                    Kind::Preflight,
                    format!("sslrootcert system with sslmode {mode}: anyone can get such a certificate"),
                )
                .hint("set sslmode verify-full"));
            }
            Some(path) if path == Path::new(SYSTEM) => Some(system_roots(environment)?),
            Some(path) => Some(present(environment.absolute(&path), "sslrootcert")?),
            None => match usual("root.crt") {
                Some(path) => Some(path),
                None if full => Some(system_roots(environment)?),
                None if settings.sslmode == SslMode::VerifyCa => {
                    return Err(Error::new(Kind::Preflight, "sslmode verify-ca, and no certificate of an authority to check against")
                        .hint("name a file with it in sslrootcert, or put it into ~/.postgresql/root.crt"));
                }
                None => None,
            },
        };
        let certificate = match named(&settings.sslcert, "PGSSLCERT") {
            Some(path) => Some(present(environment.absolute(&path), "sslcert")?),
            None => usual("postgresql.crt"),
        };
        let key = named(&settings.sslkey, "PGSSLKEY").map(|path| environment.absolute(&path));
        let identity = match (certificate, key.or_else(|| usual("postgresql.key"))) {
            (Some(certificate), Some(key)) => Some((certificate, present(key, "sslkey")?)),
            (Some(certificate), None) => {
                return Err(Error::new(Kind::Preflight, format!("there is no private key for the certificate {}", certificate.display()))
                    .hint("name its file in sslkey"));
            }
            (None, _) => None,
        };
        if let Some((_, key)) = &identity {
            private(key)?;
        }
        Ok(TlsFiles { roots, identity })
    }

    /// The same files for libpq.
    pub(super) fn variables(&self) -> Vec<(&'static str, OsString)> {
        let roots = self.roots.iter().map(|path| ("PGSSLROOTCERT", path));
        let identity = self.identity.iter().flat_map(|(certificate, key)| [("PGSSLCERT", certificate), ("PGSSLKEY", key)]);
        roots.chain(identity).map(|(name, path)| (name, path.as_os_str().to_owned())).collect()
    }

    /// TLS 1.2 and 1.3 with these files. With a file of authorities the server's certificate is checked in every mode, as libpq does it.
    pub(super) fn connector(&self, mode: SslMode) -> Result<MakeRustlsConnect> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = match &self.roots {
            None => verify::Trust::Anyone,
            Some(path) => authorities(path, mode == SslMode::VerifyFull)?,
        };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::failed("set up TLS").because(e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verify::Verifier::new(trust, provider)));
        let Some((certificate, key)) = &self.identity else { return Ok(MakeRustlsConnect::new(builder.with_no_client_auth())) };
        let chain = certificates(certificate)?;
        let bytes = read(key)?;
        let key_of = PrivateKeyDer::from_pem_slice(&bytes).or_else(|e| PrivateKeyDer::try_from(bytes.clone()).map_err(|_| e));
        let loaded = key_of.map_err(|_| {
            let encrypted = bytes.windows(9).any(|w| w == b"ENCRYPTED");
            let what = if encrypted { "is encrypted" } else { "is no private key that drctl can read" };
            Error::new(Kind::Preflight, format!("sslkey {} {what}", key.display()))
                .hint("drctl asks for no passphrase: openssl pkey -in KEY -out NEW writes it in clear; then chmod 600 NEW")
        })?;
        let config = builder.with_client_auth_cert(chain, loaded).map_err(|e| {
            let pair = format!("{} and its key {}", certificate.display(), key.display());
            Error::new(Kind::Preflight, format!("use the client certificate {pair}")).because(e).hint("do the two belong together?")
        })?;
        Ok(MakeRustlsConnect::new(config))
    }
}

fn present(path: PathBuf, setting: &str) -> Result<PathBuf> {
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() => Ok(path),
        Ok(_) => Err(Error::new(Kind::Preflight, format!("{setting} {} is no file", path.display()))),
        Err(e) => {
            Err(Error::new(Kind::Preflight, format!("{setting} {}", path.display())).because(e).hint("may this user read it, is it there?"))
        }
    }
}

/// libpq refuses a key that others may read, and one of root that more than a group may read; its programs would fail later.
fn private(key: &Path) -> Result<()> {
    let meta = std::fs::metadata(key).context(|| format!("look at sslkey {}", key.display()))?;
    let others = if meta.uid() == 0 { 0o037 } else { 0o077 };
    if meta.permissions().mode() & others == 0 {
        return Ok(());
    }
    Err(Error::new(Kind::Preflight, format!("sslkey {} can be read by others", key.display())).hint(format!("chmod 600 {}", key.display())))
}

/// The bundle of authorities of the operating system, or that of `SSL_CERT_FILE`.
fn system_roots(environment: &Environment) -> Result<PathBuf> {
    if let Some(path) = environment.get("SSL_CERT_FILE") {
        return present(environment.absolute(Path::new(path)), "SSL_CERT_FILE");
    }
    openssl_probe::probe().cert_file.ok_or_else(|| {
        Error::new(Kind::Preflight, "this system has no bundle of certificate authorities")
            .hint("install ca-certificates, or name a file in sslrootcert")
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let what = || format!("read {}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).context(what).map_err(|e| e.with_kind(Kind::Preflight))?;
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).context(what)?;
    match bytes.len() as u64 > FILE_LIMIT {
        true => Err(Error::new(Kind::Preflight, format!("{} has more than {FILE_LIMIT} bytes", path.display()))),
        false => Ok(bytes),
    }
}

/// The certificates of a PEM file. At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Error::new(Kind::Preflight, format!("{} holds no certificate that can be read", path.display()))
            .hint("it must be PEM: -----BEGIN CERTIFICATE-----")),
    }
}

fn authorities(path: &Path, name: bool) -> Result<verify::Trust> {
    let certificates = certificates(path)?;
    let mut roots = RootCertStore::empty();
    // A bundle may hold one or two that cannot be used; they then vouch for nobody.
    let (good, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if good == 0 {
        return Err(Error::new(Kind::Preflight, format!("{} holds no certificate that can vouch for a server", path.display())));
    }
    Ok(verify::Trust::Authorities { roots, certificates, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(mode: SslMode) -> PostgresSettings {
        PostgresSettings { sslmode: mode, ..PostgresSettings::default() }
    }

    fn write(path: &Path, mode: u32) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn settings_win_over_variables_over_the_home_folder() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["set", "var", ".postgresql/root.crt", ".postgresql/postgresql.crt"] {
            write(&at(name), 0o644);
        }
        for name in ["setkey", "varkey", ".postgresql/postgresql.key"] {
            write(&at(name), 0o600);
        }
        let bare = Environment::of(dir.path(), [("HOME", home)]);
        let vars = [("HOME", home), ("PGSSLROOTCERT", "var"), ("PGSSLCERT", "var"), ("PGSSLKEY", "varkey")];
        let variables = Environment::of(dir.path(), vars);
        let set = PostgresSettings {
            sslrootcert: Some(at("set")),
            sslcert: Some(at("set")),
            sslkey: Some(at("setkey")),
            ..settings(SslMode::Require)
        };
        let found = |settings: &PostgresSettings, environment: &Environment| {
            let files = TlsFiles::of(settings, environment).unwrap();
            let identity = files.identity.clone().unwrap();
            let name = |p: &Path| p.strip_prefix(dir.path()).unwrap().display().to_string();
            (name(files.roots.as_ref().unwrap()), name(&identity.0), name(&identity.1))
        };
        let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(found(&set, &variables), owned("set", "set", "setkey"));
        assert_eq!(found(&settings(SslMode::Prefer), &variables), owned("var", "var", "varkey"));
        let usual = owned(".postgresql/root.crt", ".postgresql/postgresql.crt", ".postgresql/postgresql.key");
        assert_eq!(found(&settings(SslMode::VerifyCa), &bare), usual);
        let variables = TlsFiles::of(&set, &variables).unwrap().variables();
        assert_eq!(variables.iter().map(|v| v.0).collect::<Vec<_>>(), ["PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"]);
        // Neither a socket nor a connection without TLS looks at any of them.
        for other in [settings(SslMode::Disable), PostgresSettings { host: "/run/pg".into(), ..settings(SslMode::VerifyFull) }] {
            let gone = PostgresSettings { sslrootcert: Some(at("gone")), ..other };
            assert_eq!(TlsFiles::of(&gone, &bare).unwrap(), TlsFiles::default());
        }
    }

    #[test]
    fn verify_full_falls_back_to_the_systems_authorities() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("bundle"), 0o644);
        let environment = Environment::of(dir.path(), [("SSL_CERT_FILE", "bundle")]);
        let bundle = Some(dir.path().join("bundle"));
        let roots = |settings: &PostgresSettings| TlsFiles::of(settings, &environment).unwrap().roots;
        assert_eq!(roots(&settings(SslMode::VerifyFull)), bundle);
        assert_eq!(roots(&PostgresSettings { sslrootcert: Some(SYSTEM.into()), ..settings(SslMode::VerifyFull) }), bundle);
        assert_eq!(roots(&settings(SslMode::Require)), None);
        let gone = Environment::of(dir.path(), [("SSL_CERT_FILE", "gone")]);
        assert!(TlsFiles::of(&settings(SslMode::VerifyFull), &gone).unwrap_err().to_string().contains("SSL_CERT_FILE"));
    }

    #[test]
    fn what_is_missing_or_open_is_an_error_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| Some(dir.path().join(name));
        for (name, mode) in [("crt", 0o644), ("open", 0o644), ("key", 0o600), ("group", 0o660)] {
            write(&dir.path().join(name), mode);
        }
        let nothing = Environment::of(dir.path(), [("HOME", "/nonexistent")]);
        let require = || settings(SslMode::Require);
        let cases = [
            (settings(SslMode::VerifyCa), "no certificate of an authority"),
            (PostgresSettings { sslrootcert: at("gone"), ..require() }, "sslrootcert"),
            (PostgresSettings { sslrootcert: Some(SYSTEM.into()), ..settings(SslMode::VerifyCa) }, "sslrootcert system"),
            (PostgresSettings { sslcert: at("gone"), ..require() }, "sslcert"),
            (PostgresSettings { sslcert: at("crt"), ..require() }, "no private key"),
            (PostgresSettings { sslcert: at("crt"), sslkey: at("gone"), ..require() }, "sslkey"),
            (PostgresSettings { sslcert: at("crt"), sslkey: at("open"), ..require() }, "can be read by others"),
            (PostgresSettings { sslcert: at("crt"), sslkey: at("group"), ..require() }, "can be read by others"),
        ];
        for (settings, part) in cases {
            let error = TlsFiles::of(&settings, &nothing).unwrap_err();
            assert_eq!(error.kind(), Kind::Preflight);
            assert!(error.to_string().contains(part) && error.hint_text().is_some(), "{error:?}");
        }
        assert_eq!(TlsFiles::of(&require(), &nothing).unwrap(), TlsFiles::default());
        // Files that hold no certificate and no key.
        let files = TlsFiles { roots: at("crt"), identity: None };
        assert!(files.connector(SslMode::VerifyCa).err().unwrap().to_string().contains("no certificate"));
    }
}
