//! Answers that somebody between us and the name servers has changed, with whatever genuine records
//! he can get and with a signed zone of his own. No such answer is secure, and none makes a signed
//! zone insecure.

use gatepost::demo::zones::{self, full_name};
use gatepost::net::dns::{Dns, LookupError};
use hickory_resolver::proto::dnssec::DigestType;
use hickory_resolver::proto::dnssec::rdata::{DNSSECRData, RRSIG};
use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::CNAME;
use hickory_resolver::proto::rr::{RData, Record, RecordType};

use super::{SECURE, bogus, domain, validating};
use crate::support::zones::{Kind, Resolver, Server, Zones};

const GOOD: &str = "good.test MX 10 mx.good.test\nmx.good.test A 192.0.2.1\n\
    _25._tcp.mx.good.test TLSA 3 1 1 abcd\nalias.good.test CNAME mx.good.test\n\
    *.wild.good.test A 192.0.2.7\nfour.wild.good.test A 192.0.2.4\nzz.good.test A 192.0.2.26\n";

/// The genuine reply to a question.
fn reply(zones: &zones::Zones, name: &str, kind: RecordType) -> Message {
    let mut reply = Message::new(0, MessageType::Response, OpCode::Query);
    let query = Query::query(full_name(name).expect("a name"), kind);
    zones
        .answer(&mut reply, &query, true, false)
        .expect("an answer");
    reply
}

fn become_of(reply: &mut Message, other: Message) {
    reply.answers = other.answers;
    reply.authorities = other.authorities;
    reply.metadata.response_code = other.metadata.response_code;
}

async fn world(evil: &str) -> Server {
    Zones::new()
        .zone("test", Kind::Signed, "")
        .zone("good.test", Kind::Signed, GOOD)
        .zone("plain.test", Kind::Unsigned, "mx.plain.test A 192.0.2.66\n")
        .zone(
            "evil.test",
            Kind::Signed,
            &format!("evil.test A 192.0.2.66\nzz.evil.test A 192.0.2.66\n{evil}"),
        )
        .start(Resolver::default())
        .await
}

/// The attacker's own `good.test`, and the DS record of his key as it may stand in his signed zone.
fn impostor() -> (zones::Zones, String) {
    let records = "good.test MX 10 mx.good.test\nmx.good.test A 192.0.2.66\n_25._tcp.mx.good.test TLSA 3 1 1 6666\n";
    let written = [
        ("test", Kind::Signed, ""),
        ("good.test", Kind::Signed, records),
    ];
    let zones = zones::Zones::new(&written).expect("zones");
    let name = full_name("good.test").expect("a name");
    let shown = reply(&zones, "good.test", RecordType::DNSKEY);
    let key = shown.answers.iter().find_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::DNSKEY(key)) => Some(key),
        _ => None,
    });
    let key = key.expect("a key");
    let digest = key.to_digest(&name, DigestType::SHA256).expect("a digest");
    let hex = data_encoding::HEXLOWER.encode(digest.as_ref());
    let ds = format!(
        "x.evil.test DS {} 13 2 {hex}\n",
        key.calculate_key_tag().expect("a tag")
    );
    (zones, ds)
}

async fn tlsa(dns: &Dns) -> Result<usize, LookupError> {
    dns.tlsa(25, &domain("mx.good.test"))
        .await
        .map(|answer| answer.records().len())
}

/// A DS record counts for the zone that it names, not for the one that was asked about.
#[tokio::test]
async fn a_ds_record_of_another_zone_vouches_for_no_key() {
    let (theirs, ds) = impostor();
    let theirs = std::sync::Arc::new(theirs);
    for foreign_first in [false, true] {
        let server = world(&ds).await;
        assert_eq!(tlsa(&validating(&server)).await, Ok(1), "undisturbed");
        server.forge("good.test", RecordType::DS, move |zones, due| {
            let foreign = reply(zones, "x.evil.test", RecordType::DS).answers;
            assert!(
                foreign
                    .iter()
                    .any(|record| record.record_type() == RecordType::DS)
            );
            let at = if foreign_first { 0 } else { due.answers.len() };
            due.answers.splice(at..at, foreign);
        });
        for (name, kind) in [
            ("good.test", RecordType::DNSKEY),
            ("good.test", RecordType::MX),
            ("mx.good.test", RecordType::A),
            ("_25._tcp.mx.good.test", RecordType::TLSA),
        ] {
            let theirs = std::sync::Arc::clone(&theirs);
            server.forge(name, kind, move |_, due| {
                become_of(due, reply(&theirs, name, kind));
            });
        }
        let dns = validating(&server);
        bogus(dns.mx(&domain("good.test")).await);
        bogus(tlsa(&dns).await);
    }
}

/// A zone counts as unsigned where its own DS records are unknown, and no other's.
#[tokio::test]
async fn a_ds_record_of_another_zone_makes_none_unsigned() {
    for only_foreign in [false, true] {
        let server = world(&format!("x.evil.test DS 1 200 2 {}\n", "ab".repeat(32))).await;
        server.forge("good.test", RecordType::DS, move |zones, due| {
            if only_foreign {
                due.answers.clear();
            }
            due.answers
                .extend(reply(zones, "x.evil.test", RecordType::DS).answers);
        });
        server.forge("good.test", RecordType::MX, |_, due| {
            to_plain(due, "good.test");
        });
        bogus(validating(&server).mx(&domain("good.test")).await);
    }
}

/// Makes of a reply an unsigned alias to an unsigned zone.
fn to_plain(due: &mut Message, name: &str) {
    let target = CNAME(full_name("mx.plain.test").expect("a name"));
    due.answers = vec![Record::from_rdata(
        full_name(name).expect("a name"),
        60,
        RData::CNAME(target),
    )];
    due.metadata.response_code = ResponseCode::NoError;
}

/// Makes another zone the signer that the signatures of a section name.
fn sign_by(section: &mut [Record], zone: &str) {
    for record in section {
        if let RData::DNSSEC(DNSSECRData::RRSIG(signature)) = &record.data {
            let mut input = signature.input().clone();
            input.signer_name = full_name(zone).expect("a name");
            record.data = RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(
                input,
                signature.sig().to_vec(),
            )));
        }
    }
}

/// A zone vouches for names in it alone: an unsigned zone elsewhere does not make a signed one's
/// records unsigned.
#[tokio::test]
async fn a_signature_that_names_an_unsigned_zone_elsewhere_makes_nothing_unsigned() {
    let server = world("").await;
    for (name, kind) in [
        ("_25._tcp.mx.good.test", RecordType::TLSA),
        ("good.test", RecordType::MX),
    ] {
        server.forge(name, kind, |_, due| sign_by(&mut due.answers, "plain.test"));
    }
    let dns = validating(&server);
    bogus(tlsa(&dns).await);
    bogus(dns.mx(&domain("good.test")).await);
}

/// Nor does its denial deny a signed zone's records.
#[tokio::test]
async fn a_denial_that_names_an_unsigned_zone_elsewhere_denies_nothing() {
    for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
        let server = world("").await;
        server.forge(
            "_25._tcp.mx.good.test",
            RecordType::TLSA,
            move |zones, due| {
                let mut denial = reply(zones, "nothing.evil.test", RecordType::TLSA);
                assert!(
                    denial
                        .authorities
                        .iter()
                        .any(|record| record.record_type() == RecordType::NSEC)
                );
                for record in &mut denial.authorities {
                    record.name = full_name("mx.plain.test").expect("a name");
                }
                sign_by(&mut denial.authorities, "plain.test");
                become_of(due, denial);
                due.metadata.response_code = code;
            },
        );
        bogus(tlsa(&validating(&server)).await);
    }
}

/// "There is no CNAME here" says nothing about another type.
#[tokio::test]
async fn an_unsigned_alias_is_no_alias() {
    let server = world("").await;
    for (name, kind) in [
        ("_25._tcp.mx.good.test", RecordType::TLSA),
        ("good.test", RecordType::MX),
    ] {
        server.forge(name, kind, move |zones, due| {
            to_plain(due, name);
            // The name's own NSEC record: it has neither TXT nor CNAME.
            due.authorities = reply(zones, name, RecordType::TXT).authorities;
            assert!(
                due.authorities
                    .iter()
                    .any(|record| record.record_type() == RecordType::NSEC)
            );
        });
    }
    let dns = validating(&server);
    bogus(tlsa(&dns).await);
    bogus(dns.mx(&domain("good.test")).await);
}

/// A denial counts for the type that was asked, and not where the type exists.
#[tokio::test]
async fn the_denial_of_another_name_or_type_denies_nothing() {
    for other in [
        "zz.good.test",
        "nothing.good.test",
        "good.test",
        "nothing.test",
        "nothing.evil.test",
        "good.evil.test",
    ] {
        for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
            let server = world("").await;
            server.forge(
                "_25._tcp.mx.good.test",
                RecordType::TLSA,
                move |zones, due| {
                    become_of(due, reply(zones, other, RecordType::TXT));
                    due.metadata.response_code = code;
                },
            );
            bogus(tlsa(&validating(&server)).await);
        }
    }
}

/// A wildcard's answer is the answer to its own question.
#[tokio::test]
async fn a_proved_wildcard_of_another_name_proves_nothing_here() {
    let server = world("").await;
    server.forge("_25._tcp.mx.good.test", RecordType::TLSA, |zones, due| {
        become_of(due, reply(zones, "any.wild.good.test", RecordType::A));
        assert!(!due.answers.is_empty() && !due.authorities.is_empty());
    });
    bogus(tlsa(&validating(&server)).await);
}

/// A wildcard never stands for a name that exists, whatever irrelevant or foreign records come
/// along.
#[tokio::test]
async fn a_wildcard_stands_for_no_name_that_exists() {
    let name = "four.wild.good.test";
    let server = world("").await;
    let answer = validating(&server)
        .addresses(&domain("any.wild.good.test"))
        .await
        .expect("an answer");
    assert_eq!(
        (answer.records().len(), answer.security),
        (1, SECURE),
        "undisturbed"
    );
    server.forge(name, RecordType::A, move |zones, due| {
        let mut expanded = reply(zones, "any.wild.good.test", RecordType::A);
        for record in &mut expanded.answers {
            record.name = full_name(name).expect("a name");
        }
        // The wildcard's own proof, one from elsewhere in the zone, and one of a zone whose names
        // span this one.
        expanded
            .authorities
            .extend(reply(zones, "mx.good.test", RecordType::TXT).authorities);
        expanded
            .authorities
            .extend(reply(zones, "nothing.evil.test", RecordType::A).authorities);
        become_of(due, expanded);
    });
    bogus(validating(&server).addresses(&domain(name)).await);
}

/// A record of one class, owner or type counts for no other: changed records do not validate.
#[tokio::test]
async fn a_record_that_was_changed_is_not_validated() {
    let changes: [fn(&mut Record); 2] = [
        |record| record.data = RData::A("192.0.2.66".parse().expect("an address")),
        |record| record.dns_class = hickory_resolver::proto::rr::DNSClass::CH,
    ];
    for change in changes {
        let server = world("").await;
        server.forge("mx.good.test", RecordType::A, move |_, due| {
            for record in due
                .answers
                .iter_mut()
                .filter(|record| record.record_type() == RecordType::A)
            {
                change(record);
            }
        });
        // The library refuses a foreign class before anything is validated.
        let outcome = validating(&server).addresses(&domain("mx.good.test")).await;
        assert!(
            matches!(outcome, Err(LookupError::Bogus(_) | LookupError::Server(_))),
            "{outcome:?}"
        );
    }
}

/// Records beside "no such name" contradict themselves.
#[tokio::test]
async fn records_of_a_name_that_does_not_exist_are_none() {
    let server = world("").await;
    server.forge("_25._tcp.mx.good.test", RecordType::TLSA, |_, due| {
        due.metadata.response_code = ResponseCode::NXDomain;
    });
    bogus(tlsa(&validating(&server)).await);
}

/// A bogus answer costs its own lookup, and nobody else the keys that are known.
#[tokio::test]
async fn a_forged_answer_does_not_empty_what_is_known() {
    let server = world("").await;
    let dns = validating(&server);
    assert_eq!(tlsa(&dns).await, Ok(1));
    let roots = server.asked(".", RecordType::DNSKEY);
    for number in 0..20 {
        let name: &'static str = Box::leak(format!("h{number}.evil.test").into_boxed_str());
        server.forge(name, RecordType::A, |_, due| due.authorities.clear());
        bogus(dns.addresses(&domain(name)).await);
    }
    assert_eq!(server.asked("good.test", RecordType::DNSKEY), 1);
    assert_eq!(server.asked("evil.test", RecordType::DNSKEY), 1);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(
        server.asked(".", RecordType::DNSKEY) <= roots + 1,
        "the root is asked again once at most"
    );
}
