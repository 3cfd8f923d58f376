//! Every spelling of a recipient that might allow relaying, from every kind of client.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::policy::connector::{TrustSource, default_connector};
use crate::policy::location::{Located, Location};

const STRANGER: &str = "203.0.113.9";
const OURS: &str = "127.0.0.1";

fn relay() -> RelayConfig {
    let domain = |text: &str| Domain::parse(text).expect("a domain");
    RelayConfig {
        networks: ["127.0.0.0/8", "::1/128", "2001:db8::/32"]
            .map(|net| net.parse().expect("a network"))
            .to_vec(),
        domains: vec![
            DomainPattern::Exactly(domain("example.com")),
            DomainPattern::Below(domain("sub.example.com")),
        ],
    }
}

/// Connectors, one of which has these domains.
fn connectors(domains: &[&str]) -> Connectors {
    let location = Location {
        file: Arc::from(Path::new("gatepost.toml")),
        line: 1,
        column: 1,
    };
    let default = default_connector(&Located {
        value: TrustSource::Webpki,
        location,
    });
    let pattern = |text: &&str| match (*text, text.strip_prefix("*.")) {
        ("*", _) => DomainPattern::Any,
        (_, Some(base)) => DomainPattern::Below(Domain::parse(base).expect("a domain")),
        (exact, None) => DomainPattern::Exactly(Domain::parse(exact).expect("a domain")),
    };
    let mut connector = (*default).clone();
    connector.domains = domains.iter().map(pattern).collect();
    Connectors::new(&[Arc::new(connector)], default)
}

fn resolve(address: &str, may_relay: bool, path: &str) -> Result<String, RelayDenied> {
    resolve_with(&relay(), &[], address, may_relay, path)
}

/// Resolves a recipient while a connector has these domains.
fn resolve_with(
    relay: &RelayConfig,
    connector: &[&str],
    address: &str,
    may_relay: bool,
    path: &str,
) -> Result<String, RelayDenied> {
    let connectors = connectors(connector);
    let address = address.parse().expect("an address");
    let peer = RelayClient {
        address: Some(address),
        local: "192.0.2.25".parse().expect("an address"),
        may_relay,
        is_user: false,
    };
    let path = ForwardPath::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let rules = RelayRules {
        hostname: &Domain::parse("relay.example.com").expect("a domain"),
        postmaster: &Mailbox::parse("admin@example.com").expect("a mailbox"),
        relay,
        connectors: &connectors,
    };
    resolve_recipient(rules, peer, &path).map(|mailbox| mailbox.to_string())
}

#[test]
fn a_client_that_may_not_relay_is_a_stranger() {
    for (address, has_right, expected) in [
        (Some(OURS), false, true),
        (Some(STRANGER), false, false),
        (Some(STRANGER), true, true),
        (None, false, false),
    ] {
        let address = address.map(|address| address.parse().expect("an address"));
        let peer = RelayClient {
            address,
            local: "192.0.2.25".parse().expect("an address"),
            may_relay: has_right,
            is_user: false,
        };
        assert_eq!(may_relay(&relay(), peer), expected, "{peer:?}");
    }
}

#[test]
fn anybody_may_send_to_our_domains() {
    for path in [
        "a@example.com",
        "a@EXAMPLE.com",
        "a@x.sub.example.com",
        "\"a b\"@example.com",
    ] {
        assert!(resolve(STRANGER, false, path).is_ok(), "{path}");
    }
}

#[test]
fn strangers_may_send_nowhere_else() {
    for path in [
        "a@example.net",
        "a@sub.example.com",
        "a@badexample.com",
        "a@x.example.com",
        "a@com",
        "a@relay.example.com",
    ] {
        assert_eq!(
            resolve(STRANGER, false, path),
            Err(RelayDenied::Domain),
            "{path}"
        );
    }
    for path in ["a@[192.0.2.25]", "a@[127.0.0.1]", "a@[IPv6:::1]"] {
        assert_eq!(
            resolve(STRANGER, false, path),
            Err(RelayDenied::Literal),
            "{path}"
        );
    }
}

#[test]
fn no_spelling_of_a_recipient_allows_relaying() {
    for path in [
        "a%example.net@example.com",
        "example.net!a@example.com",
        "\"a@example.net\"@example.com",
        "\"a\\@example.net\"@example.com",
        "\"@example.net:a\"@example.com",
        "@example.net:a%example.net@example.com",
    ] {
        assert_eq!(
            resolve(STRANGER, false, path),
            Err(RelayDenied::Routing),
            "{path}"
        );
    }
    // Only the last mailbox of a source route counts (RFC 5321 appendix C).
    assert_eq!(
        resolve(STRANGER, false, "@example.com:a@example.net"),
        Err(RelayDenied::Domain)
    );
    assert_eq!(
        resolve(STRANGER, false, "@example.net:a@example.com"),
        Ok("a@example.com".into())
    );
    for path in [
        "a@example.com@example.net",
        "a@example.net\0@example.com",
        "a@example.com>",
        "a@example.com.",
        "a@example",
    ] {
        let parsed = ForwardPath::parse(path);
        assert!(
            parsed.is_err() || resolve(STRANGER, false, path).is_err(),
            "{path:?}"
        );
    }
}

#[test]
fn our_own_clients_may_send_anywhere() {
    for address in ["127.0.0.1", "::ffff:127.0.0.1", "::1", "2001:db8::25"] {
        for path in [
            "a@example.net",
            "a%b@example.net",
            "a%b@example.com",
            "a@[192.0.2.1]",
        ] {
            assert_eq!(
                resolve(address, false, path),
                Ok(path.into()),
                "{address} {path}"
            );
        }
    }
    for address in ["::ffff:203.0.113.9", "::2", "2001:db9::1"] {
        assert_eq!(
            resolve(address, false, "a@example.net"),
            Err(RelayDenied::Domain),
            "{address}"
        );
    }
}

#[test]
fn a_client_without_an_address_is_a_stranger() {
    let resolve_unknown = |path: &str| {
        let peer = RelayClient {
            address: None,
            local: "192.0.2.25".parse().expect("an address"),
            may_relay: false,
            is_user: false,
        };
        let hostname = Domain::parse("relay.example.com").expect("a domain");
        let postmaster = Mailbox::parse("admin@example.com").expect("a mailbox");
        let (relay, connectors) = (relay(), connectors(&[]));
        let rules = RelayRules {
            hostname: &hostname,
            postmaster: &postmaster,
            relay: &relay,
            connectors: &connectors,
        };
        resolve_recipient(rules, peer, &ForwardPath::parse(path).expect("a path"))
            .map(|mailbox| mailbox.to_string())
    };
    assert_eq!(resolve_unknown("a@example.net"), Err(RelayDenied::Domain));
    assert_eq!(
        resolve_unknown("a@example.com"),
        Ok("a@example.com".to_owned())
    );
}

#[test]
fn a_relay_connector_allows_every_domain_but_no_literal() {
    assert!(resolve(STRANGER, true, "a@example.net").is_ok());
    assert_eq!(
        resolve(STRANGER, true, "a@[127.0.0.1]"),
        Err(RelayDenied::Literal)
    );
}

#[test]
fn the_postmaster_is_always_accepted() {
    for path in [
        "postmaster",
        "PostMaster@relay.example.com",
        "postmaster@[192.0.2.25]",
    ] {
        assert_eq!(
            resolve(STRANGER, false, path),
            Ok("admin@example.com".into()),
            "{path}"
        );
    }
    assert_eq!(
        resolve(STRANGER, false, "postmaster@example.com"),
        Ok("postmaster@example.com".into())
    );
    assert_eq!(
        resolve(STRANGER, false, "postmaster@example.net"),
        Err(RelayDenied::Domain)
    );
    assert_eq!(
        resolve(STRANGER, false, "postmaster@[192.0.2.26]"),
        Err(RelayDenied::Literal)
    );
}

#[test]
fn mail_for_this_very_host_goes_to_the_postmaster() {
    for path in [
        "root@relay.example.com",
        "root@RELAY.example.com",
        "root@localhost",
        "a%b@localhost",
        "root@[192.0.2.25]",
    ] {
        assert_eq!(
            resolve(OURS, false, path),
            Ok("admin@example.com".into()),
            "{path}"
        );
    }
    assert_eq!(
        resolve(STRANGER, true, "root@localhost"),
        Ok("admin@example.com".into()),
        "nor does a partner's go out"
    );
    for connector in [&["*"][..], &["*.example.com", "example.com"]] {
        assert_eq!(
            resolve_with(&relay(), connector, OURS, false, "root@relay.example.com"),
            Ok("admin@example.com".into())
        );
    }
    // Strangers may not write to a user of this host.
    for path in ["root@relay.example.com", "root@localhost"] {
        assert_eq!(
            resolve(STRANGER, false, path),
            Err(RelayDenied::Domain),
            "{path}"
        );
    }
}

#[test]
fn only_our_own_clients_may_omit_the_domain() {
    for (path, to) in [
        ("root", "admin@example.com"),
        ("\"a b\"", "admin@example.com"),
        ("Postmaster", "admin@example.com"),
    ] {
        assert_eq!(resolve(OURS, false, path), Ok(to.into()), "{path}");
    }
    let named = resolve_with(&relay(), &["relay.example.com"], OURS, false, "root");
    assert_eq!(
        named,
        Ok("root@relay.example.com".into()),
        "who names this host gets its mail"
    );
    for may_relay in [false, true] {
        let denied = resolve(STRANGER, may_relay, "root").expect_err("a stranger");
        assert_eq!(
            denied.reply().to_string(),
            "501 5.1.3 Bad recipient address: there is no \"@domain\""
        );
    }
}

#[test]
fn mail_for_this_host_is_relayed_if_the_configuration_names_it() {
    let named = |name: &str| {
        let mut relay = relay();
        relay.domains.push(DomainPattern::Exactly(
            Domain::parse(name).expect("a domain"),
        ));
        relay
    };
    let hostname = "relay.example.com";
    for (relay, connector) in [
        (named(hostname), &[][..]),
        (relay(), &["relay.example.com"]),
    ] {
        for path in ["root@relay.example.com", "root@localhost"] {
            let to = resolve_with(&relay, connector, OURS, false, path);
            assert_eq!(to, Ok("root@relay.example.com".into()), "{path}");
        }
    }
    for (relay, connector) in [(named("localhost"), &[][..]), (relay(), &["localhost"])] {
        let to = |path| resolve_with(&relay, connector, OURS, false, path);
        assert_eq!(to("root@localhost"), Ok("root@localhost".into()));
        assert_eq!(to("root@relay.example.com"), Ok("admin@example.com".into()));
    }
}
