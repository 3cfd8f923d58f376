//! The links of a chain of records: the hash of each, and the end of the chain, to which the next record
//! is linked. Uses no file and no clock.

use std::fmt::{self, Write as _};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text before and after the hash in a line.
pub(in crate::storage) const BEFORE_HASH: &str = ",\"hash\":\"";
pub(in crate::storage) const AFTER_HASH: &str = "\"}";

/// The hash of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordHash([u8; 32]);

impl RecordHash {
    /// The `prev` of the first record.
    pub const ZERO: Self = Self([0; 32]);

    pub(in crate::storage) fn of(octets: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, octets).as_ref());
        Self(hash)
    }

    /// Reads 64 hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return None;
        }
        let mut hash = [0; 32];
        for (at, octet) in hash.iter_mut().enumerate() {
            *octet = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, octet) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[
                DIGITS[usize::from(octet >> 4)],
                DIGITS[usize::from(octet & 15)],
            ]);
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for RecordHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RecordHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("a hash has 64 hexadecimal digits"))
    }
}

/// The end of a chain, to which the next record is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    /// The number of the last record; 0 if there is none.
    pub seq: u64,
    /// The hash of the last record.
    pub hash: RecordHash,
}

impl ChainHead {
    /// The head of an empty chain.
    pub const START: Self = Self {
        seq: 0,
        hash: RecordHash::ZERO,
    };

    /// Appends the line of the next record to `out`, and advances to it. `fields` is a JSON object
    /// without its braces.
    pub(in crate::storage) fn seal(&mut self, fields: &str, out: &mut String) {
        self.seq += 1;
        let start = out.len();
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "{{\"seq\":{},\"prev\":\"{}\",{fields}",
            self.seq, self.hash
        );
        self.hash = RecordHash::of(&out.as_bytes()[start..]);
        let _ = writeln!(out, "{BEFORE_HASH}{}{AFTER_HASH}", self.hash);
    }
}
