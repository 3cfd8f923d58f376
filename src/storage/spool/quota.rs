//! Disk quotas. A disk can be full for our user alone. SQLite reports a write that exceeds a quota
//! like a failing disk, so a test file is written to distinguish the two.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::storage::files::is_full;

/// The size of the test file in octets: more than any transaction needs, for a small write may
/// still succeed.
const TEST_SIZE: usize = 32 << 20;
/// The number of octets that are written at once.
const BLOCK: usize = 256 << 10;
/// The time for which an answer is used: one error asks more than once.
const VALID: Duration = Duration::from_secs(5);

/// An answer about a folder.
#[derive(Debug)]
struct QuotaAnswer {
    folder: PathBuf,
    at: Instant,
    is_exhausted: bool,
}

/// The latest answer.
static LATEST: Mutex<Option<QuotaAnswer>> = Mutex::new(None);

/// Returns the path of the test file, which is removed after the test.
pub(super) fn test_file(folder: &Path) -> PathBuf {
    folder.join("quota-probe")
}

/// Returns whether a quota or a full disk prevents writing to the folder. Returns `false` for any
/// other error. The answer may be five seconds old. Blocks.
pub(super) fn is_exhausted(folder: &Path) -> bool {
    let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    let is_known = |answer: &&QuotaAnswer| answer.folder == folder && answer.at.elapsed() < VALID;
    if let Some(answer) = latest.as_ref().filter(is_known) {
        return answer.is_exhausted;
    }
    let is_exhausted = test(folder);
    *latest = Some(QuotaAnswer {
        folder: folder.to_owned(),
        at: Instant::now(),
        is_exhausted,
    });
    is_exhausted
}

fn test(folder: &Path) -> bool {
    let file = test_file(folder);
    let written = write(&file);
    // A test file that cannot be removed is removed at the next start.
    let _left = std::fs::remove_file(&file);
    written.is_err_and(|error| is_full(&error))
}

fn write(file: &Path) -> io::Result<()> {
    let mut file = File::create(file)?;
    // Pseudo-random content, which a compressing file system cannot shrink.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = Vec::with_capacity(BLOCK);
    while block.len() < BLOCK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    for _ in 0..TEST_SIZE / BLOCK {
        file.write_all(&block)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_space_is_not_exhausted_and_the_test_file_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!test(folder.path()));
        assert!(
            !test(&folder.path().join("missing")),
            "that is another error"
        );
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            0
        );
    }

    /// One error asks more than once, and the test writes 32 MiB.
    #[test]
    fn the_same_answer_is_not_found_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let other = tempfile::tempdir().expect("a folder");
        // Nothing but a test removes the file.
        let is_left = |at: &Path| {
            std::fs::write(test_file(at), "").expect("ours");
            is_exhausted(at);
            test_file(at).exists()
        };
        let left = [&folder, &folder, &other].map(|at| is_left(at.path()));
        assert_eq!(left, [false, true, false]);
    }
}
