//! The places of secrets: files, and credentials of systemd.

use std::path::PathBuf;

use super::fault_list::FaultList;
use super::reader::TomlValue;
use super::spelling::shorten;
use super::values::{path, text};
use crate::policy::connector::SecretPlace;

/// The beginning of the place of a secret that systemd passes to the service.
const CREDENTIAL: &str = "credential:";
/// The longest name of a credential (systemd.exec(5)): that of a file.
const CREDENTIAL_MAX: usize = 255;

/// Reads the path of a secret, which may be written as `credential:NAME`.
pub(super) fn secret_path(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<PathBuf> {
    secret_place(value, faults).map(|place| place.path())
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
