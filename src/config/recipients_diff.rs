//! The `[[recipients]]` tables as keys and values.

use super::setting::SettingValue;
use crate::policy::directory::DirectoryTls;
use crate::policy::recipients::{RecipientRules, RecipientSource};

/// Returns the keys of a table, all of them, with their values.
pub(super) fn recipient_settings(table: &RecipientRules) -> Vec<(&'static str, SettingValue)> {
    let RecipientRules {
        domains,
        source,
        plus_tags,
        cache,
        on_trouble,
        location: _,
    } = table;
    let (file, directory) = match source {
        RecipientSource::Ask => (SettingValue::Unset, None),
        RecipientSource::File(file) => (SettingValue::text(file.value.display()), None),
        RecipientSource::Ldap(directory) => (SettingValue::Unset, Some(directory)),
    };
    let unset_or = |value: Option<SettingValue>| value.unwrap_or(SettingValue::Unset);
    let answers = !matches!(source, RecipientSource::File(_));
    let login = directory.and_then(|directory| directory.login.as_ref());
    vec![
        ("domains", SettingValue::list(domains)),
        ("from", SettingValue::text(source.key())),
        ("file", file),
        (
            "url",
            unset_or(directory.map(|it| SettingValue::text(&it.url.value))),
        ),
        (
            "starttls",
            unset_or(directory.map(|it| (it.url.value.tls == DirectoryTls::StartTls).into())),
        ),
        (
            "trust",
            unset_or(
                directory
                    .and_then(|it| it.trust.as_ref())
                    .map(|it| SettingValue::trust(&it.value)),
            ),
        ),
        (
            "bind_dn",
            unset_or(login.map(|login| SettingValue::text(&login.bind_dn))),
        ),
        (
            "password_file",
            unset_or(login.map(|login| SettingValue::text(login.password_file.value.display()))),
        ),
        (
            "base",
            unset_or(directory.map(|it| SettingValue::text(&it.base))),
        ),
        (
            "filter",
            unset_or(directory.map(|it| SettingValue::text(it.filter.as_str()))),
        ),
        (
            "plus_tags",
            unset_or((table.source != RecipientSource::Ask).then(|| (*plus_tags).into())),
        ),
        (
            "cache",
            unset_or(answers.then(|| SettingValue::duration(*cache))),
        ),
        (
            "on_trouble",
            unset_or(answers.then(|| SettingValue::text(on_trouble.as_str()))),
        ),
    ]
}
