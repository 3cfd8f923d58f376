//! Names in CRLs and certificates.

use x509_parser::extensions::{DistributionPointName, GeneralName};
use x509_parser::x509::X509Name;

/// Returns the URLs of a distribution point.
pub(super) fn urls(name: &DistributionPointName<'_>) -> Vec<String> {
    match name {
        DistributionPointName::FullName(names) => names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(url) => Some((*url).to_owned()),
                _ => None,
            })
            .collect(),
        DistributionPointName::NameRelativeToCRLIssuer(_) => Vec::new(),
    }
}

/// Formats a distinguished name on one line of at most 200 characters.
pub(super) fn readable_name(name: &X509Name<'_>) -> String {
    let shown: String = name
        .to_string()
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(200)
        .collect();
    if shown.is_empty() {
        "without a name".to_owned()
    } else {
        shown
    }
}
