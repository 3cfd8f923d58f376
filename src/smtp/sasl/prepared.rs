//! User names and passwords in the form in which they are compared (`SASLprep`, RFC 4013).

use std::fmt;

use zeroize::Zeroizing;

/// The longest user name in octets.
pub const NAME_MAX: usize = 255;
/// The longest password in octets.
pub const PASSWORD_MAX: usize = 1024;

/// The reason why a text is not usable as a user name or password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The text is longer than the limit.
    #[error("it is too long")]
    TooLong,
    /// The text has characters that `SASLprep` forbids.
    #[error("it has control characters, or others that SASLprep (RFC 4013) forbids")]
    Forbidden,
}

/// Returns a user name as it is compared: prepared by `SASLprep`, in lower case.
///
/// # Errors
/// [`PrepareError`].
// Rule: RFC 4616 §2; RFC 5802 §5.1.
pub fn prepare_name(name: &str) -> Result<String, PrepareError> {
    Ok(prepare(name, NAME_MAX)?.to_lowercase())
}

fn prepare(text: &str, most: usize) -> Result<String, PrepareError> {
    if text.len() > most {
        return Err(PrepareError::TooLong);
    }
    let prepared = stringprep::saslprep(text).map_err(|_| PrepareError::Forbidden)?;
    if prepared.is_empty() {
        return Err(PrepareError::Empty);
    }
    Ok(prepared.into_owned())
}

/// A password, prepared by `SASLprep`. It is erased from memory when it is dropped, and never shown.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Prepares a password.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub fn new(text: &str) -> Result<Self, PrepareError> {
        prepare(text, PASSWORD_MAX).map(|text| Self(Zeroizing::new(text)))
    }

    /// Returns the octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 4013 §3, and our limits.
    #[test]
    fn texts_are_prepared_as_the_rfc_says() {
        for (text, prepared) in [
            ("I\u{ad}X", Ok("IX")),
            ("user", Ok("user")),
            ("USER", Ok("USER")),
            ("\u{aa}", Ok("a")),
            ("\u{2168}", Ok("IX")),
            ("\u{7}", Err(PrepareError::Forbidden)),
            ("\u{627}1", Err(PrepareError::Forbidden)),
            ("", Err(PrepareError::Empty)),
            ("\u{ad}", Err(PrepareError::Empty)),
        ] {
            let result = prepare(text, 100);
            assert_eq!(
                result.as_deref().map_err(|error| *error),
                prepared,
                "{text:?}"
            );
        }
        assert_eq!(prepare("abc", 2), Err(PrepareError::TooLong));
        assert_eq!(
            prepare_name("Scanner@Example.COM").as_deref(),
            Ok("scanner@example.com")
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        let password = Password::new("correct horse").expect("usable");
        assert_eq!(format!("{password:?}"), "Password(…)");
    }
}
