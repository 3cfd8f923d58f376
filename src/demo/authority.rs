//! A certificate authority that exists only while the demo runs, and that only the demo's relay and
//! peers trust.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::error::DemoError;

/// The authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate with its private key.
pub(super) struct DemoIdentity {
    certificate_pem: String,
    key_pem: String,
    /// The SHA-256 of the public key, as in a TLSA record "3 1 1" (RFC 6698 §2.1).
    pub(super) key_sha256: Vec<u8>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// A fault in a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    SelfSigned,
    /// It expired in 2001.
    Expired,
}

impl Authority {
    pub(super) fn new() -> Result<Self, DemoError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = name("Gatepost demo authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Returns the certificate of the authority in PEM format.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues a certificate for one host.
    pub(super) fn issue(&self, host: &str, flaw: Flaw) -> Result<DemoIdentity, DemoError> {
        self.issue_for(vec![host.to_owned()], flaw)
    }

    /// Issues a certificate for several hosts. Its subject is the first of them.
    pub(super) fn issue_for(
        &self,
        hosts: Vec<String>,
        flaw: Flaw,
    ) -> Result<DemoIdentity, DemoError> {
        let title = name(hosts.first().map_or("", String::as_str));
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name = title;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        if flaw == Flaw::Expired {
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate()?;
        let certificate = match flaw {
            Flaw::SelfSigned => params.self_signed(&key)?,
            Flaw::None | Flaw::Expired => params.signed_by(&key, &self.issuer)?,
        };
        let key_digest = digest(&SHA256, &key.subject_public_key_info());
        Ok(DemoIdentity {
            key_sha256: key_digest.as_ref().to_vec(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }

    /// Returns the TLS configuration of a client that trusts this authority, with or without a
    /// client certificate.
    pub(super) fn client(
        &self,
        identity: Option<&DemoIdentity>,
    ) -> Result<Arc<ClientConfig>, DemoError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        Ok(Arc::new(match identity {
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?
            }
            None => builder.with_no_client_auth(),
        }))
    }
}

impl DemoIdentity {
    /// Returns the TLS configuration of a server with this certificate.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, DemoError> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        Ok(Arc::new(config))
    }

    /// Writes the certificate to `NAME.pem` and the key to `NAME.key` in a folder.
    pub(super) fn write_files(&self, folder: &Path, name: &str) -> std::io::Result<()> {
        std::fs::write(folder.join(format!("{name}.pem")), &self.certificate_pem)?;
        write_secret(&folder.join(format!("{name}.key")), &self.key_pem)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}
