//! TLS for both ends of the benchmark, with the development certificates of `certs/` (ECDSA on
//! P-256). The relays bring their own TLS.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::aws_lc_rs::{Ticketer, default_provider, kx_group};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The key exchange that both ends of the benchmark offer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyExchange {
    /// X25519 alone, which every relay has. An end that preferred X25519MLKEM768 would make
    /// handshakes more expensive for a relay that has it than for one that does not.
    Classical,
    /// X25519MLKEM768 if the relay has it, as rustls prefers.
    PostQuantum,
}

impl KeyExchange {
    /// Returns the name in the IANA registry.
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

/// Returns the path of a file in `certs/`.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("certs")
        .join(name)
}

/// Returns the configuration of the client. Like most mail servers it accepts any certificate whose
/// key the relay proves to hold, and it resumes sessions if the relay permits it.
///
/// # Errors
/// An error if the provider does not support TLS.
pub(crate) fn connector(key_exchange: KeyExchange) -> io::Result<TlsConnector> {
    let provider = key_exchange.provider();
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Opportunistic(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A verifier that checks the server's proof of its key, and nothing else of the certificate (RFC
/// 7435).
#[derive(Debug)]
struct Opportunistic(Arc<CryptoProvider>);

impl ServerCertVerifier for Opportunistic {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns the configuration of the sink, which issues session tickets like other servers.
///
/// # Errors
/// An error if certificate or key cannot be read.
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
