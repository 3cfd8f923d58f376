//! Evidence, downgrade memory and coverage show one scale of assurance.

use std::sync::Arc;

use gatepost::discovery::history::TlsLevel;
use gatepost::policy::tls::{
    Assurance, CertificateFacts, ChainFault, DaneFacts, DaneFault, DaneScope, Demand, Handshake,
    Layer, NamePattern, NoTls, PeerCertificate, Pin, RefusalBasis, RevocationFacts, SessionTls,
    TlsFacts, TlsOutcome, TlsPolicy, TlsVersion, Tlsa, TlsaMatching, TlsaSelector, TlsaSet,
    TlsaUsage, UncheckableKey, Verdict, Verify, judge,
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
        revocation: RevocationFacts::NotChecked,
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

/// A policy, the session that it judges, and the assurance of that session.
type Case = (TlsPolicy, TlsOutcome, Assurance);

fn opportunistic() -> TlsPolicy {
    TlsPolicy::Opportunistic
}

fn dane(scope: DaneScope) -> TlsPolicy {
    policy(Verify::Dane(records(scope)))
}

fn pin(octet: u8) -> TlsPolicy {
    policy(Verify::Pin(vec![Pin::new([octet; 32])]))
}

/// A certificate that no DANE record matches.
fn unmatched() -> DaneFacts {
    DaneFacts::Checked {
        records: records(DaneScope::Domain),
        result: Err(DaneFault::NoMatch { records: 1 }),
    }
}

fn self_signed(name: &str, dane: DaneFacts) -> TlsOutcome {
    shown(name, Err(ChainFault::SelfSigned), dane)
}

/// A certificate with a good chain, for the host or for another one.
fn trusted(name: &str) -> TlsOutcome {
    shown(name, Ok(()), DaneFacts::NotChecked)
}

fn clear_cases() -> Vec<Case> {
    let rejected = NoTls::Rejected(Reply::bare(454, "no"));
    let cases = [
        (opportunistic(), NoTls::NotOffered),
        (opportunistic(), rejected),
        (opportunistic(), NoTls::SpokeBeforeHandshake),
        (opportunistic(), NoTls::Broken("alert".to_owned())),
        (policy(Verify::None), NoTls::NotOffered),
    ];
    let clear = |(policy, reason)| (policy, TlsOutcome::Clear(reason), Assurance::None);
    cases.into_iter().map(clear).collect()
}

/// Sessions under TLS in which nothing proves the peer.
fn encrypted_cases() -> Vec<Case> {
    let nothing = || tls(PeerCertificate::Nothing, Handshake::Full);
    let key = || {
        let key = UncheckableKey::RsaSize(1024);
        tls(PeerCertificate::Unproved(key), Handshake::Full)
    };
    let unchecked = || DaneFacts::NotChecked;
    let chain = || policy(Verify::Chain);
    let cases = [
        (opportunistic(), nothing()),
        (chain(), nothing()),
        (opportunistic(), key()),
        (chain(), key()),
        (opportunistic(), self_signed(HOST, unchecked())),
        (
            opportunistic(),
            shown(HOST, Err(ChainFault::NotChecked), unchecked()),
        ),
        (chain(), self_signed(HOST, unchecked())),
        (pin(2), self_signed(HOST, unchecked())),
        (dane(DaneScope::Domain), self_signed(HOST, unmatched())),
    ];
    let encrypted = |(policy, outcome)| (policy, outcome, Assurance::Encrypted);
    cases.into_iter().map(encrypted).collect()
}

/// Sessions in which the certificate proves something of the peer.
fn authenticated_cases() -> Vec<Case> {
    use Assurance::{Chain, DaneDomain, DaneHost, Name, Pin as Key};
    let named = |name| policy(Verify::Name(names(name)));
    let other = "mx.example.net";
    let dane_case = |scope, assurance| {
        let session = self_signed(HOST, matched(scope));
        (dane(scope), session, assurance)
    };
    vec![
        (opportunistic(), trusted(other), Chain),
        (policy(Verify::Chain), trusted(other), Chain),
        (named(HOST), trusted(other), Chain),
        (opportunistic(), trusted(HOST), Name),
        (named(HOST), trusted(HOST), Name),
        // Refused, and all the same a certificate with the name of the host.
        (named(other), trusted(HOST), Name),
        (pin(2), trusted(HOST), Name),
        (
            dane(DaneScope::Domain),
            shown(HOST, Ok(()), unmatched()),
            Name,
        ),
        (pin(1), self_signed(other, DaneFacts::NotChecked), Key),
        dane_case(DaneScope::Host, DaneHost),
        dane_case(DaneScope::Domain, DaneDomain),
    ]
}

/// The place of an assurance in the evidence, in the downgrade memory and in the coverage.
fn projected(assurance: Assurance) -> (RecordedAssurance, TlsLevel, CoverageClass) {
    use CoverageClass::{Clear, Encrypted, Verified};
    match assurance {
        Assurance::None => (RecordedAssurance::Clear, TlsLevel::Plain, Clear),
        Assurance::Encrypted => (RecordedAssurance::Tls, TlsLevel::Tls, Encrypted),
        Assurance::Chain => (RecordedAssurance::Trusted, TlsLevel::Trusted, Encrypted),
        Assurance::Name => (RecordedAssurance::Verified, TlsLevel::Verified, Verified),
        Assurance::Pin => (RecordedAssurance::Pinned, TlsLevel::Verified, Verified),
        Assurance::DaneHost => (RecordedAssurance::Dane, TlsLevel::Verified, Verified),
        Assurance::DaneDomain => (RecordedAssurance::Dane, TlsLevel::Dane, Verified),
    }
}

/// Every kind of session has the same place on all scales, whether it is cleared or refused.
#[test]
fn the_projections_agree() {
    let cases = [clear_cases(), encrypted_cases(), authenticated_cases()];
    let cases: Vec<_> = cases.into_iter().flatten().collect();
    for (policy, outcome, assurance) in &cases {
        let (session, level) = judged(policy, outcome.clone());
        let (recorded, remembered, counted) = projected(*assurance);
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
