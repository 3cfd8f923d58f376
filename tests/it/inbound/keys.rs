//! Clients whose certificates have keys that the TLS library cannot check, on the way in.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite};

use super::relay::{Client, Relay, Wanted, content, secured_at};
use crate::support::certificates::{key_pin, provider};
use crate::support::uncheckable::{RSA_1024, certificate, certified};

/// A session under TLS by a client with an RSA key of 1024 bits.
async fn secured(relay: &Relay) -> Client<impl AsyncRead + AsyncWrite + Unpin + use<>> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/certs/ca.pem");
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(file).expect("a certificate"))
        .expect("an authority");
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified(RSA_1024))));
    secured_at(relay.address, config).await
}

fn connector(name: &str, lines: &str, inbound: &str) -> String {
    format!(
        "[[connector]]\nname = \"{name}\"\ndomains = [\"{name}.example\"]\n{lines}\n[connector.inbound]\n{inbound}\n"
    )
}

#[tokio::test]
async fn where_no_certificate_is_demanded_the_message_is_accepted_under_tls() {
    let more = connector("encrypted", "", "tls = \"forced\"\nverify = \"none\"");
    let mut relay = Relay::start(Wanted {
        more: &more,
        ..Wanted::default()
    })
    .await;
    for sender in ["a@example.org", "a@encrypted.example"] {
        let mut client = secured(&relay).await;
        client.begins(sender, "b@example.com").await;
        client.says("a\n.").await;
        client.hears("250 2.0.0").await;
        let (received, _) = content(&relay.entry().await).await;
        assert!(received.contains(" with ESMTPS (TLSv1.3 TLS"), "{received}");
        assert!(
            received.contains("client certificate: key not proved)"),
            "{received}"
        );
    }
    relay.ends().await;
}

#[tokio::test]
async fn where_a_certificate_is_demanded_the_refusal_names_the_key() {
    let pins = format!("pins = [\"{}\"]", key_pin(&certificate(RSA_1024)));
    let more = [
        connector("chain", "", "tls = \"forced\"\nverify = \"chain\""),
        connector(
            "name",
            "names = [\"mail.partner.example\"]",
            "tls = \"forced\"\nverify = \"name\"\nrelay = true",
        ),
        connector("pin", &pins, "tls = \"forced\"\nverify = \"pin\""),
    ];
    let relay = Relay::start(Wanted {
        more: &more.concat(),
        ..Wanted::default()
    })
    .await;
    let mut client = secured(&relay).await;
    client.says("EHLO client.example").await;
    client.hears("250").await;
    for name in ["chain", "name", "pin"] {
        client.says(&format!("MAIL FROM:<a@{name}.example>")).await;
        let reply = client.reply().await;
        assert!(
            reply.starts_with(&format!("550 5.7.1 Mail from {name}.example: TLS with ")),
            "{reply}"
        );
        let words = "but the certificate proves nothing: its key cannot be checked (RSA key of 1024 bits); use a \
                     certificate with an RSA key of 2048 bits or more, P-256, P-384 or Ed25519";
        assert!(reply.ends_with(words), "{reply}");
    }
    client.says("RCPT TO:<b@elsewhere.example>").await;
    client.hears("503").await;
    relay.ends().await;
}
