//! A comparison with OpenSSL: `openssl s_client` gets the same chains and TLSA records.
//!
//! It needs OpenSSL 3, and `.ci/probe` runs it.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use gatepost::policy::tls::{Tlsa, TlsaMatching, TlsaSelector, TlsaUsage};
use rcgen::{KeyUsagePurpose, date_time_ymd};
use tokio::net::TcpListener;

use super::dane::{MATCHINGS, NAME, SELECTORS, another, held, record, with_root};
use crate::support::certificates::*;

use TlsaUsage::{EndEntity, TrustAnchor};

/// Returns true if OpenSSL accepts a chain by these records.
async fn takes(pair: &Pair, records: &[Tlsa]) -> (bool, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("loopback");
    let address = listener.local_addr().expect("bound");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server_config(pair, BOTH)));
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        // It may close the connection early.
        let _ = acceptor.accept(stream).await;
    });
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-brief",
        "-verify_return_error",
        "-no-CAfile",
        "-no-CApath",
        "-no-CAstore",
    ]);
    command.args(["-connect", &address.to_string(), "-dane_tlsa_domain", NAME]);
    // RFC 7672 §3.1.1: under DANE-EE SMTP checks no name.
    command.arg("-dane_ee_no_namechecks");
    for record in records {
        command.args(["-dane_tlsa_rrdata", &format!("{record:#}")]);
    }
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("no panic")
        .expect("openssl runs");
    server.abort();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (said.contains("Verification: OK"), said)
}

async fn agree(what: &str, pair: &Pair, records: &[Tlsa]) {
    let (ours, (theirs, said)) = (held(pair, records).await, takes(pair, records).await);
    let records: Vec<_> = records.iter().map(ToString::to_string).collect();
    assert_eq!(
        ours.is_ok(),
        theirs,
        "{what}, {records:?}: we say {ours:?}, and openssl\n{said}"
    );
}

/// Chains of every kind, with the certificates above each.
fn chains() -> Vec<(&'static str, Pair)> {
    let root = Authority::root("Partner CA");
    let deep = root.intermediate("Partner CA 2");
    let ended =
        |params: &mut rcgen::CertificateParams| params.not_after = date_time_ymd(2021, 2, 3);
    let for_data = |params: &mut rcgen::CertificateParams| {
        params.key_usages = vec![KeyUsagePurpose::DataEncipherment];
    };
    let crippled = Authority::root_as("Crippled CA", for_data);
    vec![
        (
            "over an issuer without keyCertSign",
            with_root(&root, root.intermediate_as("CA 3", for_data).issue(&[NAME])),
        ),
        (
            "under a root without keyCertSign",
            with_root(&crippled, crippled.issue(&[NAME])),
        ),
        (
            "with a key usage without TLS",
            with_root(&root, root.issue_as(&[NAME], for_data)),
        ),
        ("good", with_root(&root, root.issue(&[NAME]))),
        (
            "over an intermediate",
            with_root(&root, deep.issue(&[NAME])),
        ),
        ("without the root", deep.issue(&[NAME])),
        (
            "wildcard",
            with_root(&root, root.issue(&["*.partner.example"])),
        ),
        (
            "another name",
            with_root(&root, root.issue(&["other.example"])),
        ),
        ("expired", with_root(&root, root.issue_as(&[NAME], ended))),
        ("self-signed", self_signed(&[NAME], |_| {})),
        (
            "self-signed for another name",
            self_signed(&["other.example"], |_| {}),
        ),
        ("self-signed and expired", self_signed(&[NAME], ended)),
    ]
}

#[tokio::test]
#[ignore = "needs openssl; .ci/probe runs it"]
async fn openssl_agrees_on_every_record_for_every_certificate() {
    for (what, pair) in chains() {
        for certificate in &pair.chain {
            for usage in [EndEntity, TrustAnchor] {
                for selector in SELECTORS {
                    for matching in MATCHINGS {
                        let only = record(usage, selector, matching, certificate);
                        // For OpenSSL DANE-TA concerns only issuers above the leaf, and only a full
                        // bare key (2 1 0) matches a leaf that issued itself. RFC 6698 §2.1.1
                        // allows any certificate of the path as the anchor, and so the leaf.
                        if what == "self-signed" && usage == TrustAnchor {
                            assert_eq!(held(&pair, std::slice::from_ref(&only)).await, Ok(only));
                        } else {
                            agree(what, &pair, &[only]).await;
                        }
                    }
                }
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs openssl; .ci/probe runs it"]
async fn openssl_agrees_on_several_records_and_wrong_ones() {
    let (one, sha256) = (TlsaSelector::PublicKey, TlsaMatching::Sha256);
    for (what, pair) in chains() {
        let leaf = record(EndEntity, one, sha256, &pair.chain[0]);
        let top = record(TrustAnchor, one, sha256, pair.chain.last().expect("a leaf"));
        let (no_leaf, no_top) = (another(&leaf), another(&top));
        agree(what, &pair, std::slice::from_ref(&no_leaf)).await;
        agree(what, &pair, std::slice::from_ref(&no_top)).await;
        agree(what, &pair, &[no_leaf.clone(), no_top.clone()]).await;
        agree(what, &pair, &[no_leaf, no_top, leaf.clone()]).await;
        agree(what, &pair, &[top, leaf]).await;
    }
}
