//! Who may relay, as a table, and the tricks of address syntax that must not work.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{
    Admin, AdminSocket, Limits, Located, Log, LogFormat, OwnTls, Place, Queue, Relay, Timeouts, Trust,
};
use crate::tls::TlsVersion;

const STRANGER: &str = "203.0.113.9";

fn config() -> Config {
    let place = Place { file: Arc::from(Path::new("test.toml")), line: 1, column: 1 };
    let second = Duration::from_secs(1);
    let domain = |text: &str| Domain::parse(text).expect("a domain");
    Config {
        hostname: domain("relay.example.com"),
        postmaster: Mailbox::parse("admin@example.com").expect("a mailbox"),
        tls: OwnTls {
            identity: None,
            sni: Vec::new(),
            trust: Located { value: Trust::Webpki, place: place.clone() },
            min_version: TlsVersion::V1_2,
        },
        spool: Located { value: PathBuf::from("spool"), place: place.clone() },
        listeners: Vec::new(),
        relay: Relay {
            networks: ["127.0.0.0/8", "::1/128", "2001:db8::/32"].map(|net| net.parse().expect("a network")).to_vec(),
            domains: vec![
                DomainPattern::Exactly(domain("example.com")),
                DomainPattern::Below(domain("sub.example.com")),
            ],
        },
        connectors: Vec::new(),
        queue: Queue { retry: vec![second], expire: second, warn_after: crate::config::WarnAfter::Never },
        limits: Limits {
            message_size: 1,
            recipients: 1,
            connections: 1,
            connections_per_client: 1,
            errors: 1,
            received: 1,
        },
        timeouts: Timeouts {
            command: second,
            data_block: second,
            data_rate: 1,
            handshake: second,
            connect: second,
            reply: second,
            final_reply: second,
            drain: second,
        },
        dns_servers: Vec::new(),
        admin: Admin { socket: Located { value: AdminSocket::Off, place } },
        log: Log { format: LogFormat::Text, level: "info".into() },
    }
}

fn ask(address: &str, may_relay: bool, path: &str) -> Result<String, Denied> {
    let address = address.parse().expect("an address");
    let peer = Peer { address, local: "192.0.2.25".parse().expect("an address"), may_relay };
    let path = ForwardPath::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    recipient(&config(), peer, &path).map(|mailbox| mailbox.to_string())
}

#[test]
fn anyone_may_write_to_our_domains() {
    for path in ["a@example.com", "a@EXAMPLE.com", "a@x.sub.example.com", "\"a b\"@example.com"] {
        assert!(ask(STRANGER, false, path).is_ok(), "{path}");
    }
}

#[test]
fn strangers_may_write_nowhere_else() {
    for path in
        ["a@example.net", "a@sub.example.com", "a@badexample.com", "a@x.example.com", "a@com", "a@relay.example.com"]
    {
        assert_eq!(ask(STRANGER, false, path), Err(Denied::Domain), "{path}");
    }
    for path in ["a@[192.0.2.25]", "a@[127.0.0.1]", "a@[IPv6:::1]"] {
        assert_eq!(ask(STRANGER, false, path), Err(Denied::Literal), "{path}");
    }
}

#[test]
fn no_spelling_is_a_way_through() {
    for path in [
        "a%example.net@example.com",
        "example.net!a@example.com",
        "\"a@example.net\"@example.com",
        "\"a\\@example.net\"@example.com",
        "\"@example.net:a\"@example.com",
        "@example.net:a%example.net@example.com",
    ] {
        assert_eq!(ask(STRANGER, false, path), Err(Denied::Routing), "{path}");
    }
    // Only the last mailbox of a source route counts (RFC 5321 appendix C).
    assert_eq!(ask(STRANGER, false, "@example.com:a@example.net"), Err(Denied::Domain));
    assert_eq!(ask(STRANGER, false, "@example.net:a@example.com"), Ok("a@example.com".into()));
    for path in
        ["a@example.com@example.net", "a@example.net\0@example.com", "a@example.com>", "a@example.com.", "a@example"]
    {
        let parsed = ForwardPath::parse(path);
        assert!(parsed.is_err() || ask(STRANGER, false, path).is_err(), "{path:?}");
    }
}

#[test]
fn our_own_clients_may_write_anywhere() {
    for address in ["127.0.0.1", "::ffff:127.0.0.1", "::1", "2001:db8::25"] {
        for path in ["a@example.net", "a%b@example.net", "a%b@example.com", "a@[192.0.2.1]"] {
            assert_eq!(ask(address, false, path), Ok(path.into()), "{address} {path}");
        }
    }
    for address in ["::ffff:203.0.113.9", "::2", "2001:db9::1"] {
        assert_eq!(ask(address, false, "a@example.net"), Err(Denied::Domain), "{address}");
    }
}

#[test]
fn a_relay_connector_opens_every_domain_but_no_literal() {
    assert!(ask(STRANGER, true, "a@example.net").is_ok());
    assert_eq!(ask(STRANGER, true, "a@[127.0.0.1]"), Err(Denied::Literal));
}

#[test]
fn the_postmaster_is_always_there() {
    for path in ["postmaster", "PostMaster@relay.example.com", "postmaster@[192.0.2.25]"] {
        assert_eq!(ask(STRANGER, false, path), Ok("admin@example.com".into()), "{path}");
    }
    assert_eq!(ask(STRANGER, false, "postmaster@example.com"), Ok("postmaster@example.com".into()));
    assert_eq!(ask(STRANGER, false, "postmaster@example.net"), Err(Denied::Domain));
    assert_eq!(ask(STRANGER, false, "postmaster@[192.0.2.26]"), Err(Denied::Literal));
}
