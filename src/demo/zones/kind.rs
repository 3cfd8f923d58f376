//! The kinds of signing.

/// The kind of signing of a zone, with the DS record in its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Signed correctly.
    Signed,
    /// Signed correctly, with signatures that expire after this number of seconds.
    SignedFor(u32),
    /// Not signed; the parent proves that there is no DS record.
    Unsigned,
    /// Signed, but the parent has no DS record.
    Island,
    /// Signed, but the parent's DS record is that of another key.
    WrongKey,
    /// Signed with expired signatures.
    Expired,
    /// Without signatures, although the parent has a DS record.
    SignaturesLost,
}

impl Kind {
    /// Returns true if a validator considers the zone secure.
    pub(super) fn is_good(self) -> bool {
        matches!(self, Self::Signed | Self::SignedFor(_))
    }
}
