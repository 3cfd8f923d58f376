//! The explanations for each layer and each unmet part of a demand.

use std::path::Path;
use std::sync::Arc;

use super::super::Peer;
use super::*;
use crate::policy::connector::{
    HopProtocol, TlsDemand, TlsException, TrustSource, default_connector,
};
use crate::policy::location::{Located, Location};
use crate::policy::tls::{NamePattern, Pin, RefusalBasis, Strength, TlsVersion, UncheckableKey};
use crate::smtp::address::Domain;
use crate::smtp::reply::{Reply, Status};

/// The settings that make a difference to an explanation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConnectorCase {
    ByMx,
    /// By MX, with an exception that ended on 29 Nov 2026.
    ExceptionOver,
    BySmartHost,
}

/// The connector of lawyers.example.
fn connector(case: ConnectorCase) -> Connector {
    let file = Arc::from(Path::new("gatepost.toml"));
    let location = Location {
        file,
        line: 1,
        column: 1,
    };
    let value = TrustSource::Webpki;
    let trust = Located {
        value,
        location: location.clone(),
    };
    let mut connector = Connector::clone(&default_connector(&trust));
    if case == ConnectorCase::ExceptionOver {
        connector.outbound.exception = Some(TlsException {
            tls: TlsDemand::Opportunistic,
            until: jiff::civil::date(2026, 11, 29),
            reason: "x".to_owned(),
            location,
        });
    }
    if case == ConnectorCase::BySmartHost {
        connector.outbound.route = Route::SmartHosts(Vec::new());
    }
    connector
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn peer() -> Peer {
    Peer {
        host: Host::parse("mx.lawyers.example").expect("a host"),
        address: crate::policy::failure::HopAddress::Tcp(
            "192.0.2.1:25".parse().expect("an address"),
        ),
        protocol: HopProtocol::Smtp,
        source: None,
    }
}

fn refused(demand: Demand, unmet: Unmet) -> Failure {
    let refusal = Refusal {
        demand,
        unmet,
        basis: RefusalBasis::NoSession,
    };
    Failure::policy(refusal).with_peer(peer())
}

fn without_tls(layer: Layer) -> Failure {
    refused(
        Demand::new(layer, Verify::None),
        Unmet::NoTls(NoTls::NotOffered),
    )
}

/// The explanation for mail to lawyers.example, on 30 Nov 2026.
fn explained(failure: &Failure, case: ConnectorCase) -> String {
    let recipient = Host::parse("lawyers.example").expect("a domain");
    let text = explain_to_sender(
        failure,
        Some(&recipient),
        &connector(case),
        &relay(),
        at("2026-11-30T12:00:00Z"),
    );
    text.expect("it is about TLS policy")
}

fn relay() -> Domain {
    Domain::parse("relay.example.com").expect("a name")
}

const NOT_OFFERED: &str = "But mx.lawyers.example does not offer encryption at present.";
const THEIR_SIDE: &str = "The cause is on the side of lawyers.example, or on the way there. Please reach the recipient in \
                          another way if it is urgent, and pass this report on to the mail administrators of \
                          lawyers.example.";

/// The rule is that of the layer, with the reason why it holds.
#[test]
fn each_layer_has_its_reason() {
    let remembered = Demand {
        last_tls: Some(at("2026-11-29T08:00:00Z")),
        ..Demand::new(Layer::DowngradeMemory, Verify::None)
    };
    let rule = "The mail system relay.example.com sends to lawyers.example only encrypted, because";
    let proof = "The mail system relay.example.com sends to lawyers.example only encrypted and only to a server that proves \
                 its identity, because";
    let host = Domain::parse("mx.lawyers.example").expect("a domain");
    let published = Demand::new(Layer::MtaSts, Verify::Published(host));
    for (failure, case, sentence) in [
        (
            without_tls(Layer::Connector),
            ConnectorCase::ByMx,
            format!("{rule} its administrators decided so."),
        ),
        (
            without_tls(Layer::Connector),
            ConnectorCase::ExceptionOver,
            format!(
                "{rule} its administrators decided so; an exception to that ended on 29 Nov 2026."
            ),
        ),
        (
            without_tls(Layer::Exception),
            ConnectorCase::ByMx,
            format!("{rule} its administrators decided so."),
        ),
        (
            without_tls(Layer::Dane),
            ConnectorCase::ByMx,
            format!("{rule} lawyers.example asks all senders for that."),
        ),
        (
            refused(published, Unmet::NoTls(NoTls::NotOffered)),
            ConnectorCase::ByMx,
            format!("{proof} lawyers.example asks all senders for that."),
        ),
        (
            without_tls(Layer::DowngradeMemory),
            ConnectorCase::ByMx,
            format!("{rule} their server accepted it so before."),
        ),
    ] {
        let text = explained(&failure, case);
        assert!(
            text.starts_with(&format!("{sentence} But mx.lawyers.example does not offer")),
            "{text}"
        );
        assert!(text.ends_with(THEIR_SIDE), "{text}");
    }
    assert_eq!(
        explained(
            &refused(remembered, Unmet::NoTls(NoTls::NotOffered)),
            ConnectorCase::ByMx
        ),
        format!(
            "{rule} their server accepted it so until 29 Nov 2026. But mx.lawyers.example does not offer encryption at \
             present. Either their server was changed, or somebody on the way prevents encryption. {THEIR_SIDE}"
        )
    );
}

/// A message with REQUIRETLS fails for a wish of its sender, who can also withdraw it.
#[test]
fn what_the_sender_required_the_sender_can_withdraw() {
    let unmet = |unmet| {
        let demand = Demand::new(Layer::RequireTls, Verify::Chain);
        let refusal = Refusal {
            demand,
            unmet,
            basis: RefusalBasis::NoSession,
        };
        RequireTlsUnmet::Session(Box::new(refusal))
    };
    for (why, problem) in [
        (unmet(Unmet::NoTls(NoTls::NotOffered)), NOT_OFFERED),
        (
            unmet(Unmet::Unmeetable(Unmeetable::Unproven("x".to_owned()))),
            "But nothing proves that mx.lawyers.example is the mail server of lawyers.example.",
        ),
        (
            RequireTlsUnmet::Off,
            "But relay.example.com is set up to send to lawyers.example without encryption.",
        ),
        (
            RequireTlsUnmet::NotOffered,
            "But mx.lawyers.example does not promise to pass it on like that.",
        ),
    ] {
        let failure = Failure::require_tls(why).with_peer(peer());
        assert_eq!(
            explained(&failure, ConnectorCase::ByMx),
            format!(
                "You, or the program that sent your message, asked that it travel only encrypted, and only to servers \
                 that prove their identity. {problem} If the message may travel without that protection, send it again \
                 without asking for it. Otherwise reach the recipient in another way."
            )
        );
    }
}

/// Checks that each unmet part is explained as this problem, on this side alone, without any
/// technical term.
fn assert_sides(rows: Vec<(Layer, Unmet, &str, Side)>) {
    let sides = [
        (
            Side::Recipient,
            "The cause is on the side of lawyers.example",
        ),
        (
            Side::Relay,
            "The cause is in the settings of relay.example.com.",
        ),
        (
            Side::Both,
            "The administrators of relay.example.com and of lawyers.example must agree",
        ),
    ];
    let jargon = [
        "TLS",
        "DANE",
        "MTA-STS",
        "DNSSEC",
        "hop",
        "layer",
        "policy",
        "connector",
        "peer",
        "handshake",
        ":25",
        "192.0.2.1",
        "this relay",
        "This relay",
    ];
    for (layer, unmet, problem, side) in rows {
        let min_strength = Strength::PostQuantum;
        let demand = Demand {
            min_strength,
            ..Demand::new(layer, Verify::Chain)
        };
        let text = explained(&refused(demand, unmet), ConnectorCase::ByMx);
        assert!(text.contains(problem), "{problem}: {text}");
        for (other, words) in sides {
            assert_eq!(text.contains(words), other == side, "{other:?}: {text}");
        }
        for term in jargon {
            assert!(!text.contains(term), "{term}: {text}");
        }
    }
}

/// Encryption that is missing or too weak: on the recipient's side, unless our own settings forbid
/// it or ask for more than usual.
#[test]
fn each_lack_of_encryption_has_a_side() {
    let rejected = NoTls::Rejected(Reply::bare(454, "later"));
    let broken = NoTls::Broken("reset".to_owned());
    let unproved = Unmet::Unproved(UncheckableKey::RsaSize(1024));
    let (layer, theirs) = (Layer::Connector, Side::Recipient);
    assert_sides(vec![
        (layer, Unmet::NoTls(rejected), "refuses encryption", theirs),
        (
            layer,
            Unmet::NoTls(broken),
            "encrypted connection to",
            theirs,
        ),
        (
            Layer::Dane,
            Unmet::NoTls(NoTls::NotWanted),
            "set up to send to lawyers.example without encryption",
            Side::Relay,
        ),
        (
            layer,
            Unmet::Version(TlsVersion::V1_2),
            "only an outdated",
            theirs,
        ),
        (
            layer,
            Unmet::KeyExchange(None),
            "weaker than agreed",
            Side::Both,
        ),
        (layer, Unmet::NoCertificate, "proves its identity", theirs),
        (layer, unproved, "a kind that proves no identity", theirs),
    ]);
}

/// A certificate that is not good enough: on the recipient's side, or on both where the two sides
/// have agreed on it.
#[test]
fn each_fault_of_a_certificate_has_a_side() {
    let name = |text: &str| NamePattern::parse(text).expect("a name");
    let wrong = || Unmet::Name {
        wanted: vec![name("mx.lawyers.example")],
        presented: vec![name("other.example")],
    };
    let pin = |octet: &str| Pin::parse(&format!("sha256:{}", octet.repeat(32))).expect("a pin");
    let other_pin = Unmet::Pin {
        wanted: vec![pin("01")],
        presented: pin("02"),
    };
    let no_match = Unmet::Dane(DaneFault::NoMatch { records: 2 });
    let day = at("2026-11-01T00:00:00Z");
    let chain = Unmet::Chain;
    let invalid = ChainFault::Invalid("x".to_owned());
    let (layer, theirs) = (Layer::Connector, Side::Recipient);
    assert_sides(vec![
        (
            layer,
            chain(ChainFault::Expired(day)),
            "expired on 1 Nov 2026",
            theirs,
        ),
        (
            layer,
            chain(ChainFault::NotYetValid(day)),
            "not valid before 1 Nov 2026",
            theirs,
        ),
        (
            layer,
            chain(ChainFault::SelfSigned),
            "not know the issuer",
            Side::Both,
        ),
        (layer, chain(invalid), "is not valid", theirs),
        (layer, wrong(), "issued for another server", Side::Both),
        (Layer::MtaSts, wrong(), "issued for another server", theirs),
        (layer, other_pin, "another key", Side::Both),
        (
            Layer::Dane,
            no_match,
            "another certificate than the one",
            theirs,
        ),
    ]);
}

/// A demand that no session can satisfy.
#[test]
fn each_demand_that_cannot_be_met_has_a_side() {
    let host = Domain::parse("mx.lawyers.example").expect("a domain");
    let literal = Host::parse("[192.0.2.1]").expect("an address");
    let not_listed = Unmeetable::NotListed {
        host,
        listed: Vec::new(),
    };
    let unmeetable = Unmet::Unmeetable;
    let no_tlsa = unmeetable(Unmeetable::NoTlsa("x".to_owned()));
    let unsigned = unmeetable(Unmeetable::UnsignedMx("x".to_owned()));
    let layer = Layer::Connector;
    assert_sides(vec![
        (
            Layer::MtaSts,
            unmeetable(not_listed),
            "not among the mail servers that lawyers.example lists",
            Side::Recipient,
        ),
        (layer, no_tlsa, "lets relay.example.com check", Side::Both),
        (layer, unsigned, "nothing proves", Side::Both),
        (
            layer,
            unmeetable(Unmeetable::NoName(literal)),
            "mx.lawyers.example is known by a number only",
            Side::Relay,
        ),
    ]);
}

/// A rule that cannot be found out is explained too; a failure that is not about TLS is not.
#[test]
fn only_failures_of_tls_policy_are_explained() {
    let unknown = Failure::discovery(Status(7, 5), "the TLSA lookup failed");
    let text = explained(&unknown, ConnectorCase::ByMx);
    assert!(
        text.starts_with("The mail system relay.example.com must know how lawyers.example wants mail to be protected"),
        "{text}"
    );
    assert!(!text.contains("TLSA"), "{text}");
    let connector = connector(ConnectorCase::ByMx);
    for failure in [
        Failure::reply(
            super::super::Scope::Recipient,
            "RCPT TO",
            Reply::bare(550, "nobody here"),
        ),
        Failure::transient(super::super::Scope::Hop, Status(4, 1), "connection refused"),
    ] {
        assert_eq!(
            explain_to_sender(&failure, None, &connector, &relay(), Timestamp::UNIX_EPOCH),
            None
        );
    }
}

/// A smart host is named as the next server, since its operator is not the recipient's.
#[test]
fn a_smart_host_is_named_as_the_next_server() {
    let failure = without_tls(Layer::Connector);
    let text = explained(&failure, ConnectorCase::BySmartHost);
    assert!(
        text.starts_with(
            "The mail system relay.example.com passes mail for lawyers.example on to mx.lawyers.example only encrypted"
        ),
        "{text}"
    );
    assert!(
        text.contains("The cause is on the side of mx.lawyers.example,"),
        "{text}"
    );
    let shared = explain_to_sender(
        &failure,
        None,
        &connector(ConnectorCase::ByMx),
        &relay(),
        Timestamp::UNIX_EPOCH,
    )
    .expect("one");
    assert!(
        shared.starts_with(
            "The mail system relay.example.com sends to the recipient's domain only encrypted"
        ),
        "{shared}"
    );
}

/// A server or a recipient's domain that is an address is described, never named by its address.
#[test]
fn no_address_is_named() {
    let literal = |text: &str| Host::parse(text).expect("a host");
    let addresses = [
        literal("[192.0.2.1]"),
        literal("[IPv6:2001:db8::1]"),
        literal("lawyers.example"),
    ];
    let unmet = || Unmet::Unmeetable(Unmeetable::NoName(literal("[192.0.2.1]")));
    for recipient in &addresses {
        for (case, server) in [
            (ConnectorCase::ByMx, "the mail server of "),
            (ConnectorCase::BySmartHost, "the next mail server"),
        ] {
            for unmet in [Unmet::NoTls(NoTls::NotOffered), unmet()] {
                let demand = Demand::new(Layer::Connector, Verify::None);
                let failure = refused(demand, unmet).with_peer(Peer {
                    host: literal("[192.0.2.1]"),
                    address: crate::policy::failure::HopAddress::Tcp(
                        "192.0.2.1:25".parse().expect("an address"),
                    ),
                    protocol: HopProtocol::Smtp,
                    source: None,
                });
                let now = Timestamp::UNIX_EPOCH;
                let text =
                    explain_to_sender(&failure, Some(recipient), &connector(case), &relay(), now)
                        .expect("it is about TLS policy");
                assert!(text.contains(server), "{text}");
                for address in ["192.0.2.1", "2001:db8", "["] {
                    assert!(!text.contains(address), "{address}: {text}");
                }
            }
        }
    }
}
