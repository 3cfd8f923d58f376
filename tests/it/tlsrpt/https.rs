//! A report by HTTPS: our own resolver and TLS, a real name server, and a collector that notes
//! every octet.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gatepost::net::dns::Dns;
use gatepost::net::https::{Https, HttpsFault, Url};
use gatepost::net::tls_io::TlsMaterial;
use gatepost::relay::tlsrpt::{Internet, Network as _, NetworkError};
use rustls::ServerConfig;
use rustls::server::NoClientAuth;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::service::folder;
use crate::support::certificates::{Authority, provider};
use crate::support::config::ConfigBuilder;
use crate::support::dns::NameServer;

/// Serves one connection, and returns what came over it; nothing where the handshake failed.
async fn collector(
    listener: TcpListener,
    authority: &Authority,
    name: &str,
    answer: &'static str,
) -> Option<Vec<u8>> {
    let certificate = Arc::new(SingleCertAndKey::from(authority.issue(&[name]).certified()));
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = builder
        .expect("versions")
        .with_client_cert_verifier(Arc::new(NoClientAuth))
        .with_cert_resolver(certificate);
    let (stream, _) = listener.accept().await.expect("a client");
    let mut stream = TlsAcceptor::from(Arc::new(config))
        .accept(stream)
        .await
        .ok()?;
    let mut heard = Vec::new();
    while !heard.ends_with(b"THE END") {
        if stream.read_buf(&mut heard).await.ok()? == 0 {
            break;
        }
    }
    stream.write_all(answer.as_bytes()).await.expect("written");
    let _gone = stream.shutdown().await;
    Some(heard)
}

fn internet(folder: &Path, authority: &Authority, names: &NameServer) -> Internet {
    std::fs::write(folder.join("trust.pem"), authority.pem()).expect("the folder is ours");
    let dns = format!("servers = [\"{}\"]\ndnssec = \"off\"", names.address);
    let config = ConfigBuilder::new()
        .table("tls", "trust = \"trust.pem\"")
        .table("dns", &dns)
        .parse_in(folder);
    let dns = Dns::new(&config.dns).expect("a resolver");
    let (material, _) = TlsMaterial::load(&config).expect("good files");
    Internet::new(dns.clone(), Https::new(dns, material.https().clone()))
}

/// Posts to a collector that shows a certificate for `name` and gives this answer.
async fn posted(name: &str, answer: &'static str) -> (Result<(), NetworkError>, Option<Vec<u8>>) {
    let folder = folder();
    let authority = Authority::root("collectors");
    let names = NameServer::start(&[("collector.example", "collector.example A 127.0.0.1")]).await;
    let internet = internet(folder.path(), &authority, &names);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    let url = Url::parse(&format!("https://collector.example:{port}/v1?x")).expect("a URL");
    let sending = internet.post(&url, Bytes::from_static(b"a report, THE END"));
    tokio::join!(sending, collector(listener, &authority, name, answer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_the_report_in_the_form_of_the_standard() {
    let (result, heard) = posted(
        "collector.example",
        "HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(result, Ok(()));
    let heard = String::from_utf8(heard.expect("a session"))
        .expect("text")
        .to_ascii_lowercase();
    assert!(heard.starts_with("post /v1?x http/1.1\r\n"), "{heard}");
    assert!(
        heard.contains("\r\ncontent-type: application/tlsrpt+gzip\r\n"),
        "{heard}"
    );
    assert!(heard.ends_with("\r\n\r\na report, the end"), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let (result, _) = posted(
        "collector.example",
        "HTTP/1.1 302 Found\r\nLocation: https://other.example/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        matches!(&result, Err(NetworkError::Post(error)) if error.fault == HttpsFault::Redirect(302)),
        "{result:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_with_a_certificate_of_another_name_hears_nothing() {
    let (result, heard) = posted("other.example", "").await;
    assert!(result.is_err());
    assert_eq!(heard.unwrap_or_default(), b"", "not a word was said");
}
