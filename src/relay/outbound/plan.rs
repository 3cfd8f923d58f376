//! The plan for one hop before it is dialled: its addresses, the facts known about it, and the
//! policy that follows. Deliveries act on it; `gatepost explain` and `gatepost probe` print it.

use jiff::Timestamp;

use crate::config::Connector;
use crate::discovery::{Discovery, DiscoveryError, HopLookup, HopQuery, KnownPolicies};
use crate::net::route::{Addresses, Hop, RouteBasis, Router};
use crate::policy::failure::Failure;
use crate::policy::layers::outbound_policy;
use crate::policy::tls::TlsPolicy;
use crate::smtp::address::Host;
use crate::smtp::envelope::TlsRequirement;

/// The mail that a plan is made for.
#[derive(Debug, Clone, Copy)]
pub struct MailContext<'a> {
    /// The recipient domain.
    pub recipient: &'a Host,
    /// The connector of that domain.
    pub connector: &'a Connector,
    /// The TLS requirement of the message.
    pub requirement: TlsRequirement,
}

/// The plan for a hop that can be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopPlan {
    /// The addresses of the hop.
    pub addresses: Addresses,
    /// The facts that discovery found for the hop.
    pub found: HopLookup,
    now: Timestamp,
}

/// The reason for which a hop cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HopUnusable {
    /// The hop has no address, or the lookup of its addresses failed.
    NoAddress(Failure),
    /// A fact that the policy depends on, such as the TLSA records, cannot be determined.
    Unknown(DiscoveryError),
}

impl From<HopUnusable> for Failure {
    fn from(unusable: HopUnusable) -> Self {
        match unusable {
            HopUnusable::NoAddress(failure) => failure,
            HopUnusable::Unknown(error) => error.into(),
        }
    }
}

impl HopPlan {
    /// Looks up what the policy of a hop depends on. Waits for what is not cached; each lookup has
    /// a time limit.
    ///
    /// # Errors
    /// [`HopUnusable`] if the hop has no address, or a fact that its policy depends on cannot be
    /// determined.
    pub async fn make<K: KnownPolicies>(
        router: &Router,
        discovery: &Discovery<K>,
        context: MailContext<'_>,
        hop: &Hop,
        basis: &RouteBasis,
    ) -> Result<Self, HopUnusable> {
        let addresses = router
            .addresses(hop)
            .await
            .map_err(HopUnusable::NoAddress)?;
        let MailContext {
            recipient,
            connector,
            requirement,
        } = context;
        let (dns, now) = (router.dns(), Timestamp::now());
        let query = HopQuery {
            recipient,
            connector,
            hop,
            basis,
            addresses: &addresses,
            requirement,
            dns,
            now,
        };
        let found = discovery
            .look_up_hop(&query)
            .await
            .map_err(HopUnusable::Unknown)?;
        Ok(Self {
            addresses,
            found,
            now,
        })
    }

    /// The demand on the hop, joined from all layers.
    #[must_use]
    pub fn policy(&self, context: MailContext<'_>, hop: &Hop) -> TlsPolicy {
        let MailContext {
            recipient,
            connector,
            requirement,
        } = context;
        outbound_policy(
            connector,
            recipient,
            &hop.host,
            &self.found.findings,
            requirement,
            self.now,
        )
    }
}
