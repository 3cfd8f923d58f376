//! Verification of the chain: reads every record and reports every defect.
//!
//! Nothing follows the end of a chain. Only a head that was kept elsewhere shows that the end was
//! cut off or that the chain was rewritten as a whole.

use std::path::Path;

use jiff::civil::Date;

use super::chain::{self, BadLine, Link, RecordHash};
use super::days::DayFile;
use super::error::EvidenceError;
use super::lines::Lines;
use super::marker::{RemovalMarker, RemovalReason};
use super::record::EvidenceRecord;
use super::shared::NodeChain;
use super::source::EvidenceSource;
use crate::storage::folder_lock::FolderLock;

mod checker;
mod findings;

use checker::{ChainChecker, RecordedRemoval};
pub use findings::{ChainStart, Defect, Finding, Verification};

/// Verifies the whole chain in a folder, and in archives of its earlier days. `heads` are hashes that were kept elsewhere; each must be
/// in the chain.
///
/// # Errors
/// [`EvidenceError`] if the folder or a file in it cannot be read.
pub fn verify<'a>(
    source: impl Into<EvidenceSource<'a>>,
    heads: &[RecordHash],
) -> Result<Verification, EvidenceError> {
    read_chain(source.into(), None, heads, |_, _| {})
}

/// Verifies the chain in some days, wherever it starts.
pub(super) fn verify_days(files: &[DayFile]) -> Result<Verification, EvidenceError> {
    let mut checker = ChainChecker::from_later_record(&[]);
    check_files(files, None, &mut checker, |_, _| {})?;
    Ok(checker.finish())
}

/// Reads and verifies the chain from the last file before a day on; all of it without a day. `each`
/// receives every complete line, with its link if the line is a valid record.
pub(super) fn read_chain(
    source: EvidenceSource<'_>,
    first_day: Option<Date>,
    heads: &[RecordHash],
    each: impl FnMut(&[u8], Option<&Link>),
) -> Result<Verification, EvidenceError> {
    if let Some(chain) = source.chain {
        return read_node_chain(chain, first_day, heads, each);
    }
    // Looked for first: a removal that ends meanwhile is in the chain.
    let removal = RemovalMarker::find(source.folder)?;
    let all = source.files()?;
    // The file before is read too: its last record shows that none is missing at the beginning of
    // the day.
    let skipped = first_day.map_or(0, |day| {
        all.partition_point(|file| file.day < day).saturating_sub(1)
    });
    let files = &all[skipped..];
    let mut checker = if skipped == 0 {
        ChainChecker::new(heads)
    } else {
        ChainChecker::from_later_record(heads)
    };
    if let Some(removal) = removal {
        checker.expect_later_start(removal.reason == RemovalReason::Archived);
    }
    let is_growing = check_files(files, Some(source.folder), &mut checker, each)?;
    let files = files.len() as u64;
    Ok(Verification {
        files,
        is_growing,
        ..checker.finish()
    })
}

/// Adds the records of files to a verification. Returns whether the daemon that uses `live` is
/// writing the last line.
fn check_files(
    files: &[DayFile],
    live: Option<&Path>,
    checker: &mut ChainChecker,
    mut each: impl FnMut(&[u8], Option<&Link>),
) -> Result<bool, EvidenceError> {
    let mut is_growing = false;
    for (at, file) in files.iter().enumerate() {
        let mut lines = Lines::open(file)?;
        let live = live.filter(|_| at + 1 == files.len());
        is_growing = check_lines(&mut lines, (&file.path, live), checker, &mut each)?;
    }
    Ok(is_growing)
}

/// Adds lines to a verification. Returns whether the daemon that uses `live` is writing the last one.
fn check_lines(
    lines: &mut Lines,
    (path, live): (&Path, Option<&Path>),
    checker: &mut ChainChecker,
    each: &mut impl FnMut(&[u8], Option<&Link>),
) -> Result<bool, EvidenceError> {
    while let Some(line) = lines.next()? {
        checker.set_position(path, line.number);
        if !line.is_whole && live.is_some_and(FolderLock::is_held) {
            // The next read would return the remainder that is being written now.
            return Ok(true);
        }
        let read = chain::read(line.text);
        if line.is_whole {
            each(line.text, read.as_ref().ok());
        }
        match read {
            Ok(link) => checker.add_record(link, removal(line.text)),
            Err(BadLine::WrongHash(link)) => checker.add_edited(*link),
            Err(BadLine::NotARecord(_)) if !line.is_whole => checker.report(Defect::Torn),
            Err(BadLine::NotARecord(why)) => checker.add_bad_line(why),
        }
    }
    if let Some(why) = lines.damage() {
        checker.set_position(path, lines.number());
        checker.report(Defect::Damaged {
            why: why.to_owned(),
        });
    }
    Ok(false)
}

/// Reads and verifies the chain of a node in the database, as [`read_chain`] does with files.
fn read_node_chain(
    chain: &NodeChain,
    first_day: Option<Date>,
    heads: &[RecordHash],
    mut each: impl FnMut(&[u8], Option<&Link>),
) -> Result<Verification, EvidenceError> {
    let all = chain.days()?;
    let skipped = first_day.map_or(0, |first| {
        all.partition_point(|day| *day < first).saturating_sub(1)
    });
    let mut checker = if skipped == 0 {
        ChainChecker::new(heads)
    } else {
        ChainChecker::from_later_record(heads)
    };
    if chain.is_removing {
        checker.expect_later_start(false);
    }
    for day in &all[skipped..] {
        let place = chain.place(*day);
        check_lines(
            &mut chain.lines(*day),
            (&place, None),
            &mut checker,
            &mut each,
        )?;
    }
    Ok(Verification {
        files: (all.len() - skipped) as u64,
        ..checker.finish()
    })
}

/// Returns the removal of earlier records, if this line records one.
fn removal(line: &[u8]) -> Option<RecordedRemoval> {
    // Cheap filter: few lines contain the word, so few are parsed.
    memchr::memmem::find(line, b"\"kind\":\"dropped\"")?;
    match serde_json::from_slice(line) {
        Ok(EvidenceRecord::Dropped {
            last_seq,
            last_hash,
            archived_to,
            ..
        }) => Some(RecordedRemoval {
            last_seq,
            last_hash,
            is_archived: archived_to.is_some(),
        }),
        Ok(
            EvidenceRecord::Delivery(_)
            | EvidenceRecord::Accepted(_)
            | EvidenceRecord::Begun { .. }
            | EvidenceRecord::Torn { .. }
            | EvidenceRecord::Unknown,
        )
        | Err(_) => None,
    }
}
