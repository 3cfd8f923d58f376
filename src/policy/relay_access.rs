//! Relay access: decides whether a client may send mail to a recipient. A stranger may send to our
//! own domains and to the postmaster, and nowhere else, however the address is written.
//!
//! This is a pure function of addresses and the configuration. A client is known by its network, or
//! by a connector whose inbound demand its session satisfies; both are decided elsewhere. Whether
//! the mailbox exists is for the mailbox server to decide. RFC 5321 §3.6.1, §4.5.1.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::connector::{Connectors, DomainPattern};
use crate::smtp::address::{Domain, ForwardPath, Host, Mailbox};
use crate::smtp::reply::{Reply, Status};

/// The `[relay]` table.
#[derive(Debug, Clone, Default)]
pub struct RelayConfig {
    /// The clients that may send to any domain.
    pub networks: Vec<IpNet>,
    /// The domains that anybody may send to.
    pub domains: Vec<DomainPattern>,
}

/// The settings that decide on relay access.
#[derive(Debug, Clone, Copy)]
pub struct RelayRules<'a> {
    /// Our host name.
    pub hostname: &'a Domain,
    /// The address of our postmaster.
    pub postmaster: &'a Mailbox,
    /// The `[relay]` table.
    pub relay: &'a RelayConfig,
    /// The connectors; one of them may name this host.
    pub connectors: &'a Connectors,
}

impl RelayRules<'_> {
    /// Returns true if `[relay] domains` or a connector names this very domain, without a wildcard.
    fn has_exact_pattern(&self, domain: &Domain) -> bool {
        let ours = |pattern: &DomainPattern| matches!(pattern, DomainPattern::Exactly(name) if name == domain);
        self.relay.domains.iter().any(ours) || self.connectors.has_exact_pattern(domain)
    }
}

/// The client that sends RCPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayClient {
    /// The client's address, if known. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub address: Option<IpAddr>,
    /// Our own address, to which the client is connected.
    pub local: IpAddr,
    /// True if the session satisfies the demand of a connector with `relay = true`.
    pub may_relay: bool,
    /// True if the client has logged in as a user.
    pub is_user: bool,
}

/// The reason why a recipient is rejected.
// Rule: RFC 5321 §4.1.1.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelayDenied {
    /// The domain is not one of ours.
    #[error("Relaying denied: this server takes no mail for that domain from your address")]
    Domain,
    /// The recipient has an address literal in place of a domain.
    #[error("Relaying denied: this server takes no mail for address literals from your address")]
    Literal,
    /// The domain is ours, but the local part names a further destination ("user%other@ours",
    /// "other!user@ours").
    #[error("Relaying denied: the local part has a routing character (\"%\", \"!\" or \"@\")")]
    Routing,
    /// There is no domain. Only our own clients may write to a user of this host like that.
    #[error("Bad recipient address: there is no \"@domain\"")]
    NoDomain,
}

impl RelayDenied {
    /// The reply to RCPT.
    #[must_use]
    pub fn reply(self) -> Reply {
        let (code, status) = match self {
            Self::Domain | Self::Literal | Self::Routing => (550, Status(7, 1)),
            Self::NoDomain => (501, Status(1, 3)),
        };
        Reply::new(code, status, self.to_string())
    }
}

/// Returns the mailbox for a forward-path, if this client may send there.
///
/// # Errors
/// [`RelayDenied`], which has the reply.
// Rule: RFC 5321 §3.6.1.
pub fn resolve_recipient(
    rules: RelayRules<'_>,
    client: RelayClient,
    path: &ForwardPath,
) -> Result<Mailbox, RelayDenied> {
    let mailbox = match path {
        ForwardPath::Postmaster => return Ok(rules.postmaster.clone()),
        ForwardPath::Local(local) if is_ours(rules.relay, client) => {
            let mailbox = Mailbox::of_user(local, rules.hostname.clone());
            return Ok(local_mailbox(rules, &mailbox).unwrap_or(mailbox));
        }
        ForwardPath::Local(_) => return Err(RelayDenied::NoDomain),
        ForwardPath::Mailbox(mailbox) => mailbox,
    };
    let local = client.local.to_canonical();
    let is_this_host = match mailbox.host() {
        Host::Domain(domain) => domain == rules.hostname,
        Host::Literal(address) => address.to_canonical() == local,
    };
    // Every server has a postmaster, also under its own name (RFC 5321 §4.5.1).
    if is_this_host && mailbox.local_part().eq_ignore_ascii_case("postmaster") {
        return Ok(rules.postmaster.clone());
    }
    let is_ours = is_ours(rules.relay, client);
    let or_local = || local_mailbox(rules, mailbox).unwrap_or_else(|| mailbox.clone());
    match mailbox.host() {
        Host::Literal(_) if is_ours && is_this_host => Ok(rules.postmaster.clone()),
        _ if is_ours => Ok(or_local()),
        Host::Literal(_) => Err(RelayDenied::Literal),
        Host::Domain(_) if client.may_relay => Ok(or_local()),
        Host::Domain(domain)
            if !rules
                .relay
                .domains
                .iter()
                .any(|ours| pattern_covers(ours, domain)) =>
        {
            Err(RelayDenied::Domain)
        }
        // The next hop may trust us more than it should, and follow such a route.
        Host::Domain(_) if mailbox.local_part().contains(['%', '!', '@']) => {
            Err(RelayDenied::Routing)
        }
        Host::Domain(_) => Ok(mailbox.clone()),
    }
}

/// Returns true if a client may send to any domain. Any other client is a stranger.
#[must_use]
pub fn may_relay(relay: &RelayConfig, client: RelayClient) -> bool {
    client.may_relay || is_ours(relay, client)
}

/// Returns true if a client is one of ours: it is in `[relay] networks`, or has logged in.
#[must_use]
pub fn is_ours(relay: &RelayConfig, client: RelayClient) -> bool {
    client.is_user || is_own_client(relay, client.address)
}

/// Returns true if a client is in `[relay] networks`. A client without a known address is not.
#[must_use]
pub fn is_own_client(relay: &RelayConfig, address: Option<IpAddr>) -> bool {
    let address = address.map(|address| address.to_canonical());
    address.is_some_and(|address| {
        relay
            .networks
            .iter()
            .any(|network| network.contains(&address))
    })
}

/// Returns the mailbox for mail to a user of this host, `user@HOSTNAME` or `user@localhost`; `None`
/// for any other address.
///
/// There are no mailboxes here, so that mail goes to the postmaster: the connector `*` would send
/// it out and back again. If the configuration names our host name as a domain, its mail is
/// relayed, and `localhost` stands for it.
#[must_use]
pub fn local_mailbox(rules: RelayRules<'_>, mailbox: &Mailbox) -> Option<Mailbox> {
    let domain = mailbox.host().domain()?;
    let is_localhost = domain.as_str() == "localhost" && domain != rules.hostname;
    if (!is_localhost && domain != rules.hostname) || rules.has_exact_pattern(domain) {
        return None;
    }
    if is_localhost && rules.has_exact_pattern(rules.hostname) {
        return Some(
            mailbox
                .clone()
                .with_host(Host::Domain(rules.hostname.clone())),
        );
    }
    Some(rules.postmaster.clone())
}

fn pattern_covers(pattern: &DomainPattern, domain: &Domain) -> bool {
    match pattern {
        DomainPattern::Any => true,
        DomainPattern::Below(ancestor) => domain.is_below(ancestor),
        DomainPattern::Exactly(name) => domain == name,
    }
}

#[cfg(test)]
mod tests;
