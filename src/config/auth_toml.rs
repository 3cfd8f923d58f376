//! `auth` of a connector: our login at its smart hosts.

use super::fault_list::FaultList;
use super::oauth2_toml::token_settings;
use super::reader::{Field, TableReader, TomlValue};
use super::secret_place::secret_place;
use super::spelling::shorten;
use super::values::text;
use crate::policy::connector::{LoginSecret, SmartHostAuth};
use crate::policy::location::Located;
use crate::smtp::sasl::NAME_MAX;

const TITLE: &str = "[connector.outbound.auth]";

/// Reads the table, which has a user, and either the place of the password or the settings of access
/// tokens.
pub(super) fn auth(
    parent: &mut TableReader<'_>,
    faults: &mut FaultList<'_>,
) -> Field<SmartHostAuth> {
    let mut table = parent.table(faults, "auth", TITLE);
    if table.is_absent() {
        return Field::Absent;
    }
    let location = table.location().clone();
    let user = table.required(faults, "user", "user = \"relay@example.com\"", user);
    let password = table.read(faults, "password_file", secret_place);
    let tokens = token_settings(&mut table, faults);
    table.finish(faults);
    let secret = match (password, tokens) {
        (Field::Valid(place), Field::Absent) => LoginSecret::Password(place),
        (Field::Absent, Field::Valid(settings)) => LoginSecret::OAuth2(Box::new(settings.value)),
        (Field::Valid(place), Field::Valid(_)) => {
            faults.add(
                &place.location,
                "password_file and oauth2 are both set; a login has one secret",
                "Remove one of them.",
            );
            return Field::Invalid;
        }
        (Field::Absent, Field::Absent) => {
            faults.add(
                &location,
                format!("{TITLE} has neither password_file nor oauth2"),
                "Add to auth: password_file = \"smart-host.password\"",
            );
            return Field::Invalid;
        }
        (Field::Invalid, _) | (_, Field::Invalid) => return Field::Invalid,
    };
    match user {
        Field::Valid(user) => Field::Valid(Located {
            value: SmartHostAuth {
                user: user.value,
                secret,
            },
            location,
        }),
        Field::Absent | Field::Invalid => Field::Invalid,
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
