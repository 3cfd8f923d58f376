//! What is planned for one hop before it is dialled: its addresses, what is known of it, and the policy that
//! follows. Deliveries act on it; `gatepost explain` and `gatepost probe` tell it.

use jiff::Timestamp;

use crate::address::Host;
use crate::config::Connector;
use crate::connector::outbound_policy;
use crate::discovery::{Discovery, DiscoveryError, HopLookup, HopQuery, KnownPolicies};
use crate::envelope::TlsRequirement;
use crate::failure::Failure;
use crate::route::{Addresses, Hop, RouteBasis, Router};
use crate::tls::TlsPolicy;

/// Whose mail is planned for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose<'a> {
    /// The recipient domain.
    pub recipient: &'a Host,
    /// The connector that speaks for it.
    pub connector: &'a Connector,
    /// What the message asks of TLS.
    pub requirement: TlsRequirement,
}

/// A hop that can be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where.
    pub addresses: Addresses,
    /// What is known of it.
    pub found: HopLookup,
    now: Timestamp,
}

/// Why a hop cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPlan {
    /// It has no address, or none that can be found.
    NoAddress(Failure),
    /// What had to be known of it cannot be found out.
    Unknown(DiscoveryError),
}

impl From<NoPlan> for Failure {
    fn from(no_plan: NoPlan) -> Self {
        match no_plan {
            NoPlan::NoAddress(failure) => failure,
            NoPlan::Unknown(unknown) => unknown.into(),
        }
    }
}

impl Plan {
    /// Finds out what must be known of a hop. What is not cached is waited for, each question for a bounded
    /// time.
    ///
    /// # Errors
    /// [`NoPlan`].
    pub async fn make<K: KnownPolicies>(
        router: &Router,
        discovery: &Discovery<K>,
        purpose: Purpose<'_>,
        hop: &Hop,
        basis: &RouteBasis,
    ) -> Result<Self, NoPlan> {
        let addresses = router.addresses(hop).await.map_err(NoPlan::NoAddress)?;
        let Purpose { recipient, connector, requirement } = purpose;
        let (dns, now) = (router.dns(), Timestamp::now());
        let query = HopQuery { recipient, connector, hop, basis, addresses: &addresses, requirement, dns, now };
        let found = discovery.look_up_hop(&query).await.map_err(NoPlan::Unknown)?;
        Ok(Self { addresses, found, now })
    }

    /// What the hop must show, by every layer.
    #[must_use]
    pub fn policy(&self, purpose: Purpose<'_>, hop: &Hop) -> TlsPolicy {
        let Purpose { recipient, connector, requirement } = purpose;
        outbound_policy(connector, recipient, &hop.host, &self.found.findings, requirement, self.now)
    }
}
