//! Evidence, downgrade memory and coverage show one scale of assurance.

use std::sync::Arc;

use gatepost::discovery::history::TlsLevel;
use gatepost::policy::tls::{
    Assurance, CertificateFacts, ChainFault, DaneFacts, DaneFault, DaneScope, Demand, Handshake,
    Layer, NamePattern, NoTls, PeerCertificate, Pin, RefusalBasis, SessionTls, TlsFacts,
    TlsOutcome, TlsPolicy, TlsVersion, Tlsa, TlsaMatching, TlsaSelector, TlsaSet, TlsaUsage,
    UncheckableKey, Verdict, Verify, judge,
};
use gatepost::smtp::address::Domain;
use gatepost::smtp::reply::Reply;
use gatepost::storage::evidence::RecordedAssurance;
use gatepost::telemetry::coverage::CoverageClass;
use jiff::Timestamp;

/// The name of the host, which its certificate has unless a test says otherwise.
const HOST: &str = "mail.example.org";

fn names(name: &str) -> Vec<NamePattern> {
    NamePattern::parse(name).into_iter().collect()
}

fn records(scope: DaneScope) -> Arc<TlsaSet> {
    let (usage, selector, matching) = (
        TlsaUsage::EndEntity,
        TlsaSelector::PublicKey,
        TlsaMatching::Sha256,
    );
    let record = Tlsa {
        usage,
        selector,
        matching,
        data: vec![1; 32],
    };
    let base = Domain::parse(HOST).expect("a domain");
    Arc::new(TlsaSet {
        base,
        records: vec![record],
        names: names(HOST),
        scope,
    })
}

fn tls(certificate: PeerCertificate, handshake: Handshake) -> TlsOutcome {
    let (version, cipher) = (TlsVersion::V1_3, "TLS13_AES_256_GCM_SHA384");
    TlsOutcome::Tls(TlsFacts {
        version,
        cipher,
        key_exchange: Some("X25519"),
        reduced: None,
        certificate,
        handshake,
    })
}

/// A session with a certificate of the key 1.
fn shown(name: &str, chain: Result<(), ChainFault>, dane: DaneFacts) -> TlsOutcome {
    let certificate = CertificateFacts {
        names: names(name),
        default_chain: chain.clone(),
        chain,
        key: Pin::new([1; 32]),
        issuer: "CN=Test CA".to_owned(),
        not_after: Timestamp::MAX,
        dane,
    };
    tls(
        PeerCertificate::Certificate(Box::new(certificate)),
        Handshake::Full,
    )
}

fn matched(scope: DaneScope) -> DaneFacts {
    let records = records(scope);
    let result = Ok(records.records[0].clone());
    DaneFacts::Checked { records, result }
}

fn policy(verify: Verify) -> TlsPolicy {
    TlsPolicy::forced(Demand::new(Layer::Connector, verify))
}

/// Returns the session that the judge saw, and its level in the downgrade memory.
fn judged(policy: &TlsPolicy, outcome: TlsOutcome) -> (SessionTls, Option<TlsLevel>) {
    match judge(policy, outcome, &names(HOST)) {
        Verdict::Cleared(clearance) => (
            clearance.session().clone(),
            TlsLevel::of_clearance(&clearance),
        ),
        Verdict::Redial(fallback) => {
            let clearance = fallback.clearance();
            (
                clearance.session().clone(),
                TlsLevel::of_clearance(&clearance),
            )
        }
        Verdict::Refused(refusal) => {
            let level = TlsLevel::of_refusal(&refusal);
            let RefusalBasis::Session(session) = refusal.basis else {
                panic!("a session was judged")
            };
            (*session, level)
        }
    }
}

/// Every kind of session has the same place on all scales, whether it is cleared or refused.
#[test]
fn the_projections_agree() {
    use Assurance::{Chain, DaneDomain, DaneHost, Encrypted, Name, None as Clear, Pin as Key};
    let opportunistic = || TlsPolicy::Opportunistic;
    let other_pin = || policy(Verify::Pin(vec![Pin::new([2; 32])]));
    let pin = || policy(Verify::Pin(vec![Pin::new([1; 32])]));
    let dane = |scope| policy(Verify::Dane(records(scope)));
    let clear = TlsOutcome::Clear;
    let unchecked = || DaneFacts::NotChecked;
    let unmatched = || {
        let records = records(DaneScope::Domain);
        DaneFacts::Checked {
            records,
            result: Err(DaneFault::NoMatch { records: 1 }),
        }
    };
    let key = || PeerCertificate::Unproved(UncheckableKey::RsaSize(1024));
    let cases = [
        (opportunistic(), clear(NoTls::NotOffered), Clear),
        (
            opportunistic(),
            clear(NoTls::Rejected(Reply::bare(454, "no"))),
            Clear,
        ),
        (opportunistic(), clear(NoTls::SpokeBeforeHandshake), Clear),
        (
            opportunistic(),
            clear(NoTls::Broken("alert".to_owned())),
            Clear,
        ),
        (policy(Verify::None), clear(NoTls::NotOffered), Clear),
        (
            opportunistic(),
            tls(PeerCertificate::Nothing, Handshake::Full),
            Encrypted,
        ),
        (
            policy(Verify::Chain),
            tls(PeerCertificate::Nothing, Handshake::Full),
            Encrypted,
        ),
        (opportunistic(), tls(key(), Handshake::Full), Encrypted),
        (
            policy(Verify::Chain),
            tls(key(), Handshake::Full),
            Encrypted,
        ),
        (
            opportunistic(),
            shown(HOST, Err(ChainFault::SelfSigned), unchecked()),
            Encrypted,
        ),
        (
            opportunistic(),
            shown(HOST, Err(ChainFault::NotChecked), unchecked()),
            Encrypted,
        ),
        (
            policy(Verify::Chain),
            shown(HOST, Err(ChainFault::SelfSigned), unchecked()),
            Encrypted,
        ),
        (
            other_pin(),
            shown(HOST, Err(ChainFault::SelfSigned), unchecked()),
            Encrypted,
        ),
        (
            dane(DaneScope::Domain),
            shown(HOST, Err(ChainFault::SelfSigned), unmatched()),
            Encrypted,
        ),
        (
            opportunistic(),
            shown("mx.example.net", Ok(()), unchecked()),
            Chain,
        ),
        (
            policy(Verify::Chain),
            shown("mx.example.net", Ok(()), unchecked()),
            Chain,
        ),
        (
            policy(Verify::Name(names(HOST))),
            shown("mx.example.net", Ok(()), unchecked()),
            Chain,
        ),
        (opportunistic(), shown(HOST, Ok(()), unchecked()), Name),
        (
            policy(Verify::Name(names(HOST))),
            shown(HOST, Ok(()), unchecked()),
            Name,
        ),
        // Refused, and all the same a certificate with the name of the host.
        (
            policy(Verify::Name(names("mx.example.net"))),
            shown(HOST, Ok(()), unchecked()),
            Name,
        ),
        (other_pin(), shown(HOST, Ok(()), unchecked()), Name),
        (
            dane(DaneScope::Domain),
            shown(HOST, Ok(()), unmatched()),
            Name,
        ),
        (
            pin(),
            shown("mx.example.net", Err(ChainFault::SelfSigned), unchecked()),
            Key,
        ),
        (
            dane(DaneScope::Host),
            shown(HOST, Err(ChainFault::SelfSigned), matched(DaneScope::Host)),
            DaneHost,
        ),
        (
            dane(DaneScope::Domain),
            shown(
                HOST,
                Err(ChainFault::SelfSigned),
                matched(DaneScope::Domain),
            ),
            DaneDomain,
        ),
    ];
    for (policy, outcome, assurance) in &cases {
        let (session, level) = judged(policy, outcome.clone());
        let (recorded, remembered, counted) = match assurance {
            Clear => (
                RecordedAssurance::Clear,
                TlsLevel::Plain,
                CoverageClass::Clear,
            ),
            Encrypted => (
                RecordedAssurance::Tls,
                TlsLevel::Tls,
                CoverageClass::Encrypted,
            ),
            Chain => (
                RecordedAssurance::Trusted,
                TlsLevel::Trusted,
                CoverageClass::Encrypted,
            ),
            Name => (
                RecordedAssurance::Verified,
                TlsLevel::Verified,
                CoverageClass::Verified,
            ),
            Key => (
                RecordedAssurance::Pinned,
                TlsLevel::Verified,
                CoverageClass::Verified,
            ),
            DaneHost => (
                RecordedAssurance::Dane,
                TlsLevel::Verified,
                CoverageClass::Verified,
            ),
            DaneDomain => (
                RecordedAssurance::Dane,
                TlsLevel::Dane,
                CoverageClass::Verified,
            ),
        };
        let found = (
            session.assurance(),
            RecordedAssurance::of(&session),
            level,
            CoverageClass::from(session.assurance()),
        );
        assert_eq!(
            found,
            (*assurance, recorded, Some(remembered), counted),
            "{policy}: {outcome:?}"
        );
    }
    for assurance in Assurance::ALL {
        assert!(
            cases.iter().any(|(_, _, expected)| *expected == assurance),
            "{assurance:?} is not among the cases"
        );
    }
}

/// A session for which we did not ask for TLS is on record as one without TLS, and says nothing
/// about the host.
#[test]
fn a_session_without_a_question_for_tls_is_not_remembered() {
    for reason in [NoTls::NotWanted, NoTls::NotUsed] {
        let (session, level) = judged(&TlsPolicy::Off, TlsOutcome::Clear(reason));
        assert_eq!((session.assurance(), level), (Assurance::None, None));
        assert_eq!(RecordedAssurance::of(&session), RecordedAssurance::Clear);
    }
}

/// A higher assurance is never a lower step of a projection.
#[test]
fn the_projections_keep_the_order() {
    for pair in Assurance::ALL.windows(2) {
        assert!(pair[0] < pair[1]);
        assert!(
            RecordedAssurance::from(pair[0]) <= RecordedAssurance::from(pair[1]),
            "{pair:?}"
        );
        assert!(
            CoverageClass::from(pair[0]) as u8 <= CoverageClass::from(pair[1]) as u8,
            "{pair:?}"
        );
    }
    // In the downgrade memory, a host that DANE authenticates is a verified one, as a pinned key
    // is.
    let levels: Vec<_> = Assurance::ALL.into_iter().map(TlsLevel::from).collect();
    assert!(levels.is_sorted(), "{levels:?}");
}
