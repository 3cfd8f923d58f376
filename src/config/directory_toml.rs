//! The keys of a `[[recipients]]` table with `from = "ldap"`.

use std::path::PathBuf;

use super::fault_list::FaultList;
use super::reader::{Field, TableReader, TomlValue};
use super::spelling::shorten;
use super::values::{boolean, path, text, trust};
use crate::policy::connector::TrustSource;
use crate::policy::directory::{
    DirectoryLogin, DirectoryRules, DirectoryTls, DirectoryUrl, LdapFilter,
};
use crate::policy::location::{Located, Location};
use crate::smtp::address::Host;

/// The keys, as written.
pub(super) struct DirectoryToml {
    url: Field<DirectoryUrl>,
    starttls: Field<bool>,
    trust: Field<TrustSource>,
    bind_dn: Field<String>,
    password_file: Field<PathBuf>,
    base: Field<String>,
    filter: Field<LdapFilter>,
}

impl DirectoryToml {
    pub(super) fn read(table: &mut TableReader<'_>, faults: &mut FaultList<'_>) -> Self {
        Self {
            url: table.read(faults, "url", url),
            starttls: table.read(faults, "starttls", boolean),
            trust: table.read(faults, "trust", trust),
            bind_dn: table.read(faults, "bind_dn", name),
            password_file: table.read(faults, "password_file", path),
            base: table.read(faults, "base", name),
            filter: table.read(faults, "filter", filter),
        }
    }

    /// Returns the first key that is written, with its place.
    pub(super) fn written(&self) -> Option<(&'static str, &Location)> {
        let places = [
            ("url", self.url.located().map(|it| &it.location)),
            ("starttls", self.starttls.located().map(|it| &it.location)),
            ("trust", self.trust.located().map(|it| &it.location)),
            ("bind_dn", self.bind_dn.located().map(|it| &it.location)),
            (
                "password_file",
                self.password_file.located().map(|it| &it.location),
            ),
            ("base", self.base.located().map(|it| &it.location)),
            ("filter", self.filter.located().map(|it| &it.location)),
        ];
        places
            .into_iter()
            .find_map(|(key, place)| Some((key, place?)))
    }

    /// Checks the keys and resolves them. `None` if a fault has been reported.
    pub(super) fn resolve(
        self,
        table: &Location,
        faults: &mut FaultList<'_>,
    ) -> Option<DirectoryRules> {
        for (key, example, is_absent) in [
            (
                "url",
                "url = \"ldaps://dc1.example.com\"",
                self.url.is_absent(),
            ),
            (
                "base",
                "base = \"dc=example,dc=com\"",
                self.base.is_absent(),
            ),
            (
                "filter",
                "filter = \"(proxyAddresses=smtp:%s)\"",
                self.filter.is_absent(),
            ),
        ] {
            if is_absent {
                faults.add(
                    table,
                    format!("{key} is missing in [[recipients]] with from = \"ldap\""),
                    format!("Add to [[recipients]]: {example}"),
                );
            }
        }
        let login = self.login(faults);
        let url = self.url(faults);
        Some(DirectoryRules {
            url: url?,
            trust: self.trust.located().cloned(),
            login,
            base: self.base.located()?.value.clone(),
            filter: self.filter.located()?.value.clone(),
        })
    }

    /// Returns the login. A name without a password would be a login without proof, which many
    /// servers take for an anonymous one (RFC 4513 §5.1.2).
    fn login(&self, faults: &mut FaultList<'_>) -> Option<DirectoryLogin> {
        match (&self.bind_dn, &self.password_file) {
            (Field::Valid(name), Field::Valid(file)) => Some(DirectoryLogin {
                bind_dn: name.value.clone(),
                password_file: file.clone(),
            }),
            (Field::Valid(name), Field::Absent) => {
                faults.add(
                    &name.location,
                    "bind_dn is set without password_file",
                    "Add password_file, or remove bind_dn to search without a login.",
                );
                None
            }
            (Field::Absent, Field::Valid(file)) => {
                faults.add(
                    &file.location,
                    "password_file is set without bind_dn",
                    "Add bind_dn, the name that the password belongs to.",
                );
                None
            }
            _ => None,
        }
    }

    /// Returns the URL with its TLS. Outside of this machine, TLS is demanded, and a name that a
    /// certificate can have.
    fn url(&self, faults: &mut FaultList<'_>) -> Option<Located<DirectoryUrl>> {
        let mut url = self.url.located()?.clone();
        let starttls = self.starttls.resolve(false)?;
        if starttls && url.value.tls == DirectoryTls::Implicit {
            let location = self
                .starttls
                .located()
                .map_or(&url.location, |it| &it.location);
            faults.add(
                location,
                "starttls = true has no use with ldaps, which begins with TLS",
                "Remove it, or write url = \"ldap://…\".",
            );
            return None;
        }
        if starttls {
            url.value.tls = DirectoryTls::StartTls;
        }
        if url.value.tls == DirectoryTls::Off {
            if !url.value.is_local() {
                faults.add(
                    &url.location,
                    format!(
                        "url = \"{}\" sends addresses and the password in the clear",
                        url.value
                    ),
                    "Write url = \"ldaps://…\", or add starttls = true.",
                );
                return None;
            }
            if let Some(trust) = self.trust.located() {
                faults.add(
                    &trust.location,
                    "trust has no use: the directory is on this machine, without TLS",
                    "Remove it, or write url = \"ldaps://…\".",
                );
            }
        } else if let Host::Literal(address) = url.value.host {
            faults.add(
                &url.location,
                format!("url: a certificate is checked for a name, and {address} is none"),
                "Write the name of the server that its certificate has.",
            );
            return None;
        }
        Some(url)
    }
}

fn url(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<DirectoryUrl> {
    let written = text(value, faults)?;
    let url = DirectoryUrl::parse(written);
    if url.is_none() {
        faults.add(
            &value.location,
            format!("url: \"{}\" is not the URL of a directory", shorten(written)),
            "Write \"ldaps://dc1.example.com\", or \"ldap://dc1.example.com\" with starttls = true.",
        );
    }
    url
}

/// Reads a DN, or what a server takes in its place.
fn name(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<String> {
    let name = text(value, faults)?;
    if name.is_empty() || name.contains(char::is_control) {
        faults.add(
            &value.location,
            format!("{}: \"{}\" is not a name", value.key, shorten(name)),
            "Write a distinguished name, such as \"dc=example,dc=com\".",
        );
        return None;
    }
    Some(name.to_owned())
}

fn filter(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<LdapFilter> {
    let written = text(value, faults)?;
    match LdapFilter::parse(written) {
        Ok(filter) => Some(filter),
        Err(error) => {
            faults.add(
                &value.location,
                format!("filter: \"{}\": {error}", shorten(written)),
                "Write one such as \"(mail=%s)\" or \"(proxyAddresses=smtp:%s)\"; %s stands for the address.",
            );
            None
        }
    }
}
