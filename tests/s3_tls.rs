//! S3 over TLS: certificates of one's own, and the way through a proxy.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/versitygw.rs"]
mod versitygw;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use drctl::config::s3::S3Place;
use drctl::error::Kind;
use drctl::model::Sha256;
use drctl::observe::{Bus, Event, Observer};
use drctl::store::s3::{PART_BYTES, S3Store, Settings};
use drctl::store::{Body, Piece, Store, whole};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use versitygw::Gateway;

/// Counts what is tried again.
#[derive(Default)]
struct Retries(AtomicUsize);

impl Observer for Retries {
    fn observe(&self, event: &Event) {
        self.0.fetch_add(usize::from(matches!(event, Event::Retry { .. })), Ordering::SeqCst);
    }
}

/// An authority's certificate, and a server with one that it signed for 127.0.0.1.
fn authority() -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}

fn server() -> Option<(Gateway, String)> {
    let (pem, issuer) = authority();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    Some((versitygw::start_tls(&certificate, &key.serialize_pem())?, pem))
}

fn place(gateway: &Gateway, ca_file: Option<&std::path::Path>) -> S3Place {
    let endpoint = format!("https://127.0.0.1:{}", gateway.port);
    S3Place { ca_file: ca_file.map(Into::into), ..versitygw::place(&endpoint, "drctl", versitygw::ROOT, versitygw::ROOT_SECRET) }
}

#[tokio::test(flavor = "multi_thread")]
async fn f37_a_certificate_of_ones_own_is_trusted_by_its_file_and_refused_without() {
    let Some((gateway, pem)) = server() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (good, other, empty) = (folder.path().join("ca.pem"), folder.path().join("other.pem"), folder.path().join("empty.pem"));
    std::fs::write(&good, pem).unwrap();
    std::fs::write(&other, authority().0).unwrap();
    std::fs::write(&empty, "nothing").unwrap();

    let store = S3Store::open(&place(&gateway, Some(&good)), Settings::default()).await.unwrap();
    let bytes = Bytes::from(vec![7u8; PART_BYTES + 1]);
    let (sender, body) = Body::channel(4);
    let feed = async {
        sender.send(Piece::Data(bytes.clone())).await.unwrap();
        sender.send(Piece::End { bytes: bytes.len() as u64, sha256: Sha256::of(&bytes), crc64_nvme: None }).await.unwrap();
    };
    let (stored, ()) = tokio::join!(store.put("large", body), feed);
    stored.unwrap();
    whole::create(&store, "small", Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(whole::read(&store, "small").await.unwrap(), "abc");
    assert_eq!(whole::read(&store, "large").await.unwrap(), bytes);

    for ca_file in [None, Some(other.as_path())] {
        let told = Arc::new(Retries::default());
        let bus = Bus::new();
        bus.subscribe(told.clone());
        let store = S3Store::open(&place(&gateway, ca_file), Settings { bus, ..Settings::default() }).await.unwrap();
        let error = store.head("small").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        assert!(error.to_string().contains("certificate") && error.hint_text().unwrap().contains("ca_file"), "{error:?}");
        assert_eq!(told.0.load(Ordering::SeqCst), 0, "it is not tried again");
    }
    let Err(error) = S3Store::open(&place(&gateway, Some(&empty)), Settings::default()).await else {
        panic!("opened without a certificate")
    };
    assert!(error.kind() == Kind::Config && error.to_string().contains("no certificate"), "{error}");
}

/// A proxy for CONNECT; tells how many tunnels were asked for.
fn tunnel() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let tunnels = Arc::new(AtomicUsize::new(0));
    let count = tunnels.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut reader = BufReader::new(client.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
            let Some(target) = head.strip_prefix("CONNECT ").and_then(|h| h.split(' ').next()) else { continue };
            count.fetch_add(1, Ordering::Relaxed);
            let Ok(server) = TcpStream::connect(target) else { continue };
            if (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").is_err() {
                continue;
            }
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client);
            std::thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
            let mut to_server = server;
            std::thread::spawn(move || std::io::copy(&mut reader, &mut to_server));
        }
    });
    (port, tunnels)
}

#[test]
fn the_proxy_of_the_environment_is_used() {
    let Some((gateway, pem)) = server() else { return };
    let (port, tunnels) = tunnel();
    let mut home = cli::Home::new();
    home.write("ca.pem", &pem);
    home.env("AWS_ACCESS_KEY_ID", versitygw::ROOT);
    home.env("AWS_SECRET_ACCESS_KEY", versitygw::ROOT_SECRET);
    home.env("HTTPS_PROXY", &format!("http://127.0.0.1:{port}"));
    let ca = home.path("ca.pem").display().to_string().replace('/', "%2F");
    let url =
        format!("s3://backups/drctl?endpoint=https%3A%2F%2F127.0.0.1%3A{}&region=us-east-1&provider=versitygw&ca_file={ca}", gateway.port);
    home.write("passphrase", "correct horse battery staple");
    home.ok(&["init", "--job", "shop", "--store", &url, "--passphrase-file", "passphrase"]);
    assert!(tunnels.load(Ordering::Relaxed) > 0);
    // Another one, which nobody has asked yet.
    let (port, tunnels) = tunnel();
    home.env("HTTPS_PROXY", &format!("http://127.0.0.1:{port}"));
    home.env("NO_PROXY", "127.0.0.1");
    home.ok(&["list"]);
    assert_eq!(tunnels.load(Ordering::Relaxed), 0);
}
