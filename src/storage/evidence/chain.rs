//! The form of a record as one line of JSON, and its link to the record before. Uses no file and no
//! clock.
//!
//! ```text
//! {"seq":7,"prev":"<hash of record 6>","time":"…","kind":"…", … ,"hash":"<hash of this one>"}
//! ```
//!
//! The hash is the SHA-256 of the line up to the comma before `"hash"`, in 64 hexadecimal digits,
//! so that anybody can check it with `sed` and `sha256sum`. The `prev` of the first record is 64
//! zeros.

use jiff::Timestamp;
use serde::Deserialize;

use super::lines::LINE_MAX;
use crate::storage::record_chain::{AFTER_HASH, BEFORE_HASH};
pub use crate::storage::record_chain::{ChainHead, RecordHash};

/// The number of octets at the end of a line that the hash does not cover.
const TAIL: usize = BEFORE_HASH.len() + 64 + AFTER_HASH.len();

/// The fields that every record has: its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Link {
    /// The number of the record. The first has 1, and there are no gaps.
    pub seq: u64,
    /// The hash of the record before.
    pub prev: RecordHash,
    /// The time of the recorded event.
    pub time: Timestamp,
    /// The kind of the record: `accepted`, `delivery`, or a kind that concerns the chain itself.
    pub kind: String,
    /// The hash of this record.
    pub hash: RecordHash,
}

impl Link {
    /// Returns the head of a chain that ends with this record.
    #[must_use]
    pub fn head(&self) -> ChainHead {
        ChainHead {
            seq: self.seq,
            hash: self.hash,
        }
    }
}

/// The reason why a line is not a valid record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadLine {
    /// The line does not have the form of a record.
    NotARecord(LineFault),
    /// The line has the form of a record, but its hash does not match its text.
    WrongHash(Box<Link>),
}

/// The fault of a line that does not have the form of a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// The line is empty.
    #[error("it is empty")]
    Empty,
    /// The line is longer than any record.
    #[error("it is longer than {} KiB", LINE_MAX >> 10)]
    TooLong,
    /// The line is not UTF-8.
    #[error("it is not UTF-8 text")]
    NotText,
    /// The line is not JSON.
    #[error("it is not JSON")]
    NotJson,
    /// The line ends before its JSON does.
    #[error("it ends in the middle of a record")]
    Incomplete,
    /// The line goes on after the JSON of a record.
    #[error("there is more text after the record")]
    MoreText,
    /// The line is JSON with other fields than those of a record.
    #[error("its fields are not those of a record: {0}")]
    Fields(String),
    /// The hash is not the last field.
    #[error("its hash is not at its end")]
    HashNotLast,
}

impl LineFault {
    /// Returns the fault of a line that the JSON parser rejected.
    fn new(line: &[u8], error: &serde_json::Error) -> Self {
        use serde_json::error::Category;
        if line.iter().all(u8::is_ascii_whitespace) {
            return Self::Empty;
        }
        if line.len() as u64 >= LINE_MAX {
            return Self::TooLong;
        }
        if std::str::from_utf8(line).is_err() {
            return Self::NotText;
        }
        match error.classify() {
            Category::Data => {
                // A record is one line, and the file and the line are reported with the fault.
                let text = error.to_string();
                let position = format!(" at line {} column {}", error.line(), error.column());
                Self::Fields(text.strip_suffix(&position).unwrap_or(&text).to_owned())
            }
            Category::Eof => Self::Incomplete,
            Category::Syntax | Category::Io => Self::NotJson,
        }
    }
}

/// Reads a line, given without its line end.
///
/// # Errors
/// [`BadLine`] if the line is not a valid record.
pub(super) fn read(line: &[u8]) -> Result<Link, BadLine> {
    let bad = |fault| Err(BadLine::NotARecord(fault));
    let mut json = serde_json::Deserializer::from_slice(line);
    let record = match Link::deserialize(&mut json) {
        Ok(record) => record,
        Err(error) => return bad(LineFault::new(line, &error)),
    };
    if json.end().is_err() {
        return bad(LineFault::MoreText);
    }
    let covered = line.len().saturating_sub(TAIL);
    let tail = format!("{BEFORE_HASH}{}{AFTER_HASH}", record.hash);
    if line.get(covered..) != Some(tail.as_bytes()) {
        return bad(LineFault::HashNotLast);
    }
    let is_sound = RecordHash::of(&line[..covered]) == record.hash;
    if is_sound {
        Ok(record)
    } else {
        Err(BadLine::WrongHash(Box::new(record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &str = r#""time":"2026-11-26T10:00:00Z","kind":"delivery","to":"a@b.example""#;

    fn two() -> (String, String) {
        let (mut head, mut text) = (ChainHead::START, String::new());
        head.seal(FIELDS, &mut text);
        head.seal(FIELDS, &mut text);
        let (one, two) = text.split_once('\n').expect("two lines");
        (one.to_owned(), two.trim_end().to_owned())
    }

    #[test]
    fn a_record_is_linked_to_the_one_before() {
        let (one, two) = two();
        let [first, second] = [&one, &two].map(|line| read(line.as_bytes()).expect(line));
        assert_eq!((first.seq, first.prev), (1, RecordHash::ZERO));
        assert_eq!(
            (second.seq, second.prev, second.kind.as_str()),
            (2, first.hash, "delivery")
        );
        assert_ne!(first.hash, second.hash, "the number is covered");
    }

    #[test]
    fn the_hash_is_the_sha256_of_the_line_before_it() {
        let (one, _) = two();
        let covered = one.split(",\"hash\"").next().expect("a beginning");
        let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, covered.as_bytes());
        let sum: Vec<_> = sum.as_ref().iter().map(|o| format!("{o:02x}")).collect();
        let hash = read(one.as_bytes()).expect("a record").hash;
        assert_eq!(sum.concat(), hash.to_string());
    }

    #[test]
    fn every_changed_octet_is_noticed() {
        let (one, _) = two();
        for at in 0..one.len() {
            let mut changed = one.clone().into_bytes();
            changed[at] ^= 1;
            assert!(
                read(&changed).is_err(),
                "octet {at}: {}",
                String::from_utf8_lossy(&changed)
            );
        }
        for line in [
            "",
            "{}",
            "[]",
            &one[1..],
            &format!("{one} "),
            &format!("{one}{one}"),
        ] {
            assert!(
                matches!(read(line.as_bytes()), Err(BadLine::NotARecord(_))),
                "{line}"
            );
        }
    }

    /// A line that is no record has its fault in plain words, without the position in the parser's
    /// terms.
    #[test]
    fn the_fault_of_a_line_is_in_plain_words() {
        let (one, _) = two();
        let unknown_hash = one.replace(&one[one.len() - 66..one.len() - 2], "short");
        let long = "x".repeat(usize::try_from(LINE_MAX).expect("it fits"));
        let cases: [(&[u8], &str); 10] = [
            (b"", "it is empty"),
            (b" \t", "it is empty"),
            (b"a line of my own", "it is not JSON"),
            (&[0; 7], "it is not JSON"),
            (b"{\"seq\":1,\xff", "it is not UTF-8 text"),
            (&one.as_bytes()[..90], "it ends in the middle of a record"),
            (long.as_bytes(), "it is longer than 256 KiB"),
            (
                b"{}",
                "its fields are not those of a record: missing field `seq`",
            ),
            (
                unknown_hash.as_bytes(),
                "its fields are not those of a record: a hash has 64 hexadecimal digits",
            ),
            (
                &[one.as_bytes(), one.as_bytes()].concat(),
                "there is more text after the record",
            ),
        ];
        for (line, expected) in cases {
            let Err(BadLine::NotARecord(fault)) = read(line) else {
                panic!("{}", String::from_utf8_lossy(line));
            };
            assert_eq!(fault.to_string(), expected);
        }
    }
}
