//! Reads the file of the users.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use super::user::UserList;
use super::user_toml;
use crate::config::fault::Fault;
use crate::config::fault_list::FaultList;
use crate::config::toml_text::toml_document;
use crate::policy::location::Location;

/// The largest file in octets: a hundred thousand users.
const FILE_MAX: u64 = 64 << 20;
/// The permission bits of group and others, which the file must not have.
const OTHERS: u32 = 0o077;

/// Reads the text of a file of users. Nobody but its owner may read the file.
///
/// # Errors
/// The fault.
pub fn read_users_text(path: &Path) -> Result<String, Fault> {
    let fault = |message: String, remedy: String| Fault {
        location: Location {
            file: Arc::from(path),
            line: 1,
            column: 1,
        },
        message,
        remedy,
    };
    let unreadable = |error: std::io::Error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => "Create it with `gatepost user add NAME`.",
            std::io::ErrorKind::PermissionDenied => {
                "Let it belong to the user that Gatepost runs as (chown gatepost), with mode 0600; for a command, use sudo."
            }
            _ => "Name a readable file in [users] file.",
        };
        fault(
            format!("the users cannot be read: {error}"),
            remedy.to_owned(),
        )
    };
    let file = File::open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    let mode = found.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(fault(
            format!("others than its owner may use this file of passwords (mode {mode:04o})"),
            format!(
                "Run chmod 0600 {}; if others could read it, set new passwords.",
                path.display()
            ),
        ));
    }
    let mut octets = Vec::new();
    file.take(FILE_MAX + 1)
        .read_to_end(&mut octets)
        .map_err(unreadable)?;
    if octets.len() as u64 > FILE_MAX {
        let message = format!("the file is larger than {} MiB", FILE_MAX >> 20);
        return Err(fault(message, "Remove users.".to_owned()));
    }
    String::from_utf8(octets).map_err(|_| {
        fault(
            "the file is not UTF-8 text".to_owned(),
            "Save it as UTF-8.".to_owned(),
        )
    })
}

/// Reads a file of users.
///
/// # Errors
/// All faults of the file.
pub fn read_users(path: &Path) -> Result<UserList, Vec<Fault>> {
    let text = read_users_text(path).map_err(|fault| vec![fault])?;
    parse_users(&text, path)
}

/// Parses the text of a file of users.
///
/// # Errors
/// All faults of the text. If it is not TOML, only its syntax errors.
pub fn parse_users(text: &str, path: &Path) -> Result<UserList, Vec<Fault>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut faults = FaultList::new(text, path);
    let document = toml_document(text, &mut faults);
    let read = |faults: &mut FaultList<'_>| {
        let document = document.as_ref()?;
        Some(user_toml::resolve_users(document.get_ref(), faults))
    };
    faults.resolve(read).map(|(users, _)| users)
}
