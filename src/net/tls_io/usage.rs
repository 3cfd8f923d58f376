//! The uses that a certificate allows: key usage and extended key usage (RFC 5280 §4.2.1.3,
//! §4.2.1.12).
//!
//! rustls-webpki 0.103 applies the extended key usage to the whole path and ignores key usage. The
//! latter is therefore checked here, for every certificate of a path and its anchor.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::KeyUsage;
use x509_parser::prelude::X509Certificate;

use super::{Role, certificate};

/// The key usage of a certificate.
enum AllowedUses<'a> {
    /// No key usage: everything is allowed.
    Any,
    /// Only these uses are allowed.
    Only(&'a KeyUsage),
    /// The key usage is malformed or repeated: nothing is allowed.
    Unreadable,
}

fn allowed_uses<'a>(certificate: &'a X509Certificate<'_>) -> AllowedUses<'a> {
    match certificate.key_usage() {
        Ok(None) => AllowedUses::Any,
        Ok(Some(usage)) => AllowedUses::Only(usage.value),
        Err(_) => AllowedUses::Unreadable,
    }
}

/// Returns true if the key may sign certificates: without a key usage, or with keyCertSign (RFC
/// 5280 §6.1.4 (n)).
pub(super) fn may_issue(certificate: &X509Certificate<'_>) -> bool {
    match allowed_uses(certificate) {
        AllowedUses::Any => true,
        AllowedUses::Only(usage) => usage.key_cert_sign(),
        AllowedUses::Unreadable => false,
    }
}

/// Like [`may_issue`], for an unparsed certificate. A malformed one may not issue.
pub(super) fn der_may_issue(der: &CertificateDer<'_>) -> bool {
    certificate::parse(der).is_some_and(|certificate| may_issue(&certificate))
}

/// The reason why a certificate cannot be used for TLS in a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum UsageFault {
    /// The extended key usage does not name the role.
    #[error("{}", wrong_purpose(*.0))]
    Purpose(Role),
    /// The key usage is malformed or repeated.
    #[error("its key usage cannot be read")]
    Unreadable,
    /// The key usage allows none of the three that a server needs one of.
    #[error("its key usage does not allow TLS (digitalSignature, keyEncipherment or keyAgreement)")]
    ServerKeyUsage,
    /// The key usage allows none of the two that a client needs one of.
    #[error("its key usage does not allow TLS clients (digitalSignature or keyAgreement)")]
    ClientKeyUsage,
}

/// Checks that a peer may use its certificate for TLS, by the rules of OpenSSL and so of Postfix: a
/// server needs any of three usages, a client one of two.
///
/// # Errors
/// [`UsageFault`].
pub(super) fn allows_tls(certificate: &X509Certificate<'_>, role: Role) -> Result<(), UsageFault> {
    if !allows_purpose(certificate, role) {
        return Err(UsageFault::Purpose(role));
    }
    let allowed = match (allowed_uses(certificate), role) {
        (AllowedUses::Any, _) => true,
        (AllowedUses::Only(usage), Role::Server) => {
            usage.digital_signature() || usage.key_encipherment() || usage.key_agreement()
        }
        (AllowedUses::Only(usage), Role::Client) => {
            usage.digital_signature() || usage.key_agreement()
        }
        (AllowedUses::Unreadable, _) => return Err(UsageFault::Unreadable),
    };
    match role {
        _ if allowed => Ok(()),
        Role::Server => Err(UsageFault::ServerKeyUsage),
        Role::Client => Err(UsageFault::ClientKeyUsage),
    }
}

/// Returns true if the extended key usage allows this role (RFC 5280 §4.2.1.12).
pub(super) fn allows_purpose(certificate: &X509Certificate<'_>, role: Role) -> bool {
    match certificate.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => match role {
            Role::Server => usage.value.any || usage.value.server_auth,
            Role::Client => usage.value.any || usage.value.client_auth || usage.value.server_auth,
        },
        Err(_) => false,
    }
}

/// The TLS purposes that the extended key usage of a certificate names. A client may show one for
/// servers alone, since public authorities issue no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsPurposes {
    /// There is no extended key usage: any purpose.
    Any,
    /// TLS servers and TLS clients.
    ServersAndClients,
    /// TLS servers alone.
    Servers,
    /// TLS clients alone.
    Clients,
    /// Neither.
    Neither,
}

impl TlsPurposes {
    /// Reads the extended key usage. One that is malformed names nothing.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        match certificate.extended_key_usage() {
            Ok(None) => Self::Any,
            Ok(Some(usage)) => match (usage.value.server_auth, usage.value.client_auth) {
                (true, true) => Self::ServersAndClients,
                (true, false) => Self::Servers,
                (false, true) => Self::Clients,
                (false, false) => Self::Neither,
            },
            Err(_) => Self::Neither,
        }
    }
}

impl fmt::Display for TlsPurposes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any purpose",
            Self::ServersAndClients => "TLS servers and TLS clients",
            Self::Servers => {
                "TLS servers alone; a client that shows it to this relay is accepted too"
            }
            Self::Clients => "TLS clients alone; not accepted from a server",
            Self::Neither => "neither TLS servers nor TLS clients; not accepted",
        })
    }
}

/// Returns true if the extended key usage names this role, as rustls-webpki demands of every
/// certificate in a path. "Any" is not enough.
pub(super) fn names_purpose(certificate: &X509Certificate<'_>, role: Role) -> bool {
    match certificate.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => match role {
            Role::Server => usage.value.server_auth,
            Role::Client => usage.value.client_auth || usage.value.server_auth,
        },
        Err(_) => false,
    }
}

/// Describes a certificate whose extended key usage does not allow a role.
pub(super) fn wrong_purpose(role: Role) -> &'static str {
    match role {
        Role::Server => "its extended key usage does not include TLS servers",
        Role::Client => "its extended key usage includes neither TLS clients nor TLS servers",
    }
}
