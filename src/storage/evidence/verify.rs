//! Verification of the chain: reads every record and reports every defect.
//!
//! Nothing follows the end of a chain. Only a head that was kept elsewhere shows that the end was
//! cut off or that the chain was rewritten as a whole.

use std::path::Path;

use jiff::civil::Date;

use super::chain::{self, BadLine, Link, RecordHash};
use super::days;
use super::error::EvidenceError;
use super::lines::Lines;
use super::record::EvidenceRecord;
use crate::storage::folder_lock::FolderLock;

mod checker;
mod findings;

use checker::ChainChecker;
pub use findings::{ChainStart, Defect, Finding, Verification};

/// Verifies the whole chain in a folder. `heads` are hashes that were kept elsewhere; each must be
/// in the chain.
///
/// # Errors
/// [`EvidenceError`] if the folder or a file in it cannot be read.
pub fn verify(folder: &Path, heads: &[RecordHash]) -> Result<Verification, EvidenceError> {
    read_chain(folder, None, heads, |_, _| {})
}

/// Reads and verifies the chain from the last file before a day on; all of it without a day. `each`
/// receives every complete line, with its link if the line is a valid record.
pub(super) fn read_chain(
    folder: &Path,
    first_day: Option<Date>,
    heads: &[RecordHash],
    mut each: impl FnMut(&[u8], Option<&Link>),
) -> Result<Verification, EvidenceError> {
    let all = days::files_for_reading(folder)?;
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
    let mut is_growing = false;
    for (at, file) in files.iter().enumerate() {
        let mut lines = Lines::open(file)?;
        while let Some(line) = lines.next()? {
            checker.set_position(&file.path, line.number);
            if !line.is_whole && at + 1 == files.len() && FolderLock::is_held(folder) {
                is_growing = true;
                // The next read would return the remainder that is being written now.
                break;
            }
            let read = chain::read(line.text);
            if line.is_whole {
                each(line.text, read.as_ref().ok());
            }
            match read {
                Ok(link) => checker.add_record(link, deleted_up_to(line.text)),
                Err(BadLine::WrongHash(link)) => checker.add_edited(*link),
                Err(BadLine::NotARecord(_)) if !line.is_whole => checker.report(Defect::Torn),
                Err(BadLine::NotARecord(why)) => checker.add_bad_line(why),
            }
        }
        if let Some(why) = lines.damage() {
            checker.set_position(&file.path, lines.number());
            checker.report(Defect::Damaged {
                why: why.to_owned(),
            });
        }
    }
    let files = files.len() as u64;
    Ok(Verification {
        files,
        is_growing,
        ..checker.finish()
    })
}

/// Returns the last deleted record, if this line records a deletion.
fn deleted_up_to(line: &[u8]) -> Option<(u64, RecordHash)> {
    // Cheap filter: few lines contain the word, so few are parsed.
    memchr::memmem::find(line, b"\"kind\":\"dropped\"")?;
    match serde_json::from_slice(line) {
        Ok(EvidenceRecord::Dropped {
            last_seq,
            last_hash,
            ..
        }) => Some((last_seq, last_hash)),
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
