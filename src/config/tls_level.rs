//! The level of TLS that a file demands.

/// `tls` of a direction, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WrittenTlsLevel {
    Off,
    Opportunistic,
    Forced,
}

impl WrittenTlsLevel {
    /// The levels of mail to a domain, by name. Mail from a domain cannot have `off`.
    pub(super) const OUTBOUND: [(&str, Self); 3] = [
        ("off", Self::Off),
        ("opportunistic", Self::Opportunistic),
        ("forced", Self::Forced),
    ];
    /// The levels of mail from a domain, by name.
    pub(super) const INBOUND: [(&str, Self); 2] = [
        ("opportunistic", Self::Opportunistic),
        ("forced", Self::Forced),
    ];
}
