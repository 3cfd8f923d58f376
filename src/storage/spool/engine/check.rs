//! The check of a spool: everything in it is read, and nothing is changed.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crc32fast::Hasher;

use super::super::SpoolError;
use super::super::file::io_error;
use super::super::log::LogDamage;
use super::image::{ImageAccess, ImageEntry, SpoolImage};
use super::offline::{self, OfflineError};
use super::paths::SpoolPaths;
use super::replay::ReplayDamage;
use super::row::{RowError, StoredContent};
use super::swap;
use crate::storage::bad_blocks::is_unreadable;
use crate::storage::folder_lock::{self, FolderLock};

/// The most faults in the structure of the database that are listed.
const STRUCTURE_FAULTS: u32 = 100;
/// The number of octets that are read at once.
const BLOCK: usize = 512 * 1024;

/// The result of a check.
#[derive(Debug, Default)]
pub struct SpoolCheck {
    /// True if a relay ran on the spool.
    pub is_in_use: bool,
    /// The number of sound messages that wait.
    pub messages: u64,
    /// The octets of their content.
    pub octets: u64,
    /// The number of segments of the log.
    pub segments: u64,
    /// The octets at the end of the log that a crash left, of which nothing was acknowledged.
    pub torn: u64,
    /// The damage.
    pub findings: Vec<SpoolFinding>,
    /// The names of the files that were set aside earlier.
    pub aside: Vec<String>,
}

/// Damage to a spool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpoolFinding {
    /// The queue id of a message, or the name of a file in the spool.
    pub place: String,
    /// The damage.
    pub cause: String,
    /// The remedy.
    pub remedy: SpoolRemedy,
}

/// The remedy for damage to a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpoolRemedy {
    /// The database must be made anew.
    Repair,
    /// The next start sets the damaged part aside, and so does a repair.
    SetAside,
    /// The relay bounces the message at its next attempt.
    Bounce,
    /// A repair was interrupted after the new database was complete.
    Complete,
}

impl fmt::Display for SpoolRemedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repair => "stop gatepost and run gatepost spool repair before it starts again",
            Self::SetAside => {
                "the next start of gatepost, or gatepost spool repair, sets it aside and uses the rest"
            }
            Self::Bounce => {
                "at its next attempt gatepost sends its sender a report and sets aside what is left of it"
            }
            Self::Complete => {
                "run gatepost spool repair again, or start gatepost, which completes it"
            }
        })
    }
}

impl SpoolCheck {
    /// Returns whether the structure of the database is damaged.
    #[must_use]
    pub fn needs_repair(&self) -> bool {
        let mut remedies = self.findings.iter().map(|finding| finding.remedy);
        remedies.any(|remedy| remedy == SpoolRemedy::Repair)
    }
}

/// Checks the spool in `folder`, on which a relay may run. Blocks.
///
/// # Errors
/// [`OfflineError`] if it cannot be read.
pub fn check_spool(folder: &Path) -> Result<SpoolCheck, OfflineError> {
    let paths = offline::existing(folder)?;
    // Without the file, no relay was ever started here.
    if !folder.join(folder_lock::NAME).exists() {
        return check(&paths, ImageAccess::Locked);
    }
    match offline::lock(folder) {
        Ok(lock) => {
            let _until_the_end: FolderLock = lock;
            check(&paths, ImageAccess::Locked)
        }
        Err(OfflineError::InUse { .. }) => {
            let mut found = check(&paths, ImageAccess::Shared)?;
            found.is_in_use = true;
            if !found.findings.is_empty() {
                // What a running relay changes in the middle of reading looks like damage. Only
                // damage is there the second time.
                let again: BTreeSet<_> = check(&paths, ImageAccess::Shared)?
                    .findings
                    .into_iter()
                    .collect();
                found.findings.retain(|finding| again.contains(finding));
            }
            Ok(found)
        }
        Err(error) => Err(error),
    }
}

/// Checks a spool.
pub(super) fn check(paths: &SpoolPaths, access: ImageAccess) -> Result<SpoolCheck, OfflineError> {
    let image = SpoolImage::open(paths.clone(), access)?;
    let mut done = SpoolCheck {
        segments: image.replayed.index.segment_count() as u64,
        torn: image.replayed.torn,
        aside: names(&paths.quarantine)?,
        ..SpoolCheck::default()
    };
    if swap::is_pending(paths)? {
        let cause = "a repair was interrupted after the new database was complete";
        done.add(swap::WORK, cause, SpoolRemedy::Complete);
    }
    if let Some(fault) = &image.database_fault {
        done.add("queue.db", fault, SpoolRemedy::Repair);
    }
    for fault in image.structure_faults(STRUCTURE_FAULTS)? {
        done.add("queue.db", &fault, SpoolRemedy::Repair);
    }
    for damage in &image.replayed.damage {
        done.add_log(damage);
    }
    let needs_repair = done.needs_repair();
    let in_log = done.findings.len();
    image.each(|entry| done.add_message(&image, &entry))?;
    if needs_repair {
        // A start would set them aside, and a repair may read them.
        for finding in &mut done.findings[in_log..] {
            finding.remedy = SpoolRemedy::Repair;
        }
    }
    done.findings.sort();
    done.findings.dedup();
    Ok(done)
}

impl SpoolCheck {
    fn add(&mut self, place: &str, cause: &str, remedy: SpoolRemedy) {
        self.findings.push(SpoolFinding {
            place: place.to_owned(),
            cause: cause.to_owned(),
            remedy,
        });
    }

    fn add_log(&mut self, damage: &ReplayDamage) {
        let (number, cause) = described(damage);
        self.add(&segment(number), &cause, SpoolRemedy::SetAside);
    }

    fn add_message(&mut self, image: &SpoolImage, entry: &ImageEntry) -> Result<(), SpoolError> {
        let stored = match &entry.head {
            Ok(stored) => stored,
            Err(fault) => {
                self.add(&entry.name, fault, SpoolRemedy::SetAside);
                return Ok(());
            }
        };
        let fault = match image.content(stored.id, entry) {
            Ok(StoredContent::Row(_)) => None,
            Ok(StoredContent::File { path, crc }) => file_fault(&path, crc)?,
            Err(RowError::Damage(fault)) => Some(fault),
            Err(RowError::Spool(error)) => return Err(error),
        };
        if let Some(fault) = fault {
            self.add(&entry.name, &fault, SpoolRemedy::Bounce);
        } else {
            self.messages += 1;
            self.octets += stored.size;
        }
        Ok(())
    }
}

/// Returns the name of a segment of the log in the spool.
pub(super) fn segment(number: u64) -> String {
    format!("log/{number:016x}.seg")
}

/// Returns the number of the segment that is damaged, and the damage.
pub(super) fn described(damage: &ReplayDamage) -> (u64, String) {
    match damage {
        ReplayDamage::Segment { number } => (*number, "its header is damaged".to_owned()),
        ReplayDamage::Part { number, damage } => {
            let LogDamage { from, to, id } = damage;
            let id = id.map_or_else(String::new, |id| format!(", perhaps of message {id}"));
            (*number, format!("octets {from} to {to} are damaged{id}"))
        }
        ReplayDamage::Gap { number } => (*number, "the segment after it is missing".to_owned()),
    }
}

/// Reads a body file, whose length was checked, and returns the damage, if there is any.
fn file_fault(path: &Path, expected: u32) -> Result<Option<String>, SpoolError> {
    let (mut block, mut crc) = (vec![0; BLOCK], Hasher::new());
    let read = File::open(path).and_then(|mut file| {
        loop {
            match file.read(&mut block)? {
                0 => return Ok(()),
                read => crc.update(&block[..read]),
            }
        }
    });
    let found = crc.finalize();
    match read {
        Ok(()) if found == expected => Ok(None),
        Ok(()) => Ok(Some(format!(
            "the checksum of its body file is {found:08x} where {expected:08x} was stored"
        ))),
        Err(error) if is_unreadable(&error) || error.kind() == io::ErrorKind::NotFound => {
            Ok(Some(format!("its body file cannot be read: {error}")))
        }
        // It may pass, and says nothing of the file.
        Err(error) => Err(io_error("read", path, &error)),
    }
}

/// Returns the names in a folder, which may be missing.
fn names(folder: &Path) -> Result<Vec<String>, SpoolError> {
    let failed = |error| io_error("list", folder, &error);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
