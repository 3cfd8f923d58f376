//! Is the chain whole? Every record is read, and whatever is wrong is named.
//!
//! The end of a chain has nothing behind it: that it was not cut off, or all of it written anew, is known only
//! by a head that was kept elsewhere.

use std::fmt;
use std::path::{Path, PathBuf};

use super::chain::{self, BadLine, Link, RecordHash};
use super::read::Lines;
use super::record::Statement;
use super::{EvidenceError, folder};

mod tally;

use tally::Tally;

/// Findings that are told one by one, at most.
const FINDINGS_MAX: usize = 1000;

/// What came of looking at a chain.
#[derive(Debug)]
pub struct Verified {
    /// Files read.
    pub files: u64,
    /// Records that are as they were written.
    pub records: u64,
    /// The first and the last of these.
    pub first: Option<Link>,
    /// See there.
    pub last: Option<Link>,
    /// What the chain begins with.
    pub beginning: Beginning,
    /// What is wrong, in the order of the files.
    pub findings: Vec<Finding>,
    /// How much more is wrong that is not told.
    pub more: u64,
    /// A running daemon is writing the last line just now.
    pub is_growing: bool,
    /// The expected head that is no longer in the chain: that of the last record that was dropped as too old, on which
    /// the first one hangs.
    pub dropped_head: Option<RecordHash>,
}

/// What a chain begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// There is no record.
    Nothing,
    /// Its first record.
    First,
    /// What was left when older files were dropped by `[evidence] keep`, as a later record says.
    Kept {
        /// How many records are gone.
        dropped: u64,
    },
    /// Something else; it is among the findings.
    Unexplained,
}

/// Something wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// What.
    pub found: Found,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The line has not the form of a record.
    NotARecord {
        /// The record that stood there, where its neighbours tell.
        seq: Option<u64>,
        /// What is wrong with it.
        why: String,
    },
    /// A record was changed: it has not the hash of what it says now.
    Edited {
        /// Which.
        seq: u64,
    },
    /// A record was exchanged for another, hash and all: the one behind it hangs on something else.
    Replaced {
        /// Which.
        seq: u64,
    },
    /// Records are missing before this line.
    Missing {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// A record stands behind one that it came before.
    Misplaced {
        /// Which.
        seq: u64,
        /// Behind which.
        behind: u64,
    },
    /// A record stands there once more.
    Repeated {
        /// Which.
        seq: u64,
    },
    /// The last line has no end: it is half a record, and no daemon is writing it.
    Torn,
    /// The records before this line are gone, and no record says that they were dropped.
    NoBeginning {
        /// The last of those that are missing.
        to: u64,
    },
    /// A head that was kept elsewhere is not in the chain.
    HeadMissing(RecordHash),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.found)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecord { seq: Some(seq), why } => write!(f, "record {seq} was destroyed: {why}"),
            Self::NotARecord { seq: None, why } => write!(f, "this line is no record: {why}"),
            Self::Edited { seq } => write!(f, "record {seq} was edited: its hash is that of another text"),
            Self::Replaced { seq } => {
                write!(f, "record {seq} was replaced: record {} hangs on another one", seq + 1)
            }
            Self::Missing { from, to } if from == to => write!(f, "record {from} is missing before this line"),
            Self::Missing { from, to } => write!(f, "records {from} to {to} are missing before this line"),
            Self::Misplaced { seq, behind } => write!(f, "record {seq} was moved: it stands behind record {behind}"),
            Self::Repeated { seq } => write!(f, "record {seq} stands here once more"),
            Self::Torn => f.write_str(
                "this line has no end: half a record, as a crash leaves it (the next start of the daemon sets it aside)",
            ),
            Self::NoBeginning { to } => {
                write!(f, "the records up to {to} are missing before this line, and no record says that they were dropped")
            }
            Self::HeadMissing(hash) => write!(
                f,
                "no record has the hash {hash}: the end of the chain was cut off, or the chain was written anew, or the \
                 record was dropped as too old"
            ),
        }
    }
}

/// Reads the whole chain in a folder. `heads` are hashes that were kept elsewhere, and must be in it.
///
/// # Errors
/// [`EvidenceError`] where the folder or a file of it cannot be read.
pub fn verify(folder: &Path, heads: &[RecordHash]) -> Result<Verified, EvidenceError> {
    let mut tally = Tally::new(heads);
    let files = folder::files(folder)?;
    let mut is_growing = false;
    for (at, file) in files.iter().enumerate() {
        let mut lines = Lines::open(&file.path)?;
        while let Some(line) = lines.next()? {
            tally.at(&file.path, line.number);
            if !line.is_whole && at + 1 == files.len() && folder::is_in_use(folder) {
                is_growing = true;
                // What is read behind it would be the rest of it, written in this moment.
                break;
            }
            match chain::read(line.text) {
                Ok(link) => tally.record(link, dropped(line.text)),
                Err(BadLine::WrongHash(link)) => tally.edited(*link),
                Err(BadLine::NotARecord(_)) if !line.is_whole => tally.find(Found::Torn),
                Err(BadLine::NotARecord(why)) => tally.not_a_record(why),
            }
        }
    }
    let files = files.len() as u64;
    Ok(Verified { files, is_growing, ..tally.end() })
}

/// The last record that went, where this one tells of that.
fn dropped(line: &[u8]) -> Option<(u64, RecordHash)> {
    // Few lines have the word, and fewer are worth a second look.
    memchr::memmem::find(line, b"\"kind\":\"dropped\"")?;
    match serde_json::from_slice(line) {
        Ok(Statement::Dropped { last_seq, last_hash, .. }) => Some((last_seq, last_hash)),
        Ok(
            Statement::Delivery(_)
            | Statement::Accepted(_)
            | Statement::Begun { .. }
            | Statement::Torn { .. }
            | Statement::Unknown,
        )
        | Err(_) => None,
    }
}
