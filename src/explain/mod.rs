//! What would become of mail, said before it goes: which connector speaks and why, which layer demands what,
//! which hops there are, and what each kind of peer would come to.
//!
//! Nothing is decided here. Connectors, layers and peers are asked where deliveries and sessions ask them;
//! this puts their answers together. Nothing is sent but DNS queries and the fetch of an MTA-STS policy that the
//! running daemon does not have, and no file of a running daemon is touched.

pub mod difference;
mod inbound;
mod layers;
mod outbound;
mod sources;
mod subject;
pub mod words;

use std::time::Duration;

use jiff::Timestamp;

use crate::access::{self, RelayRules};
use crate::address::{Domain, Host, Mailbox};
use crate::config::{Config, Connector, Fault, TlsDemand};
use crate::connector::{Connectors, PatternMatch, ended_exception, exception};
use crate::discovery::mta_sts::WebSource;
use crate::dns::Dns;
use crate::envelope::TlsRequirement;
use crate::failure::NextStep;
use crate::handshake::{KnownHellos, TlsMaterial};
use crate::https::Https;
use crate::route::Router;

pub use sources::{DaemonPolicies, Recollection, Sources, policy_domains};
pub use subject::Subject;

/// Explains one configuration.
#[derive(Debug)]
pub struct Explainer {
    config: Config,
    connectors: Connectors,
    router: Router,
    web: WebSource,
    known: DaemonPolicies,
    hellos: KnownHellos,
}

impl Explainer {
    /// Makes ready; nothing is asked yet. Of the files that the configuration names only `[tls] trust` and the
    /// trust anchor of DNSSEC are read: who asks may have no right to our keys.
    ///
    /// # Errors
    /// Every fault of those.
    pub fn new(config: Config) -> Result<Self, Vec<Fault>> {
        let dns = Dns::new(&config.dns).map_err(|error| vec![error.fault(&config.dns)])?;
        let web = WebSource::new(dns.clone(), Https::new(dns.clone(), TlsMaterial::load_https(&config.tls)?));
        let connectors = Connectors::of(&config);
        let router = Router::new(&config, dns);
        Ok(Self { config, connectors, router, web, known: DaemonPolicies::default(), hellos: KnownHellos::default() })
    }

    /// The same, but policy hosts are asked at another port and within another time: where they are peers on
    /// this machine.
    #[must_use]
    pub fn policies_at(mut self, port: u16, limit: Duration) -> Self {
        self.web = self.web.with_port_and_timeout(port, limit);
        self
    }

    /// The same, but what a running daemon has is taken from there: policies, and the `ClientHello`s that hosts took.
    #[must_use]
    pub fn knowing(mut self, policies: DaemonPolicies, hellos: KnownHellos) -> Self {
        self.known = policies;
        self.hellos = hellos;
        self
    }

    /// The domains whose MTA-STS policies may count for mail to a recipient domain.
    #[must_use]
    pub fn policy_domains(&self, recipient: &Host) -> Vec<Domain> {
        policy_domains(recipient, &self.connectors.for_host(recipient).outbound.route)
    }

    /// The recipient domain that is meant, where there is one.
    #[must_use]
    pub fn recipient(&self, subject: &Subject) -> Option<Host> {
        match subject {
            Subject::Postmaster => Some(self.config.postmaster.host().clone()),
            Subject::Null => None,
            Subject::Address(mailbox) => Some(self.local(subject).as_ref().unwrap_or(mailbox).host().clone()),
            Subject::Host(host) => Some(self.local(subject).as_ref().map_or(host, Mailbox::host).clone()),
        }
    }

    /// The mailbox that mail of our own clients goes to, where the recipient is on this host.
    fn local(&self, subject: &Subject) -> Option<Mailbox> {
        let mailbox = match subject {
            Subject::Postmaster | Subject::Null => return None,
            Subject::Address(mailbox) => mailbox.clone(),
            Subject::Host(host) => self.config.postmaster.clone().with_host(host.clone()),
        };
        access::local_mailbox(RelayRules::new(&self.config, &self.connectors), &mailbox)
    }

    /// What would become of mail to a recipient domain. `asked` is how it was called. DNS and the MTA-STS
    /// policy are asked; each question takes a bounded time, and all hops are asked about at once.
    pub async fn outbound(
        &self,
        subject: &Subject,
        recipient: &Host,
        requirement: TlsRequirement,
        memory: &Recollection,
    ) -> words::Outbound {
        outbound::Question { explainer: self, subject, recipient, requirement, memory, now: Timestamp::now() }
            .answer()
            .await
    }

    /// What would become of mail from somebody. Nothing is asked.
    #[must_use]
    pub fn inbound(&self, subject: &Subject) -> words::Inbound {
        inbound::answer(self, subject, Timestamp::now())
    }

    fn speakers(&self, host: &Host) -> words::Speakers {
        let matching = self.connectors.matches_for(host);
        let speaker = |claim: &PatternMatch<'_>| words::Speaker {
            name: claim.connector.name.clone(),
            pattern: claim.pattern.to_string(),
            built_in: claim.connector.is_built_in(),
        };
        let others = matching.others.iter();
        words::Speakers {
            connector: speaker(&matching.winner),
            others: others
                .map(|(claim, lost)| words::Other { speaker: speaker(claim), why: lost.to_string() })
                .collect(),
        }
    }
}

fn exception_note(connector: &Connector, now: Timestamp) -> Option<words::ExceptionNote> {
    let holds = exception(connector, now);
    holds.or_else(|| ended_exception(connector, now)).map(|found| words::ExceptionNote {
        tls: match found.tls {
            TlsDemand::Off => "off",
            TlsDemand::Opportunistic => "opportunistic",
            TlsDemand::Forced { .. } => "forced",
        },
        until: found.until.to_string(),
        reason: found.reason.clone(),
        holds: holds.is_some(),
    })
}

/// The word for a step in JSON.
fn step(step: NextStep) -> &'static str {
    match step {
        NextStep::NextHop => "next-hop",
        NextStep::Defer => "defer",
        NextStep::Hold => "hold",
        NextStep::Bounce => "bounce",
    }
}
