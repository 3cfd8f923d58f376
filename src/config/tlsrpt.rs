//! The `[tlsrpt]` table: reports to other domains on the TLS of our deliveries to them (RFC 8460).

use std::path::PathBuf;

use super::fault_list::FaultList;
use super::hosts::{domain, mailbox};
use super::reader::{Field, TableReader, TomlValue};
use super::settings::{DkimKey, SendReports, TlsrptConfig};
use super::spelling::shorten;
use super::values::{boolean, path, text};
use crate::policy::location::{Located, Location};
use crate::smtp::address::{Domain, Mailbox};

/// The most characters of an organization's name.
const ORGANIZATION_MAX: usize = 200;
const KEY_REMEDY: &str = "Add dkim_key, the PEM file of the private key, or remove the other keys that begin with dkim_.";
const SELECTOR_REMEDY: &str =
    "Add dkim_selector: the public key is published at SELECTOR._domainkey.DOMAIN.";

/// The `[tlsrpt]` table, as written.
pub(super) struct TlsrptToml {
    location: Location,
    send: Field<bool>,
    organization: Field<String>,
    contact: Field<Mailbox>,
    domain: Field<Domain>,
    selector: Field<Domain>,
    key: Field<PathBuf>,
}

impl TlsrptToml {
    pub(super) fn read(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> Self {
        let send = table.read(faults, "send", boolean);
        let organization = table.read(faults, "organization", organization);
        let contact = table.read(faults, "contact", mailbox);
        let domain = table.read(faults, "dkim_domain", domain);
        let selector = table.read(faults, "dkim_selector", selector);
        let key = table.read(faults, "dkim_key", path);
        let location = table.location().clone();
        table.finish(faults);
        Self {
            location,
            send,
            organization,
            contact,
            domain,
            selector,
            key,
        }
    }

    /// Resolves the table with our host name and postmaster. `None` if one of the two, or the
    /// contact, is not known.
    pub(super) fn resolve(
        self,
        hostname: &Field<Domain>,
        postmaster: &Field<Mailbox>,
        faults: &mut FaultList<'_>,
    ) -> Option<TlsrptConfig> {
        let send = match &self.send {
            Field::Valid(send) if send.value => Located {
                value: SendReports::Daily,
                location: send.location.clone(),
            },
            Field::Valid(send) => Located {
                value: SendReports::Off,
                location: send.location.clone(),
            },
            Field::Absent | Field::Invalid => Located {
                value: SendReports::Off,
                location: self.location.clone(),
            },
        };
        let contact = match (&self.contact, postmaster) {
            (Field::Valid(contact), _) => contact.clone(),
            (Field::Absent, Field::Valid(postmaster)) => Located {
                value: postmaster.value.clone(),
                location: send.location.clone(),
            },
            _ => return None,
        };
        // A postmaster who cannot be the contact matters only if reports are sent.
        if send.value == SendReports::Daily || !self.contact.is_absent() {
            check_contact(&contact, faults);
        }
        let dkim = self.dkim(&contact.value, faults);
        if send.value == SendReports::Daily
            && dkim.is_none()
            && self.key.is_absent()
            && self.selector.is_absent()
        {
            let message = "reports by mail are not signed, and recipients must ignore such reports (RFC 8460 3)";
            let remedy = "Add dkim_selector and dkim_key, and publish the public key with \"s=tlsrpt\" or without s=.";
            faults.warn(&send.location, message, remedy);
        }
        let contact = contact.value;
        // An address literal is a fault only if reports are sent.
        let submitter = contact.host().domain().or(hostname.value())?.clone();
        let organization = self.organization.or(hostname.value()?.to_string());
        Some(TlsrptConfig {
            send,
            organization,
            contact,
            submitter,
            dkim,
        })
    }

    fn dkim(&self, contact: &Mailbox, faults: &mut FaultList<'_>) -> Option<DkimKey> {
        let missing = |has: &str,
                       location: &Location,
                       lacks: &str,
                       remedy: &str,
                       faults: &mut FaultList<'_>| {
            faults.add(location, format!("{has} is set without {lacks}"), remedy);
        };
        let (file, selector) = match (&self.key, &self.selector) {
            (Field::Valid(file), Field::Valid(selector)) => (file, selector),
            (Field::Valid(file), Field::Absent) => {
                missing(
                    "dkim_key",
                    &file.location,
                    "dkim_selector",
                    SELECTOR_REMEDY,
                    faults,
                );
                return None;
            }
            (Field::Absent, Field::Valid(selector)) => {
                missing(
                    "dkim_selector",
                    &selector.location,
                    "dkim_key",
                    KEY_REMEDY,
                    faults,
                );
                return None;
            }
            (Field::Absent, Field::Absent) => {
                if let Some(domain) = self.domain.located() {
                    missing(
                        "dkim_domain",
                        &domain.location,
                        "dkim_key",
                        KEY_REMEDY,
                        faults,
                    );
                }
                return None;
            }
            (Field::Invalid, _) | (_, Field::Invalid) => return None,
        };
        let of_contact = contact.host().domain()?;
        let domain = match &self.domain {
            Field::Valid(domain) => {
                if domain.value != *of_contact && !of_contact.is_below(&domain.value) {
                    let message = format!(
                        "dkim_domain = \"{}\" cannot sign for the contact, whose domain is {of_contact}",
                        domain.value
                    );
                    let remedy = "Write the contact's domain or one above it, or choose a contact in this domain.";
                    faults.add(&domain.location, message, remedy);
                }
                domain.value.clone()
            }
            Field::Absent => of_contact.clone(),
            Field::Invalid => return None,
        };
        Some(DkimKey {
            domain,
            selector: selector.value.clone(),
            file: file.clone(),
        })
    }
}

fn check_contact(contact: &Located<Mailbox>, faults: &mut FaultList<'_>) {
    let remedy = "Write contact as a mailbox of ASCII letters at a domain of yours, such as \"tls-reports@example.com\".";
    if contact.value.host().domain().is_none() {
        faults.add(
            &contact.location,
            format!("the contact {} has no domain to report for", contact.value),
            remedy,
        );
    } else if !contact.value.is_ascii() {
        let message = format!(
            "the contact {} cannot be written without SMTPUTF8",
            contact.value
        );
        faults.add(&contact.location, message, remedy);
    }
}

fn organization(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<String> {
    let name = text(value, faults)?;
    let bad = name.trim().is_empty()
        || name.chars().count() > ORGANIZATION_MAX
        || name.contains(char::is_control);
    if bad {
        let remedy = format!(
            "Write 1 to {ORGANIZATION_MAX} characters on one line, such as \"Example Ltd\"."
        );
        faults.add(
            &value.location,
            format!("{}: \"{}\" is not a usable name", value.key, shorten(name)),
            remedy,
        );
        return None;
    }
    Some(name.trim().to_owned())
}

/// Reads a DKIM selector: labels with dots between them, as in a domain, but without underscores
/// (RFC 6376 §3.1).
fn selector(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Domain> {
    let written = text(value, faults)?;
    let selector = Domain::parse(written)
        .ok()
        .filter(|selector| !selector.as_str().contains('_'));
    if selector.is_none() {
        let message = format!("{}: \"{}\" is not a selector", value.key, shorten(written));
        faults.add(
            &value.location,
            message,
            "Write letters, digits and hyphens, with dots between, such as \"gatepost\".",
        );
    }
    selector
}
