//! Certificate verifiers that accept any certificate, and check that the peer holds its key.
//!
//! The signature check of rustls parses the whole certificate, and so rejects X.509 version 1 and
//! unknown critical extensions. Here the signature is checked with the bare public key. The
//! certificate is judged after the handshake, but it is always the peer's own. A key that the
//! library cannot check ([`LeafKey::Uncheckable`]) does not fail the handshake, but proves nothing.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    SignatureScheme,
};
use webpki::RawPublicKeyEntity;

use super::leaf_key::{ALGORITHMS, CheckableKey, LeafKey};

/// The verifier for both directions.
#[derive(Debug)]
pub(super) struct RecordingVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    /// The signature schemes that are offered after those that can be checked.
    uncheckable: &'static [SignatureScheme],
}

impl RecordingVerifier {
    pub(super) fn new() -> Self {
        Self {
            algorithms: *ALGORITHMS,
            uncheckable: &[],
        }
    }

    /// Makes a verifier that also offers these schemes, for keys that prove nothing.
    pub(super) fn listing(uncheckable: &'static [SignatureScheme]) -> Self {
        Self {
            uncheckable,
            ..Self::new()
        }
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        [&self.algorithms.supported_schemes(), self.uncheckable].concat()
    }

    /// Checks a handshake signature with the key of the certificate, unless that key cannot be
    /// checked.
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        verify: impl FnOnce(&CheckableKey) -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match LeafKey::of(certificate) {
            LeafKey::Checkable(key) => verify(&key),
            // A scheme that was not offered is a protocol violation nevertheless (RFC 8446 §4.4.3).
            LeafKey::Uncheckable(_) if !self.schemes().contains(&signed.scheme) => {
                Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
            }
            // This is the only value that lets rustls continue. `CompletedHandshake` then provides
            // no key.
            LeafKey::Uncheckable(_) => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    /// Checks a TLS 1.3 signature: the scheme alone determines the algorithm (RFC 8446 §4.2.3).
    fn tls13(
        &self,
        message: &[u8],
        key: &CheckableKey,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, key.spki(), signed, &self.algorithms)
    }

    /// Checks a TLS 1.2 signature: the scheme names the hash and the key the curve, so each
    /// algorithm of the scheme is tried (RFC 5246 §7.4.1.4.1).
    fn tls12(
        &self,
        message: &[u8],
        key: &CheckableKey,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some((_, algorithms)) = self
            .algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == signed.scheme)
        else {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        };
        let key =
            RawPublicKeyEntity::try_from(key.spki()).map_err(|_| CertificateError::BadEncoding)?;
        if algorithms.iter().any(|algorithm| {
            key.verify_signature(*algorithm, message, signed.signature())
                .is_ok()
        }) {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }
}

impl ServerCertVerifier for RecordingVerifier {
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
        self.check(certificate, signed, |key| self.tls12(message, key, signed))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(certificate, signed, |key| self.tls13(message, key, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for RecordingVerifier {
    /// A client without a certificate is accepted here; the connectors decide whether that is
    /// enough.
    // Rule: RFC 3207 §4.1; policy table (inbound).
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: with hints, many clients would not send a certificate of their own authority.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(certificate, signed, |key| self.tls12(message, key, signed))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(certificate, signed, |key| self.tls13(message, key, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
