//! The marker of a removal: the file that says that days were archived, or have expired, and are being
//! removed, until a record in the chain says so.
//!
//! Its name is `archived-DAY-SEQ-HASH` or `expired-DAY-SEQ-HASH`: the newest of these days, and the
//! number and the hash of their last record. So it needs no space, and the chain continues although no
//! other file may be left. Its content is the path of the archive, if there is one and there was space
//! for that.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::civil::Date;

use super::chain::{ChainHead, RecordHash};
use super::error::EvidenceError;

/// The length of a day in the name.
const DAY: usize = 10;

/// The reason of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RemovalReason {
    /// The days are in an archive.
    Archived,
    /// The days are older than `[evidence] keep`.
    Expired,
}

impl RemovalReason {
    const ALL: [Self; 2] = [Self::Archived, Self::Expired];

    /// Returns the beginning of the name.
    fn prefix(self) -> &'static str {
        match self {
            Self::Archived => "archived-",
            Self::Expired => "expired-",
        }
    }
}

/// A removal of days that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemovalMarker {
    pub(super) reason: RemovalReason,
    /// The newest of the days.
    pub(super) until: Date,
    /// Their last record.
    pub(super) head: ChainHead,
    pub(super) path: PathBuf,
}

impl RemovalMarker {
    pub(super) fn new(folder: &Path, reason: RemovalReason, until: Date, head: ChainHead) -> Self {
        let (prefix, ChainHead { seq, hash }) = (reason.prefix(), head);
        Self {
            reason,
            until,
            head,
            path: folder.join(format!("{prefix}{until}-{seq}-{hash}")),
        }
    }

    fn named(folder: &Path, name: &str) -> Option<Self> {
        let mut reasons = RemovalReason::ALL.into_iter();
        let found = reasons.find_map(|reason| Some((reason, name.strip_prefix(reason.prefix())?)));
        let (reason, rest) = found?;
        let (day, head) = rest.split_at_checked(DAY)?;
        let (seq, hash) = head.strip_prefix('-')?.split_once('-')?;
        let head = ChainHead {
            seq: seq.parse().ok()?,
            hash: RecordHash::parse(hash)?,
        };
        let marker = Self::new(folder, reason, day.parse().ok()?, head);
        (marker.path.file_name()? == name).then_some(marker)
    }

    /// Returns the marker of the latest removal in a folder; `None` if none is under way.
    pub(super) fn find(folder: &Path) -> Result<Option<Self>, EvidenceError> {
        let failed = |error| EvidenceError::new("list", folder, error);
        let mut found: Option<Self> = None;
        for entry in fs::read_dir(folder).map_err(&failed)? {
            let name = entry.map_err(&failed)?.file_name();
            let marker = name.to_str().and_then(|name| Self::named(folder, name));
            if let Some(marker) = marker
                && found
                    .as_ref()
                    .is_none_or(|found| found.until < marker.until)
            {
                found = Some(marker);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn the_latest_marker_is_found_by_its_name_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        assert_eq!(RemovalMarker::find(path).expect("readable"), None);
        let hash = RecordHash::parse(&"0a".repeat(32)).expect("a hash");
        let marker = |reason, day, seq| {
            let head = ChainHead { seq, hash };
            let marker = RemovalMarker::new(path, reason, date(2026, 11, day), head);
            fs::write(&marker.path, "").expect("ours");
            marker
        };
        let earlier = marker(RemovalReason::Expired, 25, 7);
        let later = marker(RemovalReason::Archived, 26, 812);
        for foreign in [
            "archived-",
            "archived-2026-11-27",
            "archived-2026-11-27-9-0a",
            "archived",
        ] {
            fs::write(path.join(foreign), "").expect("ours");
        }
        assert_eq!(
            RemovalMarker::find(path).expect("readable"),
            Some(later.clone())
        );
        fs::remove_file(later.path).expect("ours");
        assert_eq!(RemovalMarker::find(path).expect("readable"), Some(earlier));
    }
}
