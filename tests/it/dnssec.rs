//! The resolver and DANE against BIND and Unbound, which `.ci/dnssec` sets up; nothing here is ours
//! but what asks.
//!
//! Three servers know the same zones: BIND as their authority, which follows no alias out of a
//! zone; Unbound as a plain forwarder, which has the complete chain in one answer; and Unbound as a
//! validator, whose AD bit is believed. `cargo test` leaves all this to `.ci/dnssec`.

use std::net::SocketAddr;
use std::path::PathBuf;

use gatepost::config::Config;
use gatepost::discovery::{HopQuery, dane};
use gatepost::net::dns::{AnswerRecords, Dns, Exchange, InsecureReason, LookupError, Security};
use gatepost::net::route::Router;
use gatepost::policy::layers::DaneFinding;
use gatepost::smtp::address::{Domain, Host};
use gatepost::smtp::envelope::TlsRequirement;

use crate::support::config::ConfigBuilder;

const SECURE: Security = Security::Secure;
const UNSIGNED: Security = Security::Insecure(InsecureReason::Unsigned);
const SIGNED_ZONES: [&str; 3] = ["nsec.test", "nsec3.test", "optout.test"];
const UNSIGNED_ZONES: [&str; 3] = ["plain.test", "plain.optout.test", "island.test"];
const BOGUS_ZONES: [&str; 4] = ["changed.test", "wrongds.test", "expired.test", "lost.test"];

fn told(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run .ci/dnssec"))
}

fn server(variable: &str) -> SocketAddr {
    told(variable).parse().expect("an address")
}

fn config(server: SocketAddr, dns: &str) -> Config {
    ConfigBuilder::new()
        .table("dns", &format!("servers = [\"{server}\"]\n{dns}"))
        .all_mail("")
        .parse()
}

/// Validating resolvers of ours, by what they ask and what they start from.
fn validating() -> Vec<(String, Config)> {
    let anchor = |kind: &str| PathBuf::from(told("DNSSEC_ZONES")).join(kind);
    let mut all = Vec::new();
    for variable in ["DNSSEC_AUTHORITY", "DNSSEC_FORWARDER", "DNSSEC_VALIDATOR"] {
        for kind in ["root.dnskey", "root.ds"] {
            let config = config(
                server(variable),
                &format!("trust_anchor = \"{}\"", anchor(kind).display()),
            );
            all.push((format!("{variable} {kind}"), config));
        }
    }
    all
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).expect("a domain")
}

fn resolver(config: &Config) -> Dns {
    Dns::new(&config.dns).expect("a resolver")
}

/// Everything that is wrong with the answers.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn check<T: std::fmt::Debug + PartialEq>(&mut self, what: &str, found: &T, wanted: &T) {
        if found != wanted {
            self.0
                .push(format!("{what}: {found:?} instead of {wanted:?}"));
        }
    }
}

impl Drop for Wrong {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(
                self.0.is_empty(),
                "{} wrong\n{}",
                self.0.len(),
                self.0.join("\n")
            );
        }
    }
}

/// Returns the number of addresses, their security, and the name that they belong to.
async fn addresses(dns: &Dns, name: &str) -> Result<(usize, Security, String), LookupError> {
    let answer = dns.addresses(&domain(name)).await?;
    Ok((answer.records().len(), answer.security, answer.name))
}

/// A zone that a resolver is asked about.
struct Zone<'a> {
    dns: &'a Dns,
    name: &'a str,
    security: Security,
    /// The security of what does not exist, or comes from a wildcard: with opt-out, nothing proves
    /// either (RFC 5155 §9.2).
    loose: Security,
    /// The resolver's name in what is reported.
    who: &'a str,
}

impl Zone<'_> {
    fn at(&self, label: &str) -> String {
        format!("{label}.{}", self.name)
    }
}

async fn answers_of(dns: &Dns, name: &str, security: Security, who: &str, wrong: &mut Wrong) {
    let loose = if name == "optout.test" {
        UNSIGNED
    } else {
        security
    };
    let zone = Zone {
        dns,
        name,
        security,
        loose,
        who,
    };
    mail_exchangers_of(&zone, wrong).await;
    addresses_of(&zone, wrong).await;
    texts_and_wildcards_of(&zone, wrong).await;
    tlsa_records_of(&zone, wrong).await;
}

async fn mail_exchangers_of(zone: &Zone<'_>, wrong: &mut Wrong) {
    let mx = zone.dns.mx(&domain(zone.name)).await.map(|answer| {
        let mut hosts: Vec<_> = answer
            .records()
            .iter()
            .map(|mx| match &mx.exchange {
                Exchange::Host(host) => host.to_string(),
                other => format!("{other:?}"),
            })
            .collect();
        hosts.sort();
        hosts.dedup();
        (hosts, answer.security)
    });
    let mut hosts = vec![zone.at("mx"), "mx.nsec.test".to_owned()];
    hosts.sort();
    hosts.dedup();
    let (who, name) = (zone.who, zone.name);
    wrong.check(
        &format!("{who} {name} MX"),
        &mx,
        &Ok((hosts, zone.security)),
    );
}

async fn addresses_of(zone: &Zone<'_>, wrong: &mut Wrong) {
    let (security, loose) = (zone.security, zone.loose);
    for (label, count, target, security) in [
        ("mx", 2, "mx", security),
        ("four", 1, "four", security),
        ("alias", 2, "mx", security),
        ("alias-four", 1, "four", security),
        ("any.wild", 1, "any.wild", loose),
        ("any.deep.wild", 1, "any.deep.wild", loose),
        ("any.wilder", 2, "mx", loose),
        ("very.deep.below", 1, "very.deep.below", security),
        ("deep.below", 0, "deep.below", security),
        ("alias-nowhere", 0, "nowhere", loose),
        ("nowhere", 0, "nowhere", loose),
        ("no.where.at.all", 0, "no.where.at.all", loose),
    ] {
        let (owner, target) = (zone.at(label), zone.at(target));
        let found = addresses(zone.dns, &owner).await;
        let expected = Ok((count, security, target));
        wrong.check(&format!("{} {owner}", zone.who), &found, &expected);
    }
}

async fn texts_and_wildcards_of(zone: &Zone<'_>, wrong: &mut Wrong) {
    let (dns, who, security, loose) = (zone.dns, zone.who, zone.security, zone.loose);
    let at = |label| zone.at(label);
    let wild = dns
        .mx(&domain(&at("x.wild")))
        .await
        .map(|answer| (answer.records().len(), answer.security));
    wrong.check(
        &format!("{who} {} MX", at("x.wild")),
        &wild,
        &Ok((1, loose)),
    );
    let none = dns
        .mx(&domain(&at("mx")))
        .await
        .map(|answer| (answer.found, answer.security));
    wrong.check(
        &format!("{who} {} MX", at("mx")),
        &none,
        &Ok((AnswerRecords::NoData, security)),
    );
    let text = dns
        .txt(&at("_mta-sts"))
        .await
        .map(|answer| (answer.records().to_vec(), answer.security));
    wrong.check(
        &format!("{who} {} TXT", zone.name),
        &text,
        &Ok((vec!["v=STSv1; id=1;".to_owned()], security)),
    );
}

async fn tlsa_records_of(zone: &Zone<'_>, wrong: &mut Wrong) {
    let (security, loose) = (zone.security, zone.loose);
    for (port, host, count, security) in [
        (25, "mx", 3, security),
        (443, "mx", 3, security),
        (26, "mx", 0, loose),
        (25, "nowhere", 0, loose),
        (25, "any.wild", 0, loose),
    ] {
        let owner = zone.at(host);
        let tlsa = zone.dns.tlsa(port, &domain(&owner)).await;
        let tlsa = tlsa.map(|answer| (answer.records().len(), answer.security));
        let asked = format!("{} {owner} TLSA {port}", zone.who);
        wrong.check(&asked, &tlsa, &Ok((count, security)));
    }
}

#[tokio::test]
#[ignore = "needs the name servers of .ci/dnssec"]
async fn signed_zones_are_secure_and_unsigned_ones_insecure() {
    let mut wrong = Wrong::default();
    for (who, config) in validating() {
        let dns = resolver(&config);
        for zone in SIGNED_ZONES {
            answers_of(&dns, zone, SECURE, &who, &mut wrong).await;
        }
        for zone in UNSIGNED_ZONES {
            answers_of(&dns, zone, UNSIGNED, &who, &mut wrong).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs the name servers of .ci/dnssec"]
async fn bogus_zones_have_no_answers() {
    let mut wrong = Wrong::default();
    for (who, config) in validating() {
        let dns = resolver(&config);
        // Behind a validator, the same trouble comes as SERVFAIL.
        let failed = |error: &LookupError| {
            matches!(error, LookupError::Bogus(_)) || who.contains("VALIDATOR")
        };
        for zone in BOGUS_ZONES {
            let mx = dns.mx(&domain(zone)).await.map(|answer| answer.found);
            wrong.check(
                &format!("{who} {zone} MX {mx:?}"),
                &mx.is_err_and(|error| failed(&error)),
                &true,
            );
            for label in ["mx", "four", "any.wild"] {
                let found = addresses(&dns, &format!("{label}.{zone}")).await;
                wrong.check(
                    &format!("{who} {label}.{zone} {found:?}"),
                    &found.is_err_and(|error| failed(&error)),
                    &true,
                );
            }
            let tlsa = dns
                .tlsa(25, &domain(&format!("mx.{zone}")))
                .await
                .map(|answer| answer.found);
            wrong.check(
                &format!("{who} {zone} TLSA {tlsa:?}"),
                &tlsa.is_err_and(|error| failed(&error)),
                &true,
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs the name servers of .ci/dnssec"]
async fn aliases_across_zones_are_as_secure_as_their_weakest_link() {
    let mut wrong = Wrong::default();
    for (who, config) in validating() {
        let dns = resolver(&config);
        for _ in 0..2 {
            for zone in SIGNED_ZONES.into_iter().chain(UNSIGNED_ZONES) {
                let own = if SIGNED_ZONES.contains(&zone) {
                    SECURE
                } else {
                    UNSIGNED
                };
                for (label, target, security) in [
                    ("to-nsec", "mx.nsec.test", own),
                    ("to-nsec3", "mx.nsec3.test", own),
                    ("to-plain", "mx.plain.test", UNSIGNED),
                    ("mx.moved", "mx.nsec.test", own),
                ] {
                    let name = format!("{label}.{zone}");
                    let answer = dns.addresses(&domain(&name)).await;
                    let found = answer.map(|answer| {
                        (
                            answer.records().len(),
                            answer.security,
                            answer.first_link,
                            answer.name,
                        )
                    });
                    wrong.check(
                        &format!("{who} {name}"),
                        &found,
                        &Ok((2, security, own, target.to_owned())),
                    );
                }
                let bogus = addresses(&dns, &format!("to-bogus.{zone}")).await;
                wrong.check(
                    &format!("{who} to-bogus.{zone} {bogus:?}"),
                    &bogus.is_err(),
                    &true,
                );
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs the name servers of .ci/dnssec"]
async fn a_validator_on_this_machine_is_as_good() {
    let mut wrong = Wrong::default();
    let dns = resolver(&config(
        server("DNSSEC_VALIDATOR"),
        "dnssec = \"trust-resolver\"",
    ));
    let unvouched = Security::Insecure(InsecureReason::NoAdBit);
    for (zones, own) in [(SIGNED_ZONES, SECURE), (UNSIGNED_ZONES, unvouched)] {
        for zone in zones {
            let loose = if zone == "optout.test" {
                unvouched
            } else {
                own
            };
            for (label, security) in [
                ("mx", own),
                ("four", own),
                ("any.wild", loose),
                ("to-nsec3", own),
                ("to-plain", unvouched),
            ] {
                let found = addresses(&dns, &format!("{label}.{zone}"))
                    .await
                    .map(|(_, security, _)| security);
                wrong.check(&format!("{label}.{zone}"), &found, &Ok(security));
            }
            let tlsa = dns
                .tlsa(25, &domain(&format!("mx.{zone}")))
                .await
                .map(|answer| answer.security);
            wrong.check(&format!("{zone} TLSA"), &tlsa, &Ok(own));
        }
    }
    for zone in BOGUS_ZONES {
        let found = addresses(&dns, &format!("mx.{zone}")).await;
        wrong.check(
            &format!("{zone} {found:?}"),
            &matches!(found, Err(LookupError::Server(_))),
            &true,
        );
    }
    // A forwarder vouches for nothing.
    let dns = resolver(&config(
        server("DNSSEC_FORWARDER"),
        "dnssec = \"trust-resolver\"",
    ));
    let found = addresses(&dns, "mx.nsec.test")
        .await
        .map(|(_, security, _)| security);
    wrong.check("forwarder", &found, &Ok(unvouched));
}

/// The finding about a host of MX records, as text.
async fn finding(config: &Config, recipient: &str) -> String {
    let dns = resolver(config);
    let router = Router::new(config, dns.clone());
    let recipient = Host::parse(recipient).expect("a host");
    let connector = &config.connectors[0];
    let hops = match router.hops(&recipient, &connector.outbound.route).await {
        Ok(hops) => hops,
        Err(failure) => return format!("the domain fails: {failure}"),
    };
    let hop = &hops.hops[0];
    let addresses = match router.addresses(hop).await {
        Ok(addresses) => addresses,
        Err(failure) => return format!("the host fails: {failure}"),
    };
    let query = HopQuery {
        recipient: &recipient,
        connector,
        hop,
        basis: &hops.basis,
        addresses: &addresses,
        requirement: TlsRequirement::Ordinary,
        dns: &dns,
        now: jiff::Timestamp::now(),
    };
    match dane::look_up(&query).await {
        Ok(DaneFinding::Usable(set)) => {
            let records: Vec<_> = set
                .records
                .iter()
                .map(|record| record.to_string()[..5].to_owned())
                .collect();
            format!("{} {} {:?}", set.base, records.join(", "), set.scope)
        }
        Ok(DaneFinding::Unusable(_)) => "unusable".to_owned(),
        Ok(DaneFinding::Absent(_)) => "absent".to_owned(),
        Ok(DaneFinding::NotLookedUp(why)) => why.to_owned(),
        Err(failure) => format!("fails: {failure}"),
    }
}

#[tokio::test]
#[ignore = "needs the name servers of .ci/dnssec"]
async fn dane_finds_what_each_host_publishes() {
    let mut wrong = Wrong::default();
    for (who, config) in validating() {
        for zone in SIGNED_ZONES {
            let loose = if zone == "optout.test" {
                "Host"
            } else {
                "Domain"
            };
            for (recipient, wanted) in [
                (zone.to_owned(), format!("mx.{zone} 3 1 2, 2 0 1 Domain")),
                // No MX: implicit.
                (
                    format!("mx.{zone}"),
                    format!("mx.{zone} 3 1 2, 2 0 1 Domain"),
                ),
                (
                    format!("alias.{zone}"),
                    format!("mx.{zone} 3 1 2, 2 0 1 Domain"),
                ),
                (
                    format!("to-nsec3.{zone}"),
                    "mx.nsec3.test 3 1 2, 2 0 1 Domain".to_owned(),
                ),
                (
                    format!("x.wild.{zone}"),
                    format!("mx.{zone} 3 1 2, 2 0 1 {loose}"),
                ),
                (format!("four.{zone}"), "unusable".to_owned()),
                (format!("zz.{zone}"), format!("zz.{zone} 3 0 0 Domain")),
                (format!("very.deep.below.{zone}"), "absent".to_owned()),
                (format!("to-plain.{zone}"), "absent".to_owned()),
            ] {
                wrong.check(
                    &format!("{who} {recipient}"),
                    &finding(&config, &recipient).await,
                    &wanted,
                );
            }
        }
        for zone in UNSIGNED_ZONES {
            wrong.check(
                &format!("{who} {zone}"),
                &finding(&config, zone).await,
                &"absent".to_owned(),
            );
        }
        for zone in BOGUS_ZONES {
            let found = finding(&config, zone).await;
            wrong.check(
                &format!("{who} {zone} {found}"),
                &found.starts_with("the domain fails: the MX lookup"),
                &true,
            );
        }
    }
}
