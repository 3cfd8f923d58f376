//! `[spool]`, `[cluster]` and `[evidence]` as keys and values.

use std::path::PathBuf;

use super::setting::SettingValue;
use super::settings::{DatabaseConfig, EvidenceConfig, EvidencePath};
use crate::policy::location::Located;

/// Returns the keys of `[spool]`. The URL has no password.
pub(super) fn spool_settings(
    folder: &Located<PathBuf>,
    database: Option<&DatabaseConfig>,
) -> Vec<(&'static str, SettingValue)> {
    let unset_or = |value: Option<SettingValue>| value.unwrap_or(SettingValue::Unset);
    let password_file = database.and_then(|it| it.password_file.as_ref());
    let with_tls = database.filter(|it| it.url.value.uses_tls());
    vec![
        ("path", SettingValue::text(folder.value.display())),
        (
            "url",
            unset_or(database.map(|it| SettingValue::text(&it.url.value))),
        ),
        (
            "password_file",
            unset_or(password_file.map(|place| SettingValue::text(&place.value))),
        ),
        (
            "trust",
            unset_or(with_tls.map(|it| SettingValue::trust(&it.trust.value))),
        ),
    ]
}

/// Returns the keys of `[cluster]`.
pub(super) fn cluster_settings(
    database: Option<&DatabaseConfig>,
) -> Vec<(&'static str, SettingValue)> {
    let (node, lease) = database.map_or((SettingValue::Unset, SettingValue::Unset), |it| {
        let node = SettingValue::text(&it.node.value);
        (node, SettingValue::duration(it.lease))
    });
    vec![("node", node), ("lease", lease)]
}

/// Returns the keys of `[evidence]`.
pub(super) fn evidence_settings(evidence: &EvidenceConfig) -> Vec<(&'static str, SettingValue)> {
    let folder = match &evidence.path.value {
        EvidencePath::Off => SettingValue::text(""),
        EvidencePath::Folder(path) => SettingValue::text(path.display()),
    };
    vec![
        ("path", folder),
        ("keep", SettingValue::duration(evidence.keep)),
        ("max_size", evidence.max_size.octets().into()),
    ]
}
