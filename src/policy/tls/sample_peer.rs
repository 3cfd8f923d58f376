//! Sample peers: typical servers and clients, given to the judge to show the effect of a policy
//! before any connection.
//!
//! They are the rows of the policy table; its cells come from [`super::judge()`].

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::{
    CertificateFacts, ChainFault, DaneFacts, DaneFault, Handshake, NamePattern, NoCrl, NoTls,
    PathMember, PathMemberStatus, PeerCertificate, Pin, RevocationFacts, RevocationStatus,
    Strength, TlsFacts, TlsOutcome, TlsPolicy, TlsVersion, TlsaUsage, Verify,
};
use crate::smtp::address::Domain;
use crate::smtp::reply::{Reply, Status};

/// The key exchange of the samples that do not concern key exchange.
const STRONG: &str = "X25519MLKEM768";
/// The key exchange of [`SamplePeer::WeakKeyExchange`].
const WEAK: &str = "X25519";

/// A kind of peer, by its behaviour in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SamplePeer {
    /// Outbound: any peer, because the policy asks for no TLS.
    NotAsked,
    /// Outbound: its EHLO reply has no STARTTLS.
    NotOffered,
    /// Outbound: it rejects STARTTLS with 4xx or 5xx.
    Rejects,
    /// It breaks the handshake off.
    Breaks,
    /// Outbound: it sends data in the clear after its 220 to STARTTLS.
    SpeaksEarly,
    /// Inbound: it does not issue STARTTLS.
    NotUsed,
    /// Inbound: TLS without a certificate.
    NoCertificate,
    /// TLS 1.2, with a certificate that satisfies every demand.
    OldVersion,
    /// TLS with classical key exchange, and a certificate that satisfies every demand.
    WeakKeyExchange,
    /// TLS with a self-signed certificate.
    SelfSigned,
    /// TLS with an expired certificate.
    Expired,
    /// TLS with a certificate of an untrusted authority.
    UnknownAuthority,
    /// TLS with a trusted certificate for another name.
    OtherName,
    /// TLS with a trusted certificate for the right name, but another key than the wanted one.
    OtherKey,
    /// TLS with the wanted key in a self-signed certificate.
    KeyAlone,
    /// TLS with a certificate that satisfies every demand, but a CRL lists it.
    Revoked,
    /// TLS with a certificate that satisfies every demand, but no CRL covers it.
    NoCrl,
    /// TLS with a certificate that satisfies every demand.
    Right,
}

impl SamplePeer {
    /// The servers between which a policy distinguishes.
    #[must_use]
    pub fn servers(policy: &TlsPolicy) -> Vec<Self> {
        if *policy == TlsPolicy::Off {
            return vec![Self::NotAsked];
        }
        let mut peers = vec![
            Self::NotOffered,
            Self::Rejects,
            Self::Breaks,
            Self::SpeaksEarly,
        ];
        peers.extend(Self::with_tls(policy));
        peers
    }

    /// The clients between which a policy distinguishes. A client that breaks the handshake off has
    /// no session to judge.
    #[must_use]
    pub fn clients(policy: &TlsPolicy) -> Vec<Self> {
        let mut peers = vec![Self::NotUsed, Self::NoCertificate];
        peers.extend(Self::with_tls(policy));
        peers
    }

    fn with_tls(policy: &TlsPolicy) -> Vec<Self> {
        let mut peers = Vec::new();
        if policy
            .demands()
            .any(|demand| demand.min_version > TlsVersion::V1_2)
        {
            peers.push(Self::OldVersion);
        }
        if policy.min_strength() > Strength::Classical {
            peers.push(Self::WeakKeyExchange);
        }
        peers.extend([
            Self::SelfSigned,
            Self::Expired,
            Self::UnknownAuthority,
            Self::OtherName,
        ]);
        let keys = KeyDemands::of(policy);
        if keys.wanted {
            peers.push(Self::OtherKey);
        }
        if keys.alone {
            peers.push(Self::KeyAlone);
        }
        if policy.asks_for_revocation() {
            peers.extend([Self::Revoked, Self::NoCrl]);
        }
        peers.push(Self::Right);
        peers
    }

    /// The name of the kind in JSON.
    #[must_use]
    pub fn json_name(self) -> &'static str {
        match self {
            Self::NotAsked => "not-asked",
            Self::NotOffered => "no-starttls",
            Self::Rejects => "starttls-rejected",
            Self::Breaks => "handshake-broken",
            Self::SpeaksEarly => "speaks-before-handshake",
            Self::NotUsed => "no-tls",
            Self::NoCertificate => "no-certificate",
            Self::OldVersion => "old-version",
            Self::WeakKeyExchange => "classical-key-exchange",
            Self::SelfSigned => "self-signed",
            Self::Expired => "expired",
            Self::UnknownAuthority => "unknown-authority",
            Self::OtherName => "other-name",
            Self::OtherKey => "other-key",
            Self::KeyAlone => "wanted-key-self-signed",
            Self::Revoked => "revoked",
            Self::NoCrl => "no-crl",
            Self::Right => "right",
        }
    }

    /// Returns the session with this peer under a policy. `reference` holds the reference
    /// identifiers, as for [`super::judge()`].
    #[must_use]
    pub fn outcome(
        self,
        policy: &TlsPolicy,
        reference: &[NamePattern],
        now: Timestamp,
    ) -> TlsOutcome {
        let clear = TlsOutcome::Clear;
        let tls = |version, key_exchange, certificate| {
            TlsOutcome::Tls(TlsFacts {
                version,
                cipher: "TLS_AES_256_GCM_SHA384",
                key_exchange: Some(key_exchange),
                reduced: None,
                certificate,
                handshake: Handshake::Full,
            })
        };
        let shows = |chain, right_name, key| {
            let certificate = certificate(
                policy,
                reference,
                now,
                &SampleCertificate {
                    chain,
                    right_name,
                    key,
                },
            );
            tls(
                TlsVersion::V1_3,
                STRONG,
                PeerCertificate::Certificate(Box::new(certificate)),
            )
        };
        let unknown =
            || ChainFault::UnknownIssuer("CN=An authority that is not trusted".to_owned());
        match self {
            Self::NotAsked => clear(NoTls::NotWanted),
            Self::NotOffered => clear(NoTls::NotOffered),
            Self::Rejects => clear(NoTls::Rejected(Reply::new(
                454,
                Status(7, 0),
                "TLS is not available now",
            ))),
            Self::Breaks => clear(NoTls::Broken("the peer ends it".to_owned())),
            Self::SpeaksEarly => clear(NoTls::SpokeBeforeHandshake),
            Self::NotUsed => clear(NoTls::NotUsed),
            Self::NoCertificate => tls(TlsVersion::V1_3, STRONG, PeerCertificate::Nothing),
            Self::OldVersion => match shows(Ok(()), true, KeyChoice::Wanted) {
                TlsOutcome::Tls(facts) => tls(TlsVersion::V1_2, STRONG, facts.certificate),
                without @ TlsOutcome::Clear(_) => without,
            },
            Self::WeakKeyExchange => match shows(Ok(()), true, KeyChoice::Wanted) {
                TlsOutcome::Tls(facts) => tls(TlsVersion::V1_3, WEAK, facts.certificate),
                without @ TlsOutcome::Clear(_) => without,
            },
            Self::SelfSigned => shows(Err(ChainFault::SelfSigned), true, KeyChoice::Other),
            Self::Expired => shows(
                Err(ChainFault::Expired(yesterday(now))),
                true,
                KeyChoice::Other,
            ),
            Self::UnknownAuthority => shows(Err(unknown()), true, KeyChoice::Other),
            Self::OtherName => shows(Ok(()), false, KeyChoice::Other),
            Self::OtherKey => shows(Ok(()), true, KeyChoice::Other),
            Self::KeyAlone => shows(Err(ChainFault::SelfSigned), true, KeyChoice::Wanted),
            Self::Revoked => with_status(
                shows(Ok(()), true, KeyChoice::Wanted),
                RevocationStatus::Revoked(yesterday(now)),
            ),
            Self::NoCrl => with_status(
                shows(Ok(()), true, KeyChoice::Wanted),
                RevocationStatus::Unknown(NoCrl::NoSource),
            ),
            Self::Right => shows(Ok(()), true, KeyChoice::Wanted),
        }
    }
}

impl fmt::Display for SamplePeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAsked => "any server (TLS is not asked for)",
            Self::NotOffered => "offers no STARTTLS",
            Self::Rejects => "answers STARTTLS with 4xx or 5xx",
            Self::Breaks => "breaks the handshake",
            Self::SpeaksEarly => "sends data in the clear after its 220 to STARTTLS",
            Self::NotUsed => "uses no TLS",
            Self::NoCertificate => "TLS, no certificate",
            Self::OldVersion => "TLSv1.2, certificate as wanted",
            Self::WeakKeyExchange => "TLS with classical key exchange, certificate as wanted",
            Self::SelfSigned => "TLS, certificate self-signed",
            Self::Expired => "TLS, certificate expired",
            Self::UnknownAuthority => "TLS, certificate of an unknown authority",
            Self::OtherName => "TLS, certificate for another name",
            Self::OtherKey => "TLS, trusted and for the right name, another key",
            Self::KeyAlone => "TLS, the wanted key, self-signed",
            Self::Revoked => "TLS, certificate as wanted, but revoked",
            Self::NoCrl => "TLS, certificate as wanted, but no CRL covers it",
            Self::Right => "TLS, certificate as wanted",
        })
    }
}

/// Returns the time a day ago, in whole seconds as in certificates.
fn yesterday(now: Timestamp) -> Timestamp {
    let then = now - SignedDuration::from_hours(24);
    Timestamp::from_second(then.as_second()).unwrap_or(then)
}

/// The key of a sample certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyChoice {
    /// A key that is pinned, or that TLSA records name.
    Wanted,
    /// Any other key.
    Other,
}

/// The demands of a policy that concern keys.
#[derive(Debug, Clone, Copy)]
struct KeyDemands {
    wanted: bool,
    /// True if the wanted key alone satisfies each of them, whatever else is in the certificate.
    alone: bool,
}

impl KeyDemands {
    fn of(policy: &TlsPolicy) -> Self {
        let mut keys = Self {
            wanted: false,
            alone: false,
        };
        for demand in policy.demands() {
            let alone = match &demand.verify {
                Verify::Pin(_) => true,
                Verify::Dane(set) => set
                    .records
                    .iter()
                    .any(|record| record.usage == TlsaUsage::EndEntity),
                Verify::None
                | Verify::Chain
                | Verify::Name(_)
                | Verify::Published(_)
                | Verify::Impossible(_) => {
                    continue;
                }
            };
            keys.alone = alone && (keys.alone || !keys.wanted);
            keys.wanted = true;
        }
        keys
    }
}

/// The properties of a sample certificate.
struct SampleCertificate {
    chain: Result<(), ChainFault>,
    right_name: bool,
    key: KeyChoice,
}

fn certificate(
    policy: &TlsPolicy,
    reference: &[NamePattern],
    now: Timestamp,
    shown: &SampleCertificate,
) -> CertificateFacts {
    let names = if shown.right_name {
        wanted_names(policy, reference)
    } else {
        other_name()
    };
    CertificateFacts {
        names,
        chain: shown.chain.clone(),
        default_chain: shown.chain.clone(),
        key: key(policy, shown.key),
        issuer: "CN=An authority".to_owned(),
        not_after: now + SignedDuration::from_hours(24 * 90),
        dane: dane(policy, shown),
        revocation: if policy.asks_for_revocation() && shown.chain.is_ok() {
            status_facts(RevocationStatus::Good(
                now + SignedDuration::from_hours(24 * 7),
            ))
        } else {
            RevocationFacts::NotChecked
        },
    }
}

/// The facts about a path with one certificate below the anchor.
fn status_facts(status: RevocationStatus) -> RevocationFacts {
    RevocationFacts::Checked(vec![PathMemberStatus {
        certificate: PathMember::Own,
        status,
    }])
}

/// Replaces the revocation status of a session's certificate.
fn with_status(mut outcome: TlsOutcome, status: RevocationStatus) -> TlsOutcome {
    if let TlsOutcome::Tls(facts) = &mut outcome
        && let PeerCertificate::Certificate(certificate) = &mut facts.certificate
    {
        certificate.revocation = status_facts(status);
    }
    outcome
}

/// Every name that a demand wants, and the reference identifiers.
fn wanted_names(policy: &TlsPolicy, reference: &[NamePattern]) -> Vec<NamePattern> {
    let mut names = Vec::new();
    for demand in policy.demands() {
        match &demand.verify {
            Verify::Name(wanted) => names.extend(wanted.iter().cloned()),
            Verify::Published(host) => names.push(NamePattern::Exact(host.clone())),
            Verify::Dane(set) => names.extend(set.names.iter().cloned()),
            Verify::None | Verify::Chain | Verify::Pin(_) | Verify::Impossible(_) => {}
        }
    }
    names.extend(reference.iter().cloned());
    if names.is_empty() {
        other_name()
    } else {
        names
    }
}

/// A name that nobody has; "invalid" is reserved (RFC 6761 §6.4).
fn other_name() -> Vec<NamePattern> {
    Domain::parse("another-name.invalid")
        .map(NamePattern::Exact)
        .into_iter()
        .collect()
}

fn key(policy: &TlsPolicy, key: KeyChoice) -> Pin {
    let pins: Vec<Pin> = policy
        .demands()
        .flat_map(|demand| match &demand.verify {
            Verify::Pin(pins) => pins.clone(),
            _ => Vec::new(),
        })
        .collect();
    match (key, pins.first()) {
        (KeyChoice::Wanted, Some(pin)) => *pin,
        // A key that is not pinned. One of the 256 is free, unless all are pinned.
        (KeyChoice::Other, _) | (KeyChoice::Wanted, None) => (0..=u8::MAX)
            .map(|octet| Pin::new([octet; 32]))
            .find(|pin| !pins.contains(pin))
            .unwrap_or_else(|| Pin::new([0; 32])),
    }
}

fn dane(policy: &TlsPolicy, shown: &SampleCertificate) -> DaneFacts {
    let Some(set) = policy.tlsa() else {
        return DaneFacts::NotChecked;
    };
    let record = match (shown.key, &shown.chain) {
        (KeyChoice::Other, _) => None,
        (KeyChoice::Wanted, Ok(())) => set.records.first(),
        // A DANE-TA record needs a valid path; a DANE-EE record does not.
        (KeyChoice::Wanted, Err(_)) => set
            .records
            .iter()
            .find(|record| record.usage == TlsaUsage::EndEntity),
    };
    let found = record.cloned().ok_or(DaneFault::NoMatch {
        records: set.records.len(),
    });
    DaneFacts::Checked {
        records: set.clone(),
        result: found,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::tls::{
        DaneScope, Demand, Layer, Revocation, Tlsa, TlsaMatching, TlsaSelector, TlsaSet, Verdict,
        judge,
    };

    fn names(list: &[&str]) -> Vec<NamePattern> {
        list.iter()
            .map(|name| NamePattern::parse(name).expect("a name"))
            .collect()
    }

    fn forced(verify: Verify) -> TlsPolicy {
        TlsPolicy::forced(Demand::new(Layer::Connector, verify))
    }

    fn tlsa(usage: TlsaUsage) -> Verify {
        let base = Domain::parse("mx.example.org").expect("a domain");
        let record = Tlsa {
            usage,
            selector: TlsaSelector::PublicKey,
            matching: TlsaMatching::Sha256,
            data: vec![7; 32],
        };
        let names = names(&["mx.example.org"]);
        Verify::Dane(Arc::new(TlsaSet {
            base,
            records: vec![record],
            names,
            scope: DaneScope::Domain,
        }))
    }

    /// The cells of the policy table, in the order of [`SamplePeer::servers`].
    fn cells(policy: &TlsPolicy) -> Vec<String> {
        let reference = names(&["mx.example.org"]);
        let cell = |peer: SamplePeer| match judge(
            policy,
            peer.outcome(policy, &reference, Timestamp::UNIX_EPOCH),
            &reference,
        ) {
            Verdict::Cleared(clearance) => match clearance.outcome() {
                TlsOutcome::Clear(_) => "clear".to_owned(),
                TlsOutcome::Tls(_) => "TLS".to_owned(),
            },
            Verdict::Redial(_) => "clear again".to_owned(),
            Verdict::Refused(refusal) => format!("4.{}.{}", refusal.status().0, refusal.status().1),
        };
        SamplePeer::servers(policy)
            .into_iter()
            .map(|peer| format!("{} {}", peer.json_name(), cell(peer)))
            .collect()
    }

    #[test]
    fn every_policy_has_its_column_of_the_table() {
        let refused = [
            "no-starttls 4.7.4",
            "starttls-rejected 4.7.4",
            "handshake-broken 4.7.5",
            "speaks-before-handshake 4.7.5",
        ];
        let bad = [
            "self-signed 4.7.5",
            "expired 4.7.5",
            "unknown-authority 4.7.5",
        ];
        let (good, taken) = (
            ["self-signed TLS", "expired TLS", "unknown-authority TLS"],
            "other-name TLS",
        );
        assert_eq!(cells(&TlsPolicy::Off), ["not-asked clear"]);
        let opportunistic = [
            "no-starttls clear",
            "starttls-rejected clear",
            "handshake-broken clear again",
            "speaks-before-handshake clear again",
        ];
        assert_eq!(
            cells(&TlsPolicy::Opportunistic),
            [&opportunistic[..], &good, &[taken, "right TLS"]].concat()
        );
        assert_eq!(
            cells(&forced(Verify::None)),
            [&refused[..], &good, &[taken, "right TLS"]].concat()
        );
        assert_eq!(
            cells(&forced(Verify::Chain)),
            [&refused[..], &bad, &[taken, "right TLS"]].concat()
        );
        let name = forced(Verify::Name(names(&["*.example.org"])));
        assert_eq!(
            cells(&name),
            [&refused[..], &bad, &["other-name 4.7.5", "right TLS"]].concat()
        );
        for verify in [
            Verify::Pin(vec![Pin::new([0; 32]), Pin::new([1; 32])]),
            tlsa(TlsaUsage::EndEntity),
        ] {
            let rest = [
                "other-name 4.7.5",
                "other-key 4.7.5",
                "wanted-key-self-signed TLS",
                "right TLS",
            ];
            assert_eq!(cells(&forced(verify)), [&refused[..], &bad, &rest].concat());
        }
        let rest = ["other-name 4.7.5", "other-key 4.7.5", "right TLS"];
        assert_eq!(
            cells(&forced(tlsa(TlsaUsage::TrustAnchor))),
            [&refused[..], &bad, &rest].concat()
        );
    }

    #[test]
    fn an_old_version_is_a_sample_if_a_newer_one_is_demanded() {
        let mut demand = Demand::new(Layer::Connector, Verify::None);
        demand.min_version = TlsVersion::V1_3;
        assert!(cells(&TlsPolicy::forced(demand)).contains(&"old-version 4.7.5".to_owned()));
    }

    #[test]
    fn a_weak_key_exchange_is_a_sample_if_a_stronger_one_is_demanded() {
        let name = Verify::Name(names(&["mx.example.org"]));
        let demand = Demand {
            min_strength: Strength::PostQuantum,
            ..Demand::new(Layer::Connector, name)
        };
        let cells = cells(&TlsPolicy::forced(demand));
        assert!(
            cells.contains(&"classical-key-exchange 4.7.5".to_owned()),
            "{cells:?}"
        );
        assert_eq!(cells.last().map(String::as_str), Some("right TLS"));
    }

    #[test]
    fn revocation_adds_a_revoked_sample_and_one_without_a_crl() {
        for (revocation, no_crl) in [
            (Revocation::IfKnown, "no-crl TLS"),
            (Revocation::Required, "no-crl 4.7.5"),
        ] {
            let cells = cells(&TlsPolicy::forced(Demand {
                revocation,
                ..Demand::new(Layer::Connector, Verify::Chain)
            }));
            let last: Vec<_> = cells.iter().rev().take(3).rev().collect();
            assert_eq!(last, ["revoked 4.7.5", no_crl, "right TLS"]);
        }
        let without = cells(&forced(Verify::Chain));
        assert!(!without.iter().any(|cell| cell.starts_with("revoked")));
    }

    #[test]
    fn the_right_certificate_satisfies_all_demands_together() {
        let host = Domain::parse("mx.example.org").expect("a domain");
        let policy = forced(Verify::Name(names(&["mail.partner.example"])))
            .raised_by(Demand::new(Layer::MtaSts, Verify::Published(host)))
            .raised_by(Demand::new(Layer::DowngradeMemory, Verify::None));
        assert_eq!(cells(&policy).last().map(String::as_str), Some("right TLS"));
        let both = forced(Verify::Pin(vec![Pin::new([1; 32])]))
            .raised_by(Demand::new(Layer::Dane, tlsa(TlsaUsage::EndEntity)));
        assert_eq!(cells(&both).last().map(String::as_str), Some("right TLS"));
    }
}
