//! The URL of a PostgreSQL database: the part of libpq's form that a relay needs, and nothing that
//! would weaken it.
//!
//! Errors repeat nothing of the URL: somebody may have written a password in any place of it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::smtp::address::Host;

/// The port of PostgreSQL.
const DEFAULT_PORT: u16 = 5432;
/// The longest name of a user or a database in octets: the server cuts longer ones off.
const NAME_MAX: usize = 63;

/// The parameters of libpq that are not for the URL, with their remedies.
const OTHERS: [(&str, &str); 6] = [
    ("sslrootcert", "Name the file in [spool] trust."),
    (
        "user",
        "Write the user before the hosts: \"postgresql://USER@HOST/DATABASE\".",
    ),
    (
        "dbname",
        "Write the database after the hosts: \"postgresql://USER@HOST/DATABASE\".",
    ),
    (
        "hostaddr",
        "Write the name of the host alone; DNS or /etc/hosts has its address.",
    ),
    (
        "application_name",
        "Remove it: Gatepost sends \"gatepost\" and the name of the node.",
    ),
    (
        "options",
        "Remove it: set what the role needs with ALTER ROLE … SET.",
    ),
];
/// The parameters of libpq that Gatepost derives from the lease.
const TIMES: [&str; 6] = [
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
];

/// The reasons why a text is not the URL of a database for a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// The scheme is another.
    #[error("it does not begin with postgresql://")]
    Scheme,
    /// There is a password in it.
    #[error("it has a password, which anybody who reads the configuration could see")]
    Password,
    /// There is no user, or it is not a name.
    #[error("it names no user")]
    User,
    /// There is no host.
    #[error("it names no host")]
    NoHost,
    /// The hosts are in two places.
    #[error("it names hosts before the path and with host=")]
    TwoHosts,
    /// A host or a port is malformed.
    #[error("a host or port in it is malformed")]
    Host,
    /// There is no database, or it is not a name.
    #[error("it names no database")]
    Database,
    /// A parameter is there twice, or malformed.
    #[error("a parameter in it is malformed or there twice")]
    Parameter,
    /// A parameter is not for relays. It is named if libpq knows it.
    #[error("the parameter {} is not supported", .0.unwrap_or("in it"))]
    Unsupported(Option<&'static str>),
    /// `sslmode` is a value that verifies nothing.
    #[error("its sslmode would let anybody in the network pass for the database")]
    Unverified,
    /// TLS is off for a host elsewhere.
    #[error("sslmode=disable would send mail and the password in the clear to another machine")]
    InTheClear,
    /// A host with TLS has no name.
    #[error("a certificate is checked for a name, and a host in it is an address")]
    Address,
    /// `target_session_attrs` allows a standby.
    #[error(
        "a relay needs a server that can be written, and this target_session_attrs allows others"
    )]
    ReadOnly,
}

impl DatabaseUrlError {
    /// Returns the remedy.
    #[must_use]
    pub fn remedy(self) -> String {
        match self {
            Self::Password => {
                "Remove it, and write it to a file that [spool] password_file names (mode 0600).".to_owned()
            }
            Self::TwoHosts => {
                "Write a folder with a socket as host=, and network hosts before the path.".to_owned()
            }
            Self::Unsupported(name) => unsupported_remedy(name),
            Self::Unverified => {
                "Remove sslmode: the certificate and its name are always verified, with the authorities of [spool] trust."
                    .to_owned()
            }
            Self::InTheClear => {
                "Remove sslmode. TLS can be off for a socket, and for a host of this machine such as localhost.".to_owned()
            }
            Self::Address => "Write the name that the certificate of the server has.".to_owned(),
            Self::ReadOnly => {
                "Remove it, or write target_session_attrs=read-write: of several hosts, the primary is used.".to_owned()
            }
            Self::Scheme
            | Self::User
            | Self::NoHost
            | Self::Host
            | Self::Database
            | Self::Parameter => {
                "Write \"postgresql://USER@HOST1:5432,HOST2:5432/DATABASE\", or \
                 \"postgresql://USER@/DATABASE?host=/run/postgresql\" for the socket of this machine."
                    .to_owned()
            }
        }
    }
}

fn unsupported_remedy(name: Option<&str>) -> String {
    let Some(name) = name else {
        return "Remove it. Known are sslmode, target_session_attrs, host and port.".to_owned();
    };
    let other = OTHERS.iter().find(|(other, _)| *other == name);
    match other {
        Some((_, remedy)) => (*remedy).to_owned(),
        None => "Remove it: Gatepost derives it from [cluster] lease.".to_owned(),
    }
}

/// `sslmode` of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseTls {
    /// TLS to all hosts but those of this machine.
    Elsewhere,
    /// `verify-full`: TLS to all hosts, a socket excepted.
    Always,
    /// `disable`: no TLS, to this machine alone.
    Off,
}

/// A server of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseHost {
    /// A host in the network.
    Network {
        /// The name or address.
        host: Host,
        /// The TCP port.
        port: u16,
    },
    /// A unix socket.
    Socket {
        /// The folder of the socket.
        folder: PathBuf,
        /// The port, which is a part of the socket's name.
        port: u16,
    },
}

impl DatabaseHost {
    fn is_local(&self) -> bool {
        match self {
            Self::Network { host, .. } => host.is_local(),
            Self::Socket { .. } => true,
        }
    }
}

impl fmt::Display for DatabaseHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { host, port } => match host {
                Host::Domain(name) => write!(f, "{name}:{port}"),
                Host::Literal(IpAddr::V4(address)) => write!(f, "{address}:{port}"),
                Host::Literal(IpAddr::V6(address)) => write!(f, "[{address}]:{port}"),
            },
            Self::Socket { folder, port } => {
                let folder = folder.to_string_lossy();
                write!(f, "{}:{port}", Encoded(&folder))
            }
        }
    }
}

/// The URL of a database. It has no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    /// The role by which the relay logs in.
    pub user: String,
    /// The servers, in the order in which they are tried. There is at least one.
    pub hosts: Vec<DatabaseHost>,
    /// The name of the database.
    pub database: String,
    /// The TLS of the connections.
    pub tls: DatabaseTls,
}

impl DatabaseUrl {
    /// Parses `postgresql://user@host1:port,host2:port/database?parameters`.
    ///
    /// # Errors
    /// [`DatabaseUrlError`], which repeats nothing of the text.
    pub fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(DatabaseUrlError::Scheme)?;
        // A password that is not encoded may have any character.
        if rest
            .split_once('@')
            .is_some_and(|(login, _)| login.contains(':'))
        {
            return Err(DatabaseUrlError::Password);
        }
        if !["postgresql", "postgres"].contains(&scheme.to_ascii_lowercase().as_str()) {
            return Err(DatabaseUrlError::Scheme);
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let parameters = Parameters::parse(query)?;
        let (authority, database) = rest.split_once('/').ok_or(DatabaseUrlError::Database)?;
        let (user, hosts) = authority.split_once('@').ok_or(DatabaseUrlError::User)?;
        let url = Self {
            user: decoded_name(user).ok_or(DatabaseUrlError::User)?,
            hosts: parameters.hosts(hosts)?,
            database: decoded_name(database).ok_or(DatabaseUrlError::Database)?,
            tls: parameters.tls,
        };
        if url.tls == DatabaseTls::Off && !url.hosts.iter().all(DatabaseHost::is_local) {
            return Err(DatabaseUrlError::InTheClear);
        }
        let has_no_name = |host: &DatabaseHost| {
            matches!(
                host,
                DatabaseHost::Network {
                    host: Host::Literal(_),
                    ..
                }
            )
        };
        if url
            .hosts
            .iter()
            .any(|host| has_no_name(host) && url.needs_tls(host))
        {
            return Err(DatabaseUrlError::Address);
        }
        Ok(url)
    }

    /// Returns true if connections to this host must have TLS.
    #[must_use]
    pub fn needs_tls(&self, host: &DatabaseHost) -> bool {
        match self.tls {
            DatabaseTls::Elsewhere => !host.is_local(),
            DatabaseTls::Always => matches!(host, DatabaseHost::Network { .. }),
            DatabaseTls::Off => false,
        }
    }

    /// Returns true if a connection to any of the hosts must have TLS.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.hosts.iter().any(|host| self.needs_tls(host))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgresql://{}@", Encoded(&self.user))?;
        for (number, host) in self.hosts.iter().enumerate() {
            let separator = if number == 0 { "" } else { "," };
            write!(f, "{separator}{host}")?;
        }
        write!(f, "/{}", Encoded(&self.database))?;
        match self.tls {
            DatabaseTls::Elsewhere => Ok(()),
            DatabaseTls::Always => f.write_str("?sslmode=verify-full"),
            DatabaseTls::Off => f.write_str("?sslmode=disable"),
        }
    }
}

/// The parameters of a URL.
struct Parameters {
    folder: Option<PathBuf>,
    port: Option<u16>,
    tls: DatabaseTls,
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, DatabaseUrlError> {
        let mut parameters = Self {
            folder: None,
            port: None,
            tls: DatabaseTls::Elsewhere,
        };
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|_| !query.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(DatabaseUrlError::Parameter)?;
            let value = decoded(value).ok_or(DatabaseUrlError::Parameter)?;
            if seen.contains(&name) {
                return Err(DatabaseUrlError::Parameter);
            }
            seen.push(name);
            match name {
                "host" => parameters.folder = Some(socket_folder(&value)?),
                "port" => parameters.port = Some(port_number(&value)?),
                "sslmode" => parameters.tls = tls_of_mode(&value)?,
                "target_session_attrs" if value == "read-write" => {}
                "target_session_attrs" => return Err(DatabaseUrlError::ReadOnly),
                "password" | "passfile" | "sslpassword" => return Err(DatabaseUrlError::Password),
                _ => return Err(DatabaseUrlError::Unsupported(known_name(name))),
            }
        }
        Ok(parameters)
    }

    /// Returns the hosts, of which `written` are before the path.
    fn hosts(&self, written: &str) -> Result<Vec<DatabaseHost>, DatabaseUrlError> {
        match &self.folder {
            Some(folder) if written.is_empty() => Ok(vec![DatabaseHost::Socket {
                folder: folder.clone(),
                port: self.port.unwrap_or(DEFAULT_PORT),
            }]),
            Some(_) => Err(DatabaseUrlError::TwoHosts),
            None if written.is_empty() => Err(DatabaseUrlError::NoHost),
            None if self.port.is_some() => Err(DatabaseUrlError::Parameter),
            None => written.split(',').map(host).collect(),
        }
    }
}

/// Returns the name of a parameter that libpq knows.
fn known_name(name: &str) -> Option<&'static str> {
    let others = OTHERS.iter().map(|(other, _)| *other);
    others.chain(TIMES).find(|known| *known == name)
}

fn tls_of_mode(mode: &str) -> Result<DatabaseTls, DatabaseUrlError> {
    match mode {
        "verify-full" => Ok(DatabaseTls::Always),
        "disable" => Ok(DatabaseTls::Off),
        "allow" | "prefer" | "require" | "verify-ca" => Err(DatabaseUrlError::Unverified),
        _ => Err(DatabaseUrlError::Parameter),
    }
}

/// Parses `name`, `address` or `%2Ffolder`, with or without a port.
fn host(text: &str) -> Result<DatabaseHost, DatabaseUrlError> {
    let (host, port) = match text.rfind(':') {
        Some(at) if !text[at..].contains(']') => (&text[..at], port_number(&text[at + 1..])?),
        _ => (text, DEFAULT_PORT),
    };
    let bracketed = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    if let Some(address) = bracketed {
        let address = address.parse().map_err(|_| DatabaseUrlError::Host)?;
        let host = Host::Literal(IpAddr::V6(address));
        return Ok(DatabaseHost::Network { host, port });
    }
    let name = decoded(host).ok_or(DatabaseUrlError::Host)?;
    if name.starts_with('/') {
        let folder = socket_folder(&name)?;
        return Ok(DatabaseHost::Socket { folder, port });
    }
    let host = match name.parse() {
        Ok(address @ IpAddr::V4(_)) => Host::Literal(address),
        _ => Host::parse(&name).map_err(|_| DatabaseUrlError::Host)?,
    };
    Ok(DatabaseHost::Network { host, port })
}

fn socket_folder(text: &str) -> Result<PathBuf, DatabaseUrlError> {
    let path = Path::new(text);
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err(DatabaseUrlError::Host)
    }
}

fn port_number(text: &str) -> Result<u16, DatabaseUrlError> {
    let digits = text.bytes().all(|octet| octet.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number
        .filter(|port| *port > 0)
        .ok_or(DatabaseUrlError::Host)
}

/// Decodes the name of a user or a database, which the server would cut off if it were longer.
fn decoded_name(text: &str) -> Option<String> {
    decoded(text).filter(|name| (1..=NAME_MAX).contains(&name.len()))
}

/// Decodes a part (RFC 3986 §2.1). `None` if it is malformed, not UTF-8, or has control characters
/// or characters that separate parts.
fn decoded(text: &str) -> Option<String> {
    let separators = ['#', '/', '@', '?', '[', ']', ' '];
    let (mut octets, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first != b'%' {
            octets.push(*first);
            continue;
        }
        let (digits, more) = more.split_at_checked(2)?;
        octets.push(data_encoding::HEXUPPER_PERMISSIVE.decode(digits).ok()?[0]);
        rest = more;
    }
    let is_plain_path = text.starts_with('/');
    let is_separated = |c: char| separators.contains(&c) && !(is_plain_path && c == '/');
    let decoded = String::from_utf8(octets).ok()?;
    (!text.contains(is_separated) && !decoded.contains(char::is_control)).then_some(decoded)
}

/// Writes a part of a URL with everything encoded that is not unreserved (RFC 3986 §2.3).
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for octet in self.0.bytes() {
            if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
                write!(f, "{}", char::from(octet))?;
            } else {
                write!(f, "%{octet:02X}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
