//! OpenSSL's server and client with keys that the TLS library cannot check.
//!
//! It needs OpenSSL 3, and `.ci/probe` runs it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gatepost::net::tls_io::{HandshakeError, Role, TlsMaterial};
use gatepost::policy::tls::{
    Handshake, Hello, Hellos, PeerCertificate, SniUse, Strength, TlsPolicy,
};
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, alg_id};
use tokio::net::{TcpListener, TcpStream};

use super::inbound::ours;
use crate::support::certificates::*;

/// The argument of `openssl req -newkey`, and our name for such a key if it cannot be checked.
const KEYS: [(&str, &[&str], Option<&str>); 14] = [
    ("rsa:1024", &[], Some("RSA key of 1024 bits")),
    (
        "rsa:2048",
        &["without NULL"],
        Some("RSA, encoded without the NULL of RFC 3279"),
    ),
    (
        "ec",
        &["ec_paramgen_curve:secp256k1"],
        Some("ECDSA on secp256k1"),
    ),
    (
        "ec",
        &["ec_paramgen_curve:brainpoolP256r1"],
        Some("ECDSA on brainpoolP256r1"),
    ),
    (
        "ec",
        &["ec_paramgen_curve:brainpoolP384r1"],
        Some("ECDSA on brainpoolP384r1"),
    ),
    (
        "ec",
        &["ec_paramgen_curve:brainpoolP512r1"],
        Some("ECDSA on brainpoolP512r1"),
    ),
    ("ec", &["ec_paramgen_curve:P-224"], Some("ECDSA on P-224")),
    ("rsa-pss", &[], Some("RSA for RSA-PSS alone")),
    ("ed448", &[], Some("Ed448")),
    ("rsa:2048", &[], None),
    ("ec", &["ec_paramgen_curve:P-256"], None),
    ("ec", &["ec_paramgen_curve:P-384"], None),
    ("ec", &["ec_paramgen_curve:P-521"], None),
    ("ed25519", &[], None),
];

/// A self-signed certificate and its key, made by OpenSSL, as files in `folder`.
fn make(folder: &Path, (newkey, options, _): (&str, &[&str], Option<&str>)) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("peer.pem"), folder.join("peer.key"));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-nodes",
        "-subj",
        "/CN=mail.partner.example",
        "-newkey",
        newkey,
    ]);
    for option in options.iter().filter(|option| option.contains(':')) {
        command.args(["-pkeyopt", option]);
    }
    let made = command
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl runs");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    if options.contains(&"without NULL") {
        let der = CertificateDer::from_pem_file(&certificate).expect("a certificate");
        std::fs::write(&certificate, pem("CERTIFICATE", &without_null(&der)))
            .expect("the folder is ours");
    }
    (certificate, key)
}

/// The certificate with an RSA key whose algorithm identifier has no parameters. Its own signature
/// becomes invalid, but is not checked.
fn without_null(der: &[u8]) -> Vec<u8> {
    let identifier = alg_id::RSA_ENCRYPTION;
    let at = der
        .windows(identifier.len())
        .position(|part| part == identifier.as_ref())
        .expect("an RSA key");
    let mut der = der.to_vec();
    der.drain(at + identifier.len() - 2..at + identifier.len());
    der[at - 1] -= 2;
    // The certificate, its signed part and the key; each has a length of two octets.
    for length in [2, 6, at - 4] {
        let shorter = u16::from_be_bytes([der[length], der[length + 1]]) - 2;
        der[length..length + 2].copy_from_slice(&shorter.to_be_bytes());
    }
    der
}

/// An `openssl` process, which ends with the test.
struct Openssl(Child);

impl Drop for Openssl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The TLS versions of OpenSSL, with their options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Only12,
    Only13,
    Both,
}
use Spoken::{Both, Only12, Only13};

impl Spoken {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Only12 => &["-tls1_2"],
            Self::Only13 => &["-tls1_3"],
            Self::Both => &[],
        }
    }
}

/// Starts OpenSSL's server with this certificate, and returns its address.
async fn server(
    (certificate, key): &(PathBuf, PathBuf),
    versions: Spoken,
) -> (Openssl, SocketAddr) {
    let mut command = Command::new("openssl");
    command.args([
        "s_server",
        "-accept",
        "127.0.0.1:0",
        "-cipher",
        "DEFAULT@SECLEVEL=0",
    ]);
    command
        .args(versions.options())
        .arg("-cert")
        .arg(certificate)
        .arg("-key")
        .arg(key);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl runs");
    let out = child.stdout.take().expect("piped");
    let child = Openssl(child);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        let _ = sender.send(lines.find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned)));
        // Its pipe stays open for further output until the process ends.
        lines.for_each(drop);
    });
    let address = tokio::time::timeout(PATIENCE, receiver)
        .await
        .expect("in time")
        .expect("a thread");
    (
        child,
        address.expect("it listens").parse().expect("an address"),
    )
}

fn told(presented: &PeerCertificate) -> Option<String> {
    match presented {
        PeerCertificate::Nothing => panic!("a certificate was shown"),
        PeerCertificate::Certificate(_) => None,
        PeerCertificate::Unproved(key) => Some(key.to_string()),
    }
}

/// The servers that have no TLS in common with us: OpenSSL has no signature for such a key in this
/// version, or one that the TLS library does not support under TLS 1.2.
fn speaks_with_nobody(words: Option<&str>, versions: Spoken, error: &HandshakeError) -> bool {
    let error = error.to_string();
    match (words, versions) {
        (Some(words), Only13) => {
            words.starts_with("ECDSA on ") && error.starts_with("no TLS version in common")
        }
        (Some("Ed448" | "RSA for RSA-PSS alone"), Only12) => {
            error.starts_with("the peer breaks the TLS protocol")
        }
        (_, Only12 | Only13 | Both) => false,
    }
}

#[tokio::test]
#[ignore = "needs openssl; .ci/probe runs it"]
async fn tls_works_with_every_openssl_server_if_no_identity_is_demanded() {
    let folder = tempfile::tempdir().expect("a folder");
    let (material, connector) = material_trusting(&Authority::root("Partner CA"), folder.path());
    for key in KEYS {
        let files = make(folder.path(), key);
        for versions in [Only12, Only13, Both] {
            let (_server, address) = server(&files, versions).await;
            match handshake(&material, &connector, address).await {
                Ok(presented) => {
                    assert_eq!(told(&presented).as_deref(), key.2, "{key:?}, {versions:?}");
                }
                Err(error) => assert!(
                    speaks_with_nobody(key.2, versions, &error),
                    "{key:?}, {versions:?}: {error}"
                ),
            }
        }
    }
}

/// Connects like a delivery without a demand for a certificate: with the first ClientHello, and
/// with the second if the handshake is cut short.
async fn handshake(
    material: &TlsMaterial,
    connector: &gatepost::config::Connector,
    address: SocketAddr,
) -> Result<PeerCertificate, HandshakeError> {
    let hellos = Hellos::new(
        &TlsPolicy::Opportunistic,
        Strength::PostQuantum,
        SniUse::Optional,
        None,
    );
    assert_eq!(hellos.first(), USUAL);
    match handshake_with(material, connector, address, hellos.first()).await {
        Err(HandshakeError::CutShort(_)) => {
            handshake_with(
                material,
                connector,
                address,
                hellos.second().expect("another"),
            )
            .await
        }
        done => done,
    }
}

async fn handshake_with(
    material: &TlsMaterial,
    connector: &gatepost::config::Connector,
    address: SocketAddr,
    hello: Hello,
) -> Result<PeerCertificate, HandshakeError> {
    let stream = TcpStream::connect(address).await.expect("loopback");
    let name = host("mail.partner.example");
    let client = material.client(connector);
    let shaking = client.connect(stream, &name, hello, Handshake::Resumed);
    let (_stream, seen) = tokio::time::timeout(PATIENCE, shaking)
        .await
        .expect("in time")?;
    let facts = seen
        .facts(client.checks(None), Role::Server, Timestamp::now())
        .await;
    assert_eq!(facts.handshake, Handshake::Full);
    Ok(facts.certificate)
}

#[tokio::test]
#[ignore = "needs openssl; .ci/probe runs it"]
async fn tls_works_with_every_openssl_client() {
    let ours = ours();
    let material = load(&ours.config);
    let folder = tempfile::tempdir().expect("a folder");
    for key in KEYS {
        let (certificate, private) = make(folder.path(), key);
        for versions in [Only12, Only13] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
            let address = listener.local_addr().expect("bound").to_string();
            let mut command = Command::new("openssl");
            command.args(["s_client", "-quiet", "-cipher", "DEFAULT@SECLEVEL=0"]);
            command
                .args(versions.options())
                .args(["-connect", &address])
                .arg("-cert")
                .arg(&certificate)
                .arg("-key")
                .arg(&private);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let _client = Openssl(command.spawn().expect("openssl runs"));
            let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept())
                .await
                .expect("in time")
                .expect("a client");
            let shaken = tokio::time::timeout(PATIENCE, material.accept(stream, true))
                .await
                .expect("in time");
            let seen = shaken
                .unwrap_or_else(|error| panic!("{key:?}, {versions:?}: {error}"))
                .1;
            let default = connector("default", gatepost::config::TrustSource::Webpki, None);
            let facts = seen
                .facts(
                    material.client(&default).checks(None),
                    Role::Client,
                    Timestamp::now(),
                )
                .await;
            match (facts.certificate, key.2) {
                // A client without a signature scheme for its key presents none; a curve has a
                // scheme under TLS 1.3 only.
                (PeerCertificate::Nothing, Some(words)) => {
                    let of_curve = versions == Only13 && words.starts_with("ECDSA on ");
                    assert!(
                        of_curve || ["Ed448", "RSA for RSA-PSS alone"].contains(&words),
                        "{key:?}, {versions:?}"
                    );
                }
                (presented, words) => {
                    assert_eq!(told(&presented).as_deref(), words, "{key:?}, {versions:?}");
                }
            }
        }
    }
}
