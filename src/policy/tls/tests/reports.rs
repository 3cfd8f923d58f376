//! The facts that clearances and refusals report.

use super::*;

#[test]
fn a_clearance_reports_the_session_and_the_identification_of_the_peer() {
    for_all(|policy, outcome, verdict| {
        let Verdict::Cleared(clearance) = verdict else {
            return;
        };
        assert_eq!(clearance.outcome(), outcome);
        let chain = match outcome {
            TlsOutcome::Tls(TlsFacts {
                certificate: PeerCertificate::Certificate(certificate),
                ..
            }) => Some(certificate),
            TlsOutcome::Tls(_) | TlsOutcome::Clear(_) => None,
        };
        match (clearance.authentication(), chain) {
            (Authentication::Anonymous, None) => assert!(!matches!(outcome, TlsOutcome::Tls(facts)
                if facts.certificate != PeerCertificate::Nothing)),
            (Authentication::Unproved(key), None) => {
                assert!(matches!(outcome, TlsOutcome::Tls(facts)
                if facts.certificate == PeerCertificate::Unproved(key.clone())));
            }
            (Authentication::Anonymous, Some(certificate)) => {
                assert_eq!(certificate.chain, Err(ChainFault::NotChecked));
            }
            (Authentication::Untrusted(Unmet::Chain(fault)), Some(certificate)) => {
                assert_eq!(Err(fault.clone()), certificate.chain);
            }
            (Authentication::Untrusted(Unmet::Name { presented, .. }), Some(certificate)) => {
                assert_eq!(
                    (presented, Ok(())),
                    (&certificate.names, certificate.chain.clone())
                );
            }
            (Authentication::Trusted, Some(certificate)) => assert_eq!(certificate.chain, Ok(())),
            (Authentication::Verified(name), Some(certificate)) => {
                let published = policy
                    .demands()
                    .any(|demand| matches!(demand.verify, Verify::Published(_)));
                assert!(
                    certificate.chain.is_ok() || (published && certificate.default_chain.is_ok())
                );
                assert!(certificate.names.contains(name));
            }
            (Authentication::Pinned(pin), Some(certificate)) => assert_eq!(*pin, certificate.key),
            (Authentication::Dane { record, .. }, Some(certificate)) => {
                let DaneFacts::Checked {
                    result: Ok(found), ..
                } = &certificate.dane
                else {
                    panic!("{certificate:?}")
                };
                assert_eq!(found, record);
            }
            (authentication, _) => panic!("{policy:?} makes {authentication:?} of {outcome:?}"),
        }
    });
}

#[test]
fn a_resumed_handshake_satisfies_no_demand_for_an_identity() {
    let good = || facts(TlsVersion::V1_3, shown(&["mail.example.org"], Ok(())));
    let earlier = || {
        TlsOutcome::Tls(TlsFacts {
            handshake: Handshake::Resumed,
            ..good()
        })
    };
    for policy in [
        TlsPolicy::Opportunistic,
        forced(TlsVersion::V1_2, Verify::None),
    ] {
        assert_eq!(policy.needed_handshake(), Handshake::Resumed, "{policy}");
        assert!(
            matches!(judge(&policy, earlier(), &[]), Verdict::Cleared(_)),
            "{policy}"
        );
    }
    for verify in ladder().into_iter().skip(1).chain(others()) {
        let policy = forced(TlsVersion::V1_2, verify);
        assert_eq!(policy.needed_handshake(), Handshake::Full, "{policy}");
        assert!(
            matches!(judge(&policy, earlier(), &[]), Verdict::Refused(_)),
            "{policy}"
        );
    }
    // The same certificate in a full handshake satisfies the second policy.
    let policy = forced(TlsVersion::V1_2, Verify::Chain);
    assert!(matches!(
        judge(&policy, TlsOutcome::Tls(good()), &[]),
        Verdict::Cleared(_)
    ));
    let Verdict::Refused(refusal) = judge(&policy, earlier(), &[]) else {
        panic!("refused")
    };
    assert_eq!(refusal.unmet, Unmet::NoCertificate);
}

#[test]
fn a_refusal_reports_the_judged_session() {
    for_all(|policy, outcome, verdict| {
        let Verdict::Refused(refusal) = verdict else {
            return;
        };
        let RefusalBasis::Session(session) = &refusal.basis else {
            panic!("{policy}: a session was judged")
        };
        assert_eq!(&session.outcome, outcome);
        let is_anonymous = session.authentication == Authentication::Anonymous;
        match outcome {
            TlsOutcome::Tls(TlsFacts {
                certificate: PeerCertificate::Certificate(shown),
                ..
            }) => {
                assert!(
                    !is_anonymous || shown.chain == Err(ChainFault::NotChecked),
                    "{policy}: {session:?}"
                );
            }
            TlsOutcome::Tls(TlsFacts {
                certificate: PeerCertificate::Unproved(key),
                ..
            }) => {
                assert_eq!(
                    session.authentication,
                    Authentication::Unproved(key.clone()),
                    "{policy}: {session:?}"
                );
            }
            TlsOutcome::Tls(TlsFacts {
                certificate: PeerCertificate::Nothing,
                ..
            })
            | TlsOutcome::Clear(_) => {
                assert!(is_anonymous, "{policy}: {session:?}");
            }
        }
        // If no demand is satisfied, the record is that of a session without demands.
        let TlsPolicy::Forced(demands) = policy else {
            panic!("{policy} refuses")
        };
        if judge_each(demands, outcome, &[])
            .iter()
            .all(|(_, verdict)| verdict.is_err())
        {
            assert!(!matches!(
                session.authentication,
                Authentication::Pinned(_) | Authentication::Dane { .. }
            ));
        }
        assert!(
            unmeetable(policy).is_none_or(|unmeetable| unmeetable.basis == RefusalBasis::NoSession)
        );
    });
}

#[test]
fn a_refusal_reports_the_strongest_identification_of_the_peer() {
    let authentication =
        |policy: &TlsPolicy, certificate: CertificateFacts, reference: &[NamePattern]| {
            let outcome = TlsOutcome::Tls(facts(
                TlsVersion::V1_3,
                PeerCertificate::Certificate(Box::new(certificate)),
            ));
            match judge(policy, outcome, reference) {
                Verdict::Refused(Refusal {
                    basis: RefusalBasis::Session(session),
                    ..
                }) => session.authentication,
                other => panic!("{policy} does not refuse a session: {other:?}"),
            }
        };
    let org = names(&["mail.example.org"]);
    let wanted = forced(TlsVersion::V1_2, Verify::Name(org.clone()));
    let wrong = || certificate(&["mail.example.net"], Ok(()));
    assert_eq!(
        authentication(&wanted, wrong(), &[]),
        Authentication::Trusted
    );
    let Authentication::Untrusted(Unmet::Name { presented, .. }) =
        authentication(&wanted, wrong(), &org)
    else {
        panic!("the certificate has another name")
    };
    assert_eq!(presented, names(&["mail.example.net"]));
    // The demand of DANE is satisfied, that of the connector is not; in either order.
    let held = DaneFacts::Checked {
        records: records(1, DaneScope::Domain),
        result: Ok(record(1)),
    };
    let (pinned, dane) = (
        Verify::Pin(vec![pin(1)]),
        Verify::Dane(records(1, DaneScope::Domain)),
    );
    for (one, other) in [(pinned.clone(), dane.clone()), (dane, pinned)] {
        let policy = forced(TlsVersion::V1_2, one).raised_by(Demand::new(Layer::Dane, other));
        let shown = CertificateFacts {
            dane: held.clone(),
            ..certificate(&[], Err(ChainFault::SelfSigned))
        };
        let known = authentication(&policy, shown, &[]);
        assert_eq!(
            known,
            Authentication::Dane {
                record: record(1),
                scope: DaneScope::Domain
            }
        );
    }
}
