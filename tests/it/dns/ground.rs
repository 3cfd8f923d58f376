//! The three ways of validation, the trust anchors, and the cases in which nobody can validate.

use std::path::Path;

use gatepost::net::dns::{Dns, DnsError, InsecureReason, LookupError, Security};
use hickory_resolver::proto::rr::RecordType;

use super::security::{world, world_of};
use super::{SECURE, bogus, config, domain, mode, of_server, validating, with_anchor};
use crate::support::zones::{Fault, Kind, Resolver, Server, Zones};

const STRIPS: Security = Security::Insecure(InsecureReason::ResolverStrips);

#[tokio::test]
async fn keys_and_digests_are_both_anchors() {
    let server = world().await;
    for kind in ["dnskey", "ds"] {
        let dns = with_anchor(&server, kind);
        assert_eq!(
            dns.mx(&domain("good.test")).await.expect(kind).security,
            SECURE,
            "{kind}"
        );
        bogus(dns.mx(&domain("wrong.test")).await);
    }
}

#[tokio::test]
async fn another_root_is_bogus() {
    let (server, other) = (world().await, world().await);
    for kind in ["dnskey", "ds"] {
        let anchor = other.anchor(kind);
        let lines = format!(
            "servers = [\"{}\"]\ntrust_anchor = \"{}\"",
            server.address,
            anchor.display()
        );
        let dns = Dns::new(&config(&lines)).expect("a resolver");
        bogus(dns.mx(&domain("good.test")).await);
        bogus(dns.mx(&domain("plain.test")).await);
    }
    // The Internet's root is none of theirs either.
    bogus(mode(&server, "validate").mx(&domain("plain.test")).await);
}

#[tokio::test]
async fn a_resolver_that_strips_dnssec_stops_no_mail() {
    let server = world_of(Resolver {
        strips: true,
        ..Resolver::default()
    })
    .await;
    let dns = validating(&server);
    for zone in ["good.test", "plain.test", "wrong.test"] {
        assert_eq!(dns.mx(&domain(zone)).await.expect(zone).security, STRIPS);
        assert_eq!(
            dns.tlsa(25, &domain(&format!("mx.{zone}")))
                .await
                .expect(zone)
                .security,
            STRIPS
        );
        assert_eq!(
            dns.tlsa(26, &domain(&format!("mx.{zone}")))
                .await
                .expect(zone)
                .security,
            STRIPS
        );
    }
    assert_eq!(
        server.asked("good.test", RecordType::DNSKEY),
        0,
        "nothing is validated"
    );
}

#[tokio::test]
async fn a_resolver_that_refuses_the_root_stops_no_mail() {
    let server = world().await;
    server.fail(".", Some(RecordType::DNSKEY), Fault::Refused);
    let dns = validating(&server);
    assert_eq!(
        dns.mx(&domain("good.test"))
            .await
            .expect("an answer")
            .security,
        STRIPS
    );
}

#[tokio::test]
async fn once_it_has_worked_signatures_may_not_vanish() {
    let server = world().await;
    let dns = with_anchor(&server, "ds");
    assert_eq!(
        dns.mx(&domain("good.test"))
            .await
            .expect("an answer")
            .security,
        SECURE
    );
    server.strip(true);
    bogus(dns.addresses(&domain("mx.good.test")).await);
    // An unsigned zone cannot be distinguished from one whose signatures were removed.
    bogus(dns.addresses(&domain("mx.plain.test")).await);
    // Nor does a reload of the configuration forget it.
    let renewed = dns
        .with_config(&of_server(&server, "ds"))
        .expect("a resolver");
    bogus(renewed.addresses(&domain("mx.good.test")).await);
}

/// Answers of a resolver that returns no DNSSEC records, from a relay that keeps its memory in a
/// folder.
async fn stripped(server: &Server, folder: &Path) -> Result<Security, LookupError> {
    let dns = with_anchor(server, "ds");
    dns.remember_in(folder);
    dns.addresses(&domain("mx.good.test"))
        .await
        .map(|answer| answer.security)
}

#[tokio::test]
async fn only_an_operator_forgets_that_validation_has_worked() {
    let (server, folder) = (world().await, tempfile::tempdir().expect("a folder"));
    server.strip(true);
    assert_eq!(
        stripped(&server, folder.path()).await,
        Ok(STRIPS),
        "it never worked"
    );
    server.strip(false);
    assert_eq!(stripped(&server, folder.path()).await, Ok(SECURE));
    server.strip(true);
    bogus(stripped(&server, folder.path()).await);

    let dns = with_anchor(&server, "ds");
    dns.remember_in(folder.path());
    bogus(dns.mx(&domain("plain.test")).await);
    assert!(dns.forget_dnssec().expect("a folder that can be written"));
    assert_eq!(
        dns.mx(&domain("good.test"))
            .await
            .expect("an answer")
            .security,
        STRIPS,
        "at once"
    );
    assert_eq!(
        stripped(&server, folder.path()).await,
        Ok(STRIPS),
        "and after a restart"
    );
    assert!(!dns.forget_dnssec().expect("nothing to remove"));
}

#[tokio::test]
async fn dnssec_that_is_required_is_required_from_the_first_answer_on() {
    let server = world_of(Resolver {
        strips: true,
        ..Resolver::default()
    })
    .await;
    let lines = format!(
        "servers = [\"{}\"]\ntrust_anchor = \"{}\"\ndnssec = \"require\"",
        server.address,
        server.anchor("ds").display()
    );
    let dns = Dns::new(&config(&lines)).expect("a resolver");
    bogus(dns.mx(&domain("good.test")).await);
    server.strip(false);
    let dns = Dns::new(&config(&lines)).expect("a resolver");
    assert_eq!(
        dns.mx(&domain("good.test"))
            .await
            .expect("an answer")
            .security,
        SECURE
    );
}

#[tokio::test]
async fn a_root_that_cannot_be_asked_makes_nothing_insecure() {
    let server = world().await;
    server.fail(".", Some(RecordType::DNSKEY), Fault::ServFail);
    let dns = validating(&server);
    bogus(dns.mx(&domain("good.test")).await);
    server.heal();
}

#[tokio::test]
async fn off_validates_nothing() {
    let server = world().await;
    let dns = mode(&server, "off");
    let off = Security::Insecure(InsecureReason::Off);
    for zone in ["good.test", "plain.test", "wrong.test"] {
        assert_eq!(dns.mx(&domain(zone)).await.expect(zone).security, off);
    }
    assert_eq!(server.asked(".", RecordType::DNSKEY), 0);
}

#[tokio::test]
async fn a_trusted_resolver_is_believed() {
    let server = world_of(Resolver {
        validates: true,
        ..Resolver::default()
    })
    .await;
    let dns = mode(&server, "trust-resolver");
    let unvouched = Security::Insecure(InsecureReason::NoAdBit);
    for (name, security) in [
        ("mx.good.test", SECURE),
        ("to-good.good.test", SECURE),
        ("mx.plain.test", unvouched),
        ("to-plain.good.test", unvouched),
        ("four.good.test", SECURE),
    ] {
        assert_eq!(
            dns.addresses(&domain(name)).await.expect(name).security,
            security,
            "{name}"
        );
    }
    assert_eq!(
        dns.mx(&domain("good.test"))
            .await
            .expect("an answer")
            .security,
        SECURE
    );
    assert_eq!(
        dns.tlsa(25, &domain("mx.good.test"))
            .await
            .expect("an answer")
            .security,
        SECURE
    );
    let fault = dns
        .mx(&domain("wrong.test"))
        .await
        .expect_err("it answers SERVFAIL");
    assert!(
        matches!(&fault, LookupError::Server(words) if words.contains("Server Failure")),
        "{fault:?}"
    );
    assert_eq!(
        server.asked("good.test", RecordType::DNSKEY),
        0,
        "nothing is validated here"
    );
}

#[tokio::test]
async fn a_resolver_that_does_not_vouch_is_not_believed() {
    let server = world().await;
    let dns = mode(&server, "trust-resolver");
    let unvouched = Security::Insecure(InsecureReason::NoAdBit);
    assert_eq!(
        dns.mx(&domain("good.test"))
            .await
            .expect("an answer")
            .security,
        unvouched
    );
}

#[test]
fn an_unusable_trust_anchor_is_reported_at_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().join("empty.key");
    std::fs::write(&empty, "; nothing\n").expect("written");
    for (file, words) in [
        (
            folder.path().join("absent.key"),
            "cannot be read: No such file",
        ),
        (empty, "holds no DNSKEY or DS record"),
    ] {
        let config = config(&format!(
            "servers = [\"127.0.0.1:53\"]\ntrust_anchor = \"{}\"",
            file.display()
        ));
        let error = Dns::new(&config).expect_err("no anchor");
        assert!(matches!(error, DnsError::TrustAnchor { .. }));
        let fault = error.fault(&config).to_string();
        assert!(
            fault.starts_with("gatepost.toml:9:16: trust_anchor: "),
            "{fault}"
        );
        assert!(
            fault.contains(words) && fault.contains("DNSKEY or DS records of the root"),
            "{fault}"
        );
    }
}

#[tokio::test]
async fn an_answer_never_outlives_a_signature() {
    let server = Zones::new()
        .zone(
            "short.test",
            Kind::SignedFor(100),
            "short.test MX 10 mx.short.test",
        )
        .start(Resolver::default())
        .await;
    for dns in [validating(&server), mode(&server, "trust-resolver")] {
        let answer = dns.mx(&domain("short.test")).await.expect("an answer");
        let left = answer
            .expires
            .saturating_duration_since(std::time::Instant::now());
        assert!(
            left.as_secs() <= 100,
            "the TTL is an hour, and {left:?} are left"
        );
    }
}
