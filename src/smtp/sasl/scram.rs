//! The arithmetic of SCRAM-SHA-256 (RFC 5802 §3, RFC 7677), for both sides.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use zeroize::Zeroizing;

use super::prepared::Password;

/// The size of a key, a signature and a proof in octets.
pub const KEY_SIZE: usize = 32;
/// The size of the salts that [`ScramVerifier::derive`] is given, in octets.
pub const SALT_SIZE: usize = 16;
/// The lowest accepted number of iterations (RFC 7677 §4).
pub const ITERATIONS_MIN: u32 = 4096;
/// The highest accepted number of iterations. The peer of a client names the number, and must not
/// keep it busy for minutes.
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// A key or signature, which is never shown and is erased when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKey(Zeroizing<[u8; KEY_SIZE]>);

impl ScramKey {
    /// Returns the key of these octets.
    #[must_use]
    pub fn new(octets: [u8; KEY_SIZE]) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// Returns the key of these octets; `None` if their number is wrong.
    #[must_use]
    pub fn from_slice(octets: &[u8]) -> Option<Self> {
        <[u8; KEY_SIZE]>::try_from(octets)
            .ok()
            .map(|octets| Self(Zeroizing::new(octets)))
    }

    /// Returns the octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0[..]
    }

    /// Compares without a difference in time.
    #[must_use]
    pub fn equals(&self, octets: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(self.as_bytes(), octets).is_ok()
    }

    /// HMAC-SHA-256 with this key.
    fn sign(&self, message: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.as_bytes());
        Self::of(hmac::sign(&key, message).as_ref())
    }

    /// `H()`: SHA-256 of this key.
    fn hash(&self) -> Self {
        Self::of(digest::digest(&digest::SHA256, self.as_bytes()).as_ref())
    }

    fn xor(&self, other: &Self) -> Self {
        let mut octets = Zeroizing::new([0; KEY_SIZE]);
        for (octet, (one, other)) in octets.iter_mut().zip(self.0.iter().zip(other.0.iter())) {
            *octet = one ^ other;
        }
        Self(octets)
    }

    /// The result of SHA-256, which has this size.
    fn of(octets: &[u8]) -> Self {
        let mut key = Zeroizing::new([0; KEY_SIZE]);
        key.copy_from_slice(octets);
        Self(key)
    }
}

impl fmt::Debug for ScramKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramKey(…)")
    }
}

/// `SaltedPassword` of RFC 5802 §3, from which all keys follow.
#[derive(Debug, Clone)]
pub struct SaltedPassword(ScramKey);

impl SaltedPassword {
    /// Derives it: PBKDF2 with HMAC-SHA-256. This takes milliseconds.
    // Rule: RFC 5802 §3; RFC 7677 §3.
    #[must_use]
    pub fn derive(password: &Password, salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = Zeroizing::new([0; KEY_SIZE]);
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            salt,
            password.as_bytes(),
            &mut salted[..],
        );
        Self(ScramKey(salted))
    }

    fn client_key(&self) -> ScramKey {
        self.0.sign(b"Client Key")
    }

    fn server_key(&self) -> ScramKey {
        self.0.sign(b"Server Key")
    }

    /// Returns the proof that a client sends for this `AuthMessage`.
    // Rule: RFC 5802 §3.
    #[must_use]
    pub fn client_proof(&self, auth_message: &str) -> ScramKey {
        let client_key = self.client_key();
        client_key.xor(&client_key.hash().sign(auth_message.as_bytes()))
    }

    /// Returns the signature that proves to a client that the server knows its password.
    // Rule: RFC 5802 §3.
    #[must_use]
    pub fn server_signature(&self, auth_message: &str) -> ScramKey {
        self.server_key().sign(auth_message.as_bytes())
    }
}

/// The keys by which a server checks a client. The password cannot be derived from them, except by
/// trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    /// The salt.
    pub salt: Vec<u8>,
    /// The number of iterations.
    pub iterations: NonZeroU32,
    /// `StoredKey`.
    pub stored_key: ScramKey,
    /// `ServerKey`.
    pub server_key: ScramKey,
}

impl ScramVerifier {
    /// Derives the keys of a password.
    #[must_use]
    pub fn derive(password: &Password, salt: &[u8], iterations: NonZeroU32) -> Self {
        let salted = SaltedPassword::derive(password, salt, iterations);
        Self {
            salt: salt.to_vec(),
            iterations,
            stored_key: salted.client_key().hash(),
            server_key: salted.server_key(),
        }
    }

    /// Returns true if the proof is that of a client that knows the password.
    // Rule: RFC 5802 §3.
    #[must_use]
    pub fn accepts(&self, proof: &ScramKey, auth_message: &str) -> bool {
        let signature = self.stored_key.sign(auth_message.as_bytes());
        let client_key = proof.xor(&signature);
        self.stored_key.equals(client_key.hash().as_bytes())
    }

    /// Returns the server's signature.
    #[must_use]
    pub fn server_signature(&self, auth_message: &str) -> ScramKey {
        self.server_key.sign(auth_message.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    /// The exchange of RFC 7677 §3.
    const AUTH: &str = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
        r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
        c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    #[test]
    fn proof_and_signature_are_those_of_the_rfc() {
        let password = Password::new("pencil").expect("usable");
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let iterations = NonZeroU32::new(4096).expect("not zero");
        let salted = SaltedPassword::derive(&password, &salt, iterations);
        let proof = salted.client_proof(AUTH);
        assert_eq!(
            BASE64.encode(proof.as_bytes()),
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let signature = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(
            BASE64.encode(salted.server_signature(AUTH).as_bytes()),
            signature
        );
        let verifier = ScramVerifier::derive(&password, &salt, iterations);
        assert_eq!(
            BASE64.encode(verifier.server_signature(AUTH).as_bytes()),
            signature
        );
        assert!(verifier.accepts(&proof, AUTH));
        assert!(!verifier.accepts(&proof, &AUTH.replace("biws", "eSws")));
        let other = Password::new("pencils").expect("usable");
        let other = SaltedPassword::derive(&other, &salt, iterations).client_proof(AUTH);
        assert!(!verifier.accepts(&other, AUTH));
        let shown = format!("{verifier:?}{salted:?}{proof:?}");
        assert!(
            shown.contains("ScramKey(…)") && !shown.contains("0x"),
            "{shown}"
        );
    }
}
