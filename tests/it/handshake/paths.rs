//! Paths to a trust anchor: the rules for each certificate, and the limits of the search.

use gatepost::net::tls_io::Role;
use gatepost::policy::tls::{
    ChainFault, DaneFault, PeerCertificate, TlsaMatching, TlsaSelector, TlsaUsage,
};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use super::dane::{NAME, held, record, with_root};
use super::inbound::{client_config, meet, ours};
use crate::support::certificates::*;

use KeyUsagePurpose::{
    CrlSign, DataEncipherment, DigitalSignature, KeyAgreement, KeyCertSign, KeyEncipherment,
};

fn may_only(uses: &[KeyUsagePurpose]) -> impl Fn(&mut CertificateParams) + use<> {
    let uses = uses.to_vec();
    move |params| params.key_usages.clone_from(&uses)
}

fn invalid(words: &str) -> Result<(), ChainFault> {
    Err(ChainFault::Invalid(words.to_owned()))
}

const NOT_TO_ISSUE: &str =
    "an issuer of it (CN=Partner CA 2) may not issue certificates: its key usage lacks keyCertSign";

#[tokio::test]
async fn an_issuer_with_a_key_usage_needs_key_cert_sign() {
    let root = Authority::root("Partner CA");
    for (uses, verdict) in [
        (&[][..], Ok(())),
        (&[KeyCertSign], Ok(())),
        (&[DigitalSignature, KeyCertSign, CrlSign], Ok(())),
        (&[DigitalSignature], invalid(NOT_TO_ISSUE)),
        (
            &[DigitalSignature, KeyEncipherment, CrlSign],
            invalid(NOT_TO_ISSUE),
        ),
    ] {
        let pair = root
            .intermediate_as("Partner CA 2", may_only(uses))
            .issue(&[NAME]);
        assert_eq!(path_of(&root, &pair).await, verdict, "{uses:?}");
        // The rule applies at every level.
        let pair = root
            .intermediate_as("Partner CA 2", may_only(uses))
            .intermediate("Partner CA 3")
            .issue(&[NAME]);
        assert_eq!(
            path_of(&root, &pair).await,
            verdict,
            "{uses:?}, two steps up"
        );
    }
}

#[tokio::test]
async fn an_issuer_that_may_not_issue_does_not_prevent_another_path() {
    let root = Authority::root("Partner CA");
    let issuer = root.intermediate("Partner CA 2");
    let crippled = root.cross_sign(&issuer, may_only(&[DigitalSignature]));
    let good = issuer.issue(&[NAME]);
    let mut bad_first = good.chain.clone();
    bad_first.insert(1, crippled.clone());
    let mut bad_last = good.chain.clone();
    bad_last.push(crippled.clone());
    let bad_alone = vec![good.chain[0].clone(), crippled];
    for (chain, verdict) in [
        (bad_first, Ok(())),
        (bad_last, Ok(())),
        (bad_alone, invalid(NOT_TO_ISSUE)),
    ] {
        let pair = Pair {
            chain,
            key: good.key.clone(),
        };
        assert_eq!(path_of(&root, &pair).await, verdict);
    }
}

#[tokio::test]
async fn a_client_s_issuer_needs_key_cert_sign_as_well() {
    let ours = ours();
    let material = load(&ours.config);
    for (uses, verdict) in [
        (&[KeyCertSign][..], Ok(())),
        (&[DigitalSignature], invalid(NOT_TO_ISSUE)),
    ] {
        let pair = ours
            .authority
            .intermediate_as("Partner CA 2", may_only(uses))
            .issue(&[NAME]);
        let client = std::sync::Arc::new(client_config(&ours.authority, BOTH, Some(&pair)));
        let (theirs, seen) = meet(&material, true, &client, "relay.example.com").await;
        theirs.expect("a handshake");
        let against = connector("default", gatepost::config::TrustSource::Webpki, None);
        let against = material.client(&against).checks(None);
        let facts = seen
            .expect("a handshake")
            .facts(against, Role::Client, Timestamp::now())
            .await;
        let PeerCertificate::Certificate(shown) = facts.certificate else {
            panic!("a certificate was shown")
        };
        assert_eq!(shown.chain, verdict, "{uses:?}");
    }
}

#[tokio::test]
async fn under_dane_the_authority_and_its_issuers_need_key_cert_sign() {
    let (key, sha256) = (TlsaSelector::PublicKey, TlsaMatching::Sha256);
    for (uses, may_issue) in [
        (&[KeyCertSign][..], true),
        (&[DigitalSignature, CrlSign], false),
    ] {
        let crippled = Authority::root_as("Partner CA", may_only(uses));
        let pair = with_root(&crippled, crippled.issue(&[NAME]));
        for selector in crate::handshake::dane::SELECTORS {
            for matching in crate::handshake::dane::MATCHINGS {
                let anchor = record(
                    TlsaUsage::TrustAnchor,
                    selector,
                    matching,
                    &crippled.certificate,
                );
                let expected = if may_issue {
                    Ok(anchor.clone())
                } else {
                    let words = "the authority that is named cannot be trusted: its key usage lacks keyCertSign, so it \
                                 may not issue certificates";
                    Err(DaneFault::Path(ChainFault::Invalid(words.to_owned())))
                };
                assert_eq!(held(&pair, &[anchor]).await, expected, "{uses:?}");
            }
        }
        let root = Authority::root("Partner CA");
        let pair = with_root(
            &root,
            root.intermediate_as("Partner CA 2", may_only(uses))
                .issue(&[NAME]),
        );
        let anchor = record(TlsaUsage::TrustAnchor, key, sha256, &root.certificate);
        let fault = DaneFault::Path(ChainFault::Invalid(NOT_TO_ISSUE.to_owned()));
        let expected = if may_issue {
            Ok(anchor.clone())
        } else {
            Err(fault)
        };
        assert_eq!(held(&pair, &[anchor]).await, expected, "{uses:?}");
        // The peer's own certificate needs no issuer under DANE-EE.
        let leaf = record(TlsaUsage::EndEntity, key, sha256, &pair.chain[0]);
        assert_eq!(held(&pair, std::slice::from_ref(&leaf)).await, Ok(leaf));
    }
}

#[tokio::test]
async fn a_host_s_own_key_usage_must_allow_tls() {
    let root = Authority::root("Partner CA");
    let no_server =
        "its key usage does not allow TLS (digitalSignature, keyEncipherment or keyAgreement)";
    let no_client = "its key usage does not allow TLS clients (digitalSignature or keyAgreement)";
    let ours = ours();
    let material = load(&ours.config);
    for (uses, server, client) in [
        (&[][..], Ok(()), Ok(())),
        (&[DigitalSignature], Ok(()), Ok(())),
        (&[KeyAgreement], Ok(()), Ok(())),
        (&[KeyEncipherment], Ok(()), invalid(no_client)),
        (&[DataEncipherment], invalid(no_server), invalid(no_client)),
        (
            &[KeyCertSign, CrlSign],
            invalid(no_server),
            invalid(no_client),
        ),
    ] {
        assert_eq!(
            path_of(&root, &root.issue_as(&[NAME], may_only(uses))).await,
            server,
            "{uses:?}"
        );
        let pair = ours.authority.issue_as(&[NAME], may_only(uses));
        let showing = std::sync::Arc::new(client_config(&ours.authority, BOTH, Some(&pair)));
        let (theirs, seen) = meet(&material, true, &showing, "relay.example.com").await;
        theirs.expect("a handshake");
        let default = connector("default", gatepost::config::TrustSource::Webpki, None);
        let against = material.client(&default).checks(None);
        let facts = seen
            .expect("a handshake")
            .facts(against, Role::Client, Timestamp::now())
            .await;
        let PeerCertificate::Certificate(shown) = facts.certificate else {
            panic!("a certificate was shown")
        };
        assert_eq!(shown.chain, client, "{uses:?}, as a client");
    }
}

const NOT_FOR_SERVERS: &str =
    "the extended key usage of an issuer of it does not include TLS servers";

/// Like OpenSSL, rustls-webpki demands the purpose by name; "any" is not enough.
#[tokio::test]
async fn an_issuer_s_extended_key_usage_limits_its_certificates() {
    let root = Authority::root("Partner CA");
    for (purposes, verdict) in [
        (vec![], Ok(())),
        (vec![ExtendedKeyUsagePurpose::ServerAuth], Ok(())),
        (vec![ExtendedKeyUsagePurpose::Any], invalid(NOT_FOR_SERVERS)),
        (
            vec![ExtendedKeyUsagePurpose::CodeSigning],
            invalid(NOT_FOR_SERVERS),
        ),
    ] {
        let pair = root
            .intermediate_as("Partner CA 2", |params| {
                params.extended_key_usages.clone_from(&purposes);
            })
            .issue(&[NAME]);
        assert_eq!(path_of(&root, &pair).await, verdict, "{purposes:?}");
    }
}

#[tokio::test]
async fn at_most_eight_certificates_and_two_of_one_subject_are_used() {
    let root = Authority::root("Partner CA");
    let good = root.intermediate("Partner CA 2").issue(&[NAME]);
    let strangers = |count: usize| {
        (0..count).map(|number| Authority::root(&format!("Stranger {number}")).certificate)
    };
    let namesakes =
        |count: usize| (0..count).map(|_| root.intermediate("Partner CA 2").certificate);
    let unlooked = |left: usize| {
        Err(ChainFault::UnknownIssuer(format!(
            "CN=Partner CA 2; {left} more certificates were sent, but no more than 8 of a chain and two of one subject are used"
        )))
    };
    let chain = |between: Vec<_>| {
        let chain = [
            vec![good.chain[0].clone()],
            between,
            vec![good.chain[1].clone()],
        ]
        .concat();
        Pair {
            chain,
            key: good.key.clone(),
        }
    };
    assert_eq!(
        path_of(&root, &chain(strangers(6).collect())).await,
        Ok(()),
        "the eighth"
    );
    assert_eq!(
        path_of(&root, &chain(strangers(7).collect())).await,
        unlooked(1),
        "the ninth"
    );
    assert_eq!(
        path_of(&root, &chain(strangers(20).collect())).await,
        unlooked(14)
    );
    assert_eq!(
        path_of(&root, &chain(namesakes(1).collect())).await,
        Ok(()),
        "the second of its name"
    );
    let third = path_of(&root, &chain(namesakes(2).collect())).await;
    assert!(third.is_err(), "the third of its name: {third:?}");
    // A repeated certificate counts once.
    let repeated = std::iter::repeat_n(root.certificate.clone(), 30).collect();
    assert_eq!(path_of(&root, &chain(repeated)).await, Ok(()));
}

#[tokio::test]
async fn an_authority_s_certificate_is_not_accepted_from_a_host() {
    let root = Authority::root("Partner CA");
    let pair = root.issue_as(&[NAME], |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![DigitalSignature, KeyCertSign];
    });
    assert_eq!(
        path_of(&root, &pair).await,
        invalid("it is the certificate of an authority, not of a host")
    );
}
