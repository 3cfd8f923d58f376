//! TLS for both ends of the bench, with the development certificates of `certs/` (ECDSA on P-256). Not the
//! relay's: that brings its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::aws_lc_rs::{Ticketer, default_provider, kx_group};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The key exchange that both ends of the bench are ready for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyExchange {
    /// X25519 alone, which every relay has. An end that preferred X25519MLKEM768 would make each handshake
    /// of a relay that knows it dearer, for relay and bench, than those of one that does not.
    Classical,
    /// X25519MLKEM768 where the relay has it, as rustls prefers.
    PostQuantum,
}

impl KeyExchange {
    /// As IANA calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Classical => "X25519",
            Self::PostQuantum => "X25519MLKEM768 where the relay has it, else X25519",
        }
    }

    fn provider(self) -> Arc<CryptoProvider> {
        let mut provider = default_provider();
        if self == Self::Classical {
            provider.kx_groups = vec![kx_group::X25519];
        }
        Arc::new(provider)
    }
}

/// A file of `certs/`.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("certs").join(name)
}

/// The client's side: it wants the relay's certificate from the development authority, and resumes
/// sessions where the relay lets it.
///
/// # Errors
/// If the authority cannot be read.
pub(crate) fn connector(key_exchange: KeyExchange) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).map_err(io::Error::other)?).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(key_exchange.provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The sink's side: it gives session tickets, as servers do, to whoever makes use of them.
///
/// # Errors
/// If certificate or key cannot be read.
pub(crate) fn acceptor(key_exchange: KeyExchange) -> io::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(file("partner.pem"))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(file("partner.key")).map_err(io::Error::other)?;
    let mut config = ServerConfig::builder_with_provider(key_exchange.provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    config.ticketer = Ticketer::new().map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
