//! The configuration in its final form: valid values, with every default filled in.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::client_limits::{ClientLimits, TransactionMemory};
use super::database_url::DatabaseUrl;
use crate::policy::connector::{
    Connector, Connectors, IdentityFiles, ScheduleOverrides, SecretPlace, TrustSource, WarnAfter,
    default_connector,
};
use crate::policy::location::Located;
use crate::policy::recipients::RecipientRules;
use crate::policy::relay_access::{RelayConfig, RelayRules};
use crate::policy::tls::{NamePattern, TlsVersion};
use crate::smtp::address::{Domain, Host, Mailbox};
use crate::smtp::sasl::OfferedMechanisms;

/// A complete configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our host name: banner, EHLO, Received, Reporting-MTA.
    pub hostname: Domain,
    /// The address for mail to `<postmaster>` and for double bounces.
    pub postmaster: Mailbox,
    /// The `[tls]` table: our certificates and the default trust.
    pub tls: TlsConfig,
    /// The folder of the spool. With a database, it has the files of this node alone.
    pub spool: Located<PathBuf>,
    /// `[spool] url` and the `[cluster]` table: the database with the queue, which several relays
    /// share. `None` if the queue is in the folder.
    pub database: Option<DatabaseConfig>,
    /// The listeners.
    pub listeners: Vec<Arc<ListenerConfig>>,
    /// The `[relay]` table: the clients and domains that may be relayed for.
    pub relay: RelayConfig,
    /// The `[[recipients]]` tables: who exists at our domains.
    pub recipients: Vec<Arc<RecipientRules>>,
    /// The connectors in the order of the file, without the built-in default.
    pub connectors: Vec<Arc<Connector>>,
    /// The `[queue]` table: retry schedule and reports.
    pub queue: QueueConfig,
    /// The `[limits]` table.
    pub limits: Limits,
    /// The `[timeouts]` table.
    pub timeouts: Timeouts,
    /// The `[dns]` table: resolvers and DNSSEC mode.
    pub dns: DnsConfig,
    /// The `[net]` table: the HTTP proxy.
    pub net: NetConfig,
    /// The `[users]` table: clients that log in.
    pub users: Option<UsersConfig>,
    /// The `[evidence]` table: the records for auditors.
    pub evidence: EvidenceConfig,
    /// The `[admin]` table: admin socket and HTTP.
    pub admin: AdminConfig,
    /// The `[tlsrpt]` table: TLS reports to other domains.
    pub tlsrpt: TlsrptConfig,
    /// The `[log]` table.
    pub log: LogConfig,
    /// The text that the configuration was read from.
    pub source: ConfigSource,
}

impl Config {
    /// The connectors, indexed, the built-in default among them.
    #[must_use]
    pub fn connectors(&self) -> Connectors {
        Connectors::new(&self.connectors, default_connector(&self.tls.trust))
    }

    /// The settings that decide on relay access. `connectors` are those of this configuration.
    #[must_use]
    pub fn relay_rules<'a>(&'a self, connectors: &'a Connectors) -> RelayRules<'a> {
        RelayRules {
            hostname: &self.hostname,
            postmaster: &self.postmaster,
            relay: &self.relay,
            connectors,
        }
    }

    /// The most concurrent sessions of strangers at a listener. The default is three quarters of
    /// the unreserved seats if there are other listeners, so that none of them can use all seats.
    #[must_use]
    pub fn seats(&self, listener: &ListenerConfig) -> usize {
        let limits = &self.limits.clients;
        let public = limits
            .connections
            .saturating_sub(limits.connections_reserved);
        let default = if self.listeners.len() > 1 {
            (public * 3).div_ceil(4)
        } else {
            public
        };
        listener.connections.unwrap_or(default).min(public)
    }
}

/// The source of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSource {
    /// The file. Relative paths in it start from its folder.
    pub file: Arc<Path>,
    /// The text.
    pub text: Arc<str>,
    /// The files that it includes, in the order in which they are read.
    pub included: Vec<SourceFile>,
    /// The SHA-256 of all texts, one after the other, in hexadecimal, for the record.
    pub digest: String,
}

impl ConfigSource {
    /// Returns each file with its text, the main one first.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&Path, &str)> {
        let included = self.included.iter().map(|file| (&*file.file, &*file.text));
        std::iter::once((&*self.file, &*self.text)).chain(included)
    }
}

/// A file of a configuration, with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The file. Relative paths in it start from its folder.
    pub file: Arc<Path>,
    /// The text.
    pub text: Arc<str>,
}

impl SourceFile {
    /// Makes one.
    #[must_use]
    pub fn new(text: &str, file: &Path) -> Self {
        Self {
            file: Arc::from(file),
            text: Arc::from(text),
        }
    }
}

/// `[spool] url` with what belongs to it, and the `[cluster]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// The hosts, the user and the database.
    pub url: Located<DatabaseUrl>,
    /// The place of the password; `None` if the server asks for none, as for its own socket.
    pub password_file: Option<Located<SecretPlace>>,
    /// The trust anchors for TLS to the database.
    pub trust: Located<TrustSource>,
    /// The name of this node, which no other one may have.
    pub node: Located<String>,
    /// The time for which this node owns its mail after its last sign of life.
    pub lease: Duration,
}

/// The `[net]` table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetConfig {
    /// The proxy for all requests by HTTP and HTTPS; `None` for none.
    pub http_proxy: Option<ProxyAddress>,
}

/// The address of an HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAddress {
    /// The name or address.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Literal(IpAddr::V6(address)) => write!(f, "http://[{address}]:{}", self.port),
            Host::Literal(IpAddr::V4(address)) => write!(f, "http://{address}:{}", self.port),
            Host::Domain(name) => write!(f, "http://{name}:{}", self.port),
        }
    }
}

/// The `[dns]` table: resolvers and DNSSEC mode.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// The resolvers; empty for those of /etc/resolv.conf.
    pub servers: Vec<Located<SocketAddr>>,
    /// The DNSSEC mode.
    pub dnssec: Located<Dnssec>,
    /// The trust anchor for validation.
    pub trust_anchor: TrustAnchor,
}

/// `[dns] dnssec`: the place where DNSSEC is validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dnssec {
    /// Gatepost validates.
    Validate,
    /// Gatepost validates, and a resolver that returns no DNSSEC records makes every answer fail.
    Require,
    /// The resolver validates, and its AD bit is trusted. It must be on this machine.
    TrustResolver,
    /// Nothing is validated: every answer counts as insecure.
    Off,
}

/// `[dns] trust_anchor`: the start of DNSSEC validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustAnchor {
    /// The built-in keys of the root zone.
    BuiltIn,
    /// A file of DNSKEY or DS records.
    File(Located<PathBuf>),
}

/// The `[tls]` table: our certificates and the default trust.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The default identity. `None` is a fault as soon as a listener offers TLS.
    pub identity: Option<IdentityFiles>,
    /// Further identities, chosen by SNI.
    pub sni: Vec<SniIdentity>,
    /// The trust anchors for connectors without `trust`.
    pub trust: Located<TrustSource>,
    /// The oldest TLS version in both directions.
    pub min_version: TlsVersion,
}

/// A `[[tls.sni]]` table.
#[derive(Debug, Clone)]
pub struct SniIdentity {
    /// The host names for which the certificate is used.
    pub names: Vec<NamePattern>,
    /// The files.
    pub files: IdentityFiles,
}

/// A `[[listener]]` table.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// The name, for logs and errors.
    pub name: String,
    /// The addresses.
    pub addresses: Vec<Located<ListenAddress>>,
    /// The TLS mode.
    pub tls: ListenerTls,
    /// True if clients are asked for a certificate.
    pub request_client_certificate: bool,
    /// The load balancers whose PROXY header is believed.
    pub proxy_protocol: Vec<IpNet>,
    /// The networks of proxies that are offered XCLIENT.
    pub xclient: Vec<IpNet>,
    /// The most concurrent sessions of clients outside `[relay] networks`; `None` for the default.
    pub connections: Option<usize>,
    /// The mechanisms by which a client may log in, under TLS alone.
    pub auth: OfferedMechanisms,
    /// True if a client must log in before it sends mail.
    pub auth_required: bool,
}

/// The `[users]` table: clients that log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsersConfig {
    /// The file of the users.
    pub file: Located<PathBuf>,
}

/// An item of `[[listener]] address`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An address that Gatepost binds.
    Bind(SocketAddr),
    /// `systemd:NAME`: a socket that systemd passes under this name (`FileDescriptorName=`).
    Systemd(String),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(address) => address.fmt(f),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// `[[listener]] tls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerTls {
    /// No TLS.
    Off,
    /// STARTTLS is offered.
    Opportunistic,
    /// STARTTLS is required before mail.
    Forced,
    /// TLS from the first octet (RFC 8314 §3.3).
    Implicit,
}

/// The `[queue]` table.
#[derive(Debug, Clone)]
pub struct QueueConfig {
    /// The intervals of the retry schedule, at least one. The last one repeats.
    pub retry: Vec<Duration>,
    /// The age at which a message bounces.
    pub expire: Duration,
    /// The age at which the sender gets a delay report.
    pub warn_after: WarnAfter,
    /// The time that a report waits for reports on other recipients of its message.
    pub dsn_gather: Duration,
    /// The time from a failure of mail with the null sender to the digest for the postmaster.
    pub postmaster_digest: Duration,
}

/// The retry schedule of mail for one connector.
#[derive(Debug, Clone, Copy)]
pub struct MailSchedule<'a> {
    /// The intervals of the retry schedule, at least one. The last one repeats.
    pub retry: &'a [Duration],
    /// The age at which a message bounces.
    pub expire: Duration,
    /// The age at which the sender gets a delay report.
    pub warn_after: WarnAfter,
}

impl QueueConfig {
    /// Returns the schedule of mail for connectors without one of their own.
    #[must_use]
    pub fn own_schedule(&self) -> MailSchedule<'_> {
        MailSchedule {
            retry: &self.retry,
            expire: self.expire,
            warn_after: self.warn_after,
        }
    }

    /// Returns the schedule of mail for a connector.
    #[must_use]
    pub fn schedule<'a>(&'a self, connector: &'a Connector) -> MailSchedule<'a> {
        let ScheduleOverrides {
            retry,
            expire,
            warn_after,
        } = &connector.outbound.schedule;
        MailSchedule {
            retry: retry.as_deref().unwrap_or(&self.retry),
            expire: expire.unwrap_or(self.expire),
            warn_after: warn_after.unwrap_or(self.warn_after),
        }
    }
}

/// The `[limits]` table.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most octets in a message.
    pub message_size: u64,
    /// The most recipients in a transaction (RFC 5321 §4.5.3.1.8: at least 100).
    pub recipients: usize,
    /// The limits for clients, each and together.
    pub clients: ClientLimits,
    /// The octets that the recipients of open transactions may use.
    pub transaction_memory: TransactionMemory,
    /// The number of bad commands after which a session ends with 421.
    pub errors: u32,
    /// The number of Received fields at which a message counts as looping (RFC 5321 §6.3).
    pub received: u32,
    /// The most concurrent delivery attempts.
    pub delivery_attempts: u32,
    /// The longest duration of a delivery attempt.
    pub delivery_attempt_time: Duration,
    /// The most reports to senders in a minute.
    pub dsn_per_minute: u32,
    /// The most reports in a minute to the senders of one domain.
    pub dsn_per_minute_per_domain: u32,
}

/// The `[timeouts]` table. Each limits a whole step (RFC 5321 §4.5.3.2).
// Rule: RFC 5321 §4.5.3.2.1, §4.5.3.2.2, §4.5.3.2.3, §4.5.3.2.4, §4.5.3.2.5, §4.5.3.2.6.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Inbound: the next complete command line.
    pub command: Duration,
    /// Both directions: the next block of a message.
    pub data_block: Duration,
    /// Inbound: the lowest average rate of a message, in octets per second.
    pub data_rate: u64,
    /// Inbound: a session without an accepted message.
    pub message: Duration,
    /// Both directions: the whole TLS handshake.
    pub handshake: Duration,
    /// Outbound: the TCP connection to one address.
    pub connect: Duration,
    /// Outbound: the reply to greeting, EHLO, MAIL, RCPT, DATA.
    pub reply: Duration,
    /// Outbound: the reply to the final dot.
    pub final_reply: Duration,
    /// Both directions: the sessions and deliveries that are running at shutdown.
    pub drain: Duration,
}

/// The `[evidence]` table: the records for auditors.
#[derive(Debug, Clone)]
pub struct EvidenceConfig {
    /// The folder.
    pub path: Located<EvidencePath>,
    /// The retention time, at least a day.
    pub keep: Duration,
    /// The limit of the size of all records.
    pub max_size: EvidenceLimit,
}

/// `[evidence] max_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvidenceLimit {
    /// The key is not set.
    Default,
    /// So many octets, at least a mebibyte.
    Set(u64),
}

impl EvidenceLimit {
    /// Returns the limit in octets. Evidence that was larger when the daemon started has a higher
    /// default.
    #[must_use]
    pub fn octets(self) -> u64 {
        match self {
            Self::Default => 50 << 30,
            Self::Set(octets) => octets,
        }
    }
}

/// `[evidence] path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvidencePath {
    /// `""`: no evidence is written.
    Off,
    /// A folder.
    Folder(PathBuf),
}

/// The `[admin]` table.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// The socket for the queue commands.
    pub socket: Located<AdminSocket>,
    /// The address for monitoring and browsers.
    pub http: Located<AdminHttp>,
}

/// `[admin] socket`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminSocket {
    /// `""`: no socket, so the queue commands cannot connect.
    Off,
    /// The path of a unix socket.
    Path(PathBuf),
}

/// `[admin] http`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminHttp {
    /// `""`: no metrics and no status page.
    Off,
    /// An address for HTTP.
    Address(SocketAddr),
}

/// The `[tlsrpt]` table.
#[derive(Debug, Clone)]
pub struct TlsrptConfig {
    /// The reporting mode.
    pub send: Located<SendReports>,
    /// The name of our organization in reports.
    pub organization: String,
    /// The sender of reports, who answers questions about them.
    pub contact: Mailbox,
    /// The domain that reports: that of the contact.
    pub submitter: Domain,
    /// The DKIM key for reports by mail. Recipients may ignore unsigned reports.
    pub dkim: Option<DkimKey>,
}

/// `[tlsrpt] send`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendReports {
    /// Nothing is counted or sent.
    Off,
    /// Results are counted and reported once a day.
    Daily,
}

/// `dkim_domain`, `dkim_selector` and `dkim_key` (RFC 6376).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimKey {
    /// `d=`: the contact's domain, or one above it.
    pub domain: Domain,
    /// `s=`: the public key is published at `SELECTOR._domainkey.DOMAIN`.
    pub selector: Domain,
    /// The private key, in PEM.
    pub file: Located<PathBuf>,
}

/// The `[log]` table.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The format of log lines.
    pub format: Located<LogFormat>,
    /// A filter for tracing.
    pub level: String,
}

/// `[log] format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// The journal under systemd, otherwise text.
    Auto,
    /// Lines of text.
    Text,
    /// A JSON object in each line.
    Json,
    /// The journal's own protocol, with fields.
    Journald,
}
