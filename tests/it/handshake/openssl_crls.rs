//! CRLs that OpenSSL has made, from files. `tests/it/data/openssl_crls/make.sh` makes them anew.

use gatepost::net::revocation::{Crl, CrlError};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::revocation::status_under;
use crate::support::certificates::Pair;

const CURRENT: &str = "good, by CRLs that hold until 2089-01-01T00:00:00Z";
const NONE: &str = "unknown: no CRL covers the certificate; add the CRL of its authority to `crl`";
const REVOKED: &str =
    "revoked: the certificate was revoked on 2026-03-01T00:00:00Z; a new one is needed";

fn file(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/data/openssl_crls");
    std::fs::read(format!("{folder}/{name}")).expect(name)
}

fn text(name: &str) -> String {
    String::from_utf8(file(name)).expect("PEM")
}

fn pair() -> Pair {
    let leaf = CertificateDer::from_pem_slice(&file("leaf.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&file("leaf.key")).expect("a key");
    Pair {
        chain: vec![leaf],
        key: key.secret_der().to_vec(),
    }
}

/// The files of the connector; the status of the certificate.
#[tokio::test]
async fn crls_of_openssl_count() {
    for (files, expected) in [
        (&["none.crl"][..], CURRENT),
        (&["own_point.crl"], CURRENT),
        (&["revoked.crl"], REVOKED),
        (&["revoked.der"], REVOKED),
        (&["revoked_expired.crl"], REVOKED),
        (
            &["expired.crl"],
            "unknown: the CRL that covers the certificate expired on 2026-02-01T00:00:00Z; a newer one is needed",
        ),
        // The newest counts.
        (&["none.crl", "revoked.crl"], REVOKED),
        (&["revoked_expired.crl", "none.crl"], REVOKED),
        (&[], NONE),
    ] {
        let content: Vec<_> = files.iter().map(|name| file(name)).collect();
        let status = status_under(&text("ca.pem"), &pair(), &content).await;
        assert_eq!(status, expected, "{files:?}");
    }
}

#[test]
fn kinds_of_crls_that_are_not_supported_are_named() {
    for (name, error) in [
        ("delta.crl", CrlError::Delta),
        ("indirect.crl", CrlError::Indirect),
        ("reasons.crl", CrlError::SomeReasons),
        ("v1.crl", CrlError::Profile),
        ("ca.pem", CrlError::NotCrl),
    ] {
        assert_eq!(Crl::parse_all(&file(name)).err(), Some(error), "{name}");
    }
    for (name, entries) in [("none.crl", 0), ("revoked.crl", 201), ("revoked.der", 201)] {
        let crls = Crl::parse_all(&file(name)).expect(name);
        let found: Vec<_> = crls.iter().map(Crl::entries).collect();
        assert_eq!(found, [entries], "{name}");
    }
}
