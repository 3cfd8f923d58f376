//! Answers that are secure, insecure, or neither of the two.

use gatepost::net::dns::{AnswerRecords, DnsAnswer, Exchange, LookupError, TlsaRecord};

use super::{SECURE, UNSIGNED, bogus, domain, validating};
use crate::support::zones::{Fault, Kind, Resolver, Server, Zones};

/// Zones of every kind, with aliases between them.
pub(crate) async fn world() -> Server {
    world_of(Resolver::default()).await
}

pub(crate) async fn world_of(resolver: Resolver) -> Server {
    let hosts = |zone: &str| {
        format!(
            "{zone} MX 10 mx.{zone}\n{zone} MX 20 mx.good.test\nmx.{zone} A 192.0.2.1\nmx.{zone} AAAA 2001:db8::1\n\
             four.{zone} A 192.0.2.4\n_25._tcp.mx.{zone} TLSA 3 1 1 {}\n_25._tcp.mx.{zone} TLSA 2 0 1 {}\n\
             _mta-sts.{zone} TXT v=STSv1; id=1;\n",
            "ab".repeat(32),
            "cd".repeat(32)
        )
    };
    let good = "to-good.good.test CNAME mx.good.test\nto-plain.good.test CNAME mx.plain.test\n\
        to-lost.good.test CNAME mx.lost.test\nto-nothing.good.test CNAME nothing.good.test\n\
        to-four.good.test CNAME four.good.test\nround.good.test CNAME about.good.test\n\
        about.good.test CNAME round.good.test\n*.wild.good.test A 192.0.2.7\n*.wilder.good.test CNAME mx.good.test\n\
        chain1.good.test CNAME chain2.plain.test\nto-wild.good.test CNAME any.wild.good.test\n\
        null.good.test MX 0 .\nodd.good.test MX 10 hyphen-.good.test\n\
        _25._tcp.to-plain.good.test TLSA 3 1 1 abcd\n_443._tcp.mx.good.test CNAME _25._tcp.mx.good.test\n";
    let plain = "to-good.plain.test CNAME mx.good.test\nchain2.plain.test CNAME mx.good.test\n";
    Zones::new()
        .zone("test", Kind::Signed, "")
        .zone("good.test", Kind::Signed, &(hosts("good.test") + good))
        .zone("plain.test", Kind::Unsigned, &(hosts("plain.test") + plain))
        .zone("wrong.test", Kind::WrongKey, &hosts("wrong.test"))
        .zone("expired.test", Kind::Expired, &hosts("expired.test"))
        .zone("lost.test", Kind::SignaturesLost, &hosts("lost.test"))
        .zone("island.test", Kind::Island, &hosts("island.test"))
        .zone("sub.plain.test", Kind::Island, &hosts("sub.plain.test"))
        .start(resolver)
        .await
}

fn hosts(answer: &DnsAnswer<gatepost::net::dns::Mx>) -> Vec<String> {
    let name = |mx: &gatepost::net::dns::Mx| match &mx.exchange {
        Exchange::Host(host) => format!("{} {host}", mx.preference),
        other => panic!("{other:?}"),
    };
    let mut hosts: Vec<_> = answer.records().iter().map(name).collect();
    hosts.sort();
    hosts
}

#[tokio::test]
async fn signed_records_are_secure_and_unsigned_ones_insecure() {
    let server = world().await;
    let dns = validating(&server);
    for (zone, security) in [
        ("good.test", SECURE),
        ("plain.test", UNSIGNED),
        ("sub.plain.test", UNSIGNED),
        ("island.test", UNSIGNED),
    ] {
        let answer = dns.mx(&domain(zone)).await.expect(zone);
        assert_eq!(
            hosts(&answer),
            [format!("10 mx.{zone}"), "20 mx.good.test".to_owned()]
        );
        assert_eq!(
            (answer.security, answer.first_link, answer.name.as_str()),
            (security, security, zone)
        );

        let host = domain(&format!("mx.{zone}"));
        let answer = dns.addresses(&host).await.expect(zone);
        let addresses: Vec<_> = answer.records().iter().map(ToString::to_string).collect();
        assert_eq!(
            (addresses, answer.security),
            (
                vec!["2001:db8::1".to_owned(), "192.0.2.1".to_owned()],
                security
            )
        );

        let answer = dns.txt(&format!("_mta-sts.{zone}")).await.expect(zone);
        assert_eq!(
            (answer.records(), answer.security),
            ([String::from("v=STSv1;id=1;")].as_slice(), security)
        );

        let mut answer = dns.tlsa(25, &host).await.expect(zone);
        if let AnswerRecords::Records(records) = &mut answer.found {
            records.sort_by_key(|record| record.usage);
        }
        let ta = TlsaRecord {
            usage: 2,
            selector: 0,
            matching: 1,
            data: vec![0xcd; 32],
        };
        let ee = TlsaRecord {
            usage: 3,
            selector: 1,
            matching: 1,
            data: vec![0xab; 32],
        };
        assert_eq!(
            (answer.records(), answer.security),
            ([ta, ee].as_slice(), security)
        );
        assert_eq!(answer.name, format!("_25._tcp.mx.{zone}"));
    }
}

#[tokio::test]
async fn what_is_bogus_has_no_answer_whatever_is_asked() {
    let server = world().await;
    let dns = validating(&server);
    for (zone, kind) in [
        ("wrong.test", "DNSKEY"),
        ("expired.test", "DNSKEY"),
        ("lost.test", "DNSKEY"),
    ] {
        let host = domain(&format!("mx.{zone}"));
        let fault = bogus(dns.mx(&domain(zone)).await);
        assert!(
            fault.contains(&format!("the {kind} records of {zone}.")),
            "{zone}: {fault}"
        );
        bogus(dns.addresses(&host).await);
        bogus(dns.addresses(&domain(&format!("four.{zone}"))).await);
        bogus(dns.tlsa(25, &host).await);
        bogus(dns.tlsa(26, &host).await);
        bogus(dns.txt(&format!("nothing.{zone}")).await);
    }
}

#[tokio::test]
async fn absence_is_proved_or_insecure() {
    let server = world().await;
    let dns = validating(&server);
    for (zone, security) in [("good.test", SECURE), ("plain.test", UNSIGNED)] {
        let no_data = dns
            .tlsa(587, &domain(&format!("mx.{zone}")))
            .await
            .expect(zone);
        assert_eq!(
            (no_data.found, no_data.security),
            (AnswerRecords::NoDomain, security),
            "{zone}"
        );
        let no_data = dns.mx(&domain(&format!("mx.{zone}"))).await.expect(zone);
        assert_eq!(
            (no_data.found, no_data.security),
            (AnswerRecords::NoData, security),
            "{zone}"
        );
        let empty = dns.txt(&format!("_tcp.mx.{zone}")).await.expect(zone);
        assert_eq!(
            (empty.found, empty.security),
            (AnswerRecords::NoData, security),
            "{zone}"
        );
        let deep = dns
            .tlsa(25, &domain(&format!("no.such.host.{zone}")))
            .await
            .expect(zone);
        assert_eq!(
            (deep.found, deep.security),
            (AnswerRecords::NoDomain, security),
            "{zone}"
        );
    }
    let no_zone = dns
        .mx(&domain("example.invalid"))
        .await
        .expect("the root knows");
    assert_eq!(
        (no_zone.found, no_zone.security),
        (AnswerRecords::NoDomain, SECURE)
    );
}

#[tokio::test]
async fn a_family_without_addresses_takes_nothing_from_the_other() {
    let server = world().await;
    let dns = validating(&server);
    let four = dns
        .addresses(&domain("four.good.test"))
        .await
        .expect("an address");
    assert_eq!((four.records().len(), four.security), (1, SECURE));
    let four = dns
        .addresses(&domain("to-four.good.test"))
        .await
        .expect("an address");
    assert_eq!(
        (four.records().len(), four.security, four.name.as_str()),
        (1, SECURE, "four.good.test")
    );
    let none = dns
        .addresses(&domain("good.test"))
        .await
        .expect("an answer");
    assert_eq!((none.found, none.security), (AnswerRecords::NoData, SECURE));
}

#[tokio::test]
async fn an_alias_is_as_secure_as_its_weakest_link() {
    let server = world().await;
    let dns = validating(&server);
    // Twice: what comes from the cache is worth no more than what came from the network.
    for _ in 0..2 {
        for (alias, target, security, first) in [
            ("to-good.good.test", "mx.good.test", SECURE, SECURE),
            ("to-plain.good.test", "mx.plain.test", UNSIGNED, SECURE),
            ("to-good.plain.test", "mx.good.test", UNSIGNED, UNSIGNED),
            ("chain1.good.test", "mx.good.test", UNSIGNED, SECURE),
            ("mx.good.test", "mx.good.test", SECURE, SECURE),
        ] {
            let answer = dns.addresses(&domain(alias)).await.expect(alias);
            assert_eq!(
                (answer.security, answer.first_link, answer.name.as_str()),
                (security, first, target),
                "{alias}"
            );
            assert_eq!(answer.records().len(), 2, "{alias}");
        }
        bogus(dns.addresses(&domain("to-lost.good.test")).await);
        let nothing = dns
            .addresses(&domain("to-nothing.good.test"))
            .await
            .expect("an answer");
        assert_eq!(
            (nothing.found, nothing.security),
            (AnswerRecords::NoDomain, SECURE)
        );
        let tlsa = dns
            .tlsa(443, &domain("mx.good.test"))
            .await
            .expect("TLSA behind an alias");
        assert_eq!(
            (tlsa.records().len(), tlsa.name.as_str()),
            (2, "_25._tcp.mx.good.test")
        );
    }
}

#[tokio::test]
async fn wildcards_are_proved() {
    let server = world().await;
    let dns = validating(&server);
    for (name, kind) in [
        ("any.wild.good.test", 1),
        ("to-wild.good.test", 1),
        ("a.wilder.good.test", 2),
    ] {
        let answer = dns.addresses(&domain(name)).await.expect(name);
        assert_eq!(
            (answer.records().len(), answer.security),
            (kind, SECURE),
            "{name}"
        );
    }
    let none = dns
        .mx(&domain("any.wild.good.test"))
        .await
        .expect("an answer");
    assert_eq!((none.found, none.security), (AnswerRecords::NoData, SECURE));
}

#[tokio::test]
async fn aliases_end() {
    let server = world().await;
    let dns = validating(&server);
    let fault = dns
        .addresses(&domain("round.good.test"))
        .await
        .expect_err("it leads nowhere");
    assert!(fault.to_string().contains("more than 10 CNAMEs"), "{fault}");
}

#[tokio::test]
async fn mx_records_say_whom_they_name() {
    let server = world().await;
    let dns = validating(&server);
    let null = dns.mx(&domain("null.good.test")).await.expect("an answer");
    assert_eq!(null.records()[0].exchange, Exchange::Null);
    let odd = dns.mx(&domain("odd.good.test")).await.expect("an answer");
    assert_eq!(
        odd.records()[0].exchange,
        Exchange::NotAHost("hyphen-.good.test".to_owned())
    );
}

/// Whoever is between us and the resolver can put any true denial into an answer; it must be that
/// of the zone.
#[tokio::test]
async fn what_a_strangers_zone_denies_is_not_denied_here() {
    use hickory_resolver::proto::rr::RecordType;

    let host = domain("mx.good.test");
    for stranger in [
        "_25._tcp.four.plain.test",
        "nothing.plain.test",
        "_25._tcp.four.evil.test",
        "nothing.evil.test",
    ] {
        let server = Zones::new()
            .zone("test", Kind::Signed, "")
            .zone(
                "good.test",
                Kind::Signed,
                "mx.good.test A 192.0.2.1\n_25._tcp.mx.good.test TLSA 3 1 1 abcd\n",
            )
            .zone(
                "plain.test",
                Kind::Unsigned,
                "four.plain.test A 192.0.2.1\n",
            )
            .zone("evil.test", Kind::Signed, "four.evil.test A 192.0.2.1\n")
            .start(Resolver::default())
            .await;
        assert!(
            validating(&server).tlsa(25, &host).await.is_ok(),
            "undisturbed"
        );
        server.fail(
            "_25._tcp.mx.good.test",
            Some(RecordType::TLSA),
            Fault::Stranger(stranger),
        );
        let told = validating(&server).tlsa(25, &host).await;
        assert!(
            matches!(told, Err(LookupError::Bogus(_))),
            "{stranger}: {told:?}"
        );
    }
}
