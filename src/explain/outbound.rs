//! Mail to a domain: its route, its hops, their layers and their peers.

use futures_util::future::join_all;
use jiff::Timestamp;

use super::layers::Ground;
use super::sources::{Recollection, Sources};
use super::words::{self, HelloNote, MemoryNote, NoHopLeft, Problem, Row};
use super::{Explainer, Subject, exception_note, step};
use crate::address::Host;
use crate::config::{Connector, OnFailure, write_duration};
use crate::discovery::Discovery;
use crate::dns::{CnameChain, Security};
use crate::envelope::TlsRequirement;
use crate::failure::{self, Cause, Failure, NextStep, Persistence, RequireTlsUnmet, Scope};
use crate::outbound::{Ending, Plan, Prospect, Purpose, forecast, hellos, not_dialled};
use crate::route::{Hop, HopOrigin, Hops, RouteBasis};
use crate::smtp::reply::Status;
use crate::tls::{Hellos, Layer, SamplePeer, TlsOutcome};

pub(super) struct Question<'a> {
    pub(super) explainer: &'a Explainer,
    pub(super) subject: &'a Subject,
    pub(super) recipient: &'a Host,
    pub(super) requirement: TlsRequirement,
    pub(super) memory: &'a Recollection,
    pub(super) now: Timestamp,
}

impl Question<'_> {
    pub(super) async fn answer(&self) -> words::Outbound {
        let connector = self.connector();
        let found = self.explainer.router.hops(self.recipient, &connector.outbound.route).await;
        let (route, hops, problem) = match found {
            Ok(found) => {
                let hops = self.hops(&found).await;
                let none = hops.iter().all(|hop| hop.problem.is_some());
                let problem = if none { hops.last().and_then(|hop| hop.problem.clone()) } else { None };
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
            Subject::Postmaster => {
                Some(format!("mail to <postmaster> without a domain goes to {postmaster}, as the configuration says"))
            }
            subject => self.explainer.local(subject).map(|to| {
                let is_whole = to == *postmaster || matches!(subject, Subject::Address(_));
                let to = if is_whole { to.to_string() } else { to.host().to_string() };
                format!("{asked} is on this host itself: mail of our own clients for it goes to {to}")
            }),
        };
        words::Outbound {
            direction: "outbound",
            asked,
            domain: self.recipient.to_string(),
            note,
            at: self.now,
            requirement: self.requirement,
            speakers: self.explainer.speakers(self.recipient),
            exception: exception_note(connector, self.now),
            memory: self.memory_note(),
            route,
            can_go: problem.is_none(),
            hops,
            problem,
            no_hop_left: self.no_hop_left(),
        }
    }

    fn connector(&self) -> &Connector {
        self.explainer.connectors.for_host(self.recipient)
    }

    fn purpose(&self) -> Purpose<'_> {
        Purpose { recipient: self.recipient, connector: self.connector(), requirement: self.requirement }
    }

    fn memory_note(&self) -> MemoryNote {
        match self.memory {
            Recollection::Told(_) => MemoryNote { asked: true, why: None },
            Recollection::NotAsked(why) => MemoryNote { asked: false, why: Some(why.clone()) },
        }
    }

    fn route(&self, found: &Hops) -> String {
        let domain = self.recipient;
        let chain = |chain: &CnameChain| match chain.security {
            Security::Secure => "secured by DNSSEC".to_owned(),
            Security::Insecure(why) => why.to_string(),
        };
        match (&found.basis, found.hops.first().map(|hop| hop.origin)) {
            (RouteBasis::Mx(mx), _) => format!("the MX records of {domain} ({})", chain(mx)),
            (RouteBasis::NoMx(denial), _) => {
                format!("{domain} has no MX record and is its own host (RFC 5321, 5.1; {})", chain(denial))
            }
            (RouteBasis::Configured, Some(HopOrigin::Literal)) => "the address names its host itself".to_owned(),
            (RouteBasis::Configured, _) => "the smart hosts of the connector's route, in their order".to_owned(),
        }
    }

    /// All hops are asked about at once: one that hangs holds up no other.
    async fn hops(&self, found: &Hops) -> Vec<words::Hop> {
        let discovery = Discovery::with_policies(Sources::new(
            self.explainer.web.clone(),
            self.memory,
            self.explainer.known.clone(),
        ));
        join_all(found.hops.iter().map(|hop| self.hop(&discovery, hop, &found.basis))).await
    }

    async fn hop(&self, discovery: &Discovery<Sources>, hop: &Hop, basis: &RouteBasis) -> words::Hop {
        let (origin, preference) = match hop.origin {
            HopOrigin::Mx { preference } => ("mx", Some(preference)),
            HopOrigin::ImplicitMx => ("implicit-mx", None),
            HopOrigin::Literal => ("literal", None),
            HopOrigin::SmartHost => ("smart-host", None),
        };
        let mut told = words::Hop {
            host: hop.host.to_string(),
            port: hop.port,
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
        match Plan::make(&self.explainer.router, discovery, self.purpose(), hop, basis).await {
            Ok(plan) => self.plan(&plan, hop, &mut told),
            Err(no_plan) => told.problem = Some(problem(&no_plan.into(), self.connector())),
        }
        told
    }

    fn plan(&self, plan: &Plan, hop: &Hop, told: &mut words::Hop) {
        let (purpose, connector) = (self.purpose(), self.connector());
        let policy = plan.policy(purpose, hop);
        let ground = Ground {
            connector,
            hop: &hop.host,
            findings: &plan.found.findings,
            requirement: self.requirement,
            memory: self.memory,
            now: self.now,
        };
        told.addresses = plan.addresses.addresses.iter().map(ToString::to_string).collect();
        told.layers = ground.layers(&policy);
        told.mta_sts_policy = self.explainer.known.note(&plan.found.published);
        if let Some(failure) = not_dialled(&policy, self.requirement) {
            told.problem = Some(problem(&failure, connector));
        } else {
            let hellos = hellos(&policy, purpose, hop, self.explainer.hellos.get(&hop.host, hop.port));
            let twice = hellos.is_some_and(|hellos| hellos.second().is_some());
            told.peers = forecast(&policy, purpose, hop, self.now).iter().map(|one| row(one, twice)).collect();
            told.client_hello = hellos.map(client_hello);
        }
        told.policy = Some(policy.to_string());
    }

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
            policy_not_met: self.then(policy),
            unreachable: self.then(last(&unreachable)),
            requirement_not_met: (self.requirement == TlsRequirement::Require).then(|| self.then(last(&required))),
        }
    }

    fn then(&self, step: NextStep) -> String {
        let queue = &self.explainer.config.queue;
        match step {
            NextStep::NextHop | NextStep::Defer => {
                let first = queue.retry.first().copied().unwrap_or_default();
                format!(
                    "it waits and is tried again, first after {}, and bounces after {}",
                    write_duration(first),
                    write_duration(queue.expire)
                )
            }
            NextStep::Hold => "it is held until an operator decides (gatepost queue release, or bounce)".to_owned(),
            NextStep::Bounce => "it bounces at once".to_owned(),
        }
    }
}

fn problem(failure: &Failure, connector: &Connector) -> Problem {
    let last = failure::decide(failure, false, connector.outbound.on_failure);
    Problem { status: status(failure, last), text: failure.to_string(), then: step(last) }
}

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

/// `twice`: a handshake that is cut short is tried once more.
fn row(prospect: &Prospect, twice: bool) -> Row {
    let (mut peer, mut shows) = (prospect.peer.json_name().to_owned(), prospect.peer.to_string());
    if twice && prospect.peer == SamplePeer::Breaks {
        shows.push_str(", and the second one");
    }
    if !prospect.offers_requiretls {
        peer.push_str("-without-requiretls");
        shows.push_str(", no REQUIRETLS");
    }
    match &prospect.ending {
        Ending::Sent(clearance) | Ending::SentAgain(clearance) => {
            let (result, text) = match (clearance.outcome(), &prospect.ending) {
                (TlsOutcome::Tls(_), _) => ("tls", clearance.authentication().to_string()),
                (TlsOutcome::Clear(reason), Ending::SentAgain(_)) => ("clear-again", reason.to_string()),
                (TlsOutcome::Clear(reason), _) => ("clear", reason.to_string()),
            };
            Row { peer, shows, result, status: None, by: None, text, then: None }
        }
        Ending::Refused { failure, last } => Row {
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

/// Whose demand a failure speaks of.
fn layer(failure: &Failure) -> Option<String> {
    match &failure.cause {
        Cause::Policy(refusal) | Cause::RequireTls(RequireTlsUnmet::Session(refusal)) => {
            Some(refusal.demand.layer.to_string())
        }
        Cause::RequireTls(RequireTlsUnmet::NotOffered | RequireTlsUnmet::Off) => Some(Layer::RequireTls.to_string()),
        Cause::Reply { .. } | Cause::Ourselves(_) | Cause::Discovery(_) | Cause::Other(_) => None,
    }
}
