//! The `[[user]]` tables as written, and their resolution.

use std::collections::HashMap;
use std::sync::Arc;

use data_encoding::BASE64;
use toml::de::DeTable;

use super::password::StoredPassword;
use super::scram_text::parse_verifier;
use super::user::{MailUser, SenderPattern, UserList};
use crate::config::client_limits::COUNT_MAX;
use crate::config::fault_list::FaultList;
use crate::config::hosts::network;
use crate::config::reader::{Field, TableReader, TomlValue};
use crate::config::rules::reject_duplicates;
use crate::config::spelling::shorten;
use crate::config::values::{boolean, count, full_list, text, without_locations};
use crate::policy::location::Location;
use crate::smtp::address::{Domain, Mailbox};
use crate::smtp::sasl::prepare_name;
use crate::smtp::sasl::scram::ScramVerifier;

/// The least octets of `salt_secret`.
const SECRET_MIN: usize = 16;

/// Resolves the document.
pub(super) fn resolve_users(document: &DeTable<'_>, faults: &mut FaultList<'_>) -> UserList {
    let mut root = TableReader::root(document, faults);
    let salt_secret = root.read(faults, "salt_secret", secret).value().cloned();
    let tables = root.tables(faults, "user", "[[user]]").unwrap_or_default();
    let users: Vec<_> = tables
        .into_iter()
        .map(|table| UserToml::read(table, faults))
        .collect();
    root.finish(faults);
    check_names(&users, faults);
    check_costs(&users, faults);
    let cost = users
        .iter()
        .find_map(|user| Some(user.password.value()?.cost()));
    let users: HashMap<_, _> = users
        .into_iter()
        .filter_map(|user| {
            let user = user.resolve()?;
            Some((user.prepared.clone(), Arc::new(user)))
        })
        .collect();
    UserList {
        users,
        salt_secret,
        cost,
    }
}

/// A `[[user]]` table, as written.
struct UserToml {
    location: Location,
    name: Field<String>,
    password: Field<StoredPassword>,
    scram: Field<ScramVerifier>,
    disabled: Field<bool>,
    senders: Field<Vec<SenderPattern>>,
    null_sender: Field<bool>,
    check_from: Field<bool>,
    networks: Field<Vec<ipnet::IpNet>>,
    messages_per_hour: Field<u32>,
    recipients_per_hour: Field<u32>,
    connector: Field<String>,
}

impl UserToml {
    fn read(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> Self {
        let name = table.required(faults, "name", "name = \"scanner\"", user_name);
        let password = table.required(
            faults,
            "password",
            "password = \"$argon2id$…\", which `gatepost user passwd` writes",
            stored_password,
        );
        let scram = table.read(faults, "scram", verifier);
        let disabled = table.read(faults, "disabled", boolean);
        let senders = table.read(faults, "senders", |value, faults| {
            let remedy = "Write the addresses that the user may send from, such as [\"scanner@example.com\", \"*@example.org\"], or remove the key.";
            full_list(value, faults, remedy, sender).map(without_locations)
        });
        let null_sender = table.read(faults, "null_sender", boolean);
        let check_from = table.read(faults, "check_from", boolean);
        let mut number = |faults: &mut FaultList<'_>, key| {
            table.read(
                faults,
                key,
                |value: &TomlValue<'_>, faults: &mut FaultList<'_>| count(value, faults, COUNT_MAX),
            )
        };
        let messages_per_hour = number(faults, "messages_per_hour");
        let recipients_per_hour = number(faults, "recipients_per_hour");
        if let Some(check) = check_from
            .located()
            .filter(|check| check.value && senders.is_absent())
        {
            let remedy =
                "Add senders, the addresses that the From field may have, or remove check_from.";
            faults.add(&check.location, "check_from is set without senders", remedy);
        }
        let networks = table.read(faults, "networks", |value, faults| {
            let remedy = "Write the networks from which the user may log in, or remove the key.";
            full_list(value, faults, remedy, network).map(without_locations)
        });
        let connector = table.read(faults, "connector", |value, faults| {
            text(value, faults).map(str::to_owned)
        });
        let location = table.location().clone();
        table.finish(faults);
        Self {
            location,
            name,
            password,
            scram,
            disabled,
            senders,
            null_sender,
            check_from,
            networks,
            messages_per_hour,
            recipients_per_hour,
            connector,
        }
    }

    /// Returns the user; `None` if a fault has been reported.
    fn resolve(self) -> Option<MailUser> {
        let null_sender = self.null_sender.or(self.senders.is_absent());
        let senders = match self.senders {
            Field::Valid(senders) => Some(senders.value),
            Field::Absent | Field::Invalid => None,
        };
        let scram = match self.scram {
            Field::Valid(verifier) => Some(verifier.value),
            Field::Absent | Field::Invalid => None,
        };
        let name = self.name.value()?.clone();
        Some(MailUser {
            prepared: prepare_name(&name).ok()?,
            name,
            password: self.password.value()?.clone(),
            scram,
            disabled: self.disabled.or(false),
            senders,
            null_sender,
            check_from: self.check_from.or(false),
            networks: self.networks.or(Vec::new()),
            messages_per_hour: self.messages_per_hour.value().copied(),
            recipients_per_hour: self.recipients_per_hour.value().copied(),
            connector: self.connector.located().cloned(),
            location: self.location,
        })
    }
}

fn check_names(users: &[UserToml], faults: &mut FaultList<'_>) {
    let names = users.iter().filter_map(|user| user.name.located());
    let names = names.filter_map(|name| Some((prepare_name(&name.value).ok()?, &name.location)));
    reject_duplicates(names, faults, |name| {
        (
            format!("the user \"{}\" already exists", shorten(name)),
            "Remove one of the two; names are compared without regard to case.".to_owned(),
        )
    });
}

/// Rejects passwords and keys that cost more or less to check than those of the first user: the
/// time of an answer would say which users exist.
fn check_costs(users: &[UserToml], faults: &mut FaultList<'_>) {
    let remedy = "Set it anew with `gatepost user passwd NAME`.";
    let passwords = users.iter().filter_map(|user| user.password.located());
    let passwords = passwords.map(|password| (password.value.cost(), &password.location));
    reject_others(
        passwords,
        faults,
        "password has other costs of argon2id",
        remedy,
    );
    let keys = users.iter().filter_map(|user| user.scram.located());
    let keys = keys.map(|keys| (keys.value.iterations, &keys.location));
    reject_others(
        keys,
        faults,
        "scram has another number of iterations",
        remedy,
    );
}

fn reject_others<'a, T: PartialEq>(
    mut items: impl Iterator<Item = (T, &'a Location)>,
    faults: &mut FaultList<'_>,
    what: &str,
    remedy: &str,
) {
    let Some((first, place)) = items.next() else {
        return;
    };
    for (_, location) in items.filter(|(item, _)| *item != first) {
        faults.add(location, format!("{what} than at {place}"), remedy);
    }
}

fn user_name(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<String> {
    let name = text(value, faults)?;
    if let Err(error) = prepare_name(name) {
        let message = format!("name: \"{}\" is not usable: {error}", shorten(name));
        faults.add(
            &value.location,
            message,
            "Write 1 to 255 printable characters.",
        );
        return None;
    }
    Some(name.to_owned())
}

// A password in place of its hash must not be repeated in the fault.
fn stored_password(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<StoredPassword> {
    let hash = StoredPassword::parse(text(value, faults)?);
    if hash.is_none() {
        let message =
            "password is not the argon2id hash of a password, with costs that are accepted";
        faults.add(
            &value.location,
            message,
            "Let `gatepost user passwd NAME` write it.",
        );
    }
    hash
}

fn verifier(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<ScramVerifier> {
    let keys = parse_verifier(text(value, faults)?);
    if keys.is_none() {
        let message =
            "scram does not have the form \"SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY\"";
        faults.add(
            &value.location,
            message,
            "Let `gatepost user passwd NAME` write it.",
        );
    }
    keys
}

fn secret(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Vec<u8>> {
    let secret = BASE64.decode(text(value, faults)?.as_bytes()).ok();
    let secret = secret.filter(|secret| secret.len() >= SECRET_MIN);
    if secret.is_none() {
        let message = format!("salt_secret is not the base64 of {SECRET_MIN} or more octets");
        faults.add(
            &value.location,
            message,
            "Remove it; the next change by `gatepost user` writes another.",
        );
    }
    secret
}

fn sender(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<SenderPattern> {
    let written = text(value, faults)?;
    let pattern = match written.strip_prefix("*@") {
        Some(domain) => Domain::parse(domain).ok().map(SenderPattern::Domain),
        None => Mailbox::parse(written).ok().map(SenderPattern::Address),
    };
    if pattern.is_none() {
        let message = format!("senders: \"{}\" is not an address", shorten(written));
        let remedy = "Write \"scanner@example.com\", or \"*@example.com\" for every address of a domain; the null sender has the key null_sender.";
        faults.add(&value.location, message, remedy);
    }
    pattern
}
