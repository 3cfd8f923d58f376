//! Our own certificates with their keys: loaded, checked and reloaded.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureScheme};

use super::certificate;
use super::pem::{self, fault};
use crate::config::{Fault, IdentityFiles};
use crate::policy::tls::NamePattern;
use crate::smtp::address::Domain;

/// The time before the end at which a certificate should be replaced; for short-lived ones the last
/// third of their life.
const RENEWAL_WINDOW: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A summary of one of our own certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySummary {
    /// The file.
    pub file: PathBuf,
    /// The DNS names.
    pub names: Vec<String>,
    /// The end of the validity period.
    pub not_after: Timestamp,
}

/// A certificate chain and its key, from two files that may change.
#[derive(Debug)]
pub(super) struct TlsIdentity {
    files: IdentityFiles,
    /// The names for which the certificate is configured, and which it must carry.
    must_carry: Vec<NamePattern>,
    current: ArcSwap<LoadedIdentity>,
}

#[derive(Debug)]
struct LoadedIdentity {
    key: Arc<CertifiedKey>,
    names: Vec<NamePattern>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl TlsIdentity {
    /// Loads and checks both files. Returns all faults of both.
    pub(super) fn load(
        files: &IdentityFiles,
        must_carry: &[NamePattern],
        provider: &CryptoProvider,
    ) -> Result<Self, Vec<Fault>> {
        let current = LoadedIdentity::read(files, must_carry, provider)?;
        Ok(Self {
            files: files.clone(),
            must_carry: must_carry.to_vec(),
            current: ArcSwap::from_pointee(current),
        })
    }

    /// Reloads the files, and uses them if they are valid and have changed. While only one of the
    /// two is replaced, they do not match, which is a temporary fault.
    pub(super) fn refresh(
        &self,
        provider: &CryptoProvider,
    ) -> Result<Option<IdentitySummary>, Vec<Fault>> {
        let new = LoadedIdentity::read(&self.files, &self.must_carry, provider)?;
        // The key matches the certificate, so an equal chain means that nothing has changed.
        if new.key.cert == self.current.load().key.cert {
            return Ok(None);
        }
        self.current.store(Arc::new(new));
        Ok(Some(self.summary()))
    }

    pub(super) fn summary(&self) -> IdentitySummary {
        let loaded = self.current.load();
        IdentitySummary {
            file: self.files.certificate.value.clone(),
            names: loaded.names.iter().map(ToString::to_string).collect(),
            not_after: loaded.not_after,
        }
    }

    /// Returns warnings: the validity period, and the permissions of the key.
    pub(super) fn warnings(&self, now: Timestamp) -> Vec<Fault> {
        let loaded = self.current.load();
        let (file, location) = (
            self.files.certificate.value.display(),
            &self.files.certificate.location,
        );
        let (begins, ends) = (loaded.not_before, loaded.not_after);
        let window = RENEWAL_WINDOW.min(ends.duration_since(begins) / 3);
        let renew = "Renew it; Gatepost loads the new file by itself.";
        let date = if now > ends {
            Some(fault(
                location,
                format!("the certificate in {file} expired on {ends}"),
                renew,
            ))
        } else if now < begins {
            Some(fault(
                location,
                format!("the certificate in {file} is not valid before {begins}"),
                "Set the clock of this machine, or get a certificate that is valid now.",
            ))
        } else if ends.duration_since(now) < window {
            Some(fault(
                location,
                format!("the certificate in {file} expires on {ends}"),
                renew,
            ))
        } else {
            None
        };
        date.into_iter()
            .chain(pem::key_warning(&self.files.key))
            .collect()
    }

    /// Returns a warning if the certificate does not carry our host name.
    // Rule: RFC 9525 §4.1.
    pub(super) fn warn_unless_named(&self, hostname: &Domain) -> Option<Fault> {
        let loaded = self.current.load();
        if covers(&loaded.names, &NamePattern::Exact(hostname.clone())) {
            return None;
        }
        let certificate = &self.files.certificate;
        Some(fault(
            &certificate.location,
            format!(
                "the certificate in {} is for {}, not for our own hostname {hostname}",
                certificate.value.display(),
                join_names(&loaded.names)
            ),
            format!(
                "Get one that carries {hostname}: partners that check names will refuse this one."
            ),
        ))
    }

    fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.load().key)
    }
}

impl LoadedIdentity {
    fn read(
        files: &IdentityFiles,
        must_carry: &[NamePattern],
        provider: &CryptoProvider,
    ) -> Result<Self, Vec<Fault>> {
        let (chain, key) = match (
            pem::certificates(&files.certificate),
            pem::private_key(&files.key),
        ) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        let (file, location) = (
            files.certificate.value.display(),
            &files.certificate.location,
        );
        let malformed = |der: &CertificateDer<'_>| certificate::parse(der).is_none();
        if let Some(index) = chain.iter().position(malformed) {
            return Err(vec![fault(
                location,
                format!("certificate {} of {file} is malformed", index + 1),
                "Copy the file again from its source.",
            )]);
        }
        let key = match provider.key_provider.load_private_key(key) {
            Ok(key) => Arc::new(CertifiedKey::new(chain, key)),
            Err(_) => {
                return Err(vec![fault(
                    &files.key.location,
                    format!(
                        "{} is not a key that TLS can use here",
                        files.key.value.display()
                    ),
                    "Use RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519.",
                )]);
            }
        };
        check_pair(files, &key).map_err(|fault| vec![fault])?;
        let names = certificate::dns_names(&key.cert[0]);
        check_names(files, &names, must_carry).map_err(|fault| vec![fault])?;
        let (not_before, not_after) = certificate::parse(&key.cert[0])
            .map_or((Timestamp::MIN, Timestamp::MAX), |leaf| {
                certificate::validity(&leaf)
            });
        Ok(Self {
            key,
            names,
            not_before,
            not_after,
        })
    }
}

/// Checks that the key belongs to the first certificate.
fn check_pair(files: &IdentityFiles, pair: &CertifiedKey) -> Result<(), Fault> {
    let (chain_file, key_file) = (files.certificate.value.display(), files.key.value.display());
    match pair.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(Error::InconsistentKeys(_)) => {
            let fits = |certificate: &CertificateDer<'static>| {
                CertifiedKey::new(vec![certificate.clone()], Arc::clone(&pair.key))
                    .keys_match()
                    .is_ok()
            };
            let remedy = match pair.cert.iter().position(fits) {
                Some(index) => format!(
                    "It belongs to certificate {} of the file: put that one first.",
                    index + 1
                ),
                None => "Name the key that the certificate was requested with.".to_owned(),
            };
            Err(fault(
                &files.key.location,
                format!("the key in {key_file} does not belong to the certificate in {chain_file}"),
                remedy,
            ))
        }
        Err(error) => Err(fault(
            &files.certificate.location,
            format!("the certificate in {chain_file} cannot be used: {error}"),
            "Get an X.509 version 3 certificate for TLS servers.",
        )),
    }
}

fn check_names(
    files: &IdentityFiles,
    names: &[NamePattern],
    must_carry: &[NamePattern],
) -> Result<(), Fault> {
    let missing: Vec<_> = must_carry
        .iter()
        .filter(|wanted| !covers(names, wanted))
        .cloned()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(fault(
        &files.certificate.location,
        format!(
            "the certificate in {} is for {}, but listed for {}",
            files.certificate.value.display(),
            join_names(names),
            join_names(&missing)
        ),
        "List only names that the certificate carries, or get one that carries them all.",
    ))
}

/// Returns true if a certificate covers all hosts of a pattern. One host under `*.example.org` is
/// not enough here, although it is for a peer's certificate.
fn covers(names: &[NamePattern], wanted: &NamePattern) -> bool {
    match wanted {
        NamePattern::Exact(_) => names.iter().any(|name| wanted.accepts(name)),
        NamePattern::OneLabelUnder(_) => names.contains(wanted),
    }
}

fn join_names(names: &[NamePattern]) -> String {
    if names.is_empty() {
        return "no DNS name at all".to_owned();
    }
    names
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Our identities as a server, by SNI (RFC 6066 §3).
#[derive(Debug)]
pub(super) struct ServerIdentities {
    default: Option<Arc<TlsIdentity>>,
    exact: HashMap<Domain, Arc<TlsIdentity>>,
    one_label_under: HashMap<Domain, Arc<TlsIdentity>>,
}

impl ServerIdentities {
    pub(super) fn new(default: Option<Arc<TlsIdentity>>) -> Self {
        Self {
            default,
            exact: HashMap::new(),
            one_label_under: HashMap::new(),
        }
    }

    /// Adds an identity for names. A name that is already there keeps its identity.
    pub(super) fn add(&mut self, names: &[NamePattern], identity: &Arc<TlsIdentity>) {
        for name in names {
            let (map, domain) = match name {
                NamePattern::Exact(domain) => (&mut self.exact, domain),
                NamePattern::OneLabelUnder(domain) => (&mut self.one_label_under, domain),
            };
            map.entry(domain.clone())
                .or_insert_with(|| Arc::clone(identity));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.default.is_none() && self.exact.is_empty() && self.one_label_under.is_empty()
    }

    fn choose(&self, name: Option<&str>) -> Option<&Arc<TlsIdentity>> {
        let listed = name
            .and_then(|name| Domain::parse(name).ok())
            .and_then(|name| {
                let wildcard = || self.one_label_under.get(&name.parent()?);
                self.exact.get(&name).or_else(wildcard)
            });
        listed.or(self.default.as_ref())
    }
}

impl ResolvesServerCert for ServerIdentities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
            .map(|identity| identity.key())
    }
}

/// Our identity as a client. It is sent to any server that asks, whatever authorities it hints at,
/// because the administrator configured it for this partner.
#[derive(Debug)]
pub(super) struct ClientIdentity(pub(super) Arc<TlsIdentity>);

impl ResolvesClientCert for ClientIdentity {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let key = self.0.key();
        key.key.choose_scheme(schemes).is_some().then_some(key)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
