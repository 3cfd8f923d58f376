//! The assurance of a session as it is recorded, and its comparison with the demand.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::policy::tls::{Assurance, Clearance, Demand, NoTls, SessionTls, TlsOutcome, TlsPolicy};

/// The assurance of a session or of a demand, as it is recorded, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordedAssurance {
    /// No TLS.
    Clear,
    /// TLS without authentication of the peer.
    Tls,
    /// TLS with a certificate of a trusted authority.
    Trusted,
    /// TLS with a trusted certificate for the demanded name.
    Verified,
    /// TLS with a key that the connector pins.
    Pinned,
    /// TLS authenticated by TLSA records (RFC 7672).
    Dane,
}

impl From<Assurance> for RecordedAssurance {
    fn from(assurance: Assurance) -> Self {
        match assurance {
            Assurance::None => Self::Clear,
            Assurance::Encrypted => Self::Tls,
            Assurance::Chain => Self::Trusted,
            Assurance::Name => Self::Verified,
            Assurance::Pin => Self::Pinned,
            Assurance::DaneHost | Assurance::DaneDomain => Self::Dane,
        }
    }
}

impl RecordedAssurance {
    /// Returns the assurance of a session, whether it was cleared or refused.
    #[must_use]
    pub fn of(session: &SessionTls) -> Self {
        session.assurance().into()
    }

    /// Returns the assurance that a demand requires.
    #[must_use]
    pub fn demanded(demand: &Demand) -> Self {
        demand.assurance().into()
    }

    /// Returns the word for it, as in JSON and CSV.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Tls => "tls",
            Self::Trusted => "trusted",
            Self::Verified => "verified",
            Self::Pinned => "pinned",
            Self::Dane => "dane",
        }
    }
}

impl fmt::Display for RecordedAssurance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clear => "in the clear",
            Self::Tls => "TLS",
            Self::Trusted => "TLS, trusted",
            Self::Verified => "TLS, name verified",
            Self::Pinned => "TLS, key pinned",
            Self::Dane => "TLS, DANE",
        })
    }
}

/// The comparison of the TLS that was used with the demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DemandOutcome {
    /// The demand was met. An opportunistic policy demands nothing.
    Met,
    /// The assurance is higher than demanded, or TLS was used although none was demanded.
    Exceeded,
    /// The peer offered TLS, TLS failed, and the policy allowed delivery in the clear.
    Fallback,
    /// The demand was not met, and nothing was sent.
    Refused,
    /// The attempt did not come so far: there was no session, or none was needed.
    Unreached,
}

impl DemandOutcome {
    /// Compares a session that was cleared with its policy.
    #[must_use]
    pub fn of(policy: Option<&TlsPolicy>, clearance: &Clearance) -> Self {
        match clearance.outcome() {
            TlsOutcome::Clear(NoTls::NotWanted | NoTls::NotOffered | NoTls::NotUsed) => Self::Met,
            TlsOutcome::Clear(
                NoTls::Rejected(_) | NoTls::SpokeBeforeHandshake | NoTls::Broken(_),
            ) => Self::Fallback,
            TlsOutcome::Tls(_) => {
                let demanded =
                    policy.and_then(|policy| policy.demands().map(Demand::assurance).max());
                if clearance.session().assurance() > demanded.unwrap_or(Assurance::None) {
                    Self::Exceeded
                } else {
                    Self::Met
                }
            }
        }
    }

    /// Returns the word for it, as in JSON and CSV.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Exceeded => "exceeded",
            Self::Fallback => "fallback",
            Self::Refused => "refused",
            Self::Unreached => "unreached",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tls::{
        Handshake, Layer, PeerCertificate, TlsFacts, TlsVersion, Verdict, Verify, judge,
    };
    use crate::smtp::reply::Reply;

    fn clearance(policy: &TlsPolicy, outcome: TlsOutcome) -> Clearance {
        match judge(policy, outcome, &[]) {
            Verdict::Cleared(clearance) => clearance,
            Verdict::Redial(fallback) => fallback.clearance(),
            Verdict::Refused(refusal) => panic!("{refusal}"),
        }
    }

    #[test]
    fn a_session_is_compared_with_its_demand() {
        let tls = || {
            let (version, cipher) = (TlsVersion::V1_3, "TLS_AES_256_GCM_SHA384");
            TlsOutcome::Tls(TlsFacts {
                version,
                cipher,
                key_exchange: None,
                reduced: None,
                certificate: PeerCertificate::Nothing,
                handshake: Handshake::Full,
            })
        };
        let forced = TlsPolicy::forced(Demand::new(Layer::Connector, Verify::None));
        let clear = TlsOutcome::Clear;
        for (policy, outcome, standing) in [
            (TlsPolicy::Off, clear(NoTls::NotWanted), DemandOutcome::Met),
            (
                TlsPolicy::Opportunistic,
                clear(NoTls::NotOffered),
                DemandOutcome::Met,
            ),
            (
                TlsPolicy::Opportunistic,
                clear(NoTls::Rejected(Reply::bare(454, "no"))),
                DemandOutcome::Fallback,
            ),
            (
                TlsPolicy::Opportunistic,
                clear(NoTls::SpokeBeforeHandshake),
                DemandOutcome::Fallback,
            ),
            (
                TlsPolicy::Opportunistic,
                clear(NoTls::Broken("alert".to_owned())),
                DemandOutcome::Fallback,
            ),
            (TlsPolicy::Opportunistic, tls(), DemandOutcome::Exceeded),
            (forced, tls(), DemandOutcome::Met),
        ] {
            let clearance = clearance(&policy, outcome);
            assert_eq!(
                DemandOutcome::of(Some(&policy), &clearance),
                standing,
                "{policy}, {clearance:?}"
            );
        }
    }
}
