//! How well a peer was known, and how that compares with what was demanded.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tls::{Authentication, Clearance, Demand, NoTls, SessionTls, TlsOutcome, TlsPolicy, Unmet, Verify};

/// How well a peer was known, or had to be; the greater the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// In clear.
    Clear,
    /// TLS, whoever answered.
    Tls,
    /// TLS, with a certificate under a trusted authority.
    Trusted,
    /// TLS, with a trusted certificate for a name that was looked for.
    Verified,
    /// TLS, with a key that the connector pins.
    Pinned,
    /// TLS, authenticated by TLSA records (RFC 7672).
    Dane,
}

impl Level {
    /// All of them, the least first.
    pub const ALL: [Self; 6] = [Self::Clear, Self::Tls, Self::Trusted, Self::Verified, Self::Pinned, Self::Dane];

    /// What a session reached, whether it was cleared or refused.
    #[must_use]
    pub fn of(session: &SessionTls) -> Self {
        match (&session.outcome, &session.authentication) {
            (TlsOutcome::Clear(_), _) => Self::Clear,
            // Names are looked at only where the chain is good.
            (_, Authentication::Trusted | Authentication::Untrusted(Unmet::Name { .. })) => Self::Trusted,
            (_, Authentication::Anonymous | Authentication::Unproved(_) | Authentication::Untrusted(_)) => Self::Tls,
            (_, Authentication::Verified(_)) => Self::Verified,
            (_, Authentication::Pinned(_)) => Self::Pinned,
            (_, Authentication::Dane { .. }) => Self::Dane,
        }
    }

    /// What a demand wants.
    #[must_use]
    pub fn demanded(demand: &Demand) -> Self {
        match &demand.verify {
            Verify::None => Self::Tls,
            Verify::Chain => Self::Trusted,
            Verify::Name(_) | Verify::Published(_) | Verify::Impossible(_) => Self::Verified,
            Verify::Pin(_) => Self::Pinned,
            Verify::Dane(_) => Self::Dane,
        }
    }

    /// The word for it, in JSON and CSV.
    #[must_use]
    pub fn word(self) -> &'static str {
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

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clear => "in clear",
            Self::Tls => "TLS",
            Self::Trusted => "TLS, trusted",
            Self::Verified => "TLS, name verified",
            Self::Pinned => "TLS, key pinned",
            Self::Dane => "TLS, DANE",
        })
    }
}

/// How what was reached compares with what was demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// As demanded. An opportunistic policy demands nothing.
    Met,
    /// The peer was better known than was demanded, or TLS was had where none was demanded.
    Exceeded,
    /// The peer offered TLS, it came to nothing, and the policy let the message go in clear.
    Fallback,
    /// What was demanded was not to be had, and nothing was sent.
    Refused,
    /// It did not come as far as that: no session, or none that was needed.
    Unreached,
}

impl Standing {
    /// Of a session that was cleared under a policy.
    #[must_use]
    pub fn of(policy: Option<&TlsPolicy>, clearance: &Clearance) -> Self {
        match clearance.outcome() {
            TlsOutcome::Clear(NoTls::NotWanted | NoTls::NotOffered | NoTls::NotUsed) => Self::Met,
            TlsOutcome::Clear(NoTls::Rejected(_) | NoTls::SpokeBeforeHandshake | NoTls::Broken(_)) => Self::Fallback,
            TlsOutcome::Tls(_) => {
                let demanded = policy.and_then(|policy| policy.demands().map(Level::demanded).max());
                if Level::of(clearance.session()) > demanded.unwrap_or(Level::Clear) {
                    Self::Exceeded
                } else {
                    Self::Met
                }
            }
        }
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
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
    use crate::smtp::reply::Reply;
    use crate::tls::{Handshake, Layer, PeerCertificate, TlsFacts, TlsVersion, Verdict, judge};

    fn clearance(policy: &TlsPolicy, outcome: TlsOutcome) -> Clearance {
        match judge(policy, outcome, &[]) {
            Verdict::Cleared(clearance) => clearance,
            Verdict::Redial(fallback) => fallback.clearance(),
            Verdict::Refused(refusal) => panic!("{refusal}"),
        }
    }

    #[test]
    fn what_was_reached_is_held_against_what_was_demanded() {
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
            (TlsPolicy::Off, clear(NoTls::NotWanted), Standing::Met),
            (TlsPolicy::Opportunistic, clear(NoTls::NotOffered), Standing::Met),
            (TlsPolicy::Opportunistic, clear(NoTls::Rejected(Reply::bare(454, "no"))), Standing::Fallback),
            (TlsPolicy::Opportunistic, clear(NoTls::SpokeBeforeHandshake), Standing::Fallback),
            (TlsPolicy::Opportunistic, clear(NoTls::Broken("alert".to_owned())), Standing::Fallback),
            (TlsPolicy::Opportunistic, tls(), Standing::Exceeded),
            (forced, tls(), Standing::Met),
        ] {
            let clearance = clearance(&policy, outcome);
            assert_eq!(Standing::of(Some(&policy), &clearance), standing, "{policy}, {clearance:?}");
        }
    }
}
