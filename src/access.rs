//! May this peer hand us mail for this recipient? Whoever is not known may write to our own domains
//! and to the postmaster, and nowhere else, however the address is dressed up.
//!
//! Pure: addresses and the configuration go in. How a peer comes to be known (its network, or a
//! connector whose inbound demand its session meets in full) is decided elsewhere; whether the
//! mailbox exists is for the mailbox server to say. RFC 5321 §3.6.1, §4.5.1.

use std::net::IpAddr;

use crate::address::{Domain, ForwardPath, Host, Mailbox};
use crate::config::{Config, DomainPattern, Relay};
use crate::connector::Connectors;
use crate::smtp::reply::{Reply, Status};

/// What of the configuration decides.
#[derive(Debug, Clone, Copy)]
pub struct RelayRules<'a> {
    /// Our own name.
    pub hostname: &'a Domain,
    /// Where mail to our postmaster goes.
    pub postmaster: &'a Mailbox,
    /// `[relay]`.
    pub relay: &'a Relay,
    /// The connectors, one of which may name this host.
    pub connectors: &'a Connectors,
}

impl<'a> RelayRules<'a> {
    /// The rules of a configuration, whose connectors these are.
    #[must_use]
    pub fn new(config: &'a Config, connectors: &'a Connectors) -> Self {
        Self { hostname: &config.hostname, postmaster: &config.postmaster, relay: &config.relay, connectors }
    }

    /// Checks that `[relay] domains` or a connector names a domain itself, not only by a wildcard.
    fn has_exact_pattern(&self, domain: &Domain) -> bool {
        let ours = |pattern: &DomainPattern| matches!(pattern, DomainPattern::Exactly(name) if name == domain);
        self.relay.domains.iter().any(ours) || self.connectors.has_exact_pattern(domain)
    }
}

/// Who is asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayClient {
    /// Its address, where it is known. An IPv4-mapped IPv6 address is taken for the IPv4 address it is.
    pub address: Option<IpAddr>,
    /// Our own address that it speaks to.
    pub local: IpAddr,
    /// Whether its session has met everything that a connector with `relay = true` demands.
    pub may_relay: bool,
}

/// Why a recipient is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelayDenied {
    /// A domain that is not ours.
    #[error("Relaying denied: this server takes no mail for that domain from your address")]
    Domain,
    /// An address literal in place of a domain.
    #[error("Relaying denied: this server takes no mail for address literals from your address")]
    Literal,
    /// Our domain, but a local part that says where to send it on ("user%other@ours", "other!user@ours").
    #[error("Relaying denied: the local part has a routing character (\"%\", \"!\" or \"@\")")]
    Routing,
    /// A local part without a domain, which is a user of this host to our own clients alone.
    #[error("Bad recipient address: there is no \"@domain\"")]
    NoDomain,
}

impl RelayDenied {
    /// The answer to RCPT.
    #[must_use]
    pub fn reply(self) -> Reply {
        let (code, status) = match self {
            Self::Domain | Self::Literal | Self::Routing => (550, Status(7, 1)),
            Self::NoDomain => (501, Status(1, 3)),
        };
        Reply::new(code, status, self.to_string())
    }
}

/// The mailbox that a forward-path means to us, if this peer may send there.
///
/// # Errors
/// [`Denied`], which knows its reply.
pub fn resolve_recipient(
    rules: RelayRules<'_>,
    client: RelayClient,
    path: &ForwardPath,
) -> Result<Mailbox, RelayDenied> {
    let mailbox = match path {
        ForwardPath::Postmaster => return Ok(rules.postmaster.clone()),
        ForwardPath::Local(local) if is_own_client(rules.relay, client.address) => {
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
    // Every server has a postmaster (RFC 5321 §4.5.1), and a name of its own.
    if is_this_host && mailbox.local_part().eq_ignore_ascii_case("postmaster") {
        return Ok(rules.postmaster.clone());
    }
    let in_networks = is_own_client(rules.relay, client.address);
    let or_local = || local_mailbox(rules, mailbox).unwrap_or_else(|| mailbox.clone());
    match mailbox.host() {
        Host::Literal(_) if in_networks && is_this_host => Ok(rules.postmaster.clone()),
        _ if in_networks => Ok(or_local()),
        Host::Literal(_) => Err(RelayDenied::Literal),
        Host::Domain(_) if client.may_relay => Ok(or_local()),
        Host::Domain(domain) if !rules.relay.domains.iter().any(|ours| pattern_covers(ours, domain)) => {
            Err(RelayDenied::Domain)
        }
        // The next hop may trust us more than it should, and follow such a route.
        Host::Domain(_) if mailbox.local_part().contains(['%', '!', '@']) => Err(RelayDenied::Routing),
        Host::Domain(_) => Ok(mailbox.clone()),
    }
}

/// Checks that a peer may send to any domain. Whoever may not is a stranger.
#[must_use]
pub fn may_relay(relay: &Relay, client: RelayClient) -> bool {
    client.may_relay || is_own_client(relay, client.address)
}

/// Checks that a client belongs to `[relay] networks`. A client without a known address does not.
#[must_use]
pub fn is_own_client(relay: &Relay, address: Option<IpAddr>) -> bool {
    let address = address.map(|address| address.to_canonical());
    address.is_some_and(|address| relay.networks.iter().any(|network| network.contains(&address)))
}

/// The mailbox that mail to a user of this very host goes to, `user@HOSTNAME` and `user@localhost`: the postmaster's, for
/// there are no mailboxes here, and `*` would send it out and back. Where the configuration names the host, its way is
/// settled, and `localhost` is another word for it. Nothing for every other mailbox.
#[must_use]
pub fn local_mailbox(rules: RelayRules<'_>, mailbox: &Mailbox) -> Option<Mailbox> {
    let domain = mailbox.host().domain()?;
    let is_localhost = domain.as_str() == "localhost" && domain != rules.hostname;
    if (!is_localhost && domain != rules.hostname) || rules.has_exact_pattern(domain) {
        return None;
    }
    if is_localhost && rules.has_exact_pattern(rules.hostname) {
        return Some(mailbox.clone().with_host(Host::Domain(rules.hostname.clone())));
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
