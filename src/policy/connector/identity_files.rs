//! The files of an identity of ours, and the sources of trust anchors.

use std::path::PathBuf;

use crate::policy::location::Located;

/// A certificate chain and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The chain, leaf first.
    pub certificate: Located<PathBuf>,
    /// The private key.
    pub key: Located<PathBuf>,
}

/// The source of trust anchors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TrustSource {
    /// Mozilla's root certificates, built in.
    Webpki,
    /// The root certificates of the operating system.
    System,
    /// A PEM file.
    File(PathBuf),
}
