//! Revocation: the status of the certificates on a path, by certificate revocation lists (CRLs, RFC
//! 5280 §6.3), and the status that a demand requires.

use std::fmt;

use jiff::Timestamp;

/// `revocation`: the status that a demand requires of the certificates on the path, except the
/// trust anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revocation {
    /// `"off"`: none.
    Off,
    /// `"if-known"`: no known CRL revokes a certificate. An unknown status is recorded and
    /// accepted.
    IfKnown,
    /// `"required"`: a current CRL covers each certificate, and none of them is revoked.
    Required,
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::IfKnown => "if-known",
            Self::Required => "required",
        })
    }
}

/// The revocation status of the certificates on the path to the connector's trust anchors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationFacts {
    /// No CRL was consulted, because no demand asked for it or because there is no path.
    NotChecked,
    /// The status of each certificate below the anchor, the peer's own first. Empty if the peer's
    /// own certificate is an anchor itself.
    Checked(Vec<PathMemberStatus>),
}

/// The revocation status of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMemberStatus {
    /// The certificate.
    pub certificate: PathMember,
    /// Its status.
    pub status: RevocationStatus,
}

/// A certificate on a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMember {
    /// The peer's own.
    Own,
    /// That of an authority with this name, below the anchor.
    Issuer(String),
}

/// The status of a certificate by the newest CRL that covers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationStatus {
    /// The CRL does not list it and is current until this time.
    Good(Timestamp),
    /// The CRL does not list it, but its nextUpdate was this time.
    Expired(Timestamp),
    /// The CRL lists it with this time of revocation. It stays revoked when the CRL has expired.
    Revoked(Timestamp),
    /// No CRL covers it, for this reason.
    Unknown(NoCrl),
}

/// The reason why no CRL covers a certificate. It says nothing about the attempts to fetch one,
/// since a peer reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCrl {
    /// None is in a file, and the certificate names no distribution point from which one is
    /// fetched.
    NoSource,
    /// None is in a file, and that of its distribution point could not be fetched or used.
    NotFetched,
    /// The certificate is listed in `trust` and its issuer is not known, so that no CRL can be
    /// checked.
    NoIssuer,
}

/// The status of a path as a whole, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathStatus {
    /// No certificate is revoked, by current CRLs.
    Good,
    /// No certificate is known to be revoked, but a current CRL is missing.
    Unknown,
    /// A certificate is revoked.
    Revoked,
}

impl fmt::Display for PathStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
        })
    }
}

impl RevocationFacts {
    /// Returns the status of the whole path; `None` if it was not checked.
    #[must_use]
    pub fn path_status(&self) -> Option<PathStatus> {
        let of_one = |one: &PathMemberStatus| match one.status {
            RevocationStatus::Good(_) => PathStatus::Good,
            RevocationStatus::Expired(_) | RevocationStatus::Unknown(_) => PathStatus::Unknown,
            RevocationStatus::Revoked(_) => PathStatus::Revoked,
        };
        match self {
            Self::NotChecked => None,
            Self::Checked(all) => Some(all.iter().map(of_one).max().unwrap_or(PathStatus::Good)),
        }
    }
}

impl RevocationFacts {
    /// Returns true if the status was checked, and no CRL that it depends on has expired meanwhile.
    #[must_use]
    pub fn holds_at(&self, now: Timestamp) -> bool {
        let holds = |one: &PathMemberStatus| match one.status {
            RevocationStatus::Good(until) => now < until,
            RevocationStatus::Expired(_)
            | RevocationStatus::Revoked(_)
            | RevocationStatus::Unknown(_) => true,
        };
        match self {
            Self::NotChecked => false,
            Self::Checked(all) => all.iter().all(holds),
        }
    }

    /// Describes the status of the path: the time until which it is known to be good, or the first
    /// fault. `None` if it was not checked.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        let all = match self {
            Self::NotChecked => return None,
            Self::Checked(all) => all,
        };
        let until = all.iter().filter_map(|one| match one.status {
            RevocationStatus::Good(until) => Some(until),
            RevocationStatus::Expired(_)
            | RevocationStatus::Revoked(_)
            | RevocationStatus::Unknown(_) => None,
        });
        Some(match (check(Revocation::Required, self), until.min()) {
            (Ok(()), Some(until)) => format!("good, by CRLs that hold until {until}"),
            (Ok(()), None) => "good: the certificate is a trust anchor itself".to_owned(),
            (Err(fault @ RevocationFault::Revoked(..)), _) => format!("revoked: {fault}"),
            (Err(fault), _) => format!("unknown: {fault}"),
        })
    }
}

/// The part of a demand for revocation that is unmet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationFault {
    /// This certificate was revoked at this time.
    Revoked(PathMember, Timestamp),
    /// The CRL that covers this certificate expired at this time.
    Expired(PathMember, Timestamp),
    /// No CRL covers this certificate, for this reason.
    NoCrl(PathMember, NoCrl),
    /// The CRLs were not consulted.
    NotChecked,
}

impl RevocationFault {
    /// Returns true if a new CRL may end the fault: nothing is wrong with the certificate itself.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Revoked(..) => false,
            Self::Expired(..) | Self::NoCrl(..) | Self::NotChecked => true,
        }
    }
}

impl fmt::Display for PathMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("the certificate"),
            Self::Issuer(name) => write!(f, "the certificate of its issuer ({name})"),
        }
    }
}

impl fmt::Display for RevocationFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked(which, since) => {
                write!(f, "{which} was revoked on {since}; a new one is needed")
            }
            Self::Expired(which, at) => write!(
                f,
                "the CRL that covers {which} expired on {at}; a newer one is needed"
            ),
            Self::NoCrl(which, NoCrl::NoSource) => write!(
                f,
                "no CRL covers {which}; add the CRL of its authority to `crl`"
            ),
            Self::NoCrl(which, NoCrl::NotFetched) => write!(
                f,
                "no CRL covers {which}, and its distribution point yields none; see `gatepost status`"
            ),
            Self::NoCrl(which, NoCrl::NoIssuer) => write!(
                f,
                "no CRL can be checked for {which}, since the certificate of its issuer is missing; add that to `trust`"
            ),
            Self::NotChecked => f.write_str("its revocation was not checked"),
        }
    }
}

/// Checks the status of a path by what a demand requires. A revoked certificate is reported before
/// a missing CRL.
// Rule: RFC 5280 §6.3.
pub(super) fn check(wanted: Revocation, facts: &RevocationFacts) -> Result<(), RevocationFault> {
    let all = match (wanted, facts) {
        (Revocation::Off, _) | (Revocation::IfKnown, RevocationFacts::NotChecked) => return Ok(()),
        (Revocation::Required, RevocationFacts::NotChecked) => {
            return Err(RevocationFault::NotChecked);
        }
        (Revocation::IfKnown | Revocation::Required, RevocationFacts::Checked(all)) => all,
    };
    if let Some(revoked) = first_revoked(all) {
        return Err(revoked);
    }
    for PathMemberStatus {
        certificate,
        status,
    } in all
    {
        let fault = match status {
            RevocationStatus::Good(_) | RevocationStatus::Revoked(_) => continue,
            RevocationStatus::Expired(at) => RevocationFault::Expired(certificate.clone(), *at),
            RevocationStatus::Unknown(why) => RevocationFault::NoCrl(certificate.clone(), *why),
        };
        if wanted == Revocation::Required {
            return Err(fault);
        }
    }
    Ok(())
}

/// Returns the fault of the first revoked certificate, whatever is demanded.
pub(super) fn known_revoked(facts: &RevocationFacts) -> Option<RevocationFault> {
    match facts {
        RevocationFacts::NotChecked => None,
        RevocationFacts::Checked(all) => first_revoked(all),
    }
}

fn first_revoked(all: &[PathMemberStatus]) -> Option<RevocationFault> {
    all.iter().find_map(|one| match one.status {
        RevocationStatus::Revoked(since) => {
            Some(RevocationFault::Revoked(one.certificate.clone(), since))
        }
        RevocationStatus::Good(_) | RevocationStatus::Expired(_) | RevocationStatus::Unknown(_) => {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn own(status: RevocationStatus) -> PathMemberStatus {
        PathMemberStatus {
            certificate: PathMember::Own,
            status,
        }
    }

    fn issuer(status: RevocationStatus) -> PathMemberStatus {
        PathMemberStatus {
            certificate: PathMember::Issuer("CN=Issuing".to_owned()),
            status,
        }
    }

    /// The status of the path; the result under `if-known`; the result under `required`.
    #[test]
    fn each_demand_accepts_its_own_statuses() {
        use RevocationStatus::{Expired, Good, Revoked, Unknown};
        let sub = || PathMember::Issuer("CN=Issuing".to_owned());
        let revoked = || Err(RevocationFault::Revoked(PathMember::Own, at(1)));
        let revoked_issuer = || Err(RevocationFault::Revoked(sub(), at(1)));
        let expired = || Err(RevocationFault::Expired(PathMember::Own, at(2)));
        let missing = |which| Err(RevocationFault::NoCrl(which, NoCrl::NoSource));
        for (statuses, path, if_known, required) in [
            (vec![], PathStatus::Good, Ok(()), Ok(())),
            (vec![own(Good(at(9)))], PathStatus::Good, Ok(()), Ok(())),
            (
                vec![own(Expired(at(2)))],
                PathStatus::Unknown,
                Ok(()),
                expired(),
            ),
            (
                vec![own(Unknown(NoCrl::NoSource))],
                PathStatus::Unknown,
                Ok(()),
                missing(PathMember::Own),
            ),
            (
                vec![own(Revoked(at(1)))],
                PathStatus::Revoked,
                revoked(),
                revoked(),
            ),
            (
                vec![own(Good(at(9))), issuer(Unknown(NoCrl::NoSource))],
                PathStatus::Unknown,
                Ok(()),
                missing(sub()),
            ),
            (
                vec![own(Unknown(NoCrl::NoSource)), issuer(Revoked(at(1)))],
                PathStatus::Revoked,
                revoked_issuer(),
                revoked_issuer(),
            ),
        ] {
            let facts = RevocationFacts::Checked(statuses);
            assert_eq!(facts.path_status(), Some(path), "{facts:?}");
            assert_eq!(check(Revocation::Off, &facts), Ok(()), "{facts:?}");
            assert_eq!(check(Revocation::IfKnown, &facts), if_known, "{facts:?}");
            assert_eq!(check(Revocation::Required, &facts), required, "{facts:?}");
        }
        let unchecked = RevocationFacts::NotChecked;
        assert_eq!(unchecked.path_status(), None);
        assert_eq!(check(Revocation::Off, &unchecked), Ok(()));
        assert_eq!(check(Revocation::IfKnown, &unchecked), Ok(()));
        assert_eq!(
            check(Revocation::Required, &unchecked),
            Err(RevocationFault::NotChecked)
        );
    }

    /// The statuses; the times at which they hold, of 8, 9 and 10.
    #[test]
    fn a_status_holds_until_the_first_crl_expires() {
        use RevocationStatus::{Good, Unknown};
        let unknown = || Unknown(NoCrl::NoSource);
        for (statuses, expected) in [
            (vec![], [true, true, true]),
            (vec![own(Good(at(9)))], [true, false, false]),
            (
                vec![own(Good(at(10))), issuer(Good(at(9)))],
                [true, false, false],
            ),
            (
                vec![own(unknown()), issuer(Good(at(10)))],
                [true, true, false],
            ),
        ] {
            let facts = RevocationFacts::Checked(statuses);
            let holds = [8, 9, 10].map(|second| facts.holds_at(at(second)));
            assert_eq!(holds, expected, "{facts:?}");
        }
        assert!(!RevocationFacts::NotChecked.holds_at(at(8)));
    }

    #[test]
    fn a_fault_says_its_remedy_and_whether_a_new_crl_may_end_it() {
        let time = at(1_780_000_000);
        for (fault, may_pass, text) in [
            (
                RevocationFault::Revoked(PathMember::Own, time),
                false,
                "the certificate was revoked on 2026-05-28T20:26:40Z; a new one is needed",
            ),
            (
                RevocationFault::Revoked(PathMember::Issuer("CN=Sub".to_owned()), time),
                false,
                "the certificate of its issuer (CN=Sub) was revoked on 2026-05-28T20:26:40Z; a new one is needed",
            ),
            (
                RevocationFault::Expired(PathMember::Own, time),
                true,
                "the CRL that covers the certificate expired on 2026-05-28T20:26:40Z; a newer one is needed",
            ),
            (
                RevocationFault::NoCrl(PathMember::Own, NoCrl::NoSource),
                true,
                "no CRL covers the certificate; add the CRL of its authority to `crl`",
            ),
            (
                RevocationFault::NoCrl(PathMember::Own, NoCrl::NotFetched),
                true,
                "no CRL covers the certificate, and its distribution point yields none; see `gatepost status`",
            ),
            (
                RevocationFault::NoCrl(PathMember::Own, NoCrl::NoIssuer),
                true,
                "no CRL can be checked for the certificate, since the certificate of its issuer is missing; add that \
                 to `trust`",
            ),
            (
                RevocationFault::NotChecked,
                true,
                "its revocation was not checked",
            ),
        ] {
            assert_eq!(
                (fault.may_pass(), fault.to_string().as_str()),
                (may_pass, text)
            );
        }
    }
}
