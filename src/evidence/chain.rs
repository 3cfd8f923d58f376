//! A record as one line, and how it hangs on the one before. Nothing here knows a file or a clock.
//!
//! ```text
//! {"seq":7,"prev":"<hash of record 6>","time":"…","kind":"…", … ,"hash":"<hash of this one>"}
//! ```
//!
//! The hash is SHA-256 over the line up to the comma before `"hash"`, in 64 hexadecimal digits, so that
//! anybody can check it with `sed` and `sha256sum`. The first record of all hangs on 64 zeros.

use std::fmt::{self, Write as _};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What stands before the hash, and behind it.
const BEFORE_HASH: &str = ",\"hash\":\"";
const BEHIND_HASH: &str = "\"}";
/// Octets of a line that the hash does not cover.
const TAIL: usize = BEFORE_HASH.len() + 64 + BEHIND_HASH.len();

/// The hash of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordHash([u8; 32]);

impl RecordHash {
    /// What the first record hangs on.
    pub const NOTHING: Self = Self([0; 32]);

    fn of(octets: &[u8]) -> Self {
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
            pair.copy_from_slice(&[DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]]);
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
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a hash has 64 hexadecimal digits"))
    }
}

/// What every record has: its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Link {
    /// Its number. The first has 1, and none is left out.
    pub seq: u64,
    /// The hash of the record before.
    pub prev: RecordHash,
    /// When what it tells happened.
    pub time: Timestamp,
    /// What it tells: `delivery`, or a word of the chain's own.
    pub kind: String,
    /// Its own hash.
    pub hash: RecordHash,
}

/// The end of a chain, on which the next record hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The number of the last record; 0 where there is none.
    pub seq: u64,
    /// Its hash.
    pub hash: RecordHash,
}

impl Head {
    /// Before the first record.
    pub const START: Self = Self { seq: 0, hash: RecordHash::NOTHING };

    /// Appends the line of the next record to `out`, and becomes the head that it makes. `inside` is a JSON
    /// object without its braces.
    pub(super) fn seal(&mut self, inside: &str, out: &mut String) {
        self.seq += 1;
        let start = out.len();
        // Writing into a String cannot fail.
        let _ = write!(out, "{{\"seq\":{},\"prev\":\"{}\",{inside}", self.seq, self.hash);
        self.hash = RecordHash::of(&out.as_bytes()[start..]);
        let _ = writeln!(out, "{BEFORE_HASH}{}{BEHIND_HASH}", self.hash);
    }
}

impl Link {
    /// The head that a chain has while this is its last record.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }
}

/// Why a line is no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadLine {
    /// It has not the form of one; in words.
    NotARecord(String),
    /// It has, but not the hash of what it says now.
    WrongHash(Box<Link>),
}

/// Reads a line, its line end left out.
///
/// # Errors
/// [`BadLine`].
pub(super) fn read(line: &[u8]) -> Result<Link, BadLine> {
    let record: Link = serde_json::from_slice(line).map_err(|error| BadLine::NotARecord(error.to_string()))?;
    let covered = line.len().saturating_sub(TAIL);
    let tail = format!("{BEFORE_HASH}{}{BEHIND_HASH}", record.hash);
    if line.get(covered..) != Some(tail.as_bytes()) {
        return Err(BadLine::NotARecord("its hash does not stand at its end".to_owned()));
    }
    let is_sound = RecordHash::of(&line[..covered]) == record.hash;
    if is_sound { Ok(record) } else { Err(BadLine::WrongHash(Box::new(record))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSIDE: &str = r#""time":"2026-11-26T10:00:00Z","kind":"delivery","to":"a@b.example""#;

    fn two() -> (String, String) {
        let (mut head, mut text) = (Head::START, String::new());
        head.seal(INSIDE, &mut text);
        head.seal(INSIDE, &mut text);
        let (one, two) = text.split_once('\n').expect("two lines");
        (one.to_owned(), two.trim_end().to_owned())
    }

    #[test]
    fn a_record_hangs_on_the_one_before() {
        let (one, two) = two();
        let [first, second] = [&one, &two].map(|line| read(line.as_bytes()).expect(line));
        assert_eq!((first.seq, first.prev), (1, RecordHash::NOTHING));
        assert_eq!((second.seq, second.prev, second.kind.as_str()), (2, first.hash, "delivery"));
        assert_ne!(first.hash, second.hash, "the number is covered");
    }

    #[test]
    fn the_hash_is_that_of_sha256sum_over_the_rest_of_the_line() {
        let (one, _) = two();
        let covered = one.split(",\"hash\"").next().expect("a beginning");
        assert_eq!(digest(&SHA256, covered.as_bytes()).as_ref(), read(one.as_bytes()).expect("a record").hash.0);
    }

    #[test]
    fn every_changed_octet_is_noticed() {
        let (one, _) = two();
        for at in 0..one.len() {
            let mut changed = one.clone().into_bytes();
            changed[at] ^= 1;
            assert!(read(&changed).is_err(), "octet {at}: {}", String::from_utf8_lossy(&changed));
        }
        for line in ["", "{}", "[]", &one[1..], &format!("{one} "), &format!("{one}{one}")] {
            assert!(matches!(read(line.as_bytes()), Err(BadLine::NotARecord(_))), "{line}");
        }
    }
}
