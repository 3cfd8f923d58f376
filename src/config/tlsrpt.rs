//! `[tlsrpt]`: reports to other domains about the TLS of our deliveries to them (RFC 8460).

use std::path::PathBuf;

use super::hosts::{domain, mailbox};
use super::place::Notes;
use super::reader::{Given, Table, Value, short};
use super::values::{boolean, path, text};
use super::{Located, Place};
use crate::address::{Domain, Mailbox};

/// Characters of an organization's name, at most.
const ORGANIZATION_MAX: usize = 200;
const KEY_REMEDY: &str =
    "Add dkim_key, the PEM file of the private key, or remove the other keys that begin with dkim_.";
const SELECTOR_REMEDY: &str = "Add dkim_selector: the public key is published at SELECTOR._domainkey.DOMAIN.";

/// `[tlsrpt]`.
#[derive(Debug, Clone)]
pub struct TlsReports {
    /// Whether results are counted, and reports sent to those who ask for them.
    pub send: Located<SendReports>,
    /// Who reports, in words.
    pub organization: String,
    /// Who answers questions about a report, and whom it comes from.
    pub contact: Mailbox,
    /// The domain that reports: the contact's.
    pub submitter: Domain,
    /// What reports by mail are signed with; without it recipients may ignore them.
    pub dkim: Option<DkimKey>,
}

/// `[tlsrpt] send`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendReports {
    /// Nothing is counted and nothing is sent.
    Off,
    /// Results are counted, and each day's are reported.
    Daily,
}

/// `dkim_domain`, `dkim_selector` and `dkim_key` (RFC 6376).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimKey {
    /// `d=`: the contact's domain, or one above it.
    pub domain: Domain,
    /// `s=`: the key is published at `SELECTOR._domainkey.DOMAIN`.
    pub selector: Domain,
    /// The private key, in PEM.
    pub file: Located<PathBuf>,
}

/// `[tlsrpt]` as written.
pub(super) struct Written {
    place: Place,
    send: Given<bool>,
    organization: Given<String>,
    contact: Given<Mailbox>,
    domain: Given<Domain>,
    selector: Given<Domain>,
    key: Given<PathBuf>,
}

impl Written {
    pub(super) fn read(mut table: Table<'_>, notes: &mut Notes<'_>) -> Self {
        let send = table.read(notes, "send", boolean);
        let organization = table.read(notes, "organization", organization);
        let contact = table.read(notes, "contact", mailbox);
        let domain = table.read(notes, "dkim_domain", domain);
        let selector = table.read(notes, "dkim_selector", selector);
        let key = table.read(notes, "dkim_key", path);
        let place = table.place().clone();
        table.finish(notes);
        Self { place, send, organization, contact, domain, selector, key }
    }

    /// What it means beside our name and our postmaster; nothing where one of the two, or the contact, is
    /// not known.
    pub(super) fn meant(
        self,
        hostname: &Given<Domain>,
        postmaster: &Given<Mailbox>,
        notes: &mut Notes<'_>,
    ) -> Option<TlsReports> {
        let send = match &self.send {
            Given::Good(send) if send.value => Located { value: SendReports::Daily, place: send.place.clone() },
            Given::Good(send) => Located { value: SendReports::Off, place: send.place.clone() },
            Given::Absent | Given::Bad => Located { value: SendReports::Off, place: self.place.clone() },
        };
        let contact = match (&self.contact, postmaster) {
            (Given::Good(contact), _) => contact.clone(),
            (Given::Absent, Given::Good(postmaster)) => {
                Located { value: postmaster.value.clone(), place: send.place.clone() }
            }
            _ => return None,
        };
        // A postmaster that cannot be a contact is none of this table's business while nothing is sent.
        if send.value == SendReports::Daily || !self.contact.is_absent() {
            check_contact(&contact, notes);
        }
        let dkim = self.dkim(&contact.value, notes);
        if send.value == SendReports::Daily && dkim.is_none() && self.key.is_absent() && self.selector.is_absent() {
            let message = "reports by mail are not signed, and recipients must ignore such reports (RFC 8460 3)";
            let remedy = "Add dkim_selector and dkim_key, and publish the public key with \"s=tlsrpt\" or without s=.";
            notes.warn(&send.place, message, remedy);
        }
        let contact = contact.value;
        // A literal is a fault where reports are sent, and of no consequence where they are not.
        let submitter = contact.host().domain().or(hostname.value())?.clone();
        let organization = self.organization.or(hostname.value()?.to_string());
        Some(TlsReports { send, organization, contact, submitter, dkim })
    }

    fn dkim(&self, contact: &Mailbox, notes: &mut Notes<'_>) -> Option<DkimKey> {
        let missing = |has: &str, place: &Place, lacks: &str, remedy: &str, notes: &mut Notes<'_>| {
            notes.fault(place, format!("{has} stands without {lacks}"), remedy);
        };
        let (file, selector) = match (&self.key, &self.selector) {
            (Given::Good(file), Given::Good(selector)) => (file, selector),
            (Given::Good(file), Given::Absent) => {
                missing("dkim_key", &file.place, "dkim_selector", SELECTOR_REMEDY, notes);
                return None;
            }
            (Given::Absent, Given::Good(selector)) => {
                missing("dkim_selector", &selector.place, "dkim_key", KEY_REMEDY, notes);
                return None;
            }
            (Given::Absent, Given::Absent) => {
                if let Some(domain) = self.domain.located() {
                    missing("dkim_domain", &domain.place, "dkim_key", KEY_REMEDY, notes);
                }
                return None;
            }
            (Given::Bad, _) | (_, Given::Bad) => return None,
        };
        let of_contact = contact.host().domain()?;
        let domain = match &self.domain {
            Given::Good(domain) => {
                if domain.value != *of_contact && !of_contact.is_below(&domain.value) {
                    let message = format!(
                        "dkim_domain = \"{}\" cannot sign for the contact, whose domain is {of_contact}",
                        domain.value
                    );
                    let remedy = "Write the contact's domain or one above it, or choose a contact in this domain.";
                    notes.fault(&domain.place, message, remedy);
                }
                domain.value.clone()
            }
            Given::Absent => of_contact.clone(),
            Given::Bad => return None,
        };
        Some(DkimKey { domain, selector: selector.value.clone(), file: file.clone() })
    }
}

fn check_contact(contact: &Located<Mailbox>, notes: &mut Notes<'_>) {
    let remedy =
        "Write contact as a mailbox of ASCII letters at a domain of yours, such as \"tls-reports@example.com\".";
    if contact.value.host().domain().is_none() {
        notes.fault(&contact.place, format!("the contact {} has no domain to report for", contact.value), remedy);
    } else if !contact.value.is_ascii() {
        let message = format!("the contact {} cannot be written without SMTPUTF8", contact.value);
        notes.fault(&contact.place, message, remedy);
    }
}

fn organization(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<String> {
    let name = text(value, notes)?;
    let bad = name.trim().is_empty() || name.chars().count() > ORGANIZATION_MAX || name.contains(char::is_control);
    if bad {
        let remedy = format!("Write 1 to {ORGANIZATION_MAX} characters on one line, such as \"Example Ltd\".");
        notes.fault(&value.place, format!("{}: \"{}\" is not a usable name", value.key, short(name)), remedy);
        return None;
    }
    Some(name.trim().to_owned())
}

/// A DKIM selector: labels with dots between them, as in a domain, but without underscores (RFC 6376 §3.1).
fn selector(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<Domain> {
    let written = text(value, notes)?;
    let selector = Domain::parse(written).ok().filter(|selector| !selector.as_str().contains('_'));
    if selector.is_none() {
        let message = format!("{}: \"{}\" is not a selector", value.key, short(written));
        notes.fault(
            &value.place,
            message,
            "Write letters, digits and hyphens, with dots between, such as \"gatepost\".",
        );
    }
    selector
}
