//! The configuration as meant: what the rest of Gatepost trusts without asking again.
//!
//! [`parse`] turns a TOML text into this, or into every fault it has, each with its place and
//! remedy. It opens no certificate and binds no address: the rooms that own those do, and report
//! what they find as a [`Fault`] at the [`Place`] kept here.

mod clients;
mod connector;
mod exception;
mod flat;
mod hosts;
mod own;
mod parse;
mod partner;
mod place;
mod plain;
mod reader;
mod rules;
mod strays;
mod tlsrpt;
mod unmet;
mod values;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::address::{Domain, Mailbox};
use crate::tls::{NamePattern, TlsVersion};

pub use clients::{ClientLimits, Rate, TransactionMemory};
pub use connector::{
    Connector, Downgrade, Exception, Inbound, OnFailure, Outbound, Publication, Route, SmartHost, TlsDemand,
    VerifyWanted,
};
pub use flat::{ChangedKey, Pair, Section, changed, sections, treatment};
pub use parse::{parse, read};
pub use partner::default_connector;
pub use place::merged;
pub use tlsrpt::{DkimKey, SendReports, TlsReports};
pub use values::{parse_duration, write_duration};

/// Where something stands in a configuration file. Line and column count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// Something wrong with a configuration: what, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where it stands.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.place, self.message, self.remedy)
    }
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands (the place of its table's header where it is a default).
    pub place: Place,
}

/// The values alone, once nothing more can be said about their places.
fn without_places<T>(items: Vec<Located<T>>) -> Vec<T> {
    items.into_iter().map(|item| item.value).collect()
}

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our own name: banner, EHLO, Received, Reporting-MTA.
    pub hostname: Domain,
    /// Where mail to `<postmaster>` and double bounces go.
    pub postmaster: Mailbox,
    /// Our certificates and what we trust by default.
    pub tls: OwnTls,
    /// Where the spool is.
    pub spool: Located<PathBuf>,
    /// Where we listen.
    pub listeners: Vec<Listener>,
    /// Who may send where.
    pub relay: Relay,
    /// The connectors as written, in order; the built-in default is not among them.
    pub connectors: Vec<Arc<Connector>>,
    /// When is tried again.
    pub queue: Queue,
    /// Bounds.
    pub limits: Limits,
    /// Patience.
    pub timeouts: Timeouts,
    /// Whom to ask, and what is believed of the answers.
    pub dns: Dns,
    /// What is kept for auditors.
    pub evidence: Evidence,
    /// Where operators are answered.
    pub admin: Admin,
    /// Reports to other domains about TLS.
    pub tlsrpt: TlsReports,
    /// Logging.
    pub log: Log,
    /// What all of this was read from.
    pub written: Written,
}

/// A configuration as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file; relative paths in it start from its folder.
    pub file: Arc<Path>,
    /// Its text.
    pub text: Arc<str>,
    /// SHA-256 of the file, in hexadecimal digits: what was in force, for the record.
    pub digest: String,
}

/// `[dns]`: whom to ask, and what is believed of the answers.
#[derive(Debug, Clone)]
pub struct Dns {
    /// The name servers; empty for those of /etc/resolv.conf.
    pub servers: Vec<Located<SocketAddr>>,
    /// Who validates.
    pub dnssec: Located<Dnssec>,
    /// What validation starts from.
    pub trust_anchor: TrustAnchor,
}

/// `[dns] dnssec`: who validates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dnssec {
    /// We do, in this process.
    Validate,
    /// We do, and name servers that return no DNSSEC records make every answer fail, from the first one on.
    Require,
    /// The resolver does; its AD bit is believed. It must be on this machine.
    TrustResolver,
    /// Nobody does: every answer counts as insecure.
    Off,
}

/// `[dns] trust_anchor`: what validation starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustAnchor {
    /// The keys of the root zone, built in.
    BuiltIn,
    /// A file of DNSKEY or DS records.
    File(Located<PathBuf>),
}

/// `[tls]`: our own certificates and default trust.
#[derive(Debug, Clone)]
pub struct OwnTls {
    /// The identity used where no other fits; `None` where the file has none, which is a fault as
    /// soon as a listener offers TLS.
    pub identity: Option<IdentityFiles>,
    /// More identities, chosen by SNI.
    pub sni: Vec<SniIdentity>,
    /// What connectors without their own `trust` trust.
    pub trust: Located<Trust>,
    /// The oldest version that is spoken at all, in both directions.
    pub min_version: TlsVersion,
}

/// `[[tls.sni]]`.
#[derive(Debug, Clone)]
pub struct SniIdentity {
    /// The names it answers to.
    pub names: Vec<NamePattern>,
    /// Its files.
    pub files: IdentityFiles,
}

/// A certificate chain and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The chain, leaf first.
    pub certificate: Located<PathBuf>,
    /// The private key.
    pub key: Located<PathBuf>,
}

/// Where trust anchors come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Mozilla's, built in.
    Webpki,
    /// The operating system's.
    System,
    /// A PEM file.
    File(PathBuf),
}

/// `[[listener]]`.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name, in logs and errors.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<Located<ListenAddress>>,
    /// What it offers or demands.
    pub tls: ListenerTls,
    /// Whether clients are asked for a certificate.
    pub request_client_certificate: bool,
    /// Load balancers, whose word on who calls is believed.
    pub proxy_protocol: Vec<IpNet>,
    /// Networks of proxies to which XCLIENT is offered.
    pub xclient: Vec<IpNet>,
    /// Sessions at the same time of clients that are not of `[relay] networks`; nothing where it has no limit of its own.
    pub connections: Option<usize>,
}

/// An item of `[[listener]] address`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// We bind it.
    Bind(SocketAddr),
    /// `systemd:NAME`: systemd has bound it, and passes it under this name (`FileDescriptorName=`).
    Passed(String),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(address) => address.fmt(f),
            Self::Passed(name) => write!(f, "systemd:{name}"),
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
    /// TLS from the first byte (RFC 8314 §3.3).
    Implicit,
}

/// `[relay]`.
#[derive(Debug, Clone, Default)]
pub struct Relay {
    /// Clients that may send to any domain.
    pub networks: Vec<IpNet>,
    /// Domains that anyone may send to.
    pub domains: Vec<DomainPattern>,
}

/// A set of domains as a connector or `[relay] domains` names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DomainPattern {
    /// `*`: every domain.
    Any,
    /// `*.example.org`: every subdomain at any depth, not the domain itself.
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

/// `[queue]`.
#[derive(Debug, Clone)]
pub struct Queue {
    /// The wait after each failed attempt; the last repeats; never empty.
    pub retry: Vec<Duration>,
    /// The age at which a message bounces.
    pub expire: Duration,
    /// The age at which its sender is told of the delay.
    pub warn_after: WarnAfter,
    /// The time that a report waits for those about other recipients of its message.
    pub dsn_gather: Duration,
    /// The time between a failure of mail without a sender and the digest that tells the postmaster of it.
    pub postmaster_digest: Duration,
}

/// `[queue] warn_after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarnAfter {
    /// `"never"`.
    Never,
    /// After this long.
    Age(Duration),
}

/// `[limits]`.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Octets in a message, at most.
    pub message_size: u64,
    /// Recipients in a transaction, at most (RFC 5321 §4.5.3.1.8: at least 100).
    pub recipients: usize,
    /// The limits of clients, one by one and together.
    pub clients: ClientLimits,
    /// Octets that the recipients in open transactions may use.
    pub transaction_memory: TransactionMemory,
    /// Bad commands before 421.
    pub errors: u32,
    /// Received fields before it is a loop (RFC 5321 §6.3).
    pub received: u32,
    /// Delivery attempts at the same time.
    pub delivery_attempts: u32,
    /// The time that one delivery attempt may take.
    pub delivery_attempt_time: Duration,
    /// Reports to senders in a minute.
    pub dsn_per_minute: u32,
    /// Reports in a minute to the senders of one domain.
    pub dsn_per_minute_per_domain: u32,
}

/// `[timeouts]`: each bounds a whole step (RFC 5321 §4.5.3.2).
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Inbound: the next command line, complete.
    pub command: Duration,
    /// Both directions: the next block of a message.
    pub data_block: Duration,
    /// Inbound: the slowest average at which a message may come in, octets per second.
    pub data_rate: u64,
    /// Inbound: a session without an accepted message.
    pub message: Duration,
    /// Both directions: TLS, complete.
    pub handshake: Duration,
    /// Outbound: TCP, per address.
    pub connect: Duration,
    /// Outbound: greeting, EHLO, MAIL, RCPT, DATA.
    pub reply: Duration,
    /// Outbound: the answer to the final dot.
    pub final_reply: Duration,
    /// Deliveries in flight when we are told to stop.
    pub drain: Duration,
}

/// `[evidence]`: what is kept for auditors.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Where.
    pub path: Located<EvidencePath>,
    /// For how long; at least a day.
    pub keep: Duration,
}

/// `[evidence] path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvidencePath {
    /// `""`: none is kept.
    Off,
    /// A folder.
    Folder(PathBuf),
}

/// `[admin]`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// What the commands that work on the queue speak to.
    pub socket: Located<AdminSocket>,
    /// Where monitoring and browsers are answered.
    pub http: Located<AdminHttp>,
}

/// `[admin] socket`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminSocket {
    /// `""`: the commands that work on the queue find nobody.
    Off,
    /// A unix socket here.
    Path(PathBuf),
}

/// `[admin] http`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminHttp {
    /// `""`: there are no metrics and no status page.
    Off,
    /// HTTP here.
    Address(SocketAddr),
}

/// `[log]`.
#[derive(Debug, Clone)]
pub struct Log {
    /// How lines look.
    pub format: Located<LogFormat>,
    /// A tracing filter.
    pub level: String,
}

/// `[log] format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// journald under systemd, else text.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// The journal's own protocol, with fields.
    Journald,
}
