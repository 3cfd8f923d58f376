//! The choice of a connector, and its own demand.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::demand::outbound_demand;
use super::*;
use crate::policy::location::{Located, Location};
use crate::policy::tls::{
    Demand, Layer, NamePattern, Revocation, Strength, TlsPolicy, TlsVersion, Unmeetable, Verify,
};
use crate::smtp::address::{Domain, Host};

fn connector(name: &str, domains: &[&str]) -> Connector {
    let domain = |text: &str| Domain::parse(text).expect("a domain");
    let pattern = |text: &&str| match (*text, text.strip_prefix("*.")) {
        ("*", _) => DomainPattern::Any,
        (_, Some(base)) => DomainPattern::Below(domain(base)),
        (exact, None) => DomainPattern::Exactly(domain(exact)),
    };
    let location = Location {
        file: Arc::from(Path::new("gatepost.toml")),
        line: 1,
        column: 1,
    };
    Connector {
        name: name.to_owned(),
        domains: domains.iter().map(pattern).collect(),
        names: Vec::new(),
        trust: Located {
            value: TrustSource::Webpki,
            location,
        },
        pins: Vec::new(),
        crl: Vec::new(),
        outbound: OutboundConfig {
            route: Route::Mx { port: 25 },
            tls: TlsDemand::Opportunistic,
            discover: vec![Publication::Dane, Publication::MtaSts],
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
            tls: TlsDemand::Opportunistic,
            revocation: Revocation::Off,
            networks: Vec::new(),
            relay: false,
        },
        floor: None,
    }
}

#[test]
fn the_most_specific_pattern_wins_whatever_the_order() {
    let mut all = vec![
        Arc::new(connector("any", &["*"])),
        Arc::new(connector("org", &["*.org"])),
        Arc::new(connector("below", &["*.example.org", "example.net"])),
        Arc::new(connector("deep", &["*.b.example.org"])),
        Arc::new(connector("exact", &["mail.example.org"])),
    ];
    for _ in 0..2 {
        let connectors = Connectors::new(&all, Arc::new(connector("default", &[])));
        for (host, winner) in [
            ("mail.example.org", "exact"),
            ("MAIL.Example.Org", "exact"),
            ("a.mail.example.org", "below"),
            ("other.example.org", "below"),
            ("b.example.org", "below"),
            ("a.b.example.org", "deep"),
            ("x.a.b.example.org", "deep"),
            // `*.example.org` covers neither example.org nor a name that merely ends with it.
            ("example.org", "org"),
            ("badexample.org", "org"),
            ("org", "any"),
            ("example.net", "below"),
            ("mail.example.net", "any"),
            ("[192.0.2.1]", "any"),
            ("[IPv6:2001:db8::1]", "any"),
        ] {
            let host = Host::parse(host).expect("a host");
            assert_eq!(connectors.for_host(&host).name, winner, "{host}");
            assert_eq!(
                connectors.matches_for(&host).winner.connector.name,
                winner,
                "{host}"
            );
        }
        all.reverse();
    }
}

#[test]
fn patterns_that_are_not_chosen_have_a_reason() {
    let all = [
        Arc::new(connector("any", &["*"])),
        Arc::new(connector("org", &["*.org"])),
        Arc::new(connector("below", &["*.example.org", "*.mail.example.org"])),
        Arc::new(connector("exact", &["mail.example.org"])),
    ];
    let connectors = Connectors::new(&all, Arc::new(connector("default", &[])));
    for (host, winner, others) in [
        (
            "mail.example.org",
            "exact \"mail.example.org\"",
            &[
                "below \"*.mail.example.org\" names what is below mail.example.org, not mail.example.org itself",
                "below \"*.example.org\" is less specific than \"mail.example.org\"",
                "org \"*.org\" is less specific than \"mail.example.org\"",
                "any \"*\" is less specific than \"mail.example.org\"",
            ][..],
        ),
        (
            "example.org",
            "org \"*.org\"",
            &[
                "below \"*.example.org\" names what is below example.org, not example.org itself",
                "any \"*\" is less specific than \"*.org\"",
            ],
        ),
        ("example.net", "any \"*\"", &[]),
        ("[192.0.2.1]", "any \"*\"", &[]),
    ] {
        let matching = connectors.matches_for(&Host::parse(host).expect("a host"));
        let text = |candidate: &PatternMatch<'_>| {
            format!("{} \"{}\"", candidate.connector.name, candidate.pattern)
        };
        assert_eq!(text(&matching.winner), winner, "{host}");
        let not_chosen: Vec<_> = matching
            .others
            .iter()
            .map(|(candidate, reason)| format!("{} {reason}", text(candidate)))
            .collect();
        assert_eq!(not_chosen, others, "{host}");
    }
}

#[test]
fn a_pattern_has_the_connector_of_the_domains_that_only_it_covers() {
    let all = [
        Arc::new(connector("org", &["*.org"])),
        Arc::new(connector("below", &["*.example.org"])),
        Arc::new(connector("exact", &["mail.example.org"])),
    ];
    let connectors = Connectors::new(&all, Arc::new(connector("default", &[])));
    let domain = |text: &str| Domain::parse(text).expect("a domain");
    for (pattern, winner) in [
        (DomainPattern::Any, "default"),
        (DomainPattern::Below(domain("net")), "default"),
        (DomainPattern::Below(domain("example.org")), "below"),
        // Names below mail.example.org are below example.org; mail.example.org itself is not
        // covered.
        (DomainPattern::Below(domain("mail.example.org")), "below"),
        (DomainPattern::Exactly(domain("mail.example.org")), "exact"),
        (DomainPattern::Exactly(domain("example.org")), "org"),
    ] {
        assert_eq!(connectors.for_pattern(&pattern).name, winner, "{pattern}");
    }
}

#[test]
fn a_domain_without_a_pattern_has_the_default_connector() {
    let all = [Arc::new(connector("below", &["*.example.org"]))];
    let connectors = Connectors::new(&all, Arc::new(connector("default", &[])));
    for host in ["example.org", "example.net", "[192.0.2.1]"] {
        assert_eq!(
            connectors
                .for_host(&Host::parse(host).expect("a host"))
                .name,
            "default",
            "{host}"
        );
    }
}

#[test]
fn of_two_with_one_pattern_the_first_wins() {
    let all = ["*", "*.example.org", "example.org"].map(|pattern| {
        [
            Arc::new(connector("first", &[pattern])),
            Arc::new(connector("second", &[pattern])),
        ]
    });
    let connectors = Connectors::new(&all.concat(), Arc::new(connector("default", &[])));
    for host in ["example.org", "a.example.org", "example.net"] {
        assert_eq!(
            connectors
                .for_host(&Host::parse(host).expect("a host"))
                .name,
            "first",
            "{host}"
        );
    }
}

fn forced(verify: VerifyWanted) -> TlsDemand {
    TlsDemand::Forced {
        min_version: TlsVersion::V1_3,
        verify,
    }
}

fn policy_of(verify: Verify) -> TlsPolicy {
    TlsPolicy::forced(Demand {
        min_version: TlsVersion::V1_3,
        ..Demand::new(Layer::Connector, verify)
    })
}

#[test]
fn a_demand_becomes_the_policy_of_its_own_direction() {
    let recipient = Host::parse("example.org").expect("a host");
    for (demand, policy) in [
        (TlsDemand::Off, TlsPolicy::Off),
        (TlsDemand::Opportunistic, TlsPolicy::Opportunistic),
        (forced(VerifyWanted::None), policy_of(Verify::None)),
        (forced(VerifyWanted::Chain), policy_of(Verify::Chain)),
    ] {
        let mut out = connector("out", &["example.org"]);
        out.outbound.tls = demand;
        assert_eq!(
            outbound_demand(&out, &recipient, None, Timestamp::UNIX_EPOCH),
            policy
        );
        assert_eq!(inbound_policy(&out), TlsPolicy::Opportunistic);
        let mut within = connector("in", &["example.org"]);
        within.inbound.tls = demand;
        assert_eq!(inbound_policy(&within), policy);
        assert_eq!(
            outbound_demand(&within, &recipient, None, Timestamp::UNIX_EPOCH),
            TlsPolicy::Opportunistic
        );
    }
}

#[test]
fn min_strength_is_part_of_the_connectors_demand() {
    let recipient = Host::parse("example.org").expect("a host");
    let mut connector = connector("partner", &["example.org"]);
    connector.outbound.tls = forced(VerifyWanted::Chain);
    connector.outbound.min_strength = Strength::PostQuantum;
    let strength = |connector: &Connector| {
        let floor = outbound_demand(connector, &recipient, None, Timestamp::UNIX_EPOCH);
        // A demand of another layer has no minimum strength, and does not lower this one.
        let raised = floor
            .clone()
            .raised_by(Demand::new(Layer::Dane, Verify::None));
        (floor.min_strength(), raised.min_strength())
    };
    assert_eq!(
        strength(&connector),
        (Strength::PostQuantum, Strength::PostQuantum)
    );
    assert_eq!(
        inbound_policy(&connector).min_strength(),
        Strength::Classical
    );
    for (tls, expected) in [
        (forced(VerifyWanted::None), Strength::PostQuantum),
        (TlsDemand::Opportunistic, Strength::Classical),
    ] {
        let (until, reason) = (jiff::civil::date(2027, 1, 31), "ticket 4711".to_owned());
        let location = connector.trust.location.clone();
        connector.outbound.exception = Some(TlsException {
            tls,
            until,
            reason,
            location,
        });
        assert_eq!(strength(&connector), (expected, expected), "{tls:?}");
    }
}

#[test]
fn verify_name_without_names_expects_the_name_of_the_hop_or_domain() {
    for (given, recipient, smart_host, wanted) in [
        (
            None,
            "example.org",
            None,
            &["example.org", "*.example.org"][..],
        ),
        (
            None,
            "example.org",
            Some("mx.partner.example"),
            &["mx.partner.example"],
        ),
        (
            None,
            "[192.0.2.1]",
            Some("mx.partner.example"),
            &["mx.partner.example"],
        ),
        // An address has no name.
        (None, "example.org", Some("[192.0.2.1]"), &[]),
        (None, "[192.0.2.1]", None, &[]),
        (
            Some("mail.example.org"),
            "example.org",
            None,
            &["mail.example.org"],
        ),
        (
            Some("mail.example.org"),
            "example.org",
            Some("[192.0.2.1]"),
            &["mail.example.org"],
        ),
    ] {
        let pattern = |text: &&str| NamePattern::parse(text).expect("a name");
        let mut connector = connector("partner", &["example.org"]);
        connector.names = given.iter().map(pattern).collect();
        connector.outbound.tls = forced(VerifyWanted::Name);
        let [recipient, smart_host] = [Some(recipient), smart_host]
            .map(|host| host.map(|host| Host::parse(host).expect("a host")));
        let recipient = recipient.expect("always given");
        let wanted = match smart_host.as_ref().unwrap_or(&recipient) {
            literal @ Host::Literal(_) if wanted.is_empty() => {
                Verify::Impossible(Unmeetable::NoName(literal.clone()))
            }
            _ => Verify::Name(wanted.iter().map(pattern).collect()),
        };
        let wanted = policy_of(wanted);
        assert_eq!(
            outbound_demand(
                &connector,
                &recipient,
                smart_host.as_ref(),
                Timestamp::UNIX_EPOCH
            ),
            wanted,
            "{recipient}, {smart_host:?}"
        );
    }
}
