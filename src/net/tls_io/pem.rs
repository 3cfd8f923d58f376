//! PEM files (RFC 7468), with their errors as faults of the configuration.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate;
use crate::config::{Fault, Located, Location};

/// Makes a fault at a location.
pub(super) fn fault(
    location: &Location,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Fault {
    Fault {
        location: location.clone(),
        message: message.into(),
        remedy: remedy.into(),
    }
}

/// Reads all certificates of a PEM file in order; at least one.
///
/// # Errors
/// A fault also for a certificate in an unsupported format, because a chain must be complete.
pub fn certificates(file: &Located<PathBuf>) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let (all, left_out) = trust_anchors(file)?;
    left_out.into_iter().next().map_or(Ok(all), Err)
}

/// Reads all certificates of a PEM file of trust anchors, at least one. Returns a warning for each
/// section that looks like a certificate and cannot be read.
pub(super) fn trust_anchors(
    file: &Located<PathBuf>,
) -> Result<(Vec<CertificateDer<'static>>, Vec<Fault>), Fault> {
    let bytes = read(file)?;
    let mut all = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        all.push(certificate.map_err(|error| damaged(file, &error))?);
    }
    let path = file.value.display();
    let left_out = UNREAD_FORMATS
        .iter()
        .filter(|format| count(&bytes, &begin_marker(format.label)) > 0);
    let mut left_out: Vec<_> = left_out
        .map(|format| {
            let remedy = format.remedy.replace("FILE", &path.to_string());
            fault(
                &file.location,
                format!("{path} has an unsupported section: {}", format.name),
                remedy,
            )
        })
        .collect();
    if count(&bytes, &begin_marker("CERTIFICATE")) > all.len() {
        left_out.push(fault(
            &file.location,
            format!("{path} has a certificate that does not begin at the start of a line"),
            "Let each -----BEGIN CERTIFICATE----- begin a line of its own.",
        ));
    }
    match (all.is_empty(), left_out.len()) {
        (false, _) => Ok((all, left_out)),
        (true, 0) => Err(no_certificate(file, &bytes)),
        (true, _) => Err(left_out.remove(0)),
    }
}

/// A format for certificates that some programs write and that is not supported here.
struct UnreadFormat {
    /// The label after BEGIN.
    label: &'static str,
    name: &'static str,
    /// The remedy, in which FILE stands for the path.
    remedy: &'static str,
}

const UNREAD_FORMATS: [UnreadFormat; 3] = [
    UnreadFormat {
        label: "TRUSTED CERTIFICATE",
        name: "a certificate with trust settings in OpenSSL's own form (TRUSTED CERTIFICATE)",
        remedy: "openssl x509 -in FILE -out FILE.pem, for each certificate of the file.",
    },
    UnreadFormat {
        label: "PKCS7",
        name: "certificates in PKCS#7",
        remedy: "openssl pkcs7 -print_certs -in FILE -out FILE.pem",
    },
    UnreadFormat {
        label: "PKCS #7 SIGNED DATA",
        name: "certificates in PKCS#7",
        remedy: "openssl pkcs7 -print_certs -in FILE -out FILE.pem",
    },
];

fn begin_marker(label: &str) -> String {
    format!("-----BEGIN {label}-----")
}

fn count(bytes: &[u8], text: &str) -> usize {
    memchr::memmem::find_iter(bytes, text.as_bytes()).count()
}

/// Reads the first private key of a PEM file.
///
/// # Errors
/// A fault with its remedy.
pub fn private_key(file: &Located<PathBuf>) -> Result<PrivateKeyDer<'static>, Fault> {
    let bytes = read(file)?;
    match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) if !is_encrypted(&bytes) => Ok(key),
        Err(error) if !is_encrypted(&bytes) && !matches!(error, PemError::NoItemsFound) => {
            Err(damaged(file, &error))
        }
        _ => Err(no_key(file, &bytes)),
    }
}

/// Warns if others than its owner can read or change a key. A key owned by root may be readable by
/// the group of a service.
#[must_use]
pub fn key_warning(file: &Located<PathBuf>) -> Option<Fault> {
    let about = std::fs::metadata(&file.value).ok()?;
    let mode = about.mode();
    let who = match (mode & 0o070, mode & 0o007) {
        (_, others) if others != 0 => "every user of this machine",
        (0o040, _) if about.uid() == 0 => return None,
        (group, _) if group != 0 => "its whole group",
        _ => return None,
    };
    let path = file.value.display();
    Some(fault(
        &file.location,
        format!(
            "{path} is a private key, and open to {who} (mode {:04o})",
            mode & 0o7777
        ),
        format!("chmod 600 {path}"),
    ))
}

/// Reads a file. Byte order marks are removed, since they hide the line that they begin, and an old
/// label of certificates is replaced by the present one (RFC 7468 §5.1).
fn read(file: &Located<PathBuf>) -> Result<Vec<u8>, Fault> {
    let mut bytes = std::fs::read(&file.value).map_err(|error| unreadable(file, &error))?;
    if is_binary(&bytes) {
        return Ok(bytes);
    }
    for (old, new) in [
        ("\u{feff}", ""),
        ("BEGIN X509 CERTIFICATE-", "BEGIN CERTIFICATE-"),
        ("END X509 CERTIFICATE-", "END CERTIFICATE-"),
    ] {
        bytes = replace_all(bytes, old.as_bytes(), new.as_bytes());
    }
    Ok(bytes)
}

fn replace_all(bytes: Vec<u8>, old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut found = memchr::memmem::find_iter(&bytes, old).peekable();
    if found.peek().is_none() {
        return bytes;
    }
    let (mut all, mut done) = (Vec::with_capacity(bytes.len()), 0);
    for at in found {
        all.extend_from_slice(&bytes[done..at]);
        all.extend_from_slice(new);
        done = at + old.len();
    }
    all.extend_from_slice(&bytes[done..]);
    all
}

fn unreadable(file: &Located<PathBuf>, error: &io::Error) -> Fault {
    let path = file.value.display();
    let (message, remedy) = match error.kind() {
        io::ErrorKind::NotFound => (
            format!("{path} does not exist"),
            "Write the path of a PEM file; a relative one starts at the folder of the configuration.".to_owned(),
        ),
        io::ErrorKind::PermissionDenied => (
            format!("{path} may not be read{}", permissions(&file.value)),
            "Let the user that runs Gatepost read the file, and enter every folder above it.".to_owned(),
        ),
        _ => (format!("{path} cannot be read: {error}"), "Write the path of a PEM file.".to_owned()),
    };
    fault(&file.location, message, remedy)
}

/// Describes the permissions of a file and our own user; if they cannot be read, the folder is the
/// problem.
fn permissions(path: &Path) -> String {
    let Ok(file) = std::fs::metadata(path) else {
        return ": a folder above it may not be entered".to_owned();
    };
    let mode = file.mode() & 0o7777;
    // The owner of /proc/self is the user of this process.
    let asking = std::fs::metadata("/proc/self")
        .map_or(String::new(), |me| format!(", we run as user {}", me.uid()));
    format!(
        ": its mode is {mode:04o}, its owner is user {}, its group is {}{asking}",
        file.uid(),
        file.gid()
    )
}

fn no_certificate(file: &Located<PathBuf>, bytes: &[u8]) -> Fault {
    let path = file.value.display();
    let (message, remedy) = if bytes.is_empty() {
        (
            format!("{path} is empty"),
            "Put the certificate chain there, in PEM, leaf first.".to_owned(),
        )
    } else if is_utf16(bytes) {
        (
            format!("{path} is text in UTF-16"),
            "Save it as plain text (ASCII or UTF-8).".to_owned(),
        )
    } else if is_binary(bytes) && certificate::parse(&CertificateDer::from(bytes)).is_some() {
        (
            format!("{path} is a certificate in DER, not in PEM"),
            format!("openssl x509 -inform der -in {path} -out {path}.pem"),
        )
    } else if is_binary(bytes) {
        (
            format!("{path} is not PEM (PKCS#12, perhaps)"),
            format!("openssl pkcs12 -in {path} -nokeys -out {path}.pem"),
        )
    } else {
        (
            format!("{path} has no certificate in it"),
            "A certificate is between -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----."
                .to_owned(),
        )
    };
    fault(&file.location, message, remedy)
}

fn no_key(file: &Located<PathBuf>, bytes: &[u8]) -> Fault {
    let path = file.value.display();
    let (message, remedy) = if is_encrypted(bytes) {
        (
            format!("{path} is an encrypted key, and Gatepost cannot ask for its passphrase"),
            format!(
                "openssl pkey -in {path} -out {path}.plain, and protect that file by its mode."
            ),
        )
    } else if bytes.is_empty() {
        (
            format!("{path} is empty"),
            "Put the private key there, in PEM.".to_owned(),
        )
    } else if is_utf16(bytes) {
        (
            format!("{path} is text in UTF-16"),
            "Save it as plain text (ASCII or UTF-8).".to_owned(),
        )
    } else if is_binary(bytes) {
        (
            format!("{path} is not PEM (DER, perhaps)"),
            format!("openssl pkey -inform der -in {path} -out {path}.pem"),
        )
    } else {
        (
            format!("{path} has no private key in it"),
            "A private key is between -----BEGIN PRIVATE KEY----- and -----END PRIVATE KEY-----."
                .to_owned(),
        )
    };
    fault(&file.location, message, remedy)
}

fn damaged(file: &Located<PathBuf>, error: &PemError) -> Fault {
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes)
            .trim()
            .chars()
            .take(60)
            .collect::<String>()
    };
    let what = match error {
        PemError::MissingSectionEnd { end_marker } => {
            format!("\"-----END {}-----\" is missing", text(end_marker))
        }
        PemError::IllegalSectionStart { line } => {
            format!("\"{}\" is not the start of a PEM section", text(line))
        }
        PemError::Base64Decode(_) => "the text between its markers is not base64".to_owned(),
        other => other.to_string(),
    };
    fault(
        &file.location,
        format!("{} is damaged: {what}", file.value.display()),
        "Copy the file again from its source.",
    )
}

/// DER, and so PKCS#12, begins with a SEQUENCE.
fn is_binary(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x30)
}

/// The byte order marks of UTF-16, which Windows shells write at the start of redirected output.
fn is_utf16(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff])
}

fn is_encrypted(bytes: &[u8]) -> bool {
    let has = |mark: &str| memchr::memmem::find(bytes, mark.as_bytes()).is_some();
    has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED")
}
