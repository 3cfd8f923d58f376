//! `auth` of a connector: our login at its smart hosts.

use super::fault_list::FaultList;
use super::reader::{Field, TableReader, TomlValue};
use super::spelling::shorten;
use super::values::{path, text};
use crate::policy::connector::{SecretPlace, SmartHostAuth};
use crate::policy::location::Located;
use crate::smtp::sasl::NAME_MAX;

/// The beginning of the place of a secret that systemd passes to the service.
const CREDENTIAL: &str = "credential:";
/// The longest name of a credential (systemd.exec(5)): that of a file.
const CREDENTIAL_MAX: usize = 255;

/// Reads the table, which has a user and the place of the password.
pub(super) fn auth(
    parent: &mut TableReader<'_>,
    faults: &mut FaultList<'_>,
) -> Field<SmartHostAuth> {
    let mut table = parent.table(faults, "auth", "[connector.outbound.auth]");
    if table.is_absent() {
        return Field::Absent;
    }
    let location = table.location().clone();
    let user = table.required(faults, "user", "user = \"relay@example.com\"", user);
    let password = table.required(
        faults,
        "password_file",
        "password_file = \"smart-host.password\"",
        secret_place,
    );
    table.finish(faults);
    match (user, password) {
        (Field::Valid(user), Field::Valid(password)) => Field::Valid(Located {
            value: SmartHostAuth {
                user: user.value,
                password,
            },
            location,
        }),
        _ => Field::Invalid,
    }
}

fn user(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<String> {
    let name = text(value, faults)?;
    if name.is_empty() || name.len() > NAME_MAX || name.contains(char::is_control) {
        faults.add(
            &value.location,
            format!("{}: \"{}\" is not a user name", value.key, shorten(name)),
            "Write the name that the smart host has given you, such as \"relay@example.com\".",
        );
        return None;
    }
    Some(name.to_owned())
}

/// Reads the place of a secret: a path, or `credential:NAME`.
pub(super) fn secret_place(
    value: &TomlValue<'_>,
    faults: &mut FaultList<'_>,
) -> Option<SecretPlace> {
    let written = text(value, faults)?;
    let Some(name) = written.strip_prefix(CREDENTIAL) else {
        return path(value, faults).map(SecretPlace::File);
    };
    let is_name = !name.is_empty()
        && name.len() <= CREDENTIAL_MAX
        && !name.starts_with('.')
        && !name.contains(|c: char| c == '/' || c.is_control());
    if !is_name {
        let message = format!(
            "{}: \"{}\" is not the name of a credential",
            value.key,
            shorten(written)
        );
        faults.add(
            &value.location,
            message,
            "Write credential: and the name that LoadCredential= has in the unit of the service.",
        );
        return None;
    }
    Some(SecretPlace::Credential(name.to_owned()))
}
