//! The reasons for rejected chains: each names what is wrong, without terms of the library.

use std::path::{Path, PathBuf};

use gatepost::policy::tls::ChainFault;
use rcgen::{CertificateParams, CustomExtension, GeneralSubtree, NameConstraints};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::dane::NAME;
use crate::support::certificates::*;

/// A file made by `odd/make`.
pub(crate) fn odd(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/handshake/odd")
        .join(name)
}

/// A chain from `odd/` without its root, and the root.
pub(crate) fn odd_chain(name: &str) -> (Pair, Authority) {
    let file = odd(&format!("{name}.pem"));
    let chain = CertificateDer::pem_file_iter(file)
        .expect("it is there")
        .collect::<Result<Vec<_>, _>>();
    let mut chain = chain.expect("certificates");
    let mut root = Authority::root("replaced");
    root.certificate = chain.pop().expect("a root");
    let key = PrivateKeyDer::from_pem_file(odd("host.key")).expect("a key");
    (
        Pair {
            chain,
            key: key.secret_der().to_vec(),
        },
        root,
    )
}

fn invalid(words: &str) -> Result<(), ChainFault> {
    Err(ChainFault::Invalid(words.to_owned()))
}

#[tokio::test]
async fn a_signature_that_is_not_accepted_is_named() {
    for (name, words) in [
        (
            "pss-salt",
            "it, or an issuer of it, is signed with RSA-PSS with SHA-256 and a salt of 20 octets, which is not accepted; \
             of RSA-PSS only SHA-256, SHA-384 and SHA-512 with a salt as long as the hash are",
        ),
        (
            "sha-1",
            "it, or an issuer of it, is signed with RSA and SHA-1, which is not accepted",
        ),
        (
            "weak-intermediate",
            "the key of an issuer of it (CN=weak-ca) is RSA of 1024 bits, and only 2048 to 8192 are accepted",
        ),
        (
            "odd-curve",
            "the key of an issuer of it is ECDSA on secp256k1, which is not accepted",
        ),
    ] {
        let (pair, root) = odd_chain(name);
        assert_eq!(path_of(&root, &pair).await, invalid(words), "{name}");
    }
}

#[tokio::test]
async fn an_authority_that_cannot_be_trusted_is_reported_with_the_reason() {
    let (pair, weak) = odd_chain("weak-root");
    // As the only anchor it would be rejected with the configuration.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trust.pem");
    std::fs::write(&file, Authority::root("Partner CA").pem() + &weak.pem())
        .expect("the folder is ours");
    let words = "its authority (CN=weak-root) cannot be trusted: its key is RSA of 1024 bits, and only 2048 to 8192 are \
                 accepted";
    assert_eq!(path_under(&file, &pair).await, invalid(words));
}

#[tokio::test]
async fn a_chain_that_is_too_long_gives_a_readable_reason() {
    let root = Authority::root("Partner CA");
    let mut issuer = root.intermediate("Partner CA 1");
    for number in 2..=7 {
        issuer = issuer.intermediate(&format!("Partner CA {number}"));
    }
    let words = "there are more than 6 authorities between it and its root";
    assert_eq!(path_of(&root, &issuer.issue(&[NAME])).await, invalid(words));
}

#[tokio::test]
async fn unsupported_parts_of_a_certificate_are_named() {
    let root = Authority::root("Partner CA");
    let critical = |oid: &'static [u64]| {
        move |params: &mut CertificateParams| {
            let mut extension = CustomExtension::from_oid_content(oid, vec![0x30, 0]);
            extension.set_criticality(true);
            params.custom_extensions.push(extension);
        }
    };
    for (oid, name) in [
        (&[2, 5, 29, 32][..], "certificatePolicies"),
        (&[2, 5, 29, 36], "policyConstraints"),
        (&[2, 5, 29, 54], "inhibitAnyPolicy"),
    ] {
        let words = format!(
            "an issuer of it (CN=Partner CA 2) has a critical extension that is not supported ({name})"
        );
        let pair = root
            .intermediate_as("Partner CA 2", critical(oid))
            .issue(&[NAME]);
        assert_eq!(path_of(&root, &pair).await, invalid(&words));
        let words = format!("it has a critical extension that is not supported ({name})");
        assert_eq!(
            path_of(&root, &root.issue_as(&[NAME], critical(oid))).await,
            invalid(&words)
        );
    }
    let constrained = |subtree: GeneralSubtree| {
        move |params: &mut CertificateParams| {
            let (permitted_subtrees, excluded_subtrees) = (vec![subtree], Vec::new());
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees,
                excluded_subtrees,
            });
        }
    };
    let words = "its names are not among those that its authority may vouch for (nameConstraints; constraints on \
                 directory names are not supported and never met)";
    for (subtree, verdict) in [
        (
            GeneralSubtree::DnsName("partner.example".to_owned()),
            Ok(()),
        ),
        (
            GeneralSubtree::DnsName("bank.example".to_owned()),
            invalid(words),
        ),
        // The constraint allows the host's directory name, but such constraints are not supported.
        (
            GeneralSubtree::DirectoryName(common_name("a host")),
            invalid(words),
        ),
    ] {
        let pair = root
            .intermediate_as("Partner CA 2", constrained(subtree))
            .issue(&[NAME]);
        assert_eq!(path_of(&root, &pair).await, verdict);
    }
}
