//! TLS to the database: the certificate must be trusted and have the name of the host, or nothing is
//! sent.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::client::TlsStream as RustlsStream;
use x509_parser::parse_x509_certificate;

use crate::net::tls_io::{ClientTls, UnverifiedServer};
use crate::policy::tls::Groups;
use crate::smtp::address::Host;

/// The TLS of connections to a database; with nothing in it, there is none.
#[derive(Debug, Clone)]
pub struct DatabaseTlsClient(Option<ClientTls>);

impl DatabaseTlsClient {
    /// Makes the TLS with these trust anchors.
    #[must_use]
    pub fn new(client: ClientTls) -> Self {
        Self(Some(client))
    }

    /// Returns what connects without TLS alone.
    pub(super) fn none() -> Self {
        Self(None)
    }
}

impl<S> MakeTlsConnect<S> for DatabaseTlsClient
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = VerifiedStream<S>;
    type TlsConnect = DatabaseHandshake;
    type Error = DatabaseTlsError;

    fn make_tls_connect(&mut self, name: &str) -> Result<Self::TlsConnect, Self::Error> {
        let host = Host::parse(name).map_err(|_| DatabaseTlsError::NoName);
        Ok(DatabaseHandshake {
            client: self.0.clone(),
            host: host.ok(),
        })
    }
}

/// A handshake that is to be made.
pub struct DatabaseHandshake {
    client: Option<ClientTls>,
    host: Option<Host>,
}

/// The reason why a connection is not safe.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseTlsError {
    /// The host has no name that a certificate could have.
    #[error("a certificate is checked for a name, and the host has none")]
    NoName,
    /// The server is not proved to be the one that was meant.
    #[error("{0}; see [spool] trust")]
    Unverified(UnverifiedServer),
}

type HandshakeFuture<S> =
    Pin<Box<dyn Future<Output = Result<VerifiedStream<S>, DatabaseTlsError>> + Send>>;

impl<S> TlsConnect<S> for DatabaseHandshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = VerifiedStream<S>;
    type Error = DatabaseTlsError;
    type Future = HandshakeFuture<S>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let (Some(client), Some(host)) = (self.client, self.host) else {
                return Err(DatabaseTlsError::NoName);
            };
            let verified = client.connect_verified(stream, &host, Groups::PostQuantumFirst);
            let (stream, seen) = verified.await.map_err(DatabaseTlsError::Unverified)?;
            let binding = seen.chain().first().and_then(|leaf| server_end_point(leaf));
            Ok(VerifiedStream { stream, binding })
        })
    }
}

/// The stream of a session whose server has been verified.
pub struct VerifiedStream<S> {
    stream: RustlsStream<S>,
    binding: Option<Vec<u8>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for VerifiedStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.binding {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.clone()),
            None => ChannelBinding::none(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for VerifiedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for VerifiedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Returns the channel binding `tls-server-end-point` (RFC 5929 §4.1), which SCRAM uses with
/// PostgreSQL: the hash of the certificate by the hash of its own signature, or SHA-256 in place of
/// MD5 and SHA-1. `None` if the signature has no hash of its own, as that of Ed25519.
fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, read) = parse_x509_certificate(certificate).ok()?;
    let algorithm: &'static Algorithm =
        match read.signature_algorithm.algorithm.to_id_string().as_str() {
            // md5, sha1 and sha256 with RSA; ecdsa with sha1 and sha256.
            "1.2.840.113549.1.1.4"
            | "1.2.840.113549.1.1.5"
            | "1.2.840.113549.1.1.11"
            | "1.2.840.10045.4.1"
            | "1.2.840.10045.4.3.2" => &SHA256,
            "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &SHA384,
            "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &SHA512,
            _ => return None,
        };
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    };

    use super::*;

    #[test]
    fn the_channel_binding_has_the_hash_of_the_signature() {
        for (signature, hash) in [
            (&PKCS_ECDSA_P256_SHA256, Some(&SHA256)),
            (&PKCS_ECDSA_P384_SHA384, Some(&SHA384)),
            (&PKCS_ED25519, None),
        ] {
            let key = KeyPair::generate_for(signature).expect("a key");
            let params = CertificateParams::new(["db.example.com".to_owned()]).expect("a name");
            let certificate = params.self_signed(&key).expect("a certificate");
            let wanted = hash.map(|hash| digest(hash, certificate.der()).as_ref().to_vec());
            assert_eq!(server_end_point(certificate.der()), wanted);
        }
        assert_eq!(server_end_point(b"none"), None);
    }
}
