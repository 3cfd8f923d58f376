//! Files with a secret: a password, a client secret, a refresh token.
//!
//! A secret is the only line of its file. It is wiped from memory when it is no longer used, and
//! no error shows it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::config::{Fault, Located};
use crate::net::tls_io::key_warning;

/// The largest file in octets.
const SIZE_MAX: u64 = 16 * 1024;

/// Reads a secret, without the spaces and line ends around it. `what` is its name with an article,
/// such as "a client secret". This reads a file and blocks.
///
/// # Errors
/// The fault of the file.
pub fn read_secret(file: &Located<PathBuf>, what: &str) -> Result<Zeroizing<String>, Fault> {
    let text = read_secret_text(file, what)?;
    let mut lines = text.trim().lines();
    let secret = lines.next().unwrap_or_default().trim();
    if secret.is_empty() || secret.contains(char::is_control) || lines.next().is_some() {
        return Err(fault(
            file,
            format!("{} does not contain {what}", file.value.display()),
            format!("Write {what} to it as plain text, on one line and with nothing else."),
        ));
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

/// Reads a text that is a secret, of any number of lines. This reads a file and blocks.
///
/// # Errors
/// The fault of the file.
pub fn read_secret_text(file: &Located<PathBuf>, what: &str) -> Result<Zeroizing<String>, Fault> {
    let path = file.value.display();
    let octets = read(&file.value).map_err(|error| {
        let (message, remedy) = match error.kind() {
            io::ErrorKind::NotFound => (
                format!("{path} does not exist"),
                format!("Write {what} to this file, on its first line, with mode 0600."),
            ),
            _ => (
                format!("{path} cannot be read: {error}"),
                "Let the user that runs Gatepost read it, and nobody else.".to_owned(),
            ),
        };
        fault(file, message, remedy)
    })?;
    match std::str::from_utf8(&octets) {
        Ok(text) if octets.len() as u64 <= SIZE_MAX => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(fault(
            file,
            format!("{path} does not contain {what}: it is no text, or larger than 16 KiB"),
            format!("Write {what} to it as plain text."),
        )),
    }
}

fn fault(file: &Located<PathBuf>, message: String, remedy: String) -> Fault {
    Fault {
        location: file.location.clone(),
        message,
        remedy,
    }
}

fn read(path: &std::path::Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut octets = Zeroizing::new(Vec::new());
    File::open(path)?
        .take(SIZE_MAX + 1)
        .read_to_end(&mut octets)?;
    Ok(octets)
}

/// Warns if others than its owner can read or change the file of a secret.
#[must_use]
pub fn secret_warning(file: &Located<PathBuf>, what: &str) -> Option<Fault> {
    let warning = key_warning(file)?;
    Some(Fault {
        message: warning.message.replace("a private key", what),
        ..warning
    })
}
