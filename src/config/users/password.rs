//! Passwords as the file has them: argon2id (RFC 9106) in the PHC format.

use std::fmt;

use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, Version};

use crate::smtp::sasl::Password;

/// The size of a salt in octets.
pub(super) const SALT_SIZE: usize = 16;
/// The size of a hash in octets.
const HASH_SIZE: usize = 32;
/// The accepted costs: memory in KiB, passes, lanes.
const MEMORY: std::ops::RangeInclusive<u32> = 4096..=262_144;
const PASSES: std::ops::RangeInclusive<u32> = 1..=10;
const LANES: std::ops::RangeInclusive<u32> = 1..=4;

/// The cost of a check of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordCost {
    /// The memory in KiB.
    pub memory: u32,
    /// The passes over the memory.
    pub passes: u32,
    /// The lanes.
    pub lanes: u32,
}

impl Default for PasswordCost {
    /// 19 MiB and two passes, as OWASP recommends for servers.
    fn default() -> Self {
        Self {
            memory: 19_456,
            passes: 2,
            lanes: 1,
        }
    }
}

impl PasswordCost {
    fn hasher(self) -> Option<Argon2<'static>> {
        let is_accepted = MEMORY.contains(&self.memory)
            && PASSES.contains(&self.passes)
            && LANES.contains(&self.lanes);
        let params = Params::new(self.memory, self.passes, self.lanes, Some(HASH_SIZE)).ok()?;
        is_accepted.then(|| Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

/// The hash of a password. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredPassword {
    phc: String,
    cost: PasswordCost,
}

impl StoredPassword {
    /// Hashes a password. This takes tens of milliseconds, and the memory that `cost` names.
    /// `None` if the cost is out of range.
    #[must_use]
    pub fn derive(password: &Password, salt: &[u8; SALT_SIZE], cost: PasswordCost) -> Option<Self> {
        let hash = cost
            .hasher()?
            .hash_password_with_salt(password.as_bytes(), salt)
            .ok()?;
        Some(Self {
            phc: hash.to_string(),
            cost,
        })
    }

    /// Returns a hash that no known password has, and whose check costs as much as that of others.
    #[must_use]
    pub fn decoy(salt: &[u8; SALT_SIZE], hash: &[u8; HASH_SIZE], cost: PasswordCost) -> Self {
        let encode = |octets: &[u8]| data_encoding::BASE64_NOPAD.encode(octets);
        let PasswordCost {
            memory,
            passes,
            lanes,
        } = cost;
        Self {
            phc: format!(
                "$argon2id$v=19$m={memory},t={passes},p={lanes}${}${}",
                encode(salt),
                encode(hash)
            ),
            cost,
        }
    }

    /// Parses a hash in the PHC format; `None` if it is not argon2id, or its costs are out of
    /// range.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hash = PasswordHash::new(text).ok()?;
        let params = Params::try_from(&hash).ok()?;
        let cost = PasswordCost {
            memory: params.m_cost(),
            passes: params.t_cost(),
            lanes: params.p_cost(),
        };
        let is_argon2id = hash.algorithm.as_str() == "argon2id" && hash.version == Some(0x13);
        let is_complete = hash
            .hash
            .as_ref()
            .is_some_and(|hash| hash.len() == HASH_SIZE)
            && hash.salt.as_ref().is_some_and(|salt| salt.len() >= 8);
        (is_argon2id && is_complete && cost.hasher().is_some()).then(|| Self {
            phc: text.to_owned(),
            cost,
        })
    }

    /// Returns true if this is the hash of the password. Takes as long as [`Self::derive`].
    #[must_use]
    pub fn is_of(&self, password: &Password) -> bool {
        // Both were checked when the hash was made or parsed.
        let (Some(hasher), Ok(hash)) = (self.cost.hasher(), PasswordHash::new(&self.phc)) else {
            return false;
        };
        hasher.verify_password(password.as_bytes(), &hash).is_ok()
    }

    /// Returns the cost of a check.
    #[must_use]
    pub fn cost(&self) -> PasswordCost {
        self.cost
    }

    /// Returns the hash in the PHC format, for the file alone.
    #[must_use]
    pub fn phc(&self) -> &str {
        &self.phc
    }
}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredPassword(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: PasswordCost = PasswordCost {
        memory: 4096,
        passes: 1,
        lanes: 1,
    };

    #[test]
    fn a_hash_is_that_of_one_password() {
        let password = |text| Password::new(text).expect("usable");
        let hash = StoredPassword::derive(&password("secret"), &[7; 16], CHEAP).expect("in range");
        assert!(
            hash.phc().starts_with("$argon2id$v=19$m=4096,t=1,p=1$"),
            "{}",
            hash.phc()
        );
        assert_eq!(StoredPassword::parse(hash.phc()).as_ref(), Some(&hash));
        assert!(hash.is_of(&password("secret")));
        assert!(!hash.is_of(&password("Secret")));
        let decoy = StoredPassword::decoy(&[7; 16], &[8; 32], CHEAP);
        assert_eq!(StoredPassword::parse(decoy.phc()).as_ref(), Some(&decoy));
        assert!(!decoy.is_of(&password("secret")));
        assert_eq!(format!("{hash:?}"), "StoredPassword(…)");
    }

    #[test]
    fn other_hashes_and_costs_are_refused() {
        let good = StoredPassword::decoy(&[7; 16], &[8; 32], CHEAP).phc;
        for (from, to) in [
            ("argon2id", "argon2i"),
            ("v=19", "v=16"),
            ("m=4096", "m=4095"),
            ("m=4096", "m=1000000"),
            ("t=1", "t=11"),
            ("p=1", "p=5"),
            ("$v=19", ""),
        ] {
            let bad = good.replace(from, to);
            assert_eq!(StoredPassword::parse(&bad), None, "{bad}");
        }
        let cut = good.rsplit_once('$').expect("parts").0;
        for bad in ["", "secret", "$2y$10$abcdefghijklmnopqrstuv", cut] {
            assert_eq!(StoredPassword::parse(bad), None, "{bad}");
        }
    }
}
