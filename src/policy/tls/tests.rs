//! The judge, with every combination of policy and session.

mod reports;
mod texts;

use std::sync::Arc;

use super::*;
use crate::smtp::address::Domain;
use crate::smtp::reply::{Reply, Status};
use jiff::Timestamp;

fn name(text: &str) -> NamePattern {
    NamePattern::parse(text).expect(text)
}

fn names(all: &[&str]) -> Vec<NamePattern> {
    all.iter().map(|text| name(text)).collect()
}

fn demand(min_version: TlsVersion, verify: Verify) -> Demand {
    Demand {
        min_version,
        ..Demand::new(Layer::Connector, verify)
    }
}

fn forced(min_version: TlsVersion, verify: Verify) -> TlsPolicy {
    TlsPolicy::forced(demand(min_version, verify))
}

fn pin(octet: u8) -> Pin {
    Pin::new([octet; 32])
}

/// The records of mail.example.org; each `octet` gives a different set.
fn records(octet: u8, scope: DaneScope) -> Arc<TlsaSet> {
    Arc::new(TlsaSet {
        base: Domain::parse("mail.example.org").expect("a domain"),
        records: vec![record(octet)],
        names: names(&["mail.example.org"]),
        scope,
    })
}

fn record(octet: u8) -> Tlsa {
    let (usage, selector) = (TlsaUsage::EndEntity, TlsaSelector::PublicKey);
    Tlsa {
        usage,
        selector,
        matching: TlsaMatching::Sha256,
        data: vec![octet; 32],
    }
}

fn host(text: &str) -> Domain {
    Domain::parse(text).expect("a domain")
}

/// The proofs outside the ladder: each is satisfied by its own kind of certificate alone.
fn others() -> Vec<Verify> {
    vec![
        Verify::Published(host("mail.example.org")),
        Verify::Pin(vec![pin(1), pin(2)]),
        Verify::Dane(records(1, DaneScope::Domain)),
        Verify::Impossible(Unmeetable::NoTlsa("the zone is not signed".to_owned())),
    ]
}

/// From lax to strict: a session that satisfies one satisfies all before it.
fn ladder() -> Vec<Verify> {
    vec![
        Verify::None,
        Verify::Chain,
        Verify::Name(names(&["*.example.org", "mail.example.org", "example.org"])),
        Verify::Name(names(&["mail.example.org", "example.org"])),
        Verify::Name(names(&["mail.example.org"])),
        Verify::Name(Vec::new()),
    ]
}

fn policies() -> Vec<TlsPolicy> {
    let mut all = vec![TlsPolicy::Off, TlsPolicy::Opportunistic];
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        all.extend(
            ladder()
                .into_iter()
                .chain(others())
                .map(|verify| forced(version, verify)),
        );
    }
    for verify in [Verify::None, Verify::Name(names(&["mail.example.org"]))] {
        all.push(TlsPolicy::forced(Demand {
            min_strength: Strength::PostQuantum,
            ..Demand::new(Layer::Connector, verify)
        }));
    }
    for (one, other) in [
        (ladder().remove(1), others().remove(2)),
        (others().remove(1), others().remove(0)),
    ] {
        let further = Demand::new(Layer::Dane, other);
        all.push(forced(TlsVersion::V1_2, one).raised_by(further));
    }
    all
}

fn reasons() -> Vec<NoTls> {
    vec![
        NoTls::NotWanted,
        NoTls::NotOffered,
        NoTls::Rejected(Reply::bare(454, "TLS not available")),
        NoTls::SpokeBeforeHandshake,
        NoTls::Broken("the peer closed the connection during the handshake".to_owned()),
        NoTls::NotUsed,
    ]
}

fn chains() -> Vec<Result<(), ChainFault>> {
    vec![
        Ok(()),
        Err(ChainFault::SelfSigned),
        Err(ChainFault::UnknownIssuer("CN=Stranger CA".to_owned())),
        Err(ChainFault::Expired(Timestamp::UNIX_EPOCH)),
        Err(ChainFault::NotYetValid(Timestamp::MAX)),
        Err(ChainFault::NotChecked),
        Err(ChainFault::Invalid("it is malformed".to_owned())),
    ]
}

fn facts(version: TlsVersion, certificate: PeerCertificate) -> TlsFacts {
    TlsFacts {
        version,
        cipher: "TLS_AES_256_GCM_SHA384",
        key_exchange: Some("X25519MLKEM768"),
        reduced: None,
        certificate,
        handshake: Handshake::Full,
    }
}

fn certificate(names_in_it: &[&str], chain: Result<(), ChainFault>) -> CertificateFacts {
    CertificateFacts {
        names: names(names_in_it),
        default_chain: chain.clone(),
        chain,
        key: pin(9),
        issuer: "CN=Test CA".to_owned(),
        not_after: Timestamp::MAX,
        dane: DaneFacts::NotChecked,
        revocation: RevocationFacts::NotChecked,
    }
}

fn shown(names_in_it: &[&str], chain: Result<(), ChainFault>) -> PeerCertificate {
    PeerCertificate::Certificate(Box::new(certificate(names_in_it, chain)))
}

/// Certificates that differ in something other than chain and name.
fn odd_ones() -> Vec<PeerCertificate> {
    let good = || certificate(&["mail.example.org"], Ok(()));
    let bad = || certificate(&["mail.example.net"], Err(ChainFault::SelfSigned));
    let held = |set: u8, found| DaneFacts::Checked {
        records: records(set, DaneScope::Domain),
        result: found,
    };
    let mut all = Vec::new();
    for base in [good(), bad()] {
        all.push(CertificateFacts {
            key: pin(2),
            ..base.clone()
        });
        all.push(CertificateFacts {
            default_chain: Err(ChainFault::SelfSigned),
            ..base.clone()
        });
        all.push(CertificateFacts {
            default_chain: Ok(()),
            ..base.clone()
        });
        all.push(CertificateFacts {
            dane: held(1, Ok(record(1))),
            ..base.clone()
        });
        all.push(CertificateFacts {
            dane: held(1, Err(DaneFault::NoMatch { records: 1 })),
            ..base.clone()
        });
        // It matches other records than the demanded ones.
        all.push(CertificateFacts {
            dane: held(2, Ok(record(2))),
            ..base.clone()
        });
        all.push(CertificateFacts {
            key: pin(1),
            dane: held(1, Ok(record(1))),
            ..base
        });
    }
    all.into_iter()
        .map(|facts| PeerCertificate::Certificate(Box::new(facts)))
        .collect()
}

fn outcomes() -> Vec<TlsOutcome> {
    let mut all: Vec<_> = reasons().into_iter().map(TlsOutcome::Clear).collect();
    for (key_exchange, handshake) in [
        (Some("X25519"), Handshake::Full),
        (None, Handshake::Resumed),
        (Some("X25519MLKEM768"), Handshake::Resumed),
    ] {
        let certificate = shown(&["mail.example.org"], Ok(()));
        all.push(TlsOutcome::Tls(TlsFacts {
            key_exchange,
            handshake,
            ..facts(TlsVersion::V1_3, certificate)
        }));
    }
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        all.push(TlsOutcome::Tls(facts(version, PeerCertificate::Nothing)));
        all.push(TlsOutcome::Tls(facts(
            version,
            PeerCertificate::Unproved(UncheckableKey::RsaSize(1024)),
        )));
        all.extend(
            odd_ones()
                .into_iter()
                .map(|certificate| TlsOutcome::Tls(facts(version, certificate))),
        );
        for names_in_it in [
            &[][..],
            &["mail.example.org"],
            &["*.example.org"],
            &["example.org"],
            &["*.mail.example.org"],
            &["mail.example.net"],
            &["mail.example.net", "MAIL.example.org"],
        ] {
            for chain in chains() {
                all.push(TlsOutcome::Tls(facts(version, shown(names_in_it, chain))));
            }
        }
    }
    all
}

fn references() -> [Vec<NamePattern>; 2] {
    [Vec::new(), names(&["mail.example.org"])]
}

/// Runs `check` over every combination.
fn for_all(check: impl Fn(&TlsPolicy, &TlsOutcome, &Verdict)) {
    for policy in policies() {
        for outcome in outcomes() {
            for reference in references() {
                check(
                    &policy,
                    &outcome,
                    &judge(&policy, outcome.clone(), &reference),
                );
            }
        }
    }
}

/// A secret may be sent exactly where a demand of the connector itself for a name, a key or TLSA
/// records is met; what else the certificate shows does not matter.
#[test]
fn only_a_met_demand_of_the_connector_proves_the_peer() {
    for_all(|policy, _, verdict| {
        let Verdict::Cleared(clearance) = verdict else {
            return;
        };
        let identifies = |demand: &Demand| {
            demand.layer == Layer::Connector
                && matches!(
                    demand.verify,
                    Verify::Name(_) | Verify::Pin(_) | Verify::Dane(_)
                )
        };
        let wanted = policy.demands().any(identifies);
        assert_eq!(clearance.peer_proof().is_some(), wanted, "{policy:?}");
    });
    let good = |layer| {
        let demand = Demand::new(layer, Verify::Name(names(&["mail.example.org"])));
        let facts = facts(TlsVersion::V1_3, shown(&["mail.example.org"], Ok(())));
        match judge(&TlsPolicy::forced(demand), TlsOutcome::Tls(facts), &[]) {
            Verdict::Cleared(clearance) => clearance.peer_proof().is_some(),
            other => panic!("{other:?}"),
        }
    };
    for (layer, proves) in [
        (Layer::Connector, true),
        (Layer::Exception, false),
        (Layer::Dane, false),
        (Layer::MtaSts, false),
        (Layer::RequireTls, false),
        (Layer::DowngradeMemory, false),
    ] {
        assert_eq!(good(layer), proves, "{layer}");
    }
    let broken = TlsOutcome::Clear(NoTls::Broken("alert".to_owned()));
    match judge(&TlsPolicy::Opportunistic, broken, &[]) {
        Verdict::Redial(fallback) => assert_eq!(fallback.clearance().peer_proof(), None),
        other => panic!("{other:?}"),
    }
}

/// The rule, written a second time and differently: true if the session satisfies the demand.
fn is_met(demand: &Demand, facts: &TlsFacts) -> bool {
    if demand.min_strength == Strength::PostQuantum && facts.key_exchange != Some("X25519MLKEM768")
    {
        return false;
    }
    let PeerCertificate::Certificate(shown) = &facts.certificate else {
        return demand.verify == Verify::None && facts.version >= demand.min_version;
    };
    if facts.handshake == Handshake::Resumed && demand.verify != Verify::None {
        return false;
    }
    let named = |wanted: &[NamePattern]| {
        shown
            .names
            .iter()
            .any(|name| wanted.iter().any(|want| want.accepts(name)))
    };
    let proven = match &demand.verify {
        Verify::None => true,
        Verify::Chain => shown.chain.is_ok(),
        Verify::Name(wanted) => shown.chain.is_ok() && named(wanted),
        Verify::Published(host) => {
            shown.default_chain.is_ok() && named(&[NamePattern::Exact(host.clone())])
        }
        Verify::Pin(pins) => pins.contains(&shown.key),
        Verify::Dane(set) => {
            matches!(&shown.dane, DaneFacts::Checked { records, result: Ok(_) } if records == set)
        }
        Verify::Impossible(_) => false,
    };
    proven && facts.version >= demand.min_version
}

#[test]
fn a_forced_policy_clears_exactly_the_tls_that_meets_every_demand() {
    let (mut cleared, mut refused) = (0, 0);
    let cleared_and_refused = std::cell::RefCell::new((&mut cleared, &mut refused));
    for_all(|policy, outcome, verdict| {
        let TlsPolicy::Forced(demands) = policy else {
            return;
        };
        assert!(
            !matches!(verdict, Verdict::Redial(_)),
            "{policy:?} falls back from {outcome:?}"
        );
        let met = match outcome {
            TlsOutcome::Clear(_) => false,
            TlsOutcome::Tls(facts) => demands.iter().all(|demand| is_met(demand, facts)),
        };
        assert_eq!(
            matches!(verdict, Verdict::Cleared(_)),
            met,
            "{policy:?}, {outcome:?}: {verdict:?}"
        );
        let mut counts = cleared_and_refused.borrow_mut();
        if met { *counts.0 += 1 } else { *counts.1 += 1 }
    });
    assert!(
        cleared > 300 && refused > 1000,
        "{cleared} were cleared and {refused} refused"
    );
}

#[test]
fn a_refusal_names_the_first_demand_that_is_not_met() {
    for_all(|policy, outcome, verdict| {
        let (TlsPolicy::Forced(demands), Verdict::Refused(refusal)) = (policy, verdict) else {
            return;
        };
        let results = judge_each(demands, outcome, &[]);
        let first = results
            .iter()
            .find_map(|(demand, verdict)| verdict.as_ref().err().map(|got| (*demand, got)));
        assert_eq!(first, Some((&refusal.demand, &refusal.unmet)));
        let unmeetable = unmeetable(policy);
        assert!(
            unmeetable.is_none_or(|unmeetable| policy
                .demands()
                .any(|demand| *demand == unmeetable.demand))
        );
    });
}

#[test]
fn one_more_demand_never_lets_more_through() {
    let every = || ladder().into_iter().chain(others());
    for outcome in outcomes() {
        for floor in every()
            .map(|verify| forced(TlsVersion::V1_2, verify))
            .chain([TlsPolicy::Opportunistic])
        {
            for further in every() {
                let raised = floor.clone().raised_by(Demand::new(Layer::MtaSts, further));
                let through =
                    |policy| matches!(judge(policy, outcome.clone(), &[]), Verdict::Cleared(_));
                assert!(!through(&raised) || through(&floor) || floor == TlsPolicy::Opportunistic);
                assert!(matches!(raised, TlsPolicy::Forced(_)));
            }
        }
    }
    let demand = Demand::new(Layer::Dane, Verify::None);
    assert_eq!(TlsPolicy::Off.raised_by(demand), TlsPolicy::Off);
}

#[test]
fn raising_a_demand_never_lets_more_through() {
    let cleared = |policy: &TlsPolicy, outcome: &TlsOutcome, reference: &[NamePattern]| {
        matches!(
            judge(policy, outcome.clone(), reference),
            Verdict::Cleared(_)
        )
    };
    let ladder = ladder();
    for outcome in outcomes() {
        for reference in references() {
            for pair in ladder.windows(2) {
                for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
                    let [lax, strict] =
                        [&pair[0], &pair[1]].map(|verify| forced(version, verify.clone()));
                    assert!(
                        !cleared(&strict, &outcome, &reference)
                            || cleared(&lax, &outcome, &reference),
                        "{strict:?} clears {outcome:?}, {lax:?} does not"
                    );
                }
            }
            for verify in &ladder {
                let [lax, strict] = [TlsVersion::V1_2, TlsVersion::V1_3]
                    .map(|version| forced(version, verify.clone()));
                assert!(
                    !cleared(&strict, &outcome, &reference) || cleared(&lax, &outcome, &reference)
                );
            }
        }
    }
}

#[test]
fn without_a_forced_policy_nothing_is_refused_and_only_broken_sessions_are_redialled() {
    for_all(|policy, outcome, verdict| {
        let (TlsPolicy::Off | TlsPolicy::Opportunistic) = policy else {
            return;
        };
        let spoilt = matches!(
            outcome,
            TlsOutcome::Clear(NoTls::SpokeBeforeHandshake | NoTls::Broken(_))
        );
        match verdict {
            Verdict::Cleared(_) => {
                assert!(!spoilt, "{outcome:?} goes on as if nothing had happened");
            }
            Verdict::Redial(fallback) => {
                assert!(spoilt, "{outcome:?} is dialled again");
                // The clearance carries the reason to the new connection.
                assert_eq!(fallback.clone().clearance().outcome(), outcome);
                assert_eq!(
                    fallback.clone().clearance().authentication(),
                    &Authentication::Anonymous
                );
            }
            Verdict::Refused(refusal) => panic!("{policy:?} refuses: {refusal}"),
        }
    });
}
