//! The result of a verification, and the defects that it reports.

use std::fmt;
use std::path::PathBuf;

use super::super::chain::{LineFault, Link, RecordHash};

/// The most defects that are reported one by one.
pub(super) const FINDINGS_MAX: usize = 1000;

/// The result of the verification of a chain.
#[derive(Debug)]
pub struct Verification {
    /// The number of files read.
    pub files: u64,
    /// The number of valid records.
    pub records: u64,
    /// The first valid record.
    pub first: Option<Link>,
    /// The last valid record.
    pub last: Option<Link>,
    /// The start of the chain.
    pub beginning: ChainStart,
    /// The defects, in the order of the files.
    pub findings: Vec<Finding>,
    /// The number of further defects that are not listed.
    pub more: u64,
    /// True if a running daemon is writing the last line.
    pub is_growing: bool,
    /// The expected head that is no longer in the chain because its record has expired: it was the
    /// last one before the present first record.
    pub dropped_head: Option<RecordHash>,
}

/// The start of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainStart {
    /// There is no record.
    Empty,
    /// The chain starts with record 1.
    First,
    /// Older files were deleted by `[evidence] keep`, as a later record says.
    Expired {
        /// The number of deleted records.
        dropped: u64,
    },
    /// Older files were archived, as a later record says, or as it will when their removal is over.
    Archived {
        /// The number of archived records.
        archived: u64,
    },
    /// Earlier files were not read, so the verification starts with a later record.
    NotRead,
    /// The chain starts with another record and nothing explains it; this is also among the
    /// findings.
    Unexplained,
}

/// A defect and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line number, from 1.
    pub line: u64,
    /// The defect.
    pub found: Defect,
}

/// A defect of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Defect {
    /// The line does not have the form of a record.
    NotARecord {
        /// The number of the record that was there, if the records around it show it.
        seq: Option<u64>,
        /// The fault.
        why: LineFault,
    },
    /// A record was changed: its hash does not match its text.
    Edited {
        /// The number of the record.
        seq: u64,
    },
    /// A record was replaced by another one with a hash of its own: the record after it is linked
    /// to a different one.
    Replaced {
        /// The number of the record.
        seq: u64,
    },
    /// Records are missing before this line.
    Missing {
        /// The first missing record.
        from: u64,
        /// The last missing record.
        to: u64,
    },
    /// A record comes after a record that it should precede.
    Misplaced {
        /// The number of the record.
        seq: u64,
        /// The number of the record before it in the file.
        behind: u64,
    },
    /// A record occurs again.
    Repeated {
        /// The number of the record.
        seq: u64,
    },
    /// A compressed file cannot be read from this line on.
    Damaged {
        /// The fault.
        why: String,
    },
    /// The last line has no end: an incomplete record that no daemon is writing.
    Torn,
    /// The records before this line are missing, and no record says that they expired.
    NoBeginning {
        /// The last missing record.
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

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecord { seq: Some(seq), why } => write!(f, "record {seq} was destroyed: {why}"),
            Self::NotARecord { seq: None, why } => write!(f, "this line is not a record: {why}"),
            Self::Edited { seq } => write!(f, "record {seq} was edited: its hash does not match its text"),
            Self::Replaced { seq } => {
                write!(f, "record {seq} was replaced: record {} is linked to another one", seq + 1)
            }
            Self::Missing { from, to } if from == to => write!(f, "record {from} is missing before this line"),
            Self::Missing { from, to } => write!(f, "records {from} to {to} are missing before this line"),
            Self::Misplaced { seq, behind } => write!(f, "record {seq} was moved: it comes after record {behind}"),
            Self::Repeated { seq } => write!(f, "record {seq} is repeated"),
            Self::Damaged { why } => {
                write!(f, "the compressed file is damaged from this line on: {why}")
            }
            Self::Torn => f.write_str(
                "incomplete record, as after a crash; the next start of the daemon moves it to a file of its own",
            ),
            Self::NoBeginning { to } => {
                write!(
                    f,
                    "the records up to {to} are missing before this line, and no record says that they were dropped"
                )
            }
            Self::HeadMissing(hash) => write!(
                f,
                "no record has the hash {hash}: the end of the chain was cut off, or the chain was rewritten, or the \
                 record has expired"
            ),
        }
    }
}
