//! Fetches an MTA-STS policy again before it makes a message bounce (RFC 8461 §5.1).

use crate::config::{Connector, OnFailure};
use crate::discovery::mta_sts::{MtaStsMode, PublishedPolicy, Recheck};
use crate::discovery::{Discovery, HopLookup, MtaStsLookup};
use crate::net::route::{Hop, RouteBasis, Router};
use crate::policy::failure::{Cause, Failure, RequireTlsUnmet};
use crate::policy::tls::Layer;

use super::plan::{HopPlan, HopUnusable, MailContext};

/// The rechecks of one attempt.
// Rule: RFC 8461 §5.1.
#[derive(Clone, Copy)]
pub(super) struct PolicyRecheck<'a> {
    pub(super) router: &'a Router,
    pub(super) discovery: &'a Discovery,
    pub(super) connector: &'a Connector,
    pub(super) may_be_last: bool,
}

impl PolicyRecheck<'_> {
    /// Plans one hop. If this may be the last attempt, an enforced MTA-STS policy is fetched again
    /// first, so that no message bounces because of an outdated policy (RFC 8461 §5.1).
    pub(super) async fn plan(
        &self,
        context: MailContext<'_>,
        hop: &Hop,
        basis: &RouteBasis,
    ) -> Result<HopPlan, HopUnusable> {
        let (router, discovery) = (self.router, self.discovery);
        let plan = HopPlan::make(router, discovery, context, hop, basis).await?;
        let MtaStsLookup::Done(PublishedPolicy::Policy(policy)) = &plan.found.published else {
            return Ok(plan);
        };
        if !self.may_be_last || policy.mode() != MtaStsMode::Enforce {
            return Ok(plan);
        }
        match discovery.mta_sts().recheck(policy).await {
            Recheck::Changed(_) => HopPlan::make(router, discovery, context, hop, basis).await,
            Recheck::Confirmed | Recheck::Unknown(_) => Ok(plan),
        }
    }

    /// Fetches the domain's MTA-STS policy again if a refusal under it would bounce or hold the
    /// message. A policy that has changed, or cannot be fetched, turns it into a temporary failure
    /// (RFC 8461 §5.1).
    pub(super) async fn judge_again(&self, failure: Failure, found: &HopLookup) -> Failure {
        let ends = match &failure.cause {
            Cause::Policy(refusal) => {
                let ends = match self.connector.outbound.on_failure {
                    OnFailure::Defer => false,
                    OnFailure::Bounce => true,
                    // A held message that expires bounces. In a last attempt `plan` has fetched the
                    // policy just now.
                    OnFailure::Hold => !self.may_be_last,
                };
                refusal.demand.layer == Layer::MtaSts && ends
            }
            Cause::RequireTls(RequireTlsUnmet::Session(refusal)) => {
                refusal.demand.layer == Layer::MtaSts
            }
            Cause::RequireTls(RequireTlsUnmet::Off | RequireTlsUnmet::NotOffered)
            | Cause::Reply { .. }
            | Cause::Login(_)
            | Cause::Ourselves(_)
            | Cause::Discovery(_)
            | Cause::Other(_) => false,
        };
        if !ends {
            return failure;
        }
        let MtaStsLookup::Done(PublishedPolicy::Policy(policy)) = &found.published else {
            return failure;
        };
        let now = match self.discovery.mta_sts().recheck(policy).await {
            Recheck::Confirmed => return failure,
            Recheck::Changed(_) => "the domain has changed its MTA-STS policy meanwhile".to_owned(),
            Recheck::Unknown(why) => format!("cannot fetch its MTA-STS policy again: {why}"),
        };
        let passing = Failure::discovery(failure.status, format!("{failure}; {now}"));
        Failure {
            peer: failure.peer,
            scope: failure.scope,
            ..passing
        }
    }
}
