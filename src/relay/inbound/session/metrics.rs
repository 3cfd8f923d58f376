//! The events of a session for the monitor and the log: its end, its handshake, verdicts and
//! refusals.

use std::net::IpAddr;

use jiff::Timestamp;
use tracing::info;

use super::{ClientSession, SessionEndReason};
use crate::config::{Connector, Rate, TlsDemand};
use crate::net::tls_io::CompletedHandshake;
use crate::policy::relay_access;
use crate::relay::inbound::clients::LimitReached;
use crate::relay::inbound::policy::SenderClearance;
use crate::relay::inbound::proxied;
use crate::smtp::address::{Mailbox, ReversePath};
use crate::smtp::envelope::Recipient;
use crate::smtp::reply::Reply;
use crate::telemetry::certificates::{PartnerCertificate, WatchedCertificate};
use crate::telemetry::labels::Direction;
use crate::telemetry::recent::ListedRefusal;
use crate::telemetry::{HandshakeResult, LogClient, PolicyDecision, RefusalReason, SessionEnd};

impl ClientSession {
    /// Logs and counts the end of the session.
    pub(super) fn record_end(&self, end: &SessionEndReason) {
        let monitor = &self.inbound.monitor;
        if let SessionEndReason::Handshake(fault) = end
            && self.should_log("TLS handshake failed", fault)
        {
            info!(listener = %self.listener.name, peer = %self.peer, reason = %fault, "TLS handshake failed");
        }
        self.log_loss(end);
        let end = match end {
            SessionEndReason::Replied | SessionEndReason::StartTls => SessionEnd::Closed,
            SessionEndReason::Handshake(_) => SessionEnd::HandshakeFailed,
            SessionEndReason::Timeout(_) | SessionEndReason::NoMessage => SessionEnd::Timeout,
            SessionEndReason::Evicted => SessionEnd::Evicted,
            SessionEndReason::Shutdown => SessionEnd::Shutdown,
            SessionEndReason::ConnectionLost(_) => SessionEnd::ConnectionLost,
        };
        monitor.session_ended(&self.listener.name, end);
    }

    /// Counts an event against the client's rate limit.
    ///
    /// # Errors
    /// Returns the reply if the limit is reached.
    pub(super) fn count(&mut self, rate: Rate) -> Result<(), Reply> {
        // Handshakes of load balancers and proxies are not counted: health checks must not fail,
        // and a proxy names its client only after the handshake.
        let is_proxy = self
            .client
            .is_some_and(|client| proxied::is_listed(&self.listener.xclient, client));
        if rate == Rate::Handshakes && (self.client.is_none() || is_proxy) {
            return Ok(());
        }
        let (config, peer) = (&self.settings.config, self.peer.ip());
        let counted = self.inbound.clients.count(config, rate, self.client, peer);
        counted.map_err(|refusal| self.hold_back(&refusal))
    }

    /// Checks a rate limit of the client, without counting an event.
    ///
    /// # Errors
    /// Returns the reply if the limit is reached.
    pub(super) fn check_rate(&mut self, rate: Rate) -> Result<(), Reply> {
        let (config, peer) = (&self.settings.config, self.peer.ip());
        let clients = &self.inbound.clients;
        let checked = clients.check(config, rate, self.client, peer);
        checked.map_err(|refusal| self.hold_back(&refusal))
    }

    /// Counts an unknown recipient against the client's rate limit, which was checked before.
    pub(super) fn count_unknown_recipient(&self) {
        let (config, peer) = (&self.settings.config, self.peer.ip());
        // Another session of the client may have reached the limit meanwhile.
        let clients = &self.inbound.clients;
        let _ = clients.count(config, Rate::UnknownRecipients, self.client, peer);
    }

    /// Takes back that a recipient was counted as unknown.
    pub(super) fn uncount_unknown_recipient(&self) {
        if let Some(client) = self.limited_client() {
            let config = &self.settings.config;
            let clients = &self.inbound.clients;
            clients.uncount(config, Rate::UnknownRecipients, client);
        }
    }

    /// Returns the address whose rate limits hold for the client; `None` for a client of ours, which
    /// has none.
    pub(super) fn limited_client(&self) -> Option<IpAddr> {
        let is_own = relay_access::is_own_client(&self.settings.config.relay, self.client);
        (!is_own).then(|| self.peer.ip())
    }

    /// Logs and counts that a limit holds the client back, and returns the reply.
    pub(super) fn hold_back(&mut self, refusal: &LimitReached) -> Reply {
        self.inbound.clients.log_refusal(
            &self.inbound.monitor,
            &self.listener.name,
            self.log_client(),
            refusal,
        );
        self.is_logged = true;
        refusal.reply(&self.settings.config.hostname)
    }

    /// Counts a handshake; `seen` is `None` if it failed.
    pub(super) fn count_handshake(&self, seen: Option<&CompletedHandshake>) {
        let end = seen.map_or(HandshakeResult::Failed, |seen| {
            HandshakeResult::Completed(seen.version())
        });
        self.inbound.monitor.handshake(Direction::Inbound, end);
    }

    /// Counts the TLS judge's verdict on a sender, and records the certificate that its server
    /// showed.
    pub(super) fn record_verdict(
        &self,
        connector: &Connector,
        from: &ReversePath,
        shown: Option<WatchedCertificate>,
        verdict: &Result<SenderClearance, Reply>,
    ) {
        let monitor = &self.inbound.monitor;
        let (end, refused) = match verdict {
            Ok(_) => (PolicyDecision::Cleared, None),
            Err(reply) => (PolicyDecision::Refused, Some(reply.to_string())),
        };
        monitor.judged(
            Direction::Inbound,
            &connector.name,
            connector.inbound.tls.into(),
            end,
        );
        if let (Some(shown), TlsDemand::Forced { .. }, Some(mailbox)) =
            (shown, &connector.inbound.tls, from.mailbox())
        {
            let sent = PartnerCertificate {
                connector: &connector.name,
                direction: Direction::Inbound,
                host: mailbox.host().to_string(),
                from: Some(self.peer.ip()),
                shown,
                refused: refused.clone(),
            };
            monitor.certificates().store_sent(sent, Timestamp::now());
        }
        if let Some(reason) = refused {
            self.count_refusal(&connector.name, RefusalReason::Policy, reason);
        }
    }

    /// Counts the refusal of a sender or recipient, and adds it to the list of recent refusals.
    pub(super) fn count_refusal(&self, connector: &str, why: RefusalReason, reason: String) {
        let monitor = &self.inbound.monitor;
        monitor.refused(&self.listener.name, connector, why);
        monitor.list_refusal(ListedRefusal {
            at: Timestamp::now(),
            direction: Direction::Inbound,
            connector: connector.to_owned(),
            peer: self.peer.ip().to_string(),
            reason,
            times: 1,
        });
    }

    /// Returns true if a log line about this client is due: it is not a repetition, and the
    /// client's network has lines left.
    pub(super) fn should_log(&self, message: &'static str, detail: impl std::fmt::Display) -> bool {
        self.inbound
            .monitor
            .should_log_client(message, self.log_client(), detail)
    }

    /// Returns the client for the limits on log lines.
    fn log_client(&self) -> LogClient {
        let is_own = relay_access::is_own_client(&self.settings.config.relay, self.client);
        LogClient {
            address: self.peer.ip(),
            is_own,
        }
    }

    /// Reserves memory for a recipient.
    ///
    /// # Errors
    /// Returns the reply to RCPT if too much memory is in use.
    pub(super) fn reserve(&mut self, mailbox: &Mailbox, orcpt: Option<&str>) -> Result<(), Reply> {
        let host = mailbox
            .host()
            .domain()
            .map_or(0, |domain| domain.as_str().len());
        // A growing list may have twice the capacity of its length.
        let octets = 2 * size_of::<Recipient>()
            + mailbox.local_part().len()
            + host
            + orcpt.map_or(0, str::len);
        let config = &self.settings.config;
        let reserved = self.seat.reserve(octets, config.limits.transaction_memory);
        reserved.map_err(|refusal| {
            self.inbound.clients.log_refusal(
                &self.inbound.monitor,
                &self.listener.name,
                self.log_client(),
                &refusal,
            );
            refusal.reply(&config.hostname)
        })
    }
}
