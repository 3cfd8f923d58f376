//! The explanation of mail to a domain: its route, its hops, their layers and the result for each
//! kind of peer.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::document::{
    self, ExceptionNote, HelloNote, HopProblem, MemoryNote, NoHopLeft, PeerForecast, UserNote, step,
};
use super::explainer::Explainer;
use super::layers::HopLayers;
use super::recipients::recipient_note;
use super::sources::{RememberedTls, Sources};
use super::subject::Subject;
use crate::config::{Connector, OnFailure, write_duration};
use crate::discovery::Discovery;
use crate::net::dns::{CnameChain, Security};
use crate::net::route::{Hop, HopOrigin, Hops, RouteBasis};
use crate::policy::connector::exception;
use crate::policy::failure::{self, Failure, NextStep, Persistence, RequireTlsUnmet, Scope};
use crate::policy::tls::{Hellos, Layer, SamplePeer, TlsOutcome};
use crate::relay::outbound::{
    DeliveryForecast, HopPlan, MailContext, PeerOutcome, forecast, hellos, missing_connector,
    undialled_reason,
};
use crate::smtp::address::Host;
use crate::smtp::envelope::TlsRequirement;
use crate::smtp::reply::Status;

impl Explainer {
    /// Explains mail to a recipient domain. `subject` is the address or domain as the user typed
    /// it. The function sends DNS queries and fetches MTA-STS policies, for all hops at once; each
    /// lookup has a time limit.
    pub async fn outbound(
        &self,
        subject: &Subject,
        recipient: &Host,
        requirement: TlsRequirement,
        memory: &RememberedTls,
    ) -> document::OutboundExplanation {
        OutboundQuestion {
            explainer: self,
            subject,
            recipient,
            connector: self.connectors.for_mail(recipient, self.user_connector()),
            requirement,
            memory,
            now: Timestamp::now(),
        }
        .answer()
        .await
    }
}

/// The question that an [`OutboundExplanation`](document::OutboundExplanation) answers.
struct OutboundQuestion<'a> {
    explainer: &'a Explainer,
    subject: &'a Subject,
    recipient: &'a Host,
    connector: Arc<Connector>,
    requirement: TlsRequirement,
    memory: &'a RememberedTls,
    now: Timestamp,
}

impl OutboundQuestion<'_> {
    /// Looks up the hops and explains them.
    async fn answer(&self) -> document::OutboundExplanation {
        let connector = self.connector();
        let connectors = &self.explainer.connectors;
        let missing = connectors.missing(self.explainer.user_connector());
        let found = if let Some(name) = missing {
            Err(missing_connector(name))
        } else {
            let route = &connector.outbound.route;
            self.explainer.router.hops(self.recipient, route).await
        };
        let (route, hops, problem) = match found {
            Ok(found) => {
                let hops = self.hops(&found).await;
                let none_usable = hops.iter().all(|hop| hop.problem.is_some());
                let problem = if none_usable {
                    hops.last().and_then(|hop| hop.problem.clone())
                } else {
                    None
                };
                (Some(self.route(&found)), hops, problem)
            }
            Err(failure) => (None, Vec::new(), Some(problem(&failure, connector))),
        };
        let asked = match self.subject {
            Subject::Address(mailbox) => mailbox.to_string(),
            Subject::Postmaster => "postmaster".to_owned(),
            Subject::Host(host) => host.to_string(),
            Subject::Null => self.recipient.to_string(),
        };
        let postmaster = &self.explainer.config.postmaster;
        let note = match self.subject {
            Subject::Postmaster => Some(format!(
                "mail to <postmaster> without a domain goes to {postmaster}, as the configuration says"
            )),
            subject => self.explainer.local(subject).map(|to| {
                let is_mailbox = to == *postmaster || matches!(subject, Subject::Address(_));
                let to = if is_mailbox {
                    to.to_string()
                } else {
                    to.host().to_string()
                };
                format!(
                    "{asked} is on this host itself: mail of our own clients for it goes to {to}"
                )
            }),
        };
        document::OutboundExplanation {
            direction: "outbound",
            asked,
            recipient: match self.subject {
                Subject::Address(mailbox) => Some(mailbox.to_string()),
                Subject::Postmaster | Subject::Host(_) | Subject::Null => None,
            },
            domain: self.recipient.to_string(),
            note,
            at: self.now,
            requirement: self.requirement,
            connectors: self.explainer.matching_connectors(self.recipient),
            user: self.user_note(),
            exception: ExceptionNote::of(connector, self.now),
            memory: self.memory_note(),
            route,
            recipients: self.recipients(),
            can_go: problem.is_none(),
            hops,
            problem,
            no_hop_left: self.no_hop_left(),
        }
    }

    /// Returns a sentence about the check of the recipient.
    fn recipients(&self) -> Option<String> {
        let config = &self.explainer.config;
        let mailbox = match self.subject {
            Subject::Address(mailbox) => Some(
                self.explainer
                    .local(self.subject)
                    .unwrap_or_else(|| mailbox.clone()),
            ),
            Subject::Postmaster => Some(config.postmaster.clone()),
            Subject::Host(_) | Subject::Null => None,
        };
        recipient_note(config, self.recipient, mailbox.as_ref())
    }

    fn connector(&self) -> &Connector {
        &self.connector
    }

    fn user_note(&self) -> Option<UserNote> {
        let user = self.explainer.user.as_ref()?;
        Some(UserNote::of(user, self.connector.floor.is_some()))
    }

    fn context(&self) -> MailContext<'_> {
        MailContext {
            recipient: self.recipient,
            connector: self.connector(),
            requirement: self.requirement,
        }
    }

    fn memory_note(&self) -> MemoryNote {
        match self.memory {
            RememberedTls::Known(_) => MemoryNote {
                asked: true,
                why: None,
            },
            RememberedTls::Unavailable(why) => MemoryNote {
                asked: false,
                why: Some(why.clone()),
            },
        }
    }

    /// Returns a sentence about the source of the hops.
    fn route(&self, found: &Hops) -> String {
        let domain = self.recipient;
        let security = |chain: &CnameChain| match chain.security {
            Security::Secure => "secured by DNSSEC".to_owned(),
            Security::Insecure(why) => why.to_string(),
        };
        match (&found.basis, found.hops.first().map(|hop| hop.origin)) {
            (RouteBasis::Mx(mx), _) => format!("the MX records of {domain} ({})", security(mx)),
            (RouteBasis::NoMx(denial), _) => {
                format!(
                    "{domain} itself, which has no MX record (RFC 5321 §5.1; {})",
                    security(denial)
                )
            }
            (RouteBasis::Configured, Some(HopOrigin::Literal)) => "the address itself".to_owned(),
            (RouteBasis::Configured, _) => {
                "the smart hosts of the connector's route, in their order".to_owned()
            }
        }
    }

    /// Explains all hops at once, so that one with slow lookups does not delay the others.
    async fn hops(&self, found: &Hops) -> Vec<document::ExplainedHop> {
        let discovery = Discovery::with_policies(Sources::new(
            self.explainer.web.clone(),
            self.memory,
            self.explainer.known.clone(),
        ));
        join_all(
            found
                .hops
                .iter()
                .map(|hop| self.hop(&discovery, hop, &found.basis)),
        )
        .await
    }

    async fn hop(
        &self,
        discovery: &Discovery<Sources>,
        hop: &Hop,
        basis: &RouteBasis,
    ) -> document::ExplainedHop {
        let (origin, preference) = match hop.origin {
            HopOrigin::Mx { preference } => ("mx", Some(preference)),
            HopOrigin::ImplicitMx => ("implicit-mx", None),
            HopOrigin::Literal => ("literal", None),
            HopOrigin::SmartHost => ("smart-host", None),
        };
        let outbound = &self.connector().outbound;
        let mut explained = document::ExplainedHop {
            host: hop.host.to_string(),
            port: hop.port,
            protocol: hop.protocol.name(),
            source: outbound.source.iter().map(ToString::to_string).collect(),
            ehlo: outbound
                .ehlo
                .as_ref()
                .unwrap_or(&self.explainer.config.hostname)
                .to_string(),
            login: self.login(),
            origin,
            preference,
            addresses: Vec::new(),
            problem: None,
            policy: None,
            layers: Vec::new(),
            mta_sts_policy: None,
            client_hello: None,
            peers: Vec::new(),
        };
        match HopPlan::make(
            &self.explainer.router,
            discovery,
            self.context(),
            hop,
            basis,
        )
        .await
        {
            Ok(plan) => self.explain_plan(&plan, hop, &mut explained),
            Err(no_plan) => explained.problem = Some(problem(&no_plan.into(), self.connector())),
        }
        explained
    }

    /// Returns a sentence about our login at the smart hosts.
    fn login(&self) -> Option<String> {
        let connector = self.connector();
        let auth = connector.outbound.auth.as_ref()?;
        let hindrance = match exception(connector, self.now) {
            Some(exception) => format!(
                "; NOT POSSIBLE while the exception until {} holds",
                exception.until
            ),
            None => String::new(),
        };
        Some(format!(
            "as {}, with {}, once the host has proved who it is{hindrance}",
            auth.user, auth.secret
        ))
    }

    /// Adds what a plan says of its hop: addresses, demands, `ClientHello`s and the result for each
    /// kind of peer.
    fn explain_plan(&self, plan: &HopPlan, hop: &Hop, explained: &mut document::ExplainedHop) {
        let (context, connector) = (self.context(), self.connector());
        let policy = plan.policy(context, hop);
        let layers = HopLayers {
            connector,
            hop: &hop.host,
            findings: &plan.found.findings,
            requirement: self.requirement,
            memory: self.memory,
            now: self.now,
        };
        explained.addresses = plan
            .addresses
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        explained.layers = layers.layers(&policy);
        explained.mta_sts_policy = self.explainer.known.note(&plan.found.published);
        if let Some(failure) = undialled_reason(&policy, self.requirement) {
            explained.problem = Some(problem(&failure, connector));
        } else {
            let hellos = hellos(
                &policy,
                context,
                hop,
                self.explainer.hellos.get(&hop.host, hop.port),
            );
            let has_second_try = hellos.is_some_and(|hellos| hellos.second().is_some());
            let peers = forecast(&policy, context, hop, self.now);
            explained.peers = peers
                .iter()
                .map(|outcome| peer_forecast(outcome, has_second_try))
                .collect();
            explained.client_hello = hellos.map(client_hello);
        }
        explained.policy = Some(policy.to_string());
    }

    /// Describes the end of an attempt in which every hop failed.
    fn no_hop_left(&self) -> NoHopLeft {
        let outbound = &self.connector().outbound;
        let last = |failure: &Failure| failure::decide(failure, false, outbound.on_failure);
        let required = Failure::require_tls(RequireTlsUnmet::NotOffered);
        let unreachable = Failure::transient(Scope::Hop, Status(4, 1), String::new());
        let (on_failure, policy) = match outbound.on_failure {
            OnFailure::Defer => ("defer", NextStep::Defer),
            OnFailure::Hold => ("hold", NextStep::Hold),
            OnFailure::Bounce => ("bounce", NextStep::Bounce),
        };
        NoHopLeft {
            on_failure,
            policy_not_met: self.consequence(policy),
            unreachable: self.consequence(last(&unreachable)),
            requirement_not_met: (self.requirement == TlsRequirement::Require)
                .then(|| self.consequence(last(&required))),
        }
    }

    /// Returns a sentence about what happens to the message after the last hop.
    fn consequence(&self, step: NextStep) -> String {
        let queue = self.explainer.config.queue.schedule(self.connector());
        match step {
            NextStep::NextHop | NextStep::Defer => {
                let first = queue.retry.first().copied().unwrap_or_default();
                format!(
                    "it is deferred, retried first after {}, and bounces after {}",
                    write_duration(first),
                    write_duration(queue.expire)
                )
            }
            NextStep::Hold => {
                "it is held until an operator decides (gatepost queue release, or bounce)"
                    .to_owned()
            }
            NextStep::Bounce => "it bounces at once".to_owned(),
        }
    }
}

/// Describes a failure, with the next step as if no hop were left.
fn problem(failure: &Failure, connector: &Connector) -> HopProblem {
    let last = failure::decide(failure, false, connector.outbound.on_failure);
    HopProblem {
        status: status(failure, last),
        text: failure.to_string(),
        then: step(last),
    }
}

/// Returns the enhanced status that a report has after this last step.
fn status(failure: &Failure, last: NextStep) -> String {
    let ends_as = match last {
        NextStep::Bounce => Persistence::Permanent,
        NextStep::NextHop | NextStep::Defer | NextStep::Hold => Persistence::Transient,
    };
    failure.enhanced(ends_as).to_string()
}

fn client_hello(hellos: Hellos) -> HelloNote {
    HelloNote {
        first: hellos.first().to_string(),
        second: hellos.second().map(|hello| hello.to_string()),
        remembered: hellos.reduced(hellos.first()).is_some(),
    }
}

/// Describes the result for one kind of peer. `has_second_try` is true if a broken handshake is
/// tried again.
fn peer_forecast(outcome: &PeerOutcome, has_second_try: bool) -> PeerForecast {
    let (mut peer, mut shows) = (
        outcome.peer.json_name().to_owned(),
        outcome.peer.to_string(),
    );
    if has_second_try && outcome.peer == SamplePeer::Breaks {
        shows.push_str(", and the second one");
    }
    if !outcome.offers_requiretls {
        peer.push_str("-without-requiretls");
        shows.push_str(", no REQUIRETLS");
    }
    match &outcome.ending {
        DeliveryForecast::Sent(clearance) | DeliveryForecast::SentAgain(clearance) => {
            let (result, text) = match (clearance.outcome(), &outcome.ending) {
                (TlsOutcome::Tls(_), _) => ("tls", clearance.authentication().to_string()),
                (TlsOutcome::Clear(reason), DeliveryForecast::SentAgain(_)) => {
                    ("clear-again", reason.to_string())
                }
                (TlsOutcome::Clear(reason), _) => ("clear", reason.to_string()),
            };
            PeerForecast {
                peer,
                shows,
                result,
                status: None,
                by: None,
                text,
                then: None,
            }
        }
        DeliveryForecast::Refused { failure, last } => PeerForecast {
            peer,
            shows,
            result: "refused",
            status: Some(status(failure, *last)),
            by: layer(failure),
            text: failure.to_string(),
            then: Some(step(*last)),
        },
    }
}

/// Returns the layer whose demand is unmet in a failure.
fn layer(failure: &Failure) -> Option<String> {
    match failure.refusal() {
        Some(refusal) => Some(refusal.demand.layer.to_string()),
        None => failure
            .is_require_tls()
            .then(|| Layer::RequireTls.to_string()),
    }
}
