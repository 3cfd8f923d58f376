//! The demands of a sender's connector on the session: first the client's network, then TLS, then
//! the right to relay. The TLS judge decides about TLS; this module turns its verdict into the
//! reply to MAIL.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Connector, ListenerConfig, ListenerTls, TlsDemand, VerifyWanted};
use crate::policy::connector::{Connectors, inbound_policy};
use crate::policy::tls::{
    self, Clearance, NoTls, Refusal, RevocationFault, TlsOutcome, Unmet, Verdict,
};
use crate::smtp::address::{Host, ReversePath};
use crate::smtp::reply::{Reply, Status};

/// The maximum length of a reply's text in characters. The text may contain names from
/// certificates.
const TEXT_MAX: usize = 400;

/// The proof that a session may send mail from one sender, with the rights that it has.
#[derive(Debug)]
pub struct SenderClearance {
    /// The connector of the sender's domain.
    pub connector: Arc<Connector>,
    /// The TLS judge's proof that the session satisfies the demand.
    pub clearance: Clearance,
    /// True if the session may relay to any domain (`[connector.inbound] relay`).
    pub may_relay: bool,
}

/// Returns the connector of a sender. The null sender and a sender at an address literal have no
/// domain, so only the `*` connector matches them.
#[must_use]
pub fn connector<'a>(
    connectors: &'a Connectors,
    from: &ReversePath,
    peer: IpAddr,
) -> &'a Arc<Connector> {
    match from.mailbox() {
        Some(mailbox) => connectors.for_host(mailbox.host()),
        None => connectors.for_host(&Host::Literal(peer)),
    }
}

/// Judges a session by the connector of its sender. `client` is `None` if a load balancer names no
/// client.
///
/// # Errors
/// Returns the reply to MAIL, which names the unmet demand and its remedy.
// Rule: RFC 3207 §4.1.
pub fn judge(
    connector: &Arc<Connector>,
    listener: &ListenerConfig,
    from: &ReversePath,
    client: Option<IpAddr>,
    outcome: TlsOutcome,
) -> Result<SenderClearance, Reply> {
    let inbound = &connector.inbound;
    let address = client.map(|client| client.to_canonical());
    let is_inside = address.is_some_and(|address| {
        inbound
            .networks
            .iter()
            .any(|network| network.contains(&address))
    });
    if !inbound.networks.is_empty() && !is_inside {
        return Err(reject(&format!(
            "Mail from {} is not taken from {}; send it through the servers agreed on",
            sender_domain(from),
            address.map_or_else(
                || "an unknown address".to_owned(),
                |address| address.to_string()
            )
        )));
    }
    match tls::judge(&inbound_policy(connector), outcome, &connector.names) {
        Verdict::Cleared(clearance) => {
            let may_relay = inbound.relay && identifies_client(connector);
            Ok(SenderClearance {
                connector: Arc::clone(connector),
                clearance,
                may_relay,
            })
        }
        Verdict::Refused(refusal) => Err(refusal_reply(listener, from, &refusal)),
        // A failed handshake has ended the session, so the judge never proposes a fallback here.
        Verdict::Redial(fallback) => Err(reject(&fallback.reason().to_string())),
    }
}

/// Returns true if a client that meets the connector's demand is identified by it, by a certificate
/// or its network. Otherwise `relay` would make an open relay for everybody that claims the
/// sender's domain.
fn identifies_client(connector: &Connector) -> bool {
    match connector.inbound.tls {
        TlsDemand::Forced {
            verify: VerifyWanted::Chain | VerifyWanted::Name | VerifyWanted::Pin,
            ..
        } => true,
        // DANE cannot be demanded of clients.
        TlsDemand::Forced {
            verify: VerifyWanted::None | VerifyWanted::Dane,
            ..
        }
        | TlsDemand::Opportunistic
        | TlsDemand::Off => !connector.inbound.networks.is_empty(),
    }
}

/// Returns the reply for a refusal of the TLS judge.
// Rule: policy table (inbound).
fn refusal_reply(listener: &ListenerConfig, from: &ReversePath, refusal: &Refusal) -> Reply {
    let remedy = match &refusal.unmet {
        // 530 (RFC 3207 §4) would ask for STARTTLS, which this listener does not offer.
        Unmet::NoTls(NoTls::NotUsed) if listener.tls == ListenerTls::Off => {
            let (from, wanted) = (sender_domain(from), &refusal.demand);
            return reject(&format!(
                "Mail from {from}: {wanted} is demanded, and TLS is not offered on this port"
            ));
        }
        Unmet::NoCertificate if !listener.request_client_certificate => {
            "clients are not asked for one on this port, use another"
        }
        Unmet::NoTls(NoTls::NotUsed) => {
            return Reply::new(530, Status(7, 0), "Must issue a STARTTLS command first");
        }
        Unmet::NoTls(_) => "use STARTTLS",
        Unmet::Version(_) => "enable the newer version in the sending server",
        Unmet::NoCertificate => "let the sending server show its certificate as a TLS client",
        Unmet::Unproved(_) => {
            "use a certificate with an RSA key of 2048 bits or more, P-256, P-384 or Ed25519"
        }
        Unmet::Chain(_) => "renew the certificate, or agree with the postmaster here on its issuer",
        Unmet::Name { .. } => "show a certificate with a name agreed on",
        Unmet::Pin { .. } => "agree with the postmaster here on the new key",
        Unmet::Revocation(RevocationFault::Revoked(..)) => "show another certificate",
        // It is no fault of the client.
        Unmet::Revocation(
            RevocationFault::Expired(..) | RevocationFault::NoCrl(..) | RevocationFault::NotChecked,
        ) => {
            let text = format!(
                "Mail from {}: {refusal}; try again later",
                sender_domain(from)
            );
            return Reply::new(451, Status(7, 5), reply_text(&text));
        }
        // An inbound demand contains none of these.
        Unmet::Dane(_) | Unmet::Unmeetable(_) | Unmet::KeyExchange(_) => "ask the postmaster here",
    };
    reject(&format!(
        "Mail from {}: {refusal}; {remedy}",
        sender_domain(from)
    ))
}

// Rule: policy table (inbound).
fn reject(text: &str) -> Reply {
    Reply::new(550, Status(7, 1), reply_text(text))
}

fn reply_text(text: &str) -> String {
    text.chars()
        .take(TEXT_MAX)
        .map(|c| if c.is_ascii() { c } else { '?' })
        .collect()
}

fn sender_domain(from: &ReversePath) -> String {
    from.mailbox()
        .map_or_else(|| "<>".to_owned(), |mailbox| mailbox.host().to_string())
}

#[cfg(test)]
mod tests;
