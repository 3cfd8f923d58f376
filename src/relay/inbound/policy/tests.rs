//! Tests of each demand against each kind of session.

use std::path::Path;

use super::*;
use crate::config::{
    DomainPattern, InboundConfig, Located, Location, OnDowngrade, OnFailure, OutboundConfig, Route,
    TrustSource,
};
use crate::policy::tls::{
    CertificateFacts, ChainFault, DaneFacts, Handshake, NamePattern, PeerCertificate, Pin,
    Revocation, RevocationFacts, Strength, TlsFacts, TlsVersion,
};
use crate::smtp::address::Domain;
use crate::smtp::sasl::OfferedMechanisms;

const FORCED: TlsDemand = TlsDemand::Forced {
    min_version: TlsVersion::V1_2,
    verify: VerifyWanted::None,
};
const FORCED_1_3: TlsDemand = TlsDemand::Forced {
    min_version: TlsVersion::V1_3,
    verify: VerifyWanted::None,
};
const CHAIN: TlsDemand = TlsDemand::Forced {
    min_version: TlsVersion::V1_2,
    verify: VerifyWanted::Chain,
};
const NAME: TlsDemand = TlsDemand::Forced {
    min_version: TlsVersion::V1_2,
    verify: VerifyWanted::Name,
};

fn partner(tls: TlsDemand, networks: &[&str], relay: bool) -> Arc<Connector> {
    let location = Location {
        file: Arc::from(Path::new("test.toml")),
        line: 1,
        column: 1,
    };
    Arc::new(Connector {
        name: "partner".into(),
        domains: vec![DomainPattern::Exactly(
            Domain::parse("partner.example").expect("a domain"),
        )],
        names: vec![NamePattern::parse("mail.partner.example").expect("a name")],
        trust: Located {
            value: TrustSource::Webpki,
            location,
        },
        pins: Vec::new(),
        crl: Vec::new(),
        outbound: OutboundConfig {
            route: Route::Mx { port: 25 },
            tls: TlsDemand::Opportunistic,
            discover: Vec::new(),
            downgrade: OnDowngrade::Warn,
            exception: None,
            revocation: Revocation::Off,
            on_failure: OnFailure::Defer,
            client_identity: None,
            groups: Strength::PostQuantum,
            min_strength: Strength::Classical,
            connections: 1,
            messages_per_connection: 1,
            source: Vec::new(),
            ehlo: None,
            auth: None,
            schedule: crate::policy::connector::ScheduleOverrides::default(),
        },
        inbound: InboundConfig {
            tls,
            revocation: Revocation::Off,
            networks: networks
                .iter()
                .map(|network| network.parse().expect("a network"))
                .collect(),
            relay,
        },
        floor: None,
    })
}

fn tls(certificate: PeerCertificate) -> TlsOutcome {
    let facts = TlsFacts {
        version: TlsVersion::V1_2,
        cipher: "TLS_X",
        key_exchange: None,
        reduced: None,
        certificate,
        handshake: Handshake::Full,
    };
    TlsOutcome::Tls(facts)
}

fn named(name: &str, chain: Result<(), ChainFault>) -> TlsOutcome {
    let names = vec![NamePattern::parse(name).expect("a name")];
    tls(PeerCertificate::Certificate(Box::new(CertificateFacts {
        names,
        default_chain: chain.clone(),
        chain,
        key: Pin::new([1; 32]),
        issuer: "CN=Test CA".to_owned(),
        not_after: jiff::Timestamp::MAX,
        dane: DaneFacts::NotChecked,
        revocation: RevocationFacts::NotChecked,
    })))
}

fn clear() -> TlsOutcome {
    TlsOutcome::Clear(NoTls::NotUsed)
}

fn listener(tls: ListenerTls, request_client_certificate: bool) -> ListenerConfig {
    ListenerConfig {
        name: "public".into(),
        addresses: Vec::new(),
        tls,
        request_client_certificate,
        proxy_protocol: Vec::new(),
        xclient: Vec::new(),
        connections: None,
        auth: OfferedMechanisms::default(),
        auth_required: false,
    }
}

fn ask(connector: &Arc<Connector>, peer: &str, outcome: TlsOutcome) -> Result<bool, String> {
    ask_on(
        &listener(ListenerTls::Opportunistic, true),
        connector,
        peer,
        outcome,
    )
}

fn ask_on(
    listener: &ListenerConfig,
    connector: &Arc<Connector>,
    peer: &str,
    outcome: TlsOutcome,
) -> Result<bool, String> {
    let from = ReversePath::parse("a@partner.example").expect("a path");
    judge(connector, listener, &from, peer.parse().ok(), outcome)
        .map(|sender_clearance| sender_clearance.may_relay)
        .map_err(|reply| reply.to_string())
}

#[test]
fn without_tls_a_forced_demand_is_answered_530() {
    for demand in [FORCED, FORCED_1_3, CHAIN, NAME] {
        let refused = ask(&partner(demand, &[], false), "192.0.2.1", clear());
        assert_eq!(
            refused,
            Err("530 5.7.0 Must issue a STARTTLS command first".into()),
            "{demand:?}"
        );
    }
    assert_eq!(
        ask(
            &partner(TlsDemand::Opportunistic, &[], false),
            "192.0.2.1",
            clear()
        ),
        Ok(false)
    );
}

#[test]
fn no_reply_recommends_what_the_listener_does_not_offer() {
    let off = listener(ListenerTls::Off, false);
    for demand in [FORCED, FORCED_1_3, CHAIN, NAME] {
        let refused =
            ask_on(&off, &partner(demand, &[], false), "192.0.2.1", clear()).expect_err("no TLS");
        assert!(
            refused.starts_with("550 5.7.1 Mail from partner.example: TLS"),
            "{refused}"
        );
        assert!(
            refused.ends_with("is demanded, and TLS is not offered on this port"),
            "{refused}"
        );
    }
    let bare = listener(ListenerTls::Opportunistic, false);
    let refused = ask_on(
        &bare,
        &partner(NAME, &[], false),
        "192.0.2.1",
        tls(PeerCertificate::Nothing),
    )
    .expect_err("bare");
    assert!(refused.starts_with("550 5.7.1 "), "{refused}");
    assert!(
        refused.ends_with("; clients are not asked for one on this port, use another"),
        "{refused}"
    );
}

#[test]
fn the_reply_names_the_unmet_demand() {
    let other = named("other.example", Ok(()));
    let old = named("mail.partner.example", Err(ChainFault::SelfSigned));
    for (demand, outcome, words) in [
        (
            NAME,
            tls(PeerCertificate::Nothing),
            "no certificate was shown",
        ),
        (
            NAME,
            other,
            "is for other.example, not for mail.partner.example",
        ),
        (NAME, old.clone(), "self-signed"),
        (CHAIN, old, "self-signed"),
        (FORCED_1_3, tls(PeerCertificate::Nothing), "only TLSv1.2"),
    ] {
        let refused = ask(&partner(demand, &[], false), "192.0.2.1", outcome).expect_err(words);
        assert!(
            refused.starts_with("550 5.7.1 Mail from partner.example: "),
            "{refused}"
        );
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn a_session_that_meets_the_demand_is_cleared() {
    let good = named("mail.partner.example", Ok(()));
    for demand in [TlsDemand::Opportunistic, FORCED, CHAIN, NAME] {
        assert_eq!(
            ask(&partner(demand, &[], false), "192.0.2.1", good.clone()),
            Ok(false),
            "{demand:?}"
        );
    }
    assert_eq!(
        ask(
            &partner(FORCED, &[], false),
            "192.0.2.1",
            tls(PeerCertificate::Nothing)
        ),
        Ok(false)
    );
}

#[test]
fn other_networks_are_refused_with_any_certificate() {
    let connector = partner(NAME, &["192.0.2.0/24"], true);
    let good = named("mail.partner.example", Ok(()));
    assert_eq!(ask(&connector, "192.0.2.1", good.clone()), Ok(true));
    assert_eq!(ask(&connector, "::ffff:192.0.2.1", good.clone()), Ok(true));
    let refused = ask(&connector, "203.0.113.1", good).expect_err("a foreign network");
    assert!(
        refused.starts_with("550 5.7.1 Mail from partner.example is not taken from 203.0.113.1"),
        "{refused}"
    );
}

#[test]
fn relaying_needs_a_certificate_or_a_network() {
    let good = || named("mail.partner.example", Ok(()));
    for (demand, networks, may_relay) in [
        (TlsDemand::Opportunistic, &[][..], false),
        (FORCED, &[], false),
        (CHAIN, &[], true),
        (NAME, &[], true),
        (TlsDemand::Opportunistic, &["192.0.2.0/24"], true),
        (FORCED, &["192.0.2.0/24"], true),
    ] {
        assert_eq!(
            ask(&partner(demand, networks, true), "192.0.2.1", good()),
            Ok(may_relay),
            "{demand:?} {networks:?}"
        );
        assert_eq!(
            ask(&partner(demand, networks, false), "192.0.2.1", good()),
            Ok(false),
            "{demand:?} {networks:?}"
        );
    }
}

#[test]
fn a_sender_without_a_domain_has_the_star_connector() {
    let (special, any) = (
        partner(NAME, &[], false),
        partner(TlsDemand::Opportunistic, &[], false),
    );
    let connectors = Connectors::new(std::slice::from_ref(&special), Arc::clone(&any));
    let peer = "192.0.2.1".parse().expect("an address");
    for (path, expected) in [
        ("", &any),
        ("a@[192.0.2.1]", &any),
        ("a@example.org", &any),
        ("a@partner.example", &special),
    ] {
        let from = ReversePath::parse(path).expect("a path");
        assert!(
            Arc::ptr_eq(connector(&connectors, &from, peer), expected),
            "{path}"
        );
    }
}

#[test]
fn replies_are_short_ascii_lines() {
    let issuer = ChainFault::UnknownIssuer("\u{fc}".repeat(2000));
    let refused = ask(
        &partner(CHAIN, &[], false),
        "192.0.2.1",
        named("a.example", Err(issuer)),
    )
    .expect_err("untrusted");
    assert!(refused.is_ascii() && refused.len() < 500, "{refused}");
}
