//! The file of a list of recipients, which may change.

use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::config::{Fault, Located, Location};
use crate::policy::recipient_list::{RecipientList, RecipientListFault};

/// The largest file, in octets: some ten million addresses.
const SIZE_MAX: u64 = 512 << 20;

/// A list of recipients, and the file that it is read from.
#[derive(Debug)]
pub(super) struct ListFile {
    file: Located<PathBuf>,
    current: ArcSwap<RecipientList>,
    /// The version of the file that `current` was read from.
    version: Mutex<FileVersion>,
}

/// The facts of a file that change with its content: device, inode, size, and the times of the last
/// change of content and of status in nanoseconds.
type FileVersion = (u64, u64, u64, (i64, i64), (i64, i64));

impl ListFile {
    /// Reads a file.
    pub(super) fn load(file: &Located<PathBuf>) -> Result<Self, Vec<Fault>> {
        let (list, version) = read(file)?;
        Ok(Self {
            file: file.clone(),
            current: ArcSwap::from_pointee(list),
            version: Mutex::new(version),
        })
    }

    /// Reads the file again. Returns the new list if it has changed; it is in use then.
    ///
    /// # Errors
    /// The faults of the new version; the old one stays in use.
    pub(super) fn refresh(&self) -> Result<Option<Arc<RecipientList>>, Vec<Fault>> {
        let mut version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        let present = std::fs::metadata(&self.file.value).map(|metadata| version_of(&metadata));
        if present.is_ok_and(|present| present == *version) {
            return Ok(None);
        }
        let (new, read_version) = read(&self.file)?;
        *version = read_version;
        if new == **self.current.load() {
            return Ok(None);
        }
        let new = Arc::new(new);
        self.current.store(Arc::clone(&new));
        Ok(Some(new))
    }

    pub(super) fn list(&self) -> arc_swap::Guard<Arc<RecipientList>> {
        self.current.load()
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.value
    }
}

fn version_of(metadata: &Metadata) -> FileVersion {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        (metadata.mtime(), metadata.mtime_nsec()),
        (metadata.ctime(), metadata.ctime_nsec()),
    )
}

fn read(file: &Located<PathBuf>) -> Result<(RecipientList, FileVersion), Vec<Fault>> {
    let (text, version) = read_text(&file.value).map_err(|error| {
        vec![Fault {
            location: file.location.clone(),
            message: format!("{} cannot be read: {error}", file.value.display()),
            remedy: "Write a text file in UTF-8, with an address or @domain on each line, that the user gatepost can read."
                .to_owned(),
        }]
    })?;
    let list = RecipientList::parse(&text).map_err(|faults| {
        let fault = |(line, fault): (u32, RecipientListFault)| Fault {
            location: Location {
                file: Arc::from(file.value.as_path()),
                line,
                column: 1,
            },
            message: fault.to_string(),
            remedy: "Correct the file; a `#` begins a comment.".to_owned(),
        };
        faults.into_iter().map(fault).collect::<Vec<_>>()
    })?;
    Ok((list, version))
}

fn read_text(path: &Path) -> io::Result<(String, FileVersion)> {
    let file = std::fs::File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if metadata.len() > SIZE_MAX {
        return Err(io::Error::other("it is larger than 512 MiB"));
    }
    let mut text = String::new();
    file.take(SIZE_MAX).read_to_string(&mut text)?;
    Ok((text, version_of(&metadata)))
}
