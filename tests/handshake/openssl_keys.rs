//! OpenSSL's server and client with keys that the TLS library cannot check, against us.
//!
//! It needs OpenSSL 3, and `.ci/probe` runs it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gatepost::handshake::{Material, Role};
use gatepost::tls::{Acquaintance, Presented, TlsVersion};
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, alg_id};
use tokio::net::{TcpListener, TcpStream};

use crate::inbound::ours;
use crate::world::*;

/// What `openssl req -newkey` is asked for, and what becomes of such a key: the words for one that cannot be checked.
const KEYS: [(&str, &[&str], Option<&str>); 9] = [
    ("rsa:1024", &[], Some("RSA key of 1024 bits")),
    ("rsa:2048", &["without NULL"], Some("RSA, encoded without the NULL of RFC 3279")),
    ("ec", &["ec_paramgen_curve:secp256k1"], Some("ECDSA on secp256k1")),
    ("ec", &["ec_paramgen_curve:brainpoolP256r1"], Some("ECDSA on brainpoolP256r1")),
    ("ec", &["ec_paramgen_curve:P-224"], Some("ECDSA on P-224")),
    ("rsa:2048", &[], None),
    ("ec", &["ec_paramgen_curve:P-256"], None),
    ("ec", &["ec_paramgen_curve:P-384"], None),
    ("ed25519", &[], None),
];

/// A self-signed certificate and its key, made by OpenSSL, as files in `folder`.
fn make(folder: &Path, (newkey, options, _): (&str, &[&str], Option<&str>)) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("peer.pem"), folder.join("peer.key"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-subj", "/CN=mail.partner.example", "-newkey", newkey]);
    for option in options.iter().filter(|option| option.contains(':')) {
        command.args(["-pkeyopt", option]);
    }
    let made = command.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output().expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    if options.contains(&"without NULL") {
        let der = CertificateDer::from_pem_file(&certificate).expect("a certificate");
        std::fs::write(&certificate, pem("CERTIFICATE", &without_null(&der))).expect("the folder is ours");
    }
    (certificate, key)
}

/// The certificate with an RSA key whose algorithm identifier has no parameters. Its own signature breaks, which
/// nobody looks at.
fn without_null(der: &[u8]) -> Vec<u8> {
    let identifier = alg_id::RSA_ENCRYPTION;
    let at = der.windows(identifier.len()).position(|part| part == identifier.as_ref()).expect("an RSA key");
    let mut der = der.to_vec();
    der.drain(at + identifier.len() - 2..at + identifier.len());
    der[at - 1] -= 2;
    // The certificate, what is signed of it, and the key, each with a length of two octets.
    for length in [2, 6, at - 4] {
        let shorter = u16::from_be_bytes([der[length], der[length + 1]]) - 2;
        der[length..length + 2].copy_from_slice(&shorter.to_be_bytes());
    }
    der
}

/// `openssl`, which ends with the test.
struct Openssl(Child);

impl Drop for Openssl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V1_2 => "-tls1_2",
        TlsVersion::V1_3 => "-tls1_3",
    }
}

/// OpenSSL's server with this certificate, and its address.
async fn server((certificate, key): &(PathBuf, PathBuf), oldest: TlsVersion) -> (Openssl, SocketAddr) {
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0", "-cipher", "DEFAULT@SECLEVEL=0", version(oldest)]);
    command.arg("-cert").arg(certificate).arg("-key").arg(key);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl runs");
    let out = child.stdout.take().expect("piped");
    let child = Openssl(child);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        let _ = sender.send(lines.find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned)));
        // Whatever it says further, its pipe stays open; it ends with the child.
        lines.for_each(drop);
    });
    let address = tokio::time::timeout(PATIENCE, receiver).await.expect("in time").expect("a thread");
    (child, address.expect("it listens").parse().expect("an address"))
}

fn told(presented: &Presented) -> Option<String> {
    match presented {
        Presented::Nothing => panic!("a certificate was shown"),
        Presented::Certificate(_) => None,
        Presented::Unproved(key) => Some(key.to_string()),
    }
}

#[tokio::test]
#[ignore = "needs openssl; .ci/probe runs it"]
async fn every_server_of_openssl_is_heard_where_nobody_asks_who_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let (material, connector) = material_trusting(&Authority::root("Partner CA"), folder.path());
    // OpenSSL's server has no use for a key on a curve that a client does not offer.
    for key in KEYS.into_iter().filter(|key| !key.2.is_some_and(|words| words.starts_with("ECDSA on "))) {
        let files = make(folder.path(), key);
        for oldest in [TlsVersion::V1_2, TlsVersion::V1_3] {
            let (_server, address) = server(&files, oldest).await;
            let presented = handshake(&material, &connector, address).await;
            assert_eq!(presented.as_ref().map(told), Ok(key.2.map(str::to_owned)), "{key:?}, {oldest:?}");
        }
    }
}

async fn handshake(
    material: &Material,
    connector: &gatepost::config::Connector,
    address: SocketAddr,
) -> Result<Presented, String> {
    let stream = TcpStream::connect(address).await.expect("loopback");
    let name = host("mail.partner.example");
    let client = material.client(connector);
    let shaking = client.connect(stream, &name, USUAL, Acquaintance::Renewed);
    let shaken = tokio::time::timeout(PATIENCE, shaking).await.expect("in time");
    let (_stream, seen) = shaken.map_err(|error| error.to_string())?;
    Ok(seen.facts(client.against(None), Role::Server, Timestamp::now()).await.certificate)
}

#[tokio::test]
#[ignore = "needs openssl; .ci/probe runs it"]
async fn every_client_of_openssl_can_use_tls() {
    let ours = ours();
    let material = load(&ours.config);
    let folder = tempfile::tempdir().expect("a folder");
    for key in KEYS {
        let (certificate, private) = make(folder.path(), key);
        for newest in [TlsVersion::V1_2, TlsVersion::V1_3] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
            let address = listener.local_addr().expect("bound").to_string();
            let mut command = Command::new("openssl");
            command.args(["s_client", "-quiet", "-cipher", "DEFAULT@SECLEVEL=0", version(newest)]);
            command.args(["-connect", &address]).arg("-cert").arg(&certificate).arg("-key").arg(&private);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let _client = Openssl(command.spawn().expect("openssl runs"));
            let (stream, _) =
                tokio::time::timeout(PATIENCE, listener.accept()).await.expect("in time").expect("a client");
            let shaken = tokio::time::timeout(PATIENCE, material.accept(stream, true)).await.expect("in time");
            let seen = shaken.unwrap_or_else(|error| panic!("{key:?}, {newest:?}: {error}")).1;
            let default = connector("default", gatepost::config::Trust::Webpki, None);
            let facts = seen.facts(material.client(&default).against(None), Role::Client, Timestamp::now()).await;
            match (facts.certificate, key.2) {
                // Without a signature for its curve in TLS 1.3 it shows none.
                (Presented::Nothing, Some(words)) => {
                    assert!(newest == TlsVersion::V1_3 && words.starts_with("ECDSA on "), "{key:?}, {newest:?}");
                }
                (presented, words) => assert_eq!(told(&presented).as_deref(), words, "{key:?}, {newest:?}"),
            }
        }
    }
}
