//! A quarantined entry that nobody is informed of yet.

/// A quarantined entry whose sender cannot be informed, because its envelope cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Its queue id, or the name of the quarantined part of the spool.
    pub name: String,
    /// A description of the damage.
    pub fault: String,
    /// The quarantined files, as a path with a wildcard.
    pub files: String,
}
