//! Certificates and TLSA records, in real handshakes.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use gatepost::config::TrustSource;
use gatepost::net::tls_io::Role;
use gatepost::policy::tls::{
    ChainFault, DaneFacts, DaneFault, DaneScope, NamePattern, PeerCertificate, Pin, Tlsa,
    TlsaMatching, TlsaSelector, TlsaSet, TlsaUsage,
};
use gatepost::smtp::address::Domain;
use jiff::Timestamp;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, date_time_ymd};
use rustls::pki_types::CertificateDer;

use super::outbound::version_1;
use crate::support::certificates::*;

use TlsaMatching::{Full, Sha256, Sha512};
use TlsaSelector::{Certificate, PublicKey};
use TlsaUsage::{EndEntity, TrustAnchor};

/// The name under which the host was found.
pub(crate) const NAME: &str = "mail.partner.example";
pub(crate) const SELECTORS: [TlsaSelector; 2] = [Certificate, PublicKey];
pub(crate) const MATCHINGS: [TlsaMatching; 3] = [Full, Sha256, Sha512];

/// The record for a certificate.
pub(crate) fn record(
    usage: TlsaUsage,
    selector: TlsaSelector,
    matching: TlsaMatching,
    der: &CertificateDer<'_>,
) -> Tlsa {
    let octets = match selector {
        Certificate => der.to_vec(),
        PublicKey => {
            let (_, read) = x509_parser::parse_x509_certificate(der).expect("a certificate");
            read.public_key().raw.to_vec()
        }
    };
    let data = match matching {
        Full => octets,
        Sha256 => digest(&SHA256, &octets).as_ref().to_vec(),
        Sha512 => digest(&SHA512, &octets).as_ref().to_vec(),
    };
    Tlsa {
        usage,
        selector,
        matching,
        data,
    }
}

/// The record for another certificate or key of the same kind.
pub(crate) fn another(record: &Tlsa) -> Tlsa {
    let mut other = record.clone();
    *other.data.last_mut().expect("never empty") ^= 1;
    other
}

fn patterns(names: &[&str]) -> Vec<NamePattern> {
    names
        .iter()
        .map(|name| NamePattern::parse(name).expect(name))
        .collect()
}

/// Presents a chain in a handshake, and compares it with records. The connector's authorities did
/// not issue it.
pub(crate) async fn held(pair: &Pair, records: &[Tlsa]) -> Result<Tlsa, DaneFault> {
    let connector = connector("partner", TrustSource::Webpki, None);
    let material = load(&config(None, vec![connector.clone()]));
    let (address, server) = serve(server_config(pair, BOTH), 1).await;
    let seen = connect(&material, &connector, address, NAME)
        .await
        .expect("a handshake");
    server.await.expect("no panic");
    let set = Arc::new(TlsaSet {
        base: Domain::parse(NAME).expect("a domain"),
        records: records.to_vec(),
        names: patterns(&[NAME]),
        scope: DaneScope::Domain,
    });
    let facts = seen
        .facts(
            material.client(&connector).checks(Some(&set)),
            Role::Server,
            Timestamp::now(),
        )
        .await;
    let PeerCertificate::Certificate(certificate) = facts.certificate else {
        panic!("a certificate was shown")
    };
    assert!(
        certificate.chain.is_err(),
        "no authority of the connector's vouches for it"
    );
    match certificate.dane {
        DaneFacts::Checked {
            records: against,
            result: found,
        } => {
            assert_eq!(against, set);
            found
        }
        DaneFacts::NotChecked => panic!("it was not held against the records"),
    }
}

/// A chain that includes its root.
pub(crate) fn with_root(root: &Authority, mut pair: Pair) -> Pair {
    pair.chain.push(root.certificate.clone());
    pair
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

#[tokio::test]
async fn an_end_entity_is_matched_by_every_selector_and_matching() {
    let pair = Authority::root("Partner CA").issue(&[NAME]);
    for selector in SELECTORS {
        for matching in MATCHINGS {
            let right = record(EndEntity, selector, matching, &pair.chain[0]);
            let wrong = another(&right);
            assert_eq!(
                held(&pair, std::slice::from_ref(&right)).await,
                Ok(right.clone()),
                "{right}"
            );
            assert_eq!(
                held(&pair, &[wrong]).await,
                Err(DaneFault::NoMatch { records: 1 }),
                "not {right}"
            );
        }
    }
}

#[test]
fn a_pin_is_the_data_of_a_record_3_1_1() {
    let leaf = &self_signed(&[NAME], |_| {}).chain[0];
    let pin = Pin::parse(&key_pin(leaf)).expect("a pin");
    assert_eq!(record(EndEntity, PublicKey, Sha256, leaf).data, pin.hash());
}

#[tokio::test]
async fn an_authority_that_was_sent_is_matched_by_every_selector_and_matching() {
    let root = Authority::root("Partner CA");
    let pair = with_root(&root, root.intermediate("Partner CA 2").issue(&[NAME]));
    for selector in SELECTORS {
        for matching in MATCHINGS {
            let right = record(TrustAnchor, selector, matching, &root.certificate);
            assert_eq!(
                held(&pair, std::slice::from_ref(&right)).await,
                Ok(right.clone()),
                "{right}"
            );
        }
    }
}

#[tokio::test]
async fn an_authority_of_another_key_is_no_match() {
    let root = Authority::root("Partner CA");
    let pair = with_root(&root, root.issue(&[NAME]));
    let namesake = Authority::root("Partner CA");
    for selector in SELECTORS {
        for matching in MATCHINGS {
            let wrong = record(TrustAnchor, selector, matching, &namesake.certificate);
            let found = held(&pair, std::slice::from_ref(&wrong)).await;
            match (selector, matching) {
                // The record contains the authority in full, but this authority did not sign the
                // chain.
                (Certificate, Full) => assert!(
                    matches!(found, Err(DaneFault::Path(_))),
                    "{wrong}: {found:?}"
                ),
                _ => assert_eq!(found, Err(DaneFault::NoMatch { records: 1 }), "{wrong}"),
            }
        }
    }
}

#[tokio::test]
async fn dane_ta_and_dane_ee_are_distinguished() {
    let root = Authority::root("Partner CA");
    let pair = with_root(&root, root.issue(&[NAME]));
    // DANE-EE concerns the leaf alone, whatever else was sent.
    let authority = record(EndEntity, PublicKey, Sha256, &root.certificate);
    assert_eq!(
        held(&pair, &[authority]).await,
        Err(DaneFault::NoMatch { records: 1 })
    );
    // DANE-TA concerns the issuers: a leaf that did not issue itself is no authority.
    let leaf = record(TrustAnchor, PublicKey, Sha256, &pair.chain[0]);
    let found = held(&pair, &[leaf]).await;
    assert!(
        matches!(found, Err(DaneFault::Path(ChainFault::UnknownIssuer(_)))),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_dane_ee_record_ignores_name_dates_and_issuer() {
    let root = Authority::root("Partner CA");
    let mut all = vec![
        (
            "expired",
            root.issue_as(&[NAME], |params| {
                params.not_after = date_time_ymd(2021, 2, 3);
            }),
        ),
        (
            "not yet valid",
            root.issue_as(&[NAME], |params| {
                params.not_before = date_time_ymd(2090, 2, 3);
            }),
        ),
        ("another name", root.issue(&["other.example"])),
        ("no name", root.issue(&[])),
        ("self-signed", self_signed(&[NAME], |_| {})),
        (
            "an authority's",
            root.issue_as(&[NAME], |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }),
        ),
        (
            "for clients",
            root.issue_as(&[NAME], |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
        ),
        ("version 1", version_1()),
    ];
    let mut alone = root.intermediate("Partner CA 2").issue(&[NAME]);
    alone.chain.truncate(1);
    all.push(("the intermediate missing", alone));
    for (what, pair) in all {
        for selector in SELECTORS {
            let right = record(EndEntity, selector, Sha256, &pair.chain[0]);
            assert_eq!(
                held(&pair, std::slice::from_ref(&right)).await,
                Ok(right.clone()),
                "{what}, {right}"
            );
        }
    }
}

#[tokio::test]
async fn an_intermediate_is_an_authority_and_its_root_need_not_be_sent() {
    let pair = Authority::root("Partner CA")
        .intermediate("Partner CA 2")
        .issue(&[NAME]);
    assert_eq!(pair.chain.len(), 2, "leaf and intermediate");
    for selector in SELECTORS {
        let right = record(TrustAnchor, selector, Sha256, &pair.chain[1]);
        assert_eq!(
            held(&pair, std::slice::from_ref(&right)).await,
            Ok(right.clone()),
            "{right}"
        );
    }
}

#[tokio::test]
async fn an_authority_that_is_not_sent_must_be_in_the_record_in_full() {
    let root = Authority::root("Partner CA");
    let pair = root.intermediate("Partner CA 2").issue(&[NAME]);
    let full = record(TrustAnchor, Certificate, Full, &root.certificate);
    assert_eq!(held(&pair, std::slice::from_ref(&full)).await, Ok(full));
    for selector in SELECTORS {
        for matching in [Sha256, Sha512] {
            let hash = record(TrustAnchor, selector, matching, &root.certificate);
            assert_eq!(
                held(&pair, &[hash]).await,
                Err(DaneFault::NoMatch { records: 1 })
            );
        }
    }
}

#[tokio::test]
async fn no_path_uses_an_intermediate_that_was_not_sent() {
    let root = Authority::root("Partner CA");
    let mut pair = root.intermediate("Partner CA 2").issue(&[NAME]);
    pair.chain = vec![pair.chain[0].clone(), root.certificate.clone()];
    let unknown = || {
        Err(DaneFault::Path(ChainFault::UnknownIssuer(
            "CN=Partner CA 2".to_owned(),
        )))
    };
    for record in [
        record(TrustAnchor, PublicKey, Sha256, &root.certificate),
        record(TrustAnchor, Certificate, Full, &root.certificate),
    ] {
        assert_eq!(held(&pair, &[record]).await, unknown());
    }
}

#[tokio::test]
async fn under_dane_ta_the_dates_are_checked() {
    let root = Authority::root("Partner CA");
    let anchor = record(TrustAnchor, PublicKey, Sha256, &root.certificate);
    let ended = root.issue_as(&[NAME], |params| {
        params.not_after = date_time_ymd(2021, 2, 3);
    });
    assert_eq!(
        held(&with_root(&root, ended), std::slice::from_ref(&anchor)).await,
        Err(DaneFault::Path(ChainFault::Expired(time(
            "2021-02-03T00:00:00Z"
        ))))
    );
    let begins = root.issue_as(&[NAME], |params| {
        params.not_before = date_time_ymd(2090, 2, 3);
    });
    assert_eq!(
        held(&with_root(&root, begins), &[anchor]).await,
        Err(DaneFault::Path(ChainFault::NotYetValid(time(
            "2090-02-03T00:00:00Z"
        ))))
    );
}

#[tokio::test]
async fn under_dane_ta_the_names_are_checked() {
    let root = Authority::root("Partner CA");
    let anchor = record(TrustAnchor, PublicKey, Sha256, &root.certificate);
    for (names, carries) in [
        (&[NAME][..], true),
        (&["*.partner.example"], true),
        (&["other.example", NAME], true),
        (&["other.example"], false),
        (&["partner.example"], false),
        (&["*.mail.partner.example"], false),
        (&[], false),
    ] {
        let found = held(
            &with_root(&root, root.issue(names)),
            std::slice::from_ref(&anchor),
        )
        .await;
        let expected = if carries {
            Ok(anchor.clone())
        } else {
            Err(DaneFault::Name {
                wanted: patterns(&[NAME]),
                presented: patterns(names),
            })
        };
        assert_eq!(found, expected, "{names:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_issued_itself_may_be_its_own_authority() {
    let good = self_signed(&[NAME], |_| {});
    for selector in SELECTORS {
        for matching in MATCHINGS {
            let right = record(TrustAnchor, selector, matching, &good.chain[0]);
            assert_eq!(
                held(&good, std::slice::from_ref(&right)).await,
                Ok(right.clone()),
                "{right}"
            );
        }
    }
    // The same rules apply under this authority as under any other.
    let ended = self_signed(&[NAME], |params| {
        params.not_after = date_time_ymd(2021, 2, 3);
    });
    let found = held(
        &ended,
        &[record(TrustAnchor, PublicKey, Sha256, &ended.chain[0])],
    )
    .await;
    assert_eq!(
        found,
        Err(DaneFault::Path(ChainFault::Expired(time(
            "2021-02-03T00:00:00Z"
        ))))
    );
    let stranger = self_signed(&["other.example"], |_| {});
    let found = held(
        &stranger,
        &[record(TrustAnchor, PublicKey, Sha256, &stranger.chain[0])],
    )
    .await;
    assert!(matches!(found, Err(DaneFault::Name { .. })), "{found:?}");
}

#[tokio::test]
async fn one_record_of_several_is_enough() {
    let root = Authority::root("Partner CA");
    let pair = with_root(&root, root.issue(&[NAME]));
    let leaf = record(EndEntity, PublicKey, Sha256, &pair.chain[0]);
    let anchor = record(TrustAnchor, PublicKey, Sha256, &root.certificate);
    let (no_leaf, no_anchor) = (another(&leaf), another(&anchor));
    for (records, found) in [
        (
            vec![no_leaf.clone(), no_anchor.clone(), leaf.clone()],
            Ok(leaf.clone()),
        ),
        (
            vec![no_leaf.clone(), anchor.clone(), no_anchor.clone()],
            Ok(anchor.clone()),
        ),
        // Both match; the record that needs no path is reported.
        (vec![anchor.clone(), leaf.clone()], Ok(leaf.clone())),
        (
            vec![no_leaf.clone(), no_anchor.clone()],
            Err(DaneFault::NoMatch { records: 2 }),
        ),
    ] {
        assert_eq!(held(&pair, &records).await, found);
    }
}

#[tokio::test]
async fn an_end_entity_record_helps_where_the_authority_of_another_does_not() {
    let root = Authority::root("Partner CA");
    let pair = with_root(
        &root,
        root.issue_as(&["other.example"], |params| {
            params.not_after = date_time_ymd(2021, 2, 3);
        }),
    );
    let leaf = record(EndEntity, Certificate, Sha512, &pair.chain[0]);
    let anchor = record(TrustAnchor, PublicKey, Sha256, &root.certificate);
    assert_eq!(held(&pair, &[anchor, leaf.clone()]).await, Ok(leaf));
}

#[tokio::test]
async fn of_two_faults_the_later_one_is_reported() {
    let root = Authority::root("Partner CA");
    let pair = with_root(&root, root.issue(&["other.example"]));
    let anchor = record(TrustAnchor, PublicKey, Sha256, &root.certificate);
    let foreign = record(
        TrustAnchor,
        Certificate,
        Full,
        &Authority::root("Stranger CA").certificate,
    );
    for records in [vec![anchor.clone(), foreign.clone()], vec![foreign, anchor]] {
        let found = held(&pair, &records).await;
        assert!(matches!(found, Err(DaneFault::Name { .. })), "{found:?}");
    }
}

#[tokio::test]
async fn a_malformed_record_names_no_authority() {
    let root = Authority::root("Partner CA");
    let pair = with_root(&root, root.issue(&[NAME]));
    for data in [
        Vec::new(),
        vec![0],
        vec![0x30, 0x82, 0xff, 0xff],
        vec![0xff; 70_000],
    ] {
        for usage in [EndEntity, TrustAnchor] {
            let garbage = Tlsa {
                usage,
                selector: Certificate,
                matching: Full,
                data: data.clone(),
            };
            assert_eq!(
                held(&pair, &[garbage]).await,
                Err(DaneFault::NoMatch { records: 1 })
            );
        }
    }
}
