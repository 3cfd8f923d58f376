//! Quotas: a disk may be full for us alone. `SQLite` tells a write that a quota forbids from a disk that fails
//! by nothing, so it is tried whether others' files can be written.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Octets that are written to find out: more than any transaction needs, for a little may still be left.
const PROBE: usize = 32 << 20;
/// Octets that are written at once.
const BLOCK: usize = 256 << 10;

/// The file that is written to find out, and removed.
pub(super) fn probe_file(folder: &Path) -> PathBuf {
    folder.join("quota-probe")
}

/// Whether a quota, or a full disk, keeps us from writing to a folder. Blocks; a disk that fails in another way
/// answers no.
pub(super) fn is_used_up(folder: &Path) -> bool {
    let file = probe_file(folder);
    let written = write(&file);
    // A probe that stays is removed at the next start.
    let _left = std::fs::remove_file(&file);
    written.is_err_and(|error| is_full(&error))
}

/// Whether an error says that no more may be written.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn write(file: &Path) -> io::Result<()> {
    let mut file = File::create(file)?;
    // A file system that compresses must not make it small.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = Vec::with_capacity(BLOCK);
    while block.len() < BLOCK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    for _ in 0..PROBE / BLOCK {
        file.write_all(&block)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_room_is_not_used_up_and_nothing_stays_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!is_used_up(folder.path()));
        assert!(!is_used_up(&folder.path().join("missing")), "that is another trouble");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn quotas_and_full_disks_are_told_from_other_trouble() {
        for (errno, full) in
            [(rustix::io::Errno::DQUOT, true), (rustix::io::Errno::NOSPC, true), (rustix::io::Errno::IO, false)]
        {
            assert_eq!(is_full(&errno.into()), full, "{errno}");
        }
    }
}
