//! The state that survives a restart, in a small file in the folder of the spool. No decision
//! depends on it: its loss costs only a chart and a repeated warning. The file is replaced as a
//! whole.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{certificates, coverage};

/// The name of the file in the folder of the spool.
const FILE_NAME: &str = "monitor.json";
/// The name under which a new file is written before it replaces the old one.
const NEW_FILE_NAME: &str = "monitor.json.new";
/// The largest file that is read, in octets.
const SIZE_MAX: u64 = 64 << 20;

/// The content of the file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StoredState {
    pub(super) coverage: coverage::StoredCoverage,
    pub(super) certificates: certificates::StoredCertificates,
}

/// The reason why the file cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadFileError {
    /// The system cannot read it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It has more than [`SIZE_MAX`] octets.
    #[error("it is too large")]
    TooLarge,
    /// It is not JSON of our form.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

pub(super) fn read(folder: &Path) -> StoredState {
    let path = folder.join(FILE_NAME);
    let too_large = || fs::metadata(&path).is_ok_and(|found| found.len() > SIZE_MAX);
    let read = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return StoredState::default(),
        Ok(_) if too_large() => Err(ReadFileError::TooLarge),
        Ok(content) => serde_json::from_slice(&content).map_err(ReadFileError::Json),
        Err(error) => Err(ReadFileError::Io(error)),
    };
    read.unwrap_or_else(|error| {
        let file = path.display();
        tracing::warn!(%file, %error, "cannot read monitor.json; charts restart and warnings may be repeated");
        StoredState::default()
    })
}

pub(super) fn write(folder: &Path, state: &StoredState) {
    let new = folder.join(NEW_FILE_NAME);
    let written = serde_json::to_vec(state)
        .map_err(std::io::Error::from)
        .and_then(|content| fs::write(&new, content))
        .and_then(|()| fs::rename(&new, folder.join(FILE_NAME)));
    if let Err(error) = written {
        tracing::warn!(file = %new.display(), %error, "cannot write monitor.json; charts and warnings do not survive a restart");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_file_is_ignored_and_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(read(folder.path()).coverage.is_empty());
        fs::write(folder.path().join(FILE_NAME), "{half").expect("a file");
        assert!(read(folder.path()).coverage.is_empty());
        write(folder.path(), &StoredState::default());
        assert_eq!(
            fs::read_to_string(folder.path().join(FILE_NAME))
                .expect("a file")
                .chars()
                .next(),
            Some('{')
        );
        assert!(!folder.path().join(NEW_FILE_NAME).exists());
    }
}
