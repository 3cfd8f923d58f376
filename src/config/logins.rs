//! Rules about logins: `auth` and `auth_required` of a listener, and `[users]`.

use super::fault_list::FaultList;
use super::reader::Field;
use super::settings::{ListenerTls, UsersConfig};
use super::tls_toml::ListenerToml;

/// Checks the keys about logins against each other.
// Rule: RFC 4954 §4.
pub(super) fn check(
    listeners: Option<&[ListenerToml]>,
    users: &Field<UsersConfig>,
    faults: &mut FaultList<'_>,
) {
    for listener in listeners.unwrap_or_default() {
        check_listener(listener, users, faults);
    }
}

fn check_listener(listener: &ListenerToml, users: &Field<UsersConfig>, faults: &mut FaultList<'_>) {
    let auth = listener
        .auth
        .located()
        .filter(|auth| !auth.value.is_empty());
    if let Some(auth) = auth {
        if listener.tls.value() == Some(&ListenerTls::Off) {
            faults.add(
                &auth.location,
                "nobody can log in at a listener with tls = \"off\": AUTH is offered under TLS alone",
                "Let the listener offer TLS, or remove auth.",
            );
        }
        if users.is_absent() {
            faults.add(
                &auth.location,
                "auth is set, but there are no users",
                "Add [users] with file = \"users.toml\", which `gatepost user add NAME` makes.",
            );
        }
    }
    let required = listener
        .auth_required
        .located()
        .filter(|required| required.value);
    if let Some(required) =
        required.filter(|_| auth.is_none() && !matches!(listener.auth, Field::Invalid))
    {
        faults.add(
            &required.location,
            "auth_required is set, but nobody can log in here",
            "Add auth = [\"scram-sha-256\", \"plain\", \"login\"], or remove auth_required.",
        );
    }
}
