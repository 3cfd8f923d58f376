//! The uses that a certificate allows its key: key usage and extended key usage (RFC 5280 §4.2.1.3, §4.2.1.12).
//!
//! rustls-webpki 0.103 holds extended key usage against a whole path and reads key usage nowhere, so the latter
//! is read here, for every certificate of a path and for its anchor.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::KeyUsage;
use x509_parser::prelude::X509Certificate;

use super::{Role, certificate};

/// The key usage of a certificate.
enum Uses<'a> {
    /// It has none, so everything is allowed.
    Any,
    /// Only these.
    Only(&'a KeyUsage),
    /// It cannot be read, or stands there twice: nothing is allowed.
    Unreadable,
}

fn uses<'a>(certificate: &'a X509Certificate<'_>) -> Uses<'a> {
    match certificate.key_usage() {
        Ok(None) => Uses::Any,
        Ok(Some(usage)) => Uses::Only(usage.value),
        Err(_) => Uses::Unreadable,
    }
}

/// Tells whether the key may sign certificates (RFC 5280 §6.1.4 (n)): keyCertSign, where there is a key usage.
pub(super) fn may_issue(certificate: &X509Certificate<'_>) -> bool {
    match uses(certificate) {
        Uses::Any => true,
        Uses::Only(usage) => usage.key_cert_sign(),
        Uses::Unreadable => false,
    }
}

/// The same for a certificate that is not parsed yet; a malformed one may sign nothing.
pub(super) fn der_may_issue(der: &CertificateDer<'_>) -> bool {
    certificate::parse(der).is_some_and(|certificate| may_issue(&certificate))
}

/// Checks that a peer may use its certificate for TLS, as OpenSSL and so Postfix do: with any of the three usages of
/// TLS as a server, with a usage that a client can need as a client.
///
/// # Errors
/// The reason, in words.
pub(super) fn allows_tls(certificate: &X509Certificate<'_>, role: Role) -> Result<(), &'static str> {
    if !allows_purpose(certificate, role) {
        return Err(wrong_purpose(role));
    }
    let allowed = match (uses(certificate), role) {
        (Uses::Any, _) => true,
        (Uses::Only(usage), Role::Server) => {
            usage.digital_signature() || usage.key_encipherment() || usage.key_agreement()
        }
        (Uses::Only(usage), Role::Client) => usage.digital_signature() || usage.key_agreement(),
        (Uses::Unreadable, _) => return Err("its key usage cannot be read"),
    };
    match role {
        _ if allowed => Ok(()),
        Role::Server => Err("its key usage does not allow TLS (digitalSignature, keyEncipherment or keyAgreement)"),
        Role::Client => Err("its key usage does not allow TLS clients (digitalSignature or keyAgreement)"),
    }
}

/// Tells whether the extended key usage allows this role (RFC 5280 §4.2.1.12).
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

/// Tells whether the extended key usage names this role itself, as rustls-webpki wants of every certificate in a path;
/// "any" does not.
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

/// The fault of a certificate whose extended key usage does not allow a role.
pub(super) fn wrong_purpose(role: Role) -> &'static str {
    match role {
        Role::Server => "its extended key usage does not include TLS servers",
        Role::Client => "its extended key usage includes neither TLS clients nor TLS servers",
    }
}
