//! The judge over every combination of policy and outcome, and the name rules of RFC 9525.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::smtp::reply::Reply;

fn name(text: &str) -> NamePattern {
    NamePattern::parse(text).expect(text)
}

fn names(all: &[&str]) -> Vec<NamePattern> {
    all.iter().map(|text| name(text)).collect()
}

fn forced(min_version: TlsVersion, verify: Verify) -> TlsPolicy {
    TlsPolicy::Forced(Demand { min_version, verify })
}

/// From lax to strict: whatever satisfies one satisfies all before it.
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
        all.extend(ladder().into_iter().map(|verify| forced(version, verify)));
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
        Err(ChainFault::Invalid("it is malformed".to_owned())),
    ]
}

fn facts(version: TlsVersion, certificate: Presented) -> TlsFacts {
    TlsFacts { version, cipher: "TLS_AES_256_GCM_SHA384", key_exchange: Some("X25519MLKEM768"), certificate }
}

fn shown(names_in_it: &[&str], chain: Result<(), ChainFault>) -> Presented {
    Presented::Certificate(CertificateFacts { names: names(names_in_it), chain })
}

fn outcomes() -> Vec<TlsOutcome> {
    let mut all: Vec<_> = reasons().into_iter().map(TlsOutcome::Clear).collect();
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        all.push(TlsOutcome::Tls(facts(version, Presented::Nothing)));
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

/// Runs `check` over every combination there is.
fn for_all(check: impl Fn(&TlsPolicy, &TlsOutcome, &Verdict)) {
    for policy in policies() {
        for outcome in outcomes() {
            for reference in references() {
                check(&policy, &outcome, &judge(&policy, outcome.clone(), &reference));
            }
        }
    }
}

#[test]
fn a_forced_policy_clears_nothing_but_tls_that_meets_it() {
    for_all(|policy, outcome, verdict| {
        let TlsPolicy::Forced(demand) = policy else { return };
        assert!(!matches!(verdict, Verdict::Redial(_)), "{policy:?} falls back from {outcome:?}");
        let Verdict::Cleared(_) = verdict else { return };
        let TlsOutcome::Tls(facts) = outcome else { panic!("{policy:?} clears {outcome:?}") };
        assert!(facts.version >= demand.min_version);
        match (&demand.verify, &facts.certificate) {
            (Verify::None, _) => {}
            (Verify::Chain, Presented::Certificate(certificate)) => assert_eq!(certificate.chain, Ok(())),
            (Verify::Name(wanted), Presented::Certificate(certificate)) => {
                assert_eq!(certificate.chain, Ok(()));
                let good = |name| wanted.iter().any(|wanted| wanted.accepts(name));
                assert!(certificate.names.iter().any(good), "{wanted:?} clears {certificate:?}");
            }
            (Verify::Chain | Verify::Name(_), Presented::Nothing) => panic!("{policy:?} clears no certificate"),
        }
    });
}

#[test]
fn what_meets_a_forced_policy_is_cleared() {
    for_all(|policy, outcome, verdict| {
        let (TlsPolicy::Forced(demand), TlsOutcome::Tls(facts)) = (policy, outcome) else { return };
        let met = match (&demand.verify, &facts.certificate) {
            (Verify::None, _) => true,
            (_, Presented::Nothing) => false,
            (Verify::Chain, Presented::Certificate(certificate)) => certificate.chain.is_ok(),
            (Verify::Name(wanted), Presented::Certificate(certificate)) => {
                let good = |name| wanted.iter().any(|wanted| wanted.accepts(name));
                certificate.chain.is_ok() && certificate.names.iter().any(good)
            }
        };
        let met = met && facts.version >= demand.min_version;
        assert_eq!(matches!(verdict, Verdict::Cleared(_)), met, "{policy:?}, {outcome:?}: {verdict:?}");
    });
}

#[test]
fn raising_a_demand_never_lets_more_through() {
    let cleared = |policy: &TlsPolicy, outcome: &TlsOutcome, reference: &[NamePattern]| {
        matches!(judge(policy, outcome.clone(), reference), Verdict::Cleared(_))
    };
    let ladder = ladder();
    for outcome in outcomes() {
        for reference in references() {
            for pair in ladder.windows(2) {
                for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
                    let [lax, strict] = [&pair[0], &pair[1]].map(|verify| forced(version, verify.clone()));
                    assert!(
                        !cleared(&strict, &outcome, &reference) || cleared(&lax, &outcome, &reference),
                        "{strict:?} clears {outcome:?}, {lax:?} does not"
                    );
                }
            }
            for verify in &ladder {
                let [lax, strict] = [TlsVersion::V1_2, TlsVersion::V1_3].map(|version| forced(version, verify.clone()));
                assert!(!cleared(&strict, &outcome, &reference) || cleared(&lax, &outcome, &reference));
            }
        }
    }
}

#[test]
fn without_force_nothing_is_refused_and_only_spoilt_sessions_are_dialled_again() {
    for_all(|policy, outcome, verdict| {
        let (TlsPolicy::Off | TlsPolicy::Opportunistic) = policy else { return };
        let spoilt = matches!(outcome, TlsOutcome::Clear(NoTls::SpokeBeforeHandshake | NoTls::Broken(_)));
        match verdict {
            Verdict::Cleared(_) => assert!(!spoilt, "{outcome:?} goes on as if nothing had happened"),
            Verdict::Redial(fallback) => {
                assert!(spoilt, "{outcome:?} is dialled again");
                // The reason travels with the fresh connection.
                assert_eq!(fallback.clone().clearance().outcome(), outcome);
                assert_eq!(fallback.clone().clearance().authentication(), &Authentication::Anonymous);
            }
            Verdict::Refused(refusal) => panic!("{policy:?} refuses: {refusal}"),
        }
    });
}

#[test]
fn a_clearance_tells_what_was_reached_and_how_well_the_peer_is_known() {
    for_all(|policy, outcome, verdict| {
        let Verdict::Cleared(clearance) = verdict else { return };
        assert_eq!(clearance.outcome(), outcome);
        let chain = match outcome {
            TlsOutcome::Tls(TlsFacts { certificate: Presented::Certificate(certificate), .. }) => Some(certificate),
            TlsOutcome::Tls(_) | TlsOutcome::Clear(_) => None,
        };
        match (clearance.authentication(), chain) {
            (Authentication::Anonymous, None) => {}
            (Authentication::Untrusted(Shortfall::Chain(fault)), Some(certificate)) => {
                assert_eq!(Err(fault.clone()), certificate.chain);
            }
            (Authentication::Untrusted(Shortfall::Name { presented, .. }), Some(certificate)) => {
                assert_eq!((presented, Ok(())), (&certificate.names, certificate.chain.clone()));
            }
            (Authentication::Trusted, Some(certificate)) => assert_eq!(certificate.chain, Ok(())),
            (Authentication::Verified(name), Some(certificate)) => {
                assert_eq!(certificate.chain, Ok(()));
                assert!(certificate.names.contains(name));
            }
            (authentication, _) => panic!("{policy:?} makes {authentication:?} of {outcome:?}"),
        }
    });
}

/// What a refusal says, and its status.
fn refusal(policy: &TlsPolicy, outcome: TlsOutcome) -> (String, Status) {
    match judge(policy, outcome, &[]) {
        Verdict::Refused(refusal) => (refusal.to_string(), refusal.status()),
        other => panic!("{policy:?} does not refuse: {other:?}"),
    }
}

#[test]
fn a_refusal_for_want_of_tls_tells_why_there_was_none() {
    let policy = forced(TlsVersion::V1_2, Verify::None);
    for (reason, detail, words) in [
        (NoTls::NotWanted, 4, "TLS is switched off for this domain"),
        (NoTls::NotOffered, 4, "the peer does not offer STARTTLS"),
        (NoTls::Rejected(Reply::bare(454, "later")), 4, "the peer refused STARTTLS: 454 later"),
        (NoTls::NotUsed, 4, "the client did not issue STARTTLS"),
        (NoTls::SpokeBeforeHandshake, 5, "the peer sent clear text after agreeing to STARTTLS"),
        (NoTls::Broken("it hung up".to_owned()), 5, "the TLS handshake failed: it hung up"),
    ] {
        let told = refusal(&policy, TlsOutcome::Clear(reason));
        assert_eq!(told, (format!("TLS is demanded, but {words}"), Status(7, detail)));
    }
}

#[test]
fn a_refusal_of_poor_tls_names_the_first_thing_that_is_missing() {
    let right = || Verify::Name(names(&["mail.example.org"]));
    let wrong = ["mail.example.net", "*.example.net"];
    let any = "TLS with a trusted certificate is demanded, but";
    let ours = "TLS with a trusted certificate for mail.example.org is demanded, but";
    let epoch = Timestamp::UNIX_EPOCH;
    for (version, verify, certificate, words) in [
        (
            TlsVersion::V1_3,
            right(),
            Presented::Nothing,
            "TLSv1.3 with a trusted certificate for mail.example.org is demanded, but only TLSv1.2 was negotiated"
                .into(),
        ),
        (TlsVersion::V1_2, Verify::Chain, Presented::Nothing, format!("{any} no certificate was shown")),
        (
            TlsVersion::V1_2,
            Verify::Chain,
            shown(&["mail.example.org"], Err(ChainFault::SelfSigned)),
            format!("{any} the certificate is not trusted: it is self-signed"),
        ),
        (
            TlsVersion::V1_2,
            right(),
            shown(&wrong, Err(ChainFault::Expired(epoch))),
            format!("{ours} the certificate is not trusted: it expired on 1970-01-01T00:00:00Z"),
        ),
        (
            TlsVersion::V1_2,
            right(),
            shown(&wrong, Ok(())),
            format!("{ours} the certificate is for mail.example.net or *.example.net, not for mail.example.org"),
        ),
        (
            TlsVersion::V1_2,
            right(),
            shown(&[], Ok(())),
            format!("{ours} the certificate has no DNS name at all (mail.example.org was wanted)"),
        ),
    ] {
        let outcome = TlsOutcome::Tls(facts(TlsVersion::V1_2, certificate));
        assert_eq!(refusal(&forced(version, verify), outcome), (words, Status(7, 5)));
    }
}

#[test]
fn hundreds_of_names_are_not_written_out() {
    let many: Vec<String> = (0..300).map(|number| format!("host{number}.example.net")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let outcome = TlsOutcome::Tls(facts(TlsVersion::V1_3, shown(&many, Ok(()))));
    let policy = forced(TlsVersion::V1_2, Verify::Name(names(&["mail.example.org"])));
    let Verdict::Refused(refusal) = judge(&policy, outcome, &[]) else { panic!("no name matches") };
    let text = refusal.to_string();
    assert!(text.contains("host4.example.net or 295 more") && !text.contains("host5."), "{text}");
}

#[test]
fn names_match_as_rfc_9525_says() {
    for (wanted, presented, accepted) in [
        ("mail.example.org", "mail.example.org", true),
        ("mail.example.org", "MAIL.Example.ORG", true),
        ("mail.example.org", "example.org", false),
        ("mail.example.org", "a.mail.example.org", false),
        ("example.org", "mail.example.org", false),
        // A wildcard stands for exactly one label.
        ("mail.example.org", "*.example.org", true),
        ("example.org", "*.example.org", false),
        ("a.mail.example.org", "*.example.org", false),
        ("mail.badexample.org", "*.example.org", false),
        ("mail.example.org", "*.org", false),
        // A-labels are the one spelling of a name, and a wildcard may stand for one.
        ("bücher.example", "xn--bcher-kva.example", true),
        ("xn--bcher-kva.example", "*.example", true),
        ("bücher.example", "bucher.example", false),
        // "*." in `names`: one label under it, or the wildcard itself; nothing wider.
        ("*.example.org", "mail.example.org", true),
        ("*.example.org", "*.example.org", true),
        ("*.example.org", "example.org", false),
        ("*.example.org", "a.mail.example.org", false),
        ("*.example.org", "*.mail.example.org", false),
        ("*.mail.example.org", "*.example.org", false),
        ("*.example.org", "mail.example.net", false),
    ] {
        assert_eq!(name(wanted).accepts(&name(presented)), accepted, "{wanted} wanted, {presented} presented");
    }
}

#[test]
fn a_star_is_a_whole_left_most_label_or_nothing() {
    for text in
        ["*", "*.", "m*.example.org", "*m.example.org", "mail.*.org", "*.*.org", "**.example.org", "*.example.*", ""]
    {
        assert!(NamePattern::parse(text).is_err(), "{text:?} was taken");
    }
    assert_eq!(name("*.Example.ORG").to_string(), "*.example.org");
}

proptest! {
    #[test]
    fn a_wildcard_stands_for_one_label_whichever_side_has_it(
        labels in prop::collection::vec("[a-z]{1,3}", 1..6),
        dropped in 0..6_usize,
    ) {
        let dropped = dropped.min(labels.len() - 1);
        let (host, base) = (labels.join("."), labels[dropped..].join("."));
        let (exact, wildcard) = (name(&host), name(&format!("*.{base}")));
        prop_assert_eq!(exact.accepts(&wildcard), dropped == 1);
        prop_assert_eq!(wildcard.accepts(&exact), dropped == 1);
        prop_assert_eq!(exact.accepts(&name(&base)), dropped == 0);
        prop_assert!(wildcard.accepts(&wildcard));
    }
}
