//! The refusal of a session, and what the session lacks.

use std::fmt;

use super::unmet::Unmet;
use super::{Demand, Layer, NoTls, SessionTls};
use crate::smtp::reply::Status;

/// The judge's refusal: the demand, and the part of it that is unmet.
// Rule: policy table (refused).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The first demand that is not satisfied.
    pub demand: Demand,
    /// The part of the demand that is unmet.
    pub unmet: Unmet,
    /// The session that was judged, for the record.
    pub basis: RefusalBasis,
}

/// The thing that a refusal is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalBasis {
    /// No session: the demand is unmeetable, so no connection was made.
    NoSession,
    /// The TLS of this session.
    Session(Box<SessionTls>),
}

impl Refusal {
    /// Returns subject and detail of the enhanced status: 7.4 if the session has no TLS, 7.5 if its
    /// TLS is not good enough (RFC 3463 §3.8).
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.unmet {
            Unmet::NoTls(
                NoTls::NotWanted | NoTls::NotOffered | NoTls::Rejected(_) | NoTls::NotUsed,
            ) => Status(7, 4),
            Unmet::NoTls(NoTls::SpokeBeforeHandshake | NoTls::Broken(_))
            | Unmet::Version(_)
            | Unmet::KeyExchange(_)
            | Unmet::NoCertificate
            | Unmet::Unproved(_)
            | Unmet::Chain(_)
            | Unmet::Name { .. }
            | Unmet::Pin { .. }
            | Unmet::Dane(_)
            | Unmet::Revocation(_)
            | Unmet::Unmeetable(_) => Status(7, 5),
        }
    }

    /// Returns true if the cause is a CRL that is missing or has expired. It is no fault of the
    /// peer, and passes with a new CRL.
    #[must_use]
    pub fn lacks_crl(&self) -> bool {
        matches!(&self.unmet, Unmet::Revocation(fault) if fault.may_pass())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.demand.layer {
            Layer::Connector => write!(f, "{} is demanded, but {}", self.demand, self.unmet),
            layer @ (Layer::Exception
            | Layer::RecipientConnector
            | Layer::Dane
            | Layer::MtaSts
            | Layer::RequireTls
            | Layer::DowngradeMemory) => {
                write!(
                    f,
                    "{} is demanded by {layer}, but {}",
                    self.demand, self.unmet
                )
            }
        }
    }
}
