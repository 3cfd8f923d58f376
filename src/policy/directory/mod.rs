//! Directories: the settings of a search, and the grammar of filters. No I/O.

pub mod ber;
mod filter;
mod url;

use std::path::PathBuf;

use crate::policy::connector::TrustSource;
use crate::policy::location::Located;

pub use filter::{FilterError, LdapFilter};
pub use url::{DirectoryTls, DirectoryUrl};

/// The settings of a search for recipients in an LDAP directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryRules {
    /// The server.
    pub url: Located<DirectoryUrl>,
    /// The trust anchors for its certificate; `None` for those of `[tls]`.
    pub trust: Option<Located<TrustSource>>,
    /// The name and the file of the password for a simple bind; `None` for an anonymous search.
    pub login: Option<DirectoryLogin>,
    /// The entry below which is searched.
    pub base: String,
    /// The filter.
    pub filter: LdapFilter,
}

/// The login at a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryLogin {
    /// The name, a DN or what the server takes in its place.
    pub bind_dn: String,
    /// The file of the password.
    pub password_file: Located<PathBuf>,
}
