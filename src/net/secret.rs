//! Secrets in files: read, bounded, read again when they change, never shown, and erased from memory.

use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use zeroize::Zeroizing;

use super::tls_io::key_warning;
use crate::config::{Fault, Located, SecretPlace};

/// The largest file in octets.
const SIZE_MAX: u64 = 64 * 1024;
/// A secret, with the file that it comes from.
pub struct SecretFile {
    place: Located<SecretPlace>,
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
    /// Reads a secret, which `accepts` must find usable. Returns a warning if others can read the
    /// file. Blocks.
    ///
    /// # Errors
    /// The fault of the file.
    pub fn load(
        place: &Located<SecretPlace>,
        accepts: fn(&str) -> Result<(), String>,
    ) -> Result<(Self, Option<Fault>), Fault> {
        let text = read(place, accepts)?;
        let file = Self {
            place: place.clone(),
            current: ArcSwap::from_pointee(text),
            last: Mutex::new(None),
        };
        Ok((file, warning(place)))
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
    pub fn refresh(&self, accepts: fn(&str) -> Result<(), String>) -> Result<bool, Fault> {
        let read = read(&self.place, accepts);
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

fn warning(place: &Located<SecretPlace>) -> Option<Fault> {
    let file = Located {
        value: place.value.path(),
        location: place.location.clone(),
    };
    key_warning(&file).map(|fault| Fault {
        message: fault.message.replace("a private key", "a secret"),
        ..fault
    })
}

fn read(
    place: &Located<SecretPlace>,
    accepts: fn(&str) -> Result<(), String>,
) -> Result<Zeroizing<String>, Fault> {
    let path = place.value.path();
    let fault = |message: String, remedy: &str| Fault {
        location: place.location.clone(),
        message: format!("{} {message}", path.display()),
        remedy: remedy.to_owned(),
    };
    let text = read_text(&path).map_err(|error| {
        let remedy = match &place.value {
            SecretPlace::File(_) => "Let the user that Gatepost runs as read it, and nobody else.",
            SecretPlace::Credential(_) => {
                "Add LoadCredential= with this name to the unit (systemctl edit gatepost); for a command, use sudo while the service runs."
            }
        };
        fault(format!("cannot be read: {error}"), remedy)
    })?;
    if text.len() as u64 > SIZE_MAX {
        return Err(fault(
            format!("is longer than {SIZE_MAX} octets"),
            "Write nothing but the secret.",
        ));
    }
    match accepts(&text) {
        Ok(()) => Ok(text),
        Err(why) => Err(fault(
            why,
            "Write the secret on the first line, as text in UTF-8.",
        )),
    }
}

/// Reads a file, at most one octet above the limit.
fn read_text(path: &Path) -> std::io::Result<Zeroizing<String>> {
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

    fn accepts(text: &str) -> Result<(), String> {
        if first_line(text).is_empty() {
            return Err("has no password".to_owned());
        }
        Ok(())
    }

    #[test]
    fn a_secret_is_read_again_and_never_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "tanstaaftanstaaf\r\nnote\n").expect("ours");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
        let (file, warning) = SecretFile::load(&place(&path), accepts).expect("readable");
        assert_eq!(warning, None);
        assert_eq!(first_line(&file.text()), "tanstaaftanstaaf");
        assert!(!format!("{file:?}").contains("tanst"), "{file:?}");
        assert_eq!(file.refresh(accepts), Ok(false));
        std::fs::write(&path, "another").expect("ours");
        assert_eq!(file.refresh(accepts), Ok(true));
        std::fs::write(&path, "\n").expect("ours");
        let fault = file.refresh(accepts).expect_err("it is empty");
        assert!(fault.message.ends_with("secret has no password"), "{fault}");
        assert_eq!(file.refresh(accepts), Ok(false), "reported once");
        assert_eq!(first_line(&file.text()), "another", "the old one stays");
    }

    #[test]
    fn a_secret_that_others_can_read_is_a_warning_and_a_long_one_a_fault() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "x").expect("ours");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("ours");
        let (_, warning) = SecretFile::load(&place(&path), accepts).expect("readable");
        let warning = warning.expect("others can read it");
        assert!(
            warning
                .message
                .contains("is a secret, and open to every user"),
            "{warning}"
        );
        assert_eq!(warning.location.line, 7);
        std::fs::write(&path, "x".repeat(70_000)).expect("ours");
        let fault = SecretFile::load(&place(&path), accepts).expect_err("too long");
        assert!(
            fault.message.contains("is longer than 65536 octets"),
            "{fault}"
        );
        let missing = place(&folder.path().join("none"));
        let fault = SecretFile::load(&missing, accepts).expect_err("missing");
        assert!(fault.message.contains("cannot be read"), "{fault}");
    }
}
