//! The keys of SCRAM as the file has them, in `PostgreSQL`'s form of RFC 5803:
//! `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`.

use std::num::NonZeroU32;

use data_encoding::BASE64;

use crate::smtp::sasl::scram::{
    ITERATIONS_MAX, ITERATIONS_MIN, SALT_SIZE, ScramKey, ScramVerifier,
};

/// The number of iterations of new keys.
// 15,000; not zero.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(14_999);

/// Parses the keys of a user; `None` if they have another form, or a salt of another size than all
/// others have.
pub(super) fn parse_verifier(text: &str) -> Option<ScramVerifier> {
    let rest = text.strip_prefix("SCRAM-SHA-256$")?;
    let (salted, keys) = rest.split_once('$')?;
    let (iterations, salt) = salted.split_once(':')?;
    let (stored_key, server_key) = keys.split_once(':')?;
    let iterations: u32 = iterations.parse().ok()?;
    let decode = |text: &str| BASE64.decode(text.as_bytes()).ok();
    let verifier = ScramVerifier {
        salt: decode(salt)?,
        iterations: NonZeroU32::new(iterations)?,
        stored_key: ScramKey::from_slice(&decode(stored_key)?)?,
        server_key: ScramKey::from_slice(&decode(server_key)?)?,
    };
    let is_good =
        verifier.salt.len() == SALT_SIZE && (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations);
    is_good.then_some(verifier)
}

/// Writes the keys of a user, for the file alone.
#[must_use]
pub fn write_verifier(verifier: &ScramVerifier) -> String {
    let encode = |octets: &[u8]| BASE64.encode(octets);
    format!(
        "SCRAM-SHA-256${}:{}${}:{}",
        verifier.iterations,
        encode(&verifier.salt),
        encode(verifier.stored_key.as_bytes()),
        encode(verifier.server_key.as_bytes())
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::sasl::Password;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let password = Password::new("secret").expect("usable");
        let verifier = ScramVerifier::derive(&password, &[7; SALT_SIZE], ITERATIONS);
        let text = write_verifier(&verifier);
        assert!(
            text.starts_with("SCRAM-SHA-256$15000:BwcHBwcHBwcHBwcHBwcHBw==$"),
            "{text}"
        );
        assert_eq!(parse_verifier(&text), Some(verifier));
        for (from, to) in [
            ("SHA-256", "SHA-1"),
            ("15000", "4095"),
            ("15000", "2000000"),
            ("BwcHBwcHBwcHBwcHBwcHBw==", "BwcH"),
            ("BwcHBwcHBwcHBwcHBwcHBw==", "?"),
        ] {
            assert_eq!(parse_verifier(&text.replace(from, to)), None, "{to}");
        }
        assert_eq!(parse_verifier(&text[..text.len() - 4]), None);
    }
}
