//! The trust anchor of DNSSEC validation: the built-in root keys, or DNSKEY and DS records from a
//! file.
//!
//! The file has the syntax of a zone file (RFC 1035 §5.1): comments, parentheses, and optional TTL
//! and class in either order. `unbound-anchor` and `dig . DNSKEY` write it.

use std::path::Path;
use std::str::FromStr as _;

use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DS};
use hickory_resolver::proto::dnssec::{Algorithm, DigestType, PublicKey as _, TrustAnchors};
use hickory_resolver::proto::rr::Name;

use super::LookupError;
use super::validator::{WorkBudget, is_digest_of, is_supported};

/// The maximum size of an anchor file in octets.
const FILE_MAX: u64 = 256 << 10;

/// The reason why a file is no trust anchor.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The file is too large; the value is its length in octets.
    #[error("is too large for a trust anchor ({0} octets; at most {FILE_MAX})")]
    TooLarge(u64),
    /// The file has no key.
    #[error("holds no DNSKEY or DS record")]
    Empty,
    /// A parenthesis is open at the end of the file.
    #[error("a parenthesis is never closed")]
    Parenthesis,
    /// A record is invalid.
    #[error("line {line}: {fault}")]
    Record {
        /// The line, from 1.
        line: usize,
        /// The fault.
        fault: AnchorRecordFault,
    },
}

/// The fault of a record in a trust anchor file.
#[derive(Debug, thiserror::Error)]
pub enum AnchorRecordFault {
    /// The owner is not the root.
    #[error("\"{0}\" is not the root: validation starts from the root's keys, owner \".\"")]
    Owner(String),
    /// The DNSKEY is malformed.
    #[error("the DNSKEY is malformed: {0}")]
    Key(String),
    /// The DNSKEY has no key.
    #[error("the DNSKEY is malformed")]
    NoKey,
    /// The record is of another type.
    #[error("\"{0}\" is neither DNSKEY nor DS")]
    Kind(String),
    /// The record has no type.
    #[error("the record has no type")]
    NoKind,
    /// The DS is malformed.
    #[error("the DS is malformed: {0}")]
    Digest(&'static str),
    /// The digest of the DS is not of the length, in octets, that its type has.
    #[error("the DS is malformed: the digest is not {0} octets in hex")]
    DigestLength(usize),
    /// The algorithm is not supported.
    #[error("the algorithm {0} is not supported; 8, 10, 13, 14 and 15 are")]
    Algorithm(u8),
}

/// Trusted keys, and digests of trusted keys that must be fetched before use.
#[derive(Clone)]
pub(super) struct Anchors {
    pub(super) keys: TrustAnchors,
    pub(super) digests: Vec<DS>,
}

impl Anchors {
    /// Returns the keys of the Internet's root zone (IANA key tags 20326 and 38696).
    pub(super) fn built_in() -> Self {
        Self {
            keys: TrustAnchors::default(),
            digests: Vec::new(),
        }
    }

    /// Reads a file. The error is a description of the fault.
    pub(super) fn read(path: &Path) -> Result<Self, AnchorError> {
        let length = std::fs::metadata(path)?.len();
        if length > FILE_MAX {
            return Err(AnchorError::TooLarge(length));
        }
        Self::parse(&std::fs::read_to_string(path)?)
    }

    /// Parses the text of a file. The error is a description of the fault with its line.
    pub(super) fn parse(text: &str) -> Result<Self, AnchorError> {
        let mut anchors = Self {
            keys: TrustAnchors::empty(),
            digests: Vec::new(),
        };
        for (line, words) in split_records(text)? {
            anchors
                .add(&words)
                .map_err(|fault| AnchorError::Record { line, fault })?;
        }
        if anchors.keys.is_empty() && anchors.digests.is_empty() {
            return Err(AnchorError::Empty);
        }
        Ok(anchors)
    }

    fn add(&mut self, words: &[String]) -> Result<(), AnchorRecordFault> {
        let [owner, fields @ ..] = words else {
            return Ok(());
        };
        if owner != "." {
            return Err(AnchorRecordFault::Owner(owner.clone()));
        }
        let is_class_or_ttl = |word: &&String| {
            word.eq_ignore_ascii_case("IN") || word.bytes().all(|octet| octet.is_ascii_digit())
        };
        let skipped = fields.iter().take(2).take_while(is_class_or_ttl).count();
        match &fields[skipped..] {
            [kind, data @ ..] if kind.eq_ignore_ascii_case("DNSKEY") => {
                let line = format!(". IN DNSKEY {}", data.join(" "));
                let keys = TrustAnchors::from_str(&line)
                    .map_err(|fault| AnchorRecordFault::Key(fault.to_string()))?;
                let key = keys.get(0).ok_or(AnchorRecordFault::NoKey)?;
                require_supported(key.algorithm())?;
                self.keys.insert(key);
                Ok(())
            }
            [kind, data @ ..] if kind.eq_ignore_ascii_case("DS") => {
                self.digests.push(parse_ds(data)?);
                Ok(())
            }
            [kind, ..] => Err(AnchorRecordFault::Kind(kind.clone())),
            [] => Err(AnchorRecordFault::NoKind),
        }
    }

    /// Returns true if a key of the root zone is one of these keys or has one of these digests (RFC
    /// 4035 §5.2).
    pub(super) fn vouch_for(
        &self,
        tag: u16,
        key: &DNSKEY,
        budget: &mut WorkBudget,
    ) -> Result<bool, LookupError> {
        let is_kept = self.keys.contains(key.public_key());
        Ok(is_kept || is_digest_of(&self.digests, &Name::root(), tag, key, budget)?)
    }
}

/// Parses the data of a DS record such as `20326 8 2 E06D44B8…` (RFC 4034 §5.3).
fn parse_ds(data: &[String]) -> Result<DS, AnchorRecordFault> {
    let malformed = AnchorRecordFault::Digest;
    let [tag, algorithm, kind, hex @ ..] = data else {
        return Err(malformed(
            "it needs a key tag, an algorithm, a digest type and a digest",
        ));
    };
    let tag = tag
        .parse()
        .map_err(|_| malformed("the key tag is not a number"))?;
    let algorithm = algorithm
        .parse()
        .map(Algorithm::from_u8)
        .map_err(|_| malformed("the algorithm is not a number"))?;
    require_supported(algorithm)?;
    let kind = kind
        .parse::<u8>()
        .map(DigestType::from)
        .map_err(|_| malformed("the digest type is not a number"))?;
    let length = match kind {
        DigestType::SHA256 => 32,
        DigestType::SHA384 => 48,
        _ => {
            return Err(malformed(
                "the digest type is neither 2 (SHA-256) nor 4 (SHA-384)",
            ));
        }
    };
    let hex = hex.concat();
    let octets: Option<Vec<u8>> = (0..hex.len())
        .step_by(2)
        .map(|at| {
            hex.get(at..at + 2)
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        })
        .collect();
    match octets {
        Some(digest) if digest.len() == length => Ok(DS::new(tag, algorithm, kind, digest)),
        _ => Err(AnchorRecordFault::DigestLength(length)),
    }
}

/// Rejects an algorithm that validation does not support.
fn require_supported(algorithm: Algorithm) -> Result<(), AnchorRecordFault> {
    if is_supported(algorithm) {
        return Ok(());
    }
    Err(AnchorRecordFault::Algorithm(u8::from(algorithm)))
}

/// Splits a zone file into records, each a list of words with the number of its first line.
fn split_records(text: &str) -> Result<Vec<(usize, Vec<String>)>, AnchorError> {
    let mut records: Vec<(usize, Vec<String>)> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        let line = line
            .split(';')
            .next()
            .unwrap_or_default()
            .replace('(', " ( ")
            .replace(')', " ) ");
        let mut words = line.split_whitespace().peekable();
        if words.peek().is_none() {
            continue;
        }
        if !open {
            records.push((index + 1, Vec::new()));
        }
        for word in words {
            match (word, records.last_mut()) {
                ("(", _) => open = true,
                (")", _) => open = false,
                (_, Some((_, record))) => record.push(word.to_owned()),
                (_, None) => {}
            }
        }
    }
    if open {
        Err(AnchorError::Parenthesis)
    } else {
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ==";
    const DIGEST: &str =
        "20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D";

    fn counts(text: &str) -> Result<(usize, usize), String> {
        let parsed = Anchors::parse(text).map_err(|error| error.to_string());
        parsed.map(|anchors| (anchors.keys.len(), anchors.digests.len()))
    }

    #[test]
    fn records_are_read_as_zone_files_are_written() {
        assert_eq!(counts(&format!(". DNSKEY {KEY}")), Ok((1, 0)));
        assert_eq!(
            counts(&format!(
                "; a comment\n\n. 86400 IN DNSKEY {KEY} ;{{id = 1}}\n"
            )),
            Ok((1, 0))
        );
        assert_eq!(
            counts(&format!(
                ".\tIN\t172800 dnskey {}",
                KEY.replace("13 ", "13 (\n  ") + "\n )"
            )),
            Ok((1, 0))
        );
        assert_eq!(
            counts(&format!(
                ". IN DS {DIGEST}\n. IN DNSKEY {KEY}\n. 5 DS {DIGEST}"
            )),
            Ok((1, 2))
        );
        assert_eq!(Anchors::built_in().keys.len(), 2);
    }

    #[test]
    fn faults_are_reported_with_their_line() {
        let cases = [
            ("", "holds no DNSKEY or DS record"),
            ("; nothing\n", "holds no DNSKEY or DS record"),
            (". IN A 192.0.2.1", "line 1: \"A\" is neither DNSKEY nor DS"),
            (
                "\nexample. IN DS 1 8 2 00",
                "line 2: \"example.\" is not the root",
            ),
            (". IN DS 1 8 2 00", "the digest is not 32 octets in hex"),
            (". IN DS 1 8 1 00", "neither 2 (SHA-256) nor 4 (SHA-384)"),
            (". IN DS 1 8", "it needs a key tag"),
            (". IN DS 1 5 2 00", "the algorithm 5 is not supported"),
            (". IN DNSKEY 257 3 13 !", "the DNSKEY is malformed"),
            (". IN DNSKEY (\n257", "a parenthesis is never closed"),
            (". IN", "the record has no type"),
            ("<html>", "is not the root"),
        ];
        for (text, words) in cases {
            let fault = counts(text).expect_err(text);
            assert!(fault.contains(words), "{text:?}: {fault}");
        }
    }
}
