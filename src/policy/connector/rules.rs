//! The rules of a connector, as a `[[connector]]` table states them: the demands on one partner in
//! both directions. [`crate::config`] reads their TOML form.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::civil::Date;

use super::identity_files::{IdentityFiles, TrustSource};
use super::token_settings::TokenSettings;
use crate::policy::location::{Located, Location};
use crate::policy::tls::{NamePattern, Pin, Revocation, Strength, TlsVersion};
use crate::smtp::address::{Domain, Host};

/// The name of the built-in connector for all other domains.
pub(crate) const DEFAULT_NAME: &str = "default";

/// The folder of credentials, as systemd passes it to the service.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// The folder in which systemd keeps the credentials of the service, for commands that run outside
/// of it.
const CREDENTIALS_FOLDER: &str = "/run/credentials/gatepost.service";

/// The port of MX hosts.
pub(crate) const MX_PORT: u16 = 25;
/// The default of `connections`.
pub(crate) const CONNECTIONS: u32 = 20;
/// The default of `messages_per_connection`.
pub(crate) const MESSAGES_PER_CONNECTION: u32 = 100;
/// All values of `discover`.
pub(crate) const EVERYTHING: [Publication; 2] = [Publication::Dane, Publication::MtaSts];

/// A `[[connector]]` table: one partner, both directions.
#[derive(Debug, Clone)]
pub struct Connector {
    /// The name, for logs, reports and errors.
    pub name: String,
    /// The domains that the connector covers.
    pub domains: Vec<DomainPattern>,
    /// The names in the partner's certificates; empty if none are configured.
    pub names: Vec<NamePattern>,
    /// The trust anchors for the partner's certificates; by default those of `[tls] trust`.
    pub trust: Located<TrustSource>,
    /// The partner's keys, one of which is enough; empty if none are configured.
    pub pins: Vec<Pin>,
    /// The files with certificate revocation lists, for both directions; empty if none are
    /// configured.
    pub crl: Vec<Located<PathBuf>>,
    /// The rules for mail to the partner.
    pub outbound: OutboundConfig,
    /// The rules for mail from the partner.
    pub inbound: InboundConfig,
    /// The connector of the recipient domain, if this one is that of the user who sent the mail: its
    /// demands hold as well. `None` in a configuration; [`super::Connectors::for_mail`] sets it.
    pub floor: Option<Arc<Connector>>,
}

/// The `[connector.outbound]` table.
#[derive(Debug, Clone)]
pub struct OutboundConfig {
    /// The next hop.
    pub route: Route,
    /// The demanded TLS.
    pub tls: TlsDemand,
    /// The policies of the domain that are looked up; empty if TLS is off.
    pub discover: Vec<Publication>,
    /// The reaction to a domain that no longer uses TLS.
    pub downgrade: OnDowngrade,
    /// The exception that replaces `tls` and `verify` for a time.
    pub exception: Option<TlsException>,
    /// The required revocation status of certificates; off unless `tls` verifies a path.
    pub revocation: Revocation,
    /// The fate of mail whose demand no hop satisfies.
    pub on_failure: OnFailure,
    /// Our client certificate, if the partner wants one.
    pub client_identity: Option<IdentityFiles>,
    /// The key exchange that is offered first. Classical groups follow post-quantum ones.
    pub groups: Strength,
    /// The weakest key exchange that satisfies a forced demand.
    pub min_strength: Strength,
    /// The most concurrent connections to one destination; at least 1.
    pub connections: u32,
    /// The most messages over one connection; at least 1.
    pub messages_per_connection: u32,
    /// The addresses that connections come from, at most one of each family. A family without one
    /// has the address that the system chooses.
    pub source: Vec<IpAddr>,
    /// The name in EHLO, in place of the host name.
    pub ehlo: Option<Domain>,
    /// Our login at the smart hosts.
    pub auth: Option<SmartHostAuth>,
    /// The schedule, where it differs from that of `[queue]`.
    pub schedule: ScheduleOverrides,
}

/// `auth`: our login at the smart hosts of a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmartHostAuth {
    /// The user name.
    pub user: String,
    /// The secret.
    pub secret: LoginSecret,
}

/// The secret with which we log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginSecret {
    /// The password on the first line of this file.
    Password(Located<SecretPlace>),
    /// Access tokens, which are fetched with these settings.
    OAuth2(Box<TokenSettings>),
}

/// Writes where the secret comes from.
impl fmt::Display for LoginSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(place) => write!(f, "the password in {}", place.value),
            Self::OAuth2(settings) => write!(
                f,
                "access tokens from {} ({})",
                settings.token_url.value,
                settings.grant.name()
            ),
        }
    }
}

/// The place of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretPlace {
    /// A file.
    File(PathBuf),
    /// `credential:NAME`: a credential that systemd passes to the service (systemd.exec(5),
    /// `LoadCredential=`).
    Credential(String),
}

impl SecretPlace {
    /// Returns the path. A credential lies in `$CREDENTIALS_DIRECTORY`; where that is not set, as for
    /// a command outside of the service, in the folder that systemd gives the service.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Credential(name) => std::env::var_os(CREDENTIALS_VARIABLE)
                .map_or_else(|| PathBuf::from(CREDENTIALS_FOLDER), PathBuf::from)
                .join(name),
        }
    }
}

/// Writes the place as the configuration does.
impl fmt::Display for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Credential(name) => write!(f, "credential:{name}"),
        }
    }
}

/// `retry`, `expire` and `warn_after` of a connector; those of `[queue]` apply where it has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScheduleOverrides {
    /// The intervals of the retry schedule, at least one. The last one repeats.
    pub retry: Option<Vec<Duration>>,
    /// The age at which a message bounces.
    pub expire: Option<Duration>,
    /// The age at which the sender gets a delay report.
    pub warn_after: Option<WarnAfter>,
}

/// `warn_after`: the age of a message at which its sender gets a delay report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarnAfter {
    /// `"never"`.
    Never,
    /// The age of a message.
    Age(Duration),
}

impl OutboundConfig {
    /// Returns the address that a connection to `address` comes from, unless the system chooses it.
    #[must_use]
    pub fn source_for(&self, address: SocketAddr) -> Option<IpAddr> {
        self.source
            .iter()
            .copied()
            .find(|source| source.is_ipv4() == address.is_ipv4())
    }
}

/// The `[connector.inbound]` table.
#[derive(Debug, Clone)]
pub struct InboundConfig {
    /// The demanded TLS; never [`TlsDemand::Off`].
    pub tls: TlsDemand,
    /// The required revocation status of certificates; off unless `tls` verifies a path.
    pub revocation: Revocation,
    /// The networks that the partner's mail must come from; empty for any.
    pub networks: Vec<IpNet>,
    /// True if a session that satisfies all of this may send to any domain.
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
        /// The oldest acceptable version.
        min_version: TlsVersion,
        /// `verify`.
        verify: VerifyWanted,
    },
}

/// `discover`: a kind of policy that domains publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// `"dane"`: TLSA records (RFC 7672).
    Dane,
    /// `"mta-sts"` (RFC 8461).
    MtaSts,
}

/// `downgrade`: the reaction to a domain that has used TLS before and no longer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDowngrade {
    /// The mail is delivered.
    Allow,
    /// The mail is delivered, with a warning.
    Warn,
    /// The mail is delivered only with TLS.
    Refuse,
}

/// `exception`: a lower demand for a limited time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsException {
    /// The demand during the exception.
    pub tls: TlsDemand,
    /// The last day of the exception, in UTC.
    pub until: Date,
    /// The reason, for the record.
    pub reason: String,
    /// The location in the file.
    pub location: Location,
}

/// `verify`. The names that `Name` demands depend on the hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyWanted {
    /// `"none"`.
    None,
    /// `"chain"`.
    Chain,
    /// `"name"`.
    Name,
    /// `"dane"`, outbound only.
    Dane,
    /// `"pin"`.
    Pin,
}

/// `route`: the next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The MX hosts of the recipient domain, at this port.
    Mx {
        /// The port; 25 by default.
        port: u16,
    },
    /// These smart hosts in order of preference, at least one.
    SmartHosts(Vec<SmartHost>),
}

/// A smart host: a name or an address literal, and a port; or a unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SmartHost {
    /// The name or address; 127.0.0.1 for a socket.
    pub host: Host,
    /// The port; 0 for a socket.
    pub port: u16,
    /// The protocol.
    pub protocol: HopProtocol,
}

impl fmt::Display for SmartHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.protocol.write_server(&self.host, self.port, f)
    }
}

/// The protocol of a hop, and the kind of its connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum HopProtocol {
    /// SMTP, with STARTTLS as the policy demands.
    #[default]
    Smtp,
    /// `smtps://`: SMTP with TLS from the first octet (RFC 8314).
    Smtps,
    /// `lmtp://`: LMTP over TCP (RFC 2033), with STARTTLS as the policy demands.
    Lmtp,
    /// `lmtp:/`: LMTP over the unix socket at this path, without TLS.
    LmtpSocket(Arc<Path>),
}

impl HopProtocol {
    /// Returns its name, as URLs have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Smtps => "smtps",
            Self::Lmtp | Self::LmtpSocket(_) => "lmtp",
        }
    }

    /// Returns whether the host replies to the content for each recipient (RFC 2033 §4.2).
    #[must_use]
    pub fn is_lmtp(&self) -> bool {
        matches!(self, Self::Lmtp | Self::LmtpSocket(_))
    }

    /// Writes a server of this protocol as `route` does.
    ///
    /// # Errors
    /// Those of the formatter.
    pub fn write_server(&self, host: &Host, port: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smtp => write!(f, "{host}:{port}"),
            Self::Smtps | Self::Lmtp => write!(f, "{}://{host}:{port}", self.name()),
            Self::LmtpSocket(path) => write!(f, "lmtp:{}", path.display()),
        }
    }
}

/// `on_failure`: the fate of mail whose demand no hop satisfies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// It is deferred until it expires.
    Defer,
    /// It is held until an operator decides.
    Hold,
    /// It bounces at once.
    Bounce,
}

/// A set of domains, as connectors and `[relay] domains` name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DomainPattern {
    /// `*`: every domain.
    Any,
    /// `*.example.org`: every subdomain at any depth, without the domain itself.
    Below(Domain),
    /// `example.org`: this domain alone.
    Exactly(Domain),
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(domain) => write!(f, "*.{domain}"),
            Self::Exactly(domain) => domain.fmt(f),
        }
    }
}

impl Connector {
    /// Returns true for the [`default_connector`], which is in no file.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        // The configuration reserves this name for it.
        self.name == DEFAULT_NAME
    }

    /// Returns this connector, and the floor if it has one.
    pub fn with_floor(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.floor.as_deref())
    }
}

/// The connector for domains that no other covers: opportunistic in both directions, by MX.
#[must_use]
pub fn default_connector(trust: &Located<TrustSource>) -> Arc<Connector> {
    Arc::new(Connector {
        name: DEFAULT_NAME.to_owned(),
        domains: vec![DomainPattern::Any],
        names: Vec::new(),
        trust: trust.clone(),
        pins: Vec::new(),
        crl: Vec::new(),
        outbound: OutboundConfig {
            route: Route::Mx { port: MX_PORT },
            tls: TlsDemand::Opportunistic,
            discover: EVERYTHING.to_vec(),
            downgrade: OnDowngrade::Warn,
            exception: None,
            revocation: Revocation::Off,
            on_failure: OnFailure::Defer,
            client_identity: None,
            groups: Strength::PostQuantum,
            min_strength: Strength::Classical,
            connections: CONNECTIONS,
            messages_per_connection: MESSAGES_PER_CONNECTION,
            source: Vec::new(),
            ehlo: None,
            auth: None,
            schedule: ScheduleOverrides::default(),
        },
        inbound: InboundConfig {
            tls: TlsDemand::Opportunistic,
            revocation: Revocation::Off,
            networks: Vec::new(),
            relay: false,
        },
        floor: None,
    })
}
