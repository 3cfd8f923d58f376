//! `[[connector]]` as meant: what one partner is held to, in both directions.
//!
//! How it is written stands in [`super::partner`].

use std::fmt;

use ipnet::IpNet;
use jiff::civil::Date;

use super::{DomainPattern, IdentityFiles, Located, Place, Trust};
use crate::address::Host;
use crate::tls::{NamePattern, Pin, Strength, TlsVersion};

/// `[[connector]]`: one partner, both directions.
#[derive(Debug, Clone)]
pub struct Connector {
    /// Its name, in logs, reports and errors.
    pub name: String,
    /// The domains it speaks for.
    pub domains: Vec<DomainPattern>,
    /// The names the partner's certificates carry; empty where none were given.
    pub names: Vec<NamePattern>,
    /// What the partner's certificates are held against (the default trust where it has no own).
    pub trust: Located<Trust>,
    /// Their keys, any of which will do; empty where none were given.
    pub pins: Vec<Pin>,
    /// What is demanded when we send to them.
    pub outbound: Outbound,
    /// What is demanded when they send to us.
    pub inbound: Inbound,
}

/// `[connector.outbound]`.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Which way.
    pub route: Route,
    /// What is demanded.
    pub tls: TlsDemand,
    /// What of the domain's own wishes is looked up; nothing where TLS is off.
    pub discover: Vec<Publication>,
    /// What becomes of mail for a domain that no longer takes TLS.
    pub downgrade: Downgrade,
    /// What stands in for `tls` and `verify` for a time.
    pub exception: Option<Exception>,
    /// What happens where the demand is not met.
    pub on_failure: OnFailure,
    /// Who we are to the partner, where it wants to know.
    pub client_identity: Option<IdentityFiles>,
    /// The key exchange that is offered first; with post-quantum, classical groups stand behind it.
    pub groups: Strength,
    /// The weakest key exchange that meets a forced demand.
    pub min_strength: Strength,
    /// Connections to one destination at the same time, at most; at least 1.
    pub connections: u32,
    /// Messages over one connection, at most; at least 1.
    pub messages_per_connection: u32,
}

/// `[connector.inbound]`.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// What is demanded; never [`TlsDemand::Off`].
    pub tls: TlsDemand,
    /// Where the partner's mail may come from; empty for anywhere.
    pub networks: Vec<IpNet>,
    /// Whether a session that meets all of this may send to any domain.
    pub relay: bool,
}

/// `tls`, `verify` and `min_version` of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsDemand {
    /// `tls = "off"`.
    Off,
    /// `tls = "opportunistic"`.
    Opportunistic,
    /// `tls = "forced"`.
    Forced {
        /// The oldest version that will do.
        min_version: TlsVersion,
        /// `verify`.
        verify: VerifyWanted,
    },
}

/// `discover`: a way in which a domain publishes what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// `"dane"`: TLSA records (RFC 7672).
    Dane,
    /// `"mta-sts"` (RFC 8461).
    MtaSts,
}

/// `downgrade`: a domain took TLS before, and no longer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downgrade {
    /// That is its own affair.
    Allow,
    /// The mail goes, and it is said.
    Warn,
    /// The domain is treated as forced.
    Refuse,
}

/// `exception`: a lower demand for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// What is demanded meanwhile.
    pub tls: TlsDemand,
    /// The last day, in UTC, on which it holds.
    pub until: Date,
    /// Why, for whoever reads the record.
    pub reason: String,
    /// Where it stands.
    pub place: Place,
}

/// `verify` as written; which names `Name` means is known only with the hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyWanted {
    /// `"none"`.
    None,
    /// `"chain"`.
    Chain,
    /// `"name"`.
    Name,
    /// `"dane"`, outbound alone.
    Dane,
    /// `"pin"`.
    Pin,
}

/// `route`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The recipient domain's MX hosts, at this port.
    Mx {
        /// 25, unless the connector says otherwise.
        port: u16,
    },
    /// These hosts, in order of preference; at least one.
    SmartHosts(Vec<SmartHost>),
}

/// One smart host: a name or an address literal, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SmartHost {
    /// Its name or address.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for SmartHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `on_failure`: what happens to mail whose policy no hop met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Tried again until it expires.
    Defer,
    /// Held until an operator decides.
    Hold,
    /// Bounced at once.
    Bounce,
}
