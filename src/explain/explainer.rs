//! The explainer: a configuration with what is known beside it, and the answers that both
//! directions need.

use std::sync::Arc;
use std::time::Duration;

use super::document;
use super::sources::{DaemonPolicies, policy_domains};
use super::subject::Subject;
use crate::config::{Config, Fault, MailUser};
use crate::discovery::mta_sts::WebSource;
use crate::net::dns::Dns;
use crate::net::https::Https;
use crate::net::route::Router;
use crate::net::tls_io::{KnownHellos, TlsMaterial};
use crate::policy::connector::{Connectors, PatternMatch};
use crate::policy::relay_access;
use crate::smtp::address::{Domain, Host, Mailbox};

/// Explains how mail is treated under one configuration.
#[derive(Debug)]
pub struct Explainer {
    pub(super) config: Config,
    pub(super) connectors: Connectors,
    pub(super) router: Router,
    pub(super) web: WebSource,
    pub(super) known: DaemonPolicies,
    pub(super) hellos: KnownHellos,
    /// The user who sends the mail.
    pub(super) user: Option<Arc<MailUser>>,
}

impl Explainer {
    /// Creates an explainer; no query is sent yet. Of the files that the configuration names, only
    /// `[tls] trust` and the DNSSEC trust anchor are read, since the user may not be allowed to
    /// read the private keys.
    ///
    /// # Errors
    /// The faults in these files.
    pub fn new(config: Config) -> Result<Self, Vec<Fault>> {
        let dns = Dns::new(&config.dns).map_err(|error| vec![error.fault(&config.dns)])?;
        let https = Https::new(dns.clone(), TlsMaterial::load_https(&config.tls)?);
        let https = https.with_proxy(config.net.http_proxy.clone());
        let web = WebSource::new(dns.clone(), https);
        let connectors = config.connectors();
        let router = Router::new(&config, dns);
        Ok(Self {
            config,
            connectors,
            router,
            web,
            known: DaemonPolicies::default(),
            hellos: KnownHellos::default(),
            user: None,
        })
    }

    /// Sets the port of the MTA-STS policy hosts and the time limit for a fetch. Tests use it for
    /// policy hosts on loopback.
    #[must_use]
    pub fn policies_at(mut self, port: u16, limit: Duration) -> Self {
        self.web = self.web.with_port_and_timeout(port, limit);
        self
    }

    /// Adds what a running daemon knows: its MTA-STS policies, and the `ClientHello`s that hosts
    /// accepted.
    #[must_use]
    pub fn knowing(mut self, policies: DaemonPolicies, hellos: KnownHellos) -> Self {
        self.known = policies;
        self.hellos = hellos;
        self
    }

    /// Explains mail that a user sends.
    #[must_use]
    pub fn sent_by(mut self, user: Arc<MailUser>) -> Self {
        self.user = Some(user);
        self
    }

    /// Returns the name of the connector of the user who sends the mail, if there is one.
    pub(super) fn user_connector(&self) -> Option<&str> {
        let user = self.user.as_ref()?;
        user.connector.as_ref().map(|name| name.value.as_str())
    }

    /// Returns the domains whose MTA-STS policies may apply to mail for a recipient domain.
    #[must_use]
    pub fn policy_domains(&self, recipient: &Host) -> Vec<Domain> {
        let connector = self.connectors.routing(recipient, self.user_connector());
        policy_domains(recipient, &connector.outbound.route)
    }

    /// Returns the domain or address literal that mail for the subject goes to; `None` for `<>`,
    /// which cannot be a recipient.
    #[must_use]
    pub fn recipient(&self, subject: &Subject) -> Option<Host> {
        match subject {
            Subject::Postmaster => Some(self.config.postmaster.host().clone()),
            Subject::Null => None,
            Subject::Address(mailbox) => Some(
                self.local(subject)
                    .as_ref()
                    .unwrap_or(mailbox)
                    .host()
                    .clone(),
            ),
            Subject::Host(host) => Some(
                self.local(subject)
                    .as_ref()
                    .map_or(host, Mailbox::host)
                    .clone(),
            ),
        }
    }

    /// Returns the mailbox that mail of our own clients goes to, if the subject is on this host
    /// itself.
    pub(super) fn local(&self, subject: &Subject) -> Option<Mailbox> {
        let mailbox = match subject {
            Subject::Postmaster | Subject::Null => return None,
            Subject::Address(mailbox) => mailbox.clone(),
            Subject::Host(host) => self.config.postmaster.clone().with_host(host.clone()),
        };
        relay_access::local_mailbox(self.config.relay_rules(&self.connectors), &mailbox)
    }

    /// Returns the connector for a host, and the others whose patterns match.
    pub(super) fn matching_connectors(&self, host: &Host) -> document::ConnectorMatch {
        let matching = self.connectors.matches_for(host);
        let pattern = |found: &PatternMatch<'_>| document::MatchingPattern {
            name: found.connector.name.clone(),
            pattern: found.pattern.to_string(),
            built_in: found.connector.is_built_in(),
        };
        let others = matching.others.iter();
        document::ConnectorMatch {
            connector: pattern(&matching.winner),
            others: others
                .map(|(found, lost)| document::OtherConnector {
                    candidate: pattern(found),
                    why: lost.to_string(),
                })
                .collect(),
        }
    }
}
