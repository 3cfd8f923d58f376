//! What outlives the process: a small file beside the spool. It is no evidence and decides nothing, so
//! losing it costs a chart and a repeated warning; it is replaced whole.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{certificates, coverage};

/// Its name, in the folder of the spool.
const NAME: &str = "monitor.json";
const NEW: &str = "monitor.json.new";
/// Octets that are read, at most.
const SIZE_MAX: u64 = 64 << 20;

/// What is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    pub(super) coverage: coverage::Kept,
    pub(super) certificates: certificates::Kept,
}

pub(super) fn read(folder: &Path) -> Kept {
    let path = folder.join(NAME);
    let too_large = || fs::metadata(&path).is_ok_and(|found| found.len() > SIZE_MAX);
    let read = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Kept::default(),
        Ok(_) if too_large() => Err("it is too large".to_owned()),
        Ok(content) => serde_json::from_slice(&content).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    read.unwrap_or_else(|error| {
        let file = path.display();
        tracing::warn!(%file, error, "what was watched before cannot be read: charts begin anew, warnings may be repeated");
        Kept::default()
    })
}

pub(super) fn write(folder: &Path, kept: &Kept) {
    let new = folder.join(NEW);
    let written = serde_json::to_vec(kept)
        .map_err(std::io::Error::from)
        .and_then(|content| fs::write(&new, content))
        .and_then(|()| fs::rename(&new, folder.join(NAME)));
    if let Err(error) = written {
        tracing::warn!(file = %new.display(), %error, "what is watched cannot be kept over a restart");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_begun_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(read(folder.path()).coverage.is_empty());
        fs::write(folder.path().join(NAME), "{half").expect("a file");
        assert!(read(folder.path()).coverage.is_empty());
        write(folder.path(), &Kept::default());
        assert_eq!(fs::read_to_string(folder.path().join(NAME)).expect("a file").chars().next(), Some('{'));
        assert!(!folder.path().join(NEW).exists());
    }
}
