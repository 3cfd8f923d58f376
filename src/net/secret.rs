//! Secrets in files: read, bounded, read again when they change, never shown, and erased from memory.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use zeroize::Zeroizing;

use super::tls_io::key_warning;
use crate::config::{Fault, Located, SecretPlace};

/// The largest file in octets.
const SIZE_MAX: u64 = 64 * 1024;

/// The kind of a secret.
#[derive(Debug, Clone, Copy)]
pub struct SecretKind {
    /// The name with its article, such as "a password".
    pub name: &'static str,
    /// Finds out that a text is no such secret, and says why after the name of the file.
    pub check: fn(&str) -> Result<(), String>,
}

/// A secret, with the file that it comes from.
pub struct SecretFile {
    place: Located<SecretPlace>,
    kind: SecretKind,
    current: ArcSwap<Zeroizing<String>>,
    /// The fault that the last reading found, so that it is reported once.
    last: Mutex<Option<Fault>>,
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretFile")
            .field("place", &self.place.value)
            .finish_non_exhaustive()
    }
}

impl SecretFile {
    /// Reads a secret of this kind. Returns a warning if others can read the file. Blocks.
    ///
    /// # Errors
    /// The fault of the file.
    pub fn load(
        place: &Located<SecretPlace>,
        kind: SecretKind,
    ) -> Result<(Self, Option<Fault>), Fault> {
        let text = read_kind(place, kind)?;
        let file = Self {
            place: place.clone(),
            kind,
            current: ArcSwap::from_pointee(text),
            last: Mutex::new(None),
        };
        let path = Located {
            value: place.value.path(),
            location: place.location.clone(),
        };
        Ok((file, secret_warning(&path, kind.name)))
    }

    /// The place of the secret.
    #[must_use]
    pub fn place(&self) -> &SecretPlace {
        &self.place.value
    }

    /// Returns the secret.
    #[must_use]
    pub fn text(&self) -> Arc<Zeroizing<String>> {
        self.current.load_full()
    }

    /// Reads the file again. Returns true if the secret has changed. Blocks.
    ///
    /// # Errors
    /// The fault of the file, once; the old secret stays in use.
    pub fn refresh(&self) -> Result<bool, Fault> {
        let read = read_kind(&self.place, self.kind);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(text) => {
                *last = None;
                let has_changed = *self.text() != text;
                if has_changed {
                    self.current.store(Arc::new(text));
                }
                Ok(has_changed)
            }
            Err(fault) if last.as_ref() == Some(&fault) => Ok(false),
            Err(fault) => {
                *last = Some(fault.clone());
                Err(fault)
            }
        }
    }
}

/// Returns the first line of a secret, without its end.
#[must_use]
pub fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Reads a secret that is alone in its file, without the spaces and line ends around it. `what` is its
/// name with an article, such as "a client secret". Blocks.
///
/// # Errors
/// The fault of the file.
pub fn read_secret(file: &Located<PathBuf>, what: &str) -> Result<Zeroizing<String>, Fault> {
    let text = read_secret_text(file, what)?;
    let mut lines = text.trim().lines();
    let secret = lines.next().unwrap_or_default().trim();
    if secret.is_empty() || secret.contains(char::is_control) || lines.next().is_some() {
        return Err(Fault {
            location: file.location.clone(),
            message: format!("{} does not contain {what}", file.value.display()),
            remedy: format!("Write {what} to it as plain text, on one line and with nothing else."),
        });
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

/// Reads a text that is a secret, of any number of lines. Blocks.
///
/// # Errors
/// The fault of the file.
pub fn read_secret_text(file: &Located<PathBuf>, what: &str) -> Result<Zeroizing<String>, Fault> {
    let place = Located {
        value: SecretPlace::File(file.value.clone()),
        location: file.location.clone(),
    };
    read(&place, what)
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

fn read_kind(place: &Located<SecretPlace>, kind: SecretKind) -> Result<Zeroizing<String>, Fault> {
    let text = read(place, kind.name)?;
    match (kind.check)(&text) {
        Ok(()) => Ok(text),
        Err(why) => Err(Fault {
            location: place.location.clone(),
            message: format!("{} {why}", place.value.path().display()),
            remedy: format!("Write {} on the first line, as text in UTF-8.", kind.name),
        }),
    }
}

fn read(place: &Located<SecretPlace>, what: &str) -> Result<Zeroizing<String>, Fault> {
    let path = place.value.path();
    let fault = |message: String, remedy: String| Fault {
        location: place.location.clone(),
        message: format!("{} {message}", path.display()),
        remedy,
    };
    let text = read_text(&path).map_err(|error| match (error.kind(), &place.value) {
        (io::ErrorKind::InvalidData, _) => fault(
            format!("does not contain {what}: it is not text in UTF-8"),
            format!("Write {what} to it as plain text."),
        ),
        (io::ErrorKind::NotFound, SecretPlace::File(_)) => fault(
            "does not exist".to_owned(),
            format!("Write {what} to this file, on its first line, with mode 0600."),
        ),
        (_, SecretPlace::File(_)) => fault(
            format!("cannot be read: {error}"),
            "Let the user that Gatepost runs as read it, and nobody else.".to_owned(),
        ),
        (_, SecretPlace::Credential(_)) => fault(
            format!("cannot be read: {error}"),
            "Add LoadCredential= with this name to the unit (systemctl edit gatepost); for a command, use sudo while the service runs.".to_owned(),
        ),
    })?;
    if text.len() as u64 > SIZE_MAX {
        return Err(fault(
            format!("is longer than {SIZE_MAX} octets"),
            format!("Write nothing but {what} to it."),
        ));
    }
    Ok(text)
}

/// Reads a file, at most one octet above the limit.
fn read_text(path: &Path) -> io::Result<Zeroizing<String>> {
    // One allocation, so that no copy of the secret stays behind.
    let mut text = Zeroizing::new(String::with_capacity(
        usize::try_from(SIZE_MAX).unwrap_or_default() + 64,
    ));
    std::fs::File::open(path)?
        .take(SIZE_MAX + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::Location;

    fn place(path: &Path) -> Located<SecretPlace> {
        Located {
            value: SecretPlace::File(path.to_owned()),
            location: Location {
                file: Path::new("gatepost.toml").into(),
                line: 7,
                column: 3,
            },
        }
    }

    const PASSWORD: SecretKind = SecretKind {
        name: "a password",
        check: |text| {
            if first_line(text).is_empty() {
                return Err("has no password".to_owned());
            }
            Ok(())
        },
    };

    #[test]
    fn a_secret_is_read_again_and_never_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "tanstaaftanstaaf\r\nnote\n").expect("ours");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
        let (file, warning) = SecretFile::load(&place(&path), PASSWORD).expect("readable");
        assert_eq!(warning, None);
        assert_eq!(first_line(&file.text()), "tanstaaftanstaaf");
        assert!(!format!("{file:?}").contains("tanst"), "{file:?}");
        assert_eq!(file.refresh(), Ok(false));
        std::fs::write(&path, "another").expect("ours");
        assert_eq!(file.refresh(), Ok(true));
        std::fs::write(&path, "\n").expect("ours");
        let fault = file.refresh().expect_err("it is empty");
        assert!(fault.message.ends_with("secret has no password"), "{fault}");
        assert_eq!(file.refresh(), Ok(false), "reported once");
        assert_eq!(first_line(&file.text()), "another", "the old one stays");
    }

    #[test]
    fn a_secret_that_others_can_read_is_a_warning_and_a_long_one_a_fault() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "x").expect("ours");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("ours");
        let (_, warning) = SecretFile::load(&place(&path), PASSWORD).expect("readable");
        let warning = warning.expect("others can read it");
        assert!(
            warning
                .message
                .contains("is a password, and open to every user"),
            "{warning}"
        );
        assert_eq!(warning.location.line, 7);
        std::fs::write(&path, "x".repeat(70_000)).expect("ours");
        let fault = SecretFile::load(&place(&path), PASSWORD).expect_err("too long");
        assert!(
            fault.message.contains("is longer than 65536 octets"),
            "{fault}"
        );
        let missing = place(&folder.path().join("none"));
        let fault = SecretFile::load(&missing, PASSWORD).expect_err("missing");
        assert!(fault.message.ends_with("none does not exist"), "{fault}");
        let folder = place(folder.path());
        let fault = SecretFile::load(&folder, PASSWORD).expect_err("a folder");
        assert!(fault.message.contains(" cannot be read: "), "{fault}");
    }

    /// A secret that is alone in its file may have spaces and line ends around it, and nothing else.
    #[test]
    fn a_secret_alone_in_its_file_is_read_without_what_is_around_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let file = Located {
            value: path.clone(),
            location: place(&path).location,
        };
        for (content, secret) in [
            (&b"s3cret"[..], Ok("s3cret")),
            (b"\n  s3 cret \r\n\n", Ok("s3 cret")),
            (b"", Err("secret does not contain a token")),
            (b"one\ntwo", Err("secret does not contain a token")),
            (b"a\x07b", Err("secret does not contain a token")),
            (b"\xff", Err("it is not text in UTF-8")),
        ] {
            std::fs::write(&path, content).expect("ours");
            match (read_secret(&file, "a token"), secret) {
                (Ok(read), Ok(secret)) => assert_eq!(read.as_str(), secret),
                (Err(fault), Err(end)) => assert!(fault.message.ends_with(end), "{fault}"),
                (read, _) => panic!("{content:?}: {read:?}"),
            }
        }
    }
}
