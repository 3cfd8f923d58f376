//! The scale of assurance, on which sessions and demands are compared.

/// The assurance of a session (what its TLS proves) or of a demand (what must be proved), in
/// ascending order.
///
/// This is the only scale. Evidence, downgrade memory and coverage each show it with fewer steps
/// and with names of their own, which are stored on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assurance {
    /// No TLS.
    None,
    /// Encrypted. The peer is not authenticated.
    Encrypted,
    /// Encrypted, with a certificate that chains to a trust anchor but is verified for no name.
    Chain,
    /// Verified as a name: the certificate chains to a trust anchor and carries a name that was
    /// expected.
    Name,
    /// Verified by a key that the connector pins.
    Pin,
    /// Verified by DANE as the host. Nothing proves that the host is the domain's (RFC 7672
    /// §2.2.1).
    DaneHost,
    /// Verified by DANE as a host of the recipient domain.
    DaneDomain,
}

impl Assurance {
    /// All steps in ascending order.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Encrypted,
        Self::Chain,
        Self::Name,
        Self::Pin,
        Self::DaneHost,
        Self::DaneDomain,
    ];
}
