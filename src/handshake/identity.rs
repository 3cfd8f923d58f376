//! Our own certificates with their keys: loaded, checked, and re-read while they are in use.

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
use crate::address::Domain;
use crate::config::{Fault, IdentityFiles};
use crate::tls::NamePattern;

/// Before its end a certificate is due to be replaced: this long, or the last third of a shorter life.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// One of our own certificates, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySummary {
    /// Its file.
    pub file: PathBuf,
    /// Its DNS names.
    pub names: Vec<String>,
    /// When it ends.
    pub not_after: Timestamp,
}

/// A certificate chain and its key, from two files that may change.
#[derive(Debug)]
pub(super) struct Identity {
    files: IdentityFiles,
    /// Names that the certificate is listed for and so must carry.
    must_carry: Vec<NamePattern>,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    names: Vec<NamePattern>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Identity {
    /// Loads and checks both files; every fault of either.
    pub(super) fn load(
        files: &IdentityFiles,
        must_carry: &[NamePattern],
        provider: &CryptoProvider,
    ) -> Result<Self, Vec<Fault>> {
        let current = Loaded::read(files, must_carry, provider)?;
        Ok(Self { files: files.clone(), must_carry: must_carry.to_vec(), current: ArcSwap::from_pointee(current) })
    }

    /// Reads the files again, and takes what is new if it is good. A file that is being replaced, one
    /// of the two so far, is a fault of that moment.
    pub(super) fn refresh(&self, provider: &CryptoProvider) -> Result<Option<IdentitySummary>, Vec<Fault>> {
        let new = Loaded::read(&self.files, &self.must_carry, provider)?;
        // The key fits the certificate, so the same chain means that nothing has changed.
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

    /// What is not wrong yet, or not wrong for everybody.
    pub(super) fn warnings(&self, now: Timestamp) -> Vec<Fault> {
        let loaded = self.current.load();
        let (file, place) = (self.files.certificate.value.display(), &self.files.certificate.place);
        let (begins, ends) = (loaded.not_before, loaded.not_after);
        let soon = SOON.min(ends.duration_since(begins) / 3);
        let renew = "Renew it; Gatepost takes the new file by itself.";
        let date = if now > ends {
            Some(fault(place, format!("the certificate in {file} expired on {ends}"), renew))
        } else if now < begins {
            Some(fault(
                place,
                format!("the certificate in {file} is not valid before {begins}"),
                "Set the clock of this machine, or get a certificate that is valid now.",
            ))
        } else if ends.duration_since(now) < soon {
            Some(fault(place, format!("the certificate in {file} expires on {ends}"), renew))
        } else {
            None
        };
        date.into_iter().chain(pem::key_warning(&self.files.key)).collect()
    }

    /// A warning where the certificate does not carry a name that it should.
    pub(super) fn warn_unless_carries(&self, hostname: &Domain) -> Option<Fault> {
        let loaded = self.current.load();
        if carries(&loaded.names, &NamePattern::Exact(hostname.clone())) {
            return None;
        }
        let certificate = &self.files.certificate;
        Some(fault(
            &certificate.place,
            format!(
                "the certificate in {} is for {}, not for our own hostname {hostname}",
                certificate.value.display(),
                list(&loaded.names)
            ),
            format!("Get one that carries {hostname}: partners that check names will refuse this one."),
        ))
    }

    fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.load().key)
    }
}

impl Loaded {
    fn read(files: &IdentityFiles, must_carry: &[NamePattern], provider: &CryptoProvider) -> Result<Self, Vec<Fault>> {
        let (chain, key) = match (pem::certificates(&files.certificate), pem::private_key(&files.key)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        let (file, place) = (files.certificate.value.display(), &files.certificate.place);
        let malformed = |der: &CertificateDer<'_>| certificate::parse(der).is_none();
        if let Some(index) = chain.iter().position(malformed) {
            return Err(vec![fault(
                place,
                format!("certificate {} of {file} is malformed", index + 1),
                "Copy the file again from where it came.",
            )]);
        }
        let key = match provider.key_provider.load_private_key(key) {
            Ok(key) => Arc::new(CertifiedKey::new(chain, key)),
            Err(_) => {
                return Err(vec![fault(
                    &files.key.place,
                    format!("{} is not a key that TLS can use here", files.key.value.display()),
                    "Use RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519.",
                )]);
            }
        };
        check_pair(files, &key).map_err(|fault| vec![fault])?;
        let names = certificate::dns_names(&key.cert[0]);
        check_names(files, &names, must_carry).map_err(|fault| vec![fault])?;
        let (not_before, not_after) = certificate::parse(&key.cert[0])
            .map_or((Timestamp::MIN, Timestamp::MAX), |leaf| certificate::validity(&leaf));
        Ok(Self { key, names, not_before, not_after })
    }
}

/// Whether the key belongs to the first certificate.
fn check_pair(files: &IdentityFiles, pair: &CertifiedKey) -> Result<(), Fault> {
    let (chain_file, key_file) = (files.certificate.value.display(), files.key.value.display());
    match pair.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(Error::InconsistentKeys(_)) => {
            let fits = |certificate: &CertificateDer<'static>| {
                CertifiedKey::new(vec![certificate.clone()], Arc::clone(&pair.key)).keys_match().is_ok()
            };
            let remedy = match pair.cert.iter().position(fits) {
                Some(index) => format!("It belongs to certificate {} of the file: put that one first.", index + 1),
                None => "Name the key that the certificate was requested with.".to_owned(),
            };
            Err(fault(
                &files.key.place,
                format!("the key in {key_file} does not belong to the certificate in {chain_file}"),
                remedy,
            ))
        }
        Err(error) => Err(fault(
            &files.certificate.place,
            format!("the certificate in {chain_file} cannot be used: {error}"),
            "Get an X.509 version 3 certificate for TLS servers.",
        )),
    }
}

fn check_names(files: &IdentityFiles, names: &[NamePattern], must_carry: &[NamePattern]) -> Result<(), Fault> {
    let missing: Vec<_> = must_carry.iter().filter(|wanted| !carries(names, wanted)).cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(fault(
        &files.certificate.place,
        format!(
            "the certificate in {} is for {}, but listed for {}",
            files.certificate.value.display(),
            list(names),
            list(&missing)
        ),
        "List only names that the certificate carries, or get one that carries them all.",
    ))
}

/// Whether a certificate is good for all that a pattern means. One host under `*.example.org` is not
/// enough for the pattern, while it is for a peer's certificate that must meet one.
fn carries(names: &[NamePattern], wanted: &NamePattern) -> bool {
    match wanted {
        NamePattern::Exact(_) => names.iter().any(|name| wanted.accepts(name)),
        NamePattern::OneLabelUnder(_) => names.contains(wanted),
    }
}

fn list(names: &[NamePattern]) -> String {
    if names.is_empty() {
        return "no DNS name at all".to_owned();
    }
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Our identities as a server, by SNI (RFC 6066 §3).
#[derive(Debug)]
pub(super) struct ServerIdentities {
    default: Option<Arc<Identity>>,
    exact: HashMap<Domain, Arc<Identity>>,
    one_label_under: HashMap<Domain, Arc<Identity>>,
}

impl ServerIdentities {
    pub(super) fn new(default: Option<Arc<Identity>>) -> Self {
        Self { default, exact: HashMap::new(), one_label_under: HashMap::new() }
    }

    /// Lists an identity for names. Where a name is listed twice, the first stays.
    pub(super) fn add(&mut self, names: &[NamePattern], identity: &Arc<Identity>) {
        for name in names {
            let (map, domain) = match name {
                NamePattern::Exact(domain) => (&mut self.exact, domain),
                NamePattern::OneLabelUnder(domain) => (&mut self.one_label_under, domain),
            };
            map.entry(domain.clone()).or_insert_with(|| Arc::clone(identity));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.default.is_none() && self.exact.is_empty() && self.one_label_under.is_empty()
    }

    fn choose(&self, name: Option<&str>) -> Option<&Arc<Identity>> {
        let listed = name.and_then(|name| Domain::parse(name).ok()).and_then(|name| {
            let wildcard = || self.one_label_under.get(&name.parent()?);
            self.exact.get(&name).or_else(wildcard)
        });
        listed.or(self.default.as_ref())
    }
}

impl ResolvesServerCert for ServerIdentities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name()).map(|identity| identity.key())
    }
}

/// Our identity as a client: shown to any server that asks, whatever authorities it hints at, for the
/// administrator has named it for this very partner.
#[derive(Debug)]
pub(super) struct ClientIdentity(pub(super) Arc<Identity>);

impl ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _root_hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = self.0.key();
        key.key.choose_scheme(schemes).is_some().then_some(key)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
