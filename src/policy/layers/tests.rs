//! The precedence table: every combination of connector, DANE, MTA-STS, downgrade memory and the
//! message's requirement.
//!
//! The rules are written here a second time, one test for each, and checked for every combination.
//! `docs/precedence.md` has the same table for readers; the last test keeps the two equal.

mod user_connector;

use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::policy::connector::{
    InboundConfig, OnFailure, OutboundConfig, Publication, Route, TlsDemand, TlsException,
    TrustSource, VerifyWanted,
};
use crate::policy::location::{Located, Location};
use crate::policy::tls::{
    Pin, Revocation, Strength, TlsVersion, Tlsa, TlsaMatching, TlsaSelector, TlsaUsage,
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn host(text: &str) -> Host {
    Host::parse(text).expect("a host")
}

fn hop() -> Host {
    host("mx.example.net")
}

fn set(scope: DaneScope) -> Arc<TlsaSet> {
    let (usage, selector, matching) = (
        TlsaUsage::EndEntity,
        TlsaSelector::PublicKey,
        TlsaMatching::Sha256,
    );
    Arc::new(TlsaSet {
        base: Domain::parse("mx.example.net").expect("a domain"),
        records: vec![Tlsa {
            usage,
            selector,
            matching,
            data: vec![7; 32],
        }],
        names: vec![NamePattern::parse("mx.example.net").expect("a name")],
        scope,
    })
}

fn connector(tls: TlsDemand, downgrade: OnDowngrade) -> Connector {
    let location = Location {
        file: Arc::from(Path::new("gatepost.toml")),
        line: 1,
        column: 1,
    };
    Connector {
        name: "partner".to_owned(),
        domains: Vec::new(),
        names: vec![NamePattern::parse("mail.example.org").expect("a name")],
        trust: Located {
            value: TrustSource::Webpki,
            location,
        },
        pins: vec![Pin::new([1; 32])],
        crl: Vec::new(),
        outbound: OutboundConfig {
            route: Route::Mx { port: 25 },
            tls,
            discover: vec![Publication::Dane, Publication::MtaSts],
            downgrade,
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

fn forced(verify: VerifyWanted) -> TlsDemand {
    TlsDemand::Forced {
        min_version: TlsVersion::V1_2,
        verify,
    }
}

fn floors() -> [(&'static str, TlsDemand); 7] {
    [
        ("off", TlsDemand::Off),
        ("opportunistic", TlsDemand::Opportunistic),
        ("forced", forced(VerifyWanted::None)),
        ("forced, chain", forced(VerifyWanted::Chain)),
        ("forced, name", forced(VerifyWanted::Name)),
        ("forced, pin", forced(VerifyWanted::Pin)),
        ("forced, dane", forced(VerifyWanted::Dane)),
    ]
}

fn danes() -> [(&'static str, DaneFinding); 5] {
    [
        (
            "not asked",
            DaneFinding::NotLookedUp("discover does not name it"),
        ),
        (
            "none",
            DaneFinding::Absent("its zone is not signed".to_owned()),
        ),
        (
            "unusable",
            DaneFinding::Unusable("PKIX usages only".to_owned()),
        ),
        ("usable", DaneFinding::Usable(set(DaneScope::Domain))),
        (
            "usable, MX unsigned",
            DaneFinding::Usable(set(DaneScope::Host)),
        ),
    ]
}

fn policies() -> [(&'static str, MtaStsFinding); 6] {
    let elsewhere =
        || MtaStsListing::NotListed(vec![NamePattern::parse("mx.example.com").expect("a name")]);
    [
        (
            "not asked",
            MtaStsFinding::NotLookedUp("discover does not name it"),
        ),
        ("none", MtaStsFinding::None("no record".to_owned())),
        (
            "testing, listed",
            MtaStsFinding::Testing(MtaStsListing::Listed),
        ),
        ("testing, not listed", MtaStsFinding::Testing(elsewhere())),
        (
            "enforce, listed",
            MtaStsFinding::Enforce(MtaStsListing::Listed),
        ),
        ("enforce, not listed", MtaStsFinding::Enforce(elsewhere())),
    ]
}

fn memories() -> [(&'static str, MemoryFinding, OnDowngrade); 4] {
    let took = || MemoryFinding::TookTls { last: NOW };
    [
        ("nothing", MemoryFinding::Nothing, OnDowngrade::Refuse),
        ("TLS, allow", took(), OnDowngrade::Allow),
        ("TLS, warn", took(), OnDowngrade::Warn),
        ("TLS, refuse", took(), OnDowngrade::Refuse),
    ]
}

fn requirements() -> [(&'static str, TlsRequirement); 3] {
    [
        ("nothing", TlsRequirement::Ordinary),
        ("REQUIRETLS", TlsRequirement::Require),
        ("TLS-Required: No", TlsRequirement::Relaxed),
    ]
}

/// One combination.
struct Combination {
    words: [&'static str; 5],
    floor: TlsDemand,
    facts: HopFacts,
    downgrade: OnDowngrade,
    requirement: TlsRequirement,
    policy: TlsPolicy,
}

fn host_proof(dane: &DaneFinding) -> HostProof {
    match dane {
        DaneFinding::Usable(set) if set.scope == DaneScope::Domain => HostProof::Secure,
        _ => HostProof::Insecure("the MX records are not signed".to_owned()),
    }
}

fn rows() -> Vec<Combination> {
    let mut rows = Vec::new();
    for (floor_word, floor) in floors() {
        for (dane_word, dane) in danes() {
            for (sts_word, mta_sts) in policies() {
                for (memory_word, memory, downgrade) in memories() {
                    for (asks, requirement) in requirements() {
                        let host_proof = host_proof(&dane);
                        let (dane, mta_sts, memory) =
                            (dane.clone(), mta_sts.clone(), memory.clone());
                        let facts = HopFacts {
                            dane,
                            mta_sts,
                            host_proof,
                            memory,
                        };
                        let connector = connector(floor, downgrade);
                        let policy = outbound_policy(
                            &connector,
                            &host("example.org"),
                            &hop(),
                            &facts,
                            requirement,
                            NOW,
                        );
                        let words = [floor_word, dane_word, sts_word, memory_word, asks];
                        rows.push(Combination {
                            words,
                            floor,
                            facts,
                            downgrade,
                            requirement,
                            policy,
                        });
                    }
                }
            }
        }
    }
    rows
}

impl Combination {
    fn wants(&self, layer: Layer) -> Vec<&Verify> {
        self.policy
            .demands()
            .filter(|demand| demand.layer == layer)
            .map(|demand| &demand.verify)
            .collect()
    }

    fn published_counts(&self) -> bool {
        self.floor != TlsDemand::Off && self.requirement != TlsRequirement::Relaxed
    }
}

#[test]
fn off_stays_off_and_nothing_is_ever_lowered() {
    for row in rows() {
        let plain = match row.floor {
            TlsDemand::Off => TlsPolicy::Off,
            other => outbound_demand(
                &connector(other, row.downgrade),
                &host("example.org"),
                None,
                NOW,
            ),
        };
        match (&plain, &row.policy) {
            (TlsPolicy::Off, policy) => assert_eq!(*policy, TlsPolicy::Off, "{:?}", row.words),
            (TlsPolicy::Opportunistic, policy) => {
                assert_ne!(*policy, TlsPolicy::Off, "{:?}", row.words);
            }
            (TlsPolicy::Forced(floor), policy) => {
                for demand in floor.iter() {
                    assert!(
                        policy.demands().any(|had| had == demand),
                        "{:?} loses {demand:?}",
                        row.words
                    );
                }
            }
        }
    }
}

#[test]
fn dane_demands_the_usable_records() {
    for row in rows() {
        let wanted = match &row.facts.dane {
            _ if !row.published_counts() => vec![],
            DaneFinding::NotLookedUp(_) | DaneFinding::Absent(_) => vec![],
            DaneFinding::Unusable(_) => vec![&Verify::None],
            DaneFinding::Usable(found) => {
                assert!(
                    matches!(row.wants(Layer::Dane)[..], [Verify::Dane(set)] if set == found),
                    "{:?}",
                    row.words
                );
                continue;
            }
        };
        assert_eq!(row.wants(Layer::Dane), wanted, "{:?}", row.words);
    }
}

#[test]
fn mta_sts_yields_to_dane_and_demands_nothing_in_testing_mode() {
    for row in rows() {
        let authenticated = matches!(row.facts.dane, DaneFinding::Usable(_));
        let wants = row.wants(Layer::MtaSts);
        match &row.facts.mta_sts {
            MtaStsFinding::Enforce(MtaStsListing::Listed)
                if row.published_counts() && !authenticated =>
            {
                assert_eq!(
                    wants,
                    [&Verify::Published(hop().domain().expect("a name").clone())],
                    "{:?}",
                    row.words
                );
            }
            MtaStsFinding::Enforce(MtaStsListing::NotListed(_))
                if row.published_counts() && !authenticated =>
            {
                assert!(
                    matches!(
                        wants[..],
                        [Verify::Impossible(Unmeetable::NotListed { .. })]
                    ),
                    "{:?}",
                    row.words
                );
            }
            _ => assert_eq!(wants, Vec::<&Verify>::new(), "{:?}", row.words),
        }
    }
}

#[test]
fn mandatory_dane_is_unmeetable_without_records() {
    for row in rows()
        .iter()
        .filter(|row| row.floor == forced(VerifyWanted::Dane))
    {
        let met = match (&row.facts.dane, row.wants(Layer::Connector)[..].as_ref()) {
            (DaneFinding::Usable(set), [Verify::None, Verify::Dane(_)]) => {
                set.scope == DaneScope::Domain
            }
            (
                DaneFinding::Usable(set),
                [Verify::None, Verify::Impossible(Unmeetable::UnsignedMx(_))],
            ) => set.scope == DaneScope::Host,
            (DaneFinding::Usable(_), _) => false,
            (
                DaneFinding::NotLookedUp(_),
                [Verify::None, Verify::Impossible(Unmeetable::NoTlsa(_))],
            )
            | (_, [Verify::None, Verify::Impossible(Unmeetable::UnsignedMx(_))]) => true,
            (_, _) => false,
        };
        assert!(met, "{:?}: {}", row.words, row.policy);
    }
}

/// Mandatory DANE proves the domain: the host must come from secure MX records or from the
/// connector's route.
#[test]
fn mandatory_dane_needs_a_host_that_is_proven_to_be_the_domains() {
    let partner = connector(forced(VerifyWanted::Dane), OnDowngrade::Warn);
    let why = || "not signed with DNSSEC".to_owned();
    for (host_proof, met) in [
        (HostProof::Secure, true),
        (HostProof::SmartHost, true),
        (HostProof::Literal, true),
        (HostProof::Insecure(why()), false),
        (HostProof::OwnHost(why()), false),
    ] {
        let found = |dane| HopFacts {
            dane,
            mta_sts: MtaStsFinding::Enforce(MtaStsListing::Listed),
            host_proof: host_proof.clone(),
            memory: MemoryFinding::Nothing,
        };
        let wanted = |dane| {
            let facts = found(dane);
            let policy = outbound_policy(
                &partner,
                &host("example.org"),
                &hop(),
                &facts,
                TlsRequirement::Ordinary,
                NOW,
            );
            crate::policy::tls::unmeetable(&policy).map(|refusal| refusal.to_string())
        };
        // The scope follows from the proof of the host, but only that proof counts.
        for scope in [DaneScope::Domain, DaneScope::Host] {
            let refused = "TLS authenticated by DANE is demanded, but not signed with DNSSEC, so that the host may be \
                           anybody's";
            assert_eq!(
                wanted(DaneFinding::Usable(set(scope))),
                (!met).then(|| refused.to_owned()),
                "{host_proof:?}"
            );
        }
        let absent = wanted(DaneFinding::Absent("its zone is not signed".to_owned()))
            .expect("refused in any case");
        assert_eq!(
            absent.contains("there is no usable TLSA record: its zone is not signed"),
            met,
            "{absent}"
        );
    }
}

#[test]
fn requiretls_needs_a_proven_host_that_proves_its_name() {
    for row in rows() {
        let wants = row.wants(Layer::RequireTls);
        if row.floor == TlsDemand::Off || row.requirement != TlsRequirement::Require {
            assert_eq!(wants, Vec::<&Verify>::new(), "{:?}", row.words);
            continue;
        }
        let listed = row.words[2].ends_with(", listed");
        let proven = row.words[1] == "usable" || listed;
        match wants[..] {
            [Verify::Impossible(Unmeetable::Unproven(_))] => assert!(!proven, "{:?}", row.words),
            [Verify::Dane(_)] => assert!(
                proven && row.words[1].starts_with("usable"),
                "{:?}",
                row.words
            ),
            [Verify::Name(_)] => assert!(
                proven && !row.words[1].starts_with("usable"),
                "{:?}",
                row.words
            ),
            _ => panic!("{:?}: {wants:?}", row.words),
        }
    }
}

#[test]
fn memory_demands_tls_where_the_connector_refuses_downgrades() {
    for row in rows() {
        let remembered = row.words[3] == "TLS, refuse" && row.floor != TlsDemand::Off;
        let wanted: &[&Verify] = if remembered { &[&Verify::None] } else { &[] };
        assert_eq!(row.wants(Layer::DowngradeMemory), wanted, "{:?}", row.words);
    }
}

#[test]
fn an_exception_replaces_the_connectors_demand_until_its_end() {
    let mut partner = connector(forced(VerifyWanted::Name), OnDowngrade::Warn);
    let until = "2027-01-31".parse().expect("a day");
    let location = partner.trust.location.clone();
    partner.outbound.exception = Some(TlsException {
        tls: TlsDemand::Opportunistic,
        until,
        reason: "a new gateway".to_owned(),
        location,
    });
    let nothing = HopFacts {
        dane: DaneFinding::Absent("its zone is not signed".to_owned()),
        mta_sts: MtaStsFinding::None("no record".to_owned()),
        host_proof: HostProof::Insecure("its zone is not signed".to_owned()),
        memory: MemoryFinding::Nothing,
    };
    let at = |facts: &HopFacts, time: &str| {
        let now = time.parse().expect("a time");
        outbound_policy(
            &partner,
            &host("example.org"),
            &hop(),
            facts,
            TlsRequirement::Ordinary,
            now,
        )
    };
    assert_eq!(
        at(&nothing, "2027-01-31T23:59:59Z"),
        TlsPolicy::Opportunistic
    );
    assert!(matches!(
        at(&nothing, "2027-02-01T00:00:00Z"),
        TlsPolicy::Forced(_)
    ));
    // The exception does not lower what the domain publishes.
    let published = HopFacts {
        dane: DaneFinding::Usable(set(DaneScope::Domain)),
        ..nothing
    };
    let TlsPolicy::Forced(demands) = at(&published, "2027-01-31T12:00:00Z") else {
        panic!("DANE counts all the same")
    };
    assert_eq!(
        demands
            .iter()
            .map(|demand| demand.layer)
            .collect::<Vec<_>>(),
        [Layer::Dane]
    );
}

/// A policy in few words, for the table.
fn brief(policy: &TlsPolicy) -> String {
    match policy {
        TlsPolicy::Off => return "TLS off".to_owned(),
        TlsPolicy::Opportunistic => return "TLS opportunistic".to_owned(),
        TlsPolicy::Forced(_) => {}
    }
    let mut words: Vec<String> = Vec::new();
    for demand in policy.demands() {
        let what = match &demand.verify {
            Verify::None => "TLS",
            Verify::Chain => "trusted",
            Verify::Name(_) => "name",
            Verify::Published(_) => "MX name, public CA",
            Verify::Pin(_) => "pin",
            Verify::Dane(_) => "TLSA",
            Verify::Impossible(_) => "**refused**",
        };
        words.push(format!("{what} ({})", demand.layer));
    }
    words.join(", ")
}

/// The table in the documentation. Rows that follow from their neighbours are left out; REQUIRETLS,
/// `TLS-Required: No` and the downgrade memory have rows of their own.
fn table() -> String {
    let mut text = String::from(
        "| connector | TLSA records | MTA-STS policy | what it did before | the message asks | so what is demanded |\n\
         |---|---|---|---|---|---|\n",
    );
    for row in rows() {
        let [floor, dane, sts, memory, asks] = row.words;
        let is_listed = dane != "not asked" && sts != "not asked" && sts != "testing, not listed";
        let plain_memory =
            memory == "nothing" || (memory == "TLS, refuse" && floor == "opportunistic");
        let plain_floor = asks == "nothing" || matches!(floor, "opportunistic" | "forced, name");
        if is_listed && plain_memory && plain_floor && (memory == "nothing" || asks == "nothing") {
            let _ = writeln!(
                text,
                "| {floor} | {dane} | {sts} | {memory} | {asks} | {} |",
                brief(&row.policy)
            );
        }
    }
    text
}

#[test]
fn the_documented_table_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/precedence.md");
    let documented = std::fs::read_to_string(&path).unwrap_or_default();
    let table = table();
    if std::env::var_os("GATEPOST_WRITE_TABLE").is_some() {
        let head = documented.split("| connector |").next().unwrap_or_default();
        std::fs::write(&path, format!("{head}{table}")).expect("the table can be written");
        return;
    }
    assert!(
        documented.ends_with(&table),
        "docs/precedence.md is out of date; GATEPOST_WRITE_TABLE=1 cargo test precedence writes it"
    );
}
