//! A throwaway S3 server (versitygw) with one bucket.
//!
//! Include it with `#[path = "support/versitygw.rs"] mod versitygw;`.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[allow(clippy::duplicate_mod, reason = "helpers that need a port share no parent")]
#[path = "ports.rs"]
mod ports;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use drctl::config::s3::{S3Keys, S3Place, S3Provider};
use drctl::config::secret::{SecretRef, TextRef};
use drctl::model::Secret;
use ports::free_port;

/// The version that scripts/setup.sh builds.
const VERSION: &str = "1.8.0";
pub const BUCKET: &str = "backups";
pub const ROOT: &str = "root";
pub const ROOT_SECRET: &str = "rootsecret-canary-1";

pub struct Gateway {
    child: Child,
    folder: tempfile::TempDir,
    pub port: u16,
    admin_port: u16,
}

/// The program: `DRCTL_VERSITYGW`, the one that scripts/setup.sh built, or one on PATH.
pub fn program() -> Option<PathBuf> {
    let cache = std::env::var_os("DRCTL_TESTBENCH").map(PathBuf::from).unwrap_or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache")).join("drctl-testbench")
    });
    let told = std::env::var_os("DRCTL_VERSITYGW").map(PathBuf::from);
    let built = cache.join(format!("versitygw-{VERSION}/bin/versitygw"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("versitygw"));
    told.into_iter().chain([built]).chain(found).find(|p| p.is_file())
}

/// A server, or `None` said aloud where there is no program.
pub fn start() -> Option<Gateway> {
    let Some(program) = program() else {
        eprintln!("SKIPPED tests against S3: there is no versitygw; scripts/setup.sh builds it where Go is");
        return None;
    };
    Some(Gateway::start(&program, None))
}

/// A server that speaks TLS with this certificate and key (PEM).
pub fn start_tls(certificate: &str, key: &str) -> Option<Gateway> {
    let Some(program) = program() else {
        eprintln!("SKIPPED tests against S3: there is no versitygw; scripts/setup.sh builds it where Go is");
        return None;
    };
    Some(Gateway::start(&program, Some((certificate, key))))
}

impl Gateway {
    fn start(program: &Path, tls: Option<(&str, &str)>) -> Gateway {
        // Another program may have taken a port between our looking and the server's binding.
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            for below in ["data", "data/backups", "versions", "iam"] {
                std::fs::create_dir(folder.path().join(below)).unwrap();
            }
            let (port, admin_port) = (free_port(), free_port());
            let log = std::fs::File::create(folder.path().join("log")).unwrap();
            let mut command = Command::new(program);
            if let Some((certificate, key)) = tls {
                let (certificate_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
                std::fs::write(&certificate_file, certificate).unwrap();
                std::fs::write(&key_file, key).unwrap();
                command.arg("--cert").arg(certificate_file).arg("--key").arg(key_file);
            }
            let child = command
                .args(["--port", &format!("127.0.0.1:{port}"), "--admin-port", &format!("127.0.0.1:{admin_port}"), "--quiet"])
                .arg("--iam-dir")
                .arg(folder.path().join("iam"))
                .args(["posix", "--versioning-dir"])
                .arg(folder.path().join("versions"))
                .arg(folder.path().join("data"))
                .env("ROOT_ACCESS_KEY_ID", ROOT)
                .env("ROOT_SECRET_ACCESS_KEY", ROOT_SECRET)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            let mut gateway = Gateway { child, folder, port, admin_port };
            if gateway.comes_up() {
                return gateway;
            }
        }
        panic!("versitygw does not come up");
    }

    fn comes_up(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end && self.child.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() && TcpStream::connect(("127.0.0.1", self.admin_port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The folder in which the bucket's objects lie as files.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data").join(BUCKET)
    }

    /// The place for root; `endpoint` is this server's or that of a proxy before it.
    pub fn place(&self, prefix: &str) -> S3Place {
        place(&self.endpoint(), prefix, ROOT, ROOT_SECRET)
    }

    /// A place below another endpoint.
    pub fn place_at(&self, endpoint: &str, prefix: &str) -> S3Place {
        place(endpoint, prefix, ROOT, ROOT_SECRET)
    }

    /// Makes a user.
    pub fn user(&self, name: &str, secret: &str) {
        let made = Command::new(program().unwrap())
            .args(["admin", "--access", ROOT, "--secret", ROOT_SECRET, "--endpoint-url", &format!("http://127.0.0.1:{}", self.admin_port)])
            .args(["create-user", "--access", name, "--secret", secret, "--role", "user"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}{}", String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
    }

    /// A client of the SDK for root, for what a store cannot do.
    pub fn client(&self) -> aws_sdk_s3::Client {
        self.client_of(ROOT, ROOT_SECRET)
    }

    /// The same for another user.
    pub fn client_of(&self, user: &str, secret: &str) -> aws_sdk_s3::Client {
        use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(aws_smithy_http_client::tls::Provider::Rustls(aws_smithy_http_client::tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new("us-east-1"))
            .endpoint_url(self.endpoint())
            .force_path_style(true)
            .credentials_provider(Credentials::new(user, secret, None, None, "test"));
        aws_sdk_s3::Client::from_conf(config.build())
    }

    /// Gives the bucket its policy.
    pub async fn policy(&self, policy: &serde_json::Value) {
        let put = self.client().put_bucket_policy().bucket(BUCKET).policy(policy.to_string()).send().await;
        put.unwrap_or_else(|e| panic!("{e:?}\n{policy:#}"));
    }

    /// Multipart uploads that are open.
    pub async fn open_uploads(&self) -> usize {
        self.client().list_multipart_uploads().bucket(BUCKET).send().await.unwrap().uploads().len()
    }
}

pub fn place(endpoint: &str, prefix: &str, user: &str, secret: &str) -> S3Place {
    S3Place {
        endpoint: Some(endpoint.to_owned()),
        provider: Some(S3Provider::Versitygw),
        region: Some("us-east-1".into()),
        keys: Some(S3Keys {
            access_key: TextRef::Plain(user.into()),
            secret_key: SecretRef::Plain { value: Secret::new(secret), shown: None },
            session_token: None,
        }),
        ..S3Place::new(BUCKET, prefix)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
