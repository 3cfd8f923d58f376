//! A CRL file of a connector, which is read again when it changes.

use std::fs::Metadata;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::changes::record_change;
use super::crl_error::OCTETS_MAX;
use super::{Crl, CrlError};
use crate::config::{Fault, Located};

/// A file with CRLs: one in DER, or any number in PEM.
#[derive(Debug)]
pub struct CrlFile {
    file: Located<PathBuf>,
    loaded: ArcSwap<LoadedCrls>,
}

#[derive(Debug)]
struct LoadedCrls {
    crls: Vec<Arc<Crl>>,
    /// The file at the time of the last attempt to read it.
    stamp: FileStamp,
}

/// The properties of a file that change with its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl FileStamp {
    fn of(about: &Metadata) -> Self {
        Self {
            inode: about.ino(),
            size: about.size(),
            changed: (about.ctime(), about.ctime_nsec()),
            modified: (about.mtime(), about.mtime_nsec()),
        }
    }
}

/// A CRL of a file, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlFileSummary {
    /// The file.
    pub file: PathBuf,
    /// The issuer's name.
    pub issuer: String,
    /// The number of certificates that it lists.
    pub entries: usize,
    /// The time at which it was issued.
    pub this_update: Timestamp,
    /// The time from which it has expired.
    pub next_update: Timestamp,
}

impl CrlFile {
    /// Reads a file. Returns a warning for each CRL that has expired.
    ///
    /// # Errors
    /// A fault with its remedy.
    pub fn load(file: &Located<PathBuf>, now: Timestamp) -> Result<(Self, Vec<Fault>), Fault> {
        let loaded = read(&file.value).map_err(|error| error.fault(file))?;
        let expired = loaded.crls.iter().filter(|crl| now >= crl.next_update());
        let warnings = expired.map(|crl| Fault {
            location: file.location.clone(),
            message: format!(
                "a CRL in {} has expired ({}, nextUpdate {})",
                file.value.display(),
                crl.issuer(),
                crl.next_update()
            ),
            remedy: "Get the new one from the authority; revocation = \"required\" refuses with an expired one."
                .to_owned(),
        });
        let warnings = warnings.collect();
        let own = Self {
            file: file.clone(),
            loaded: ArcSwap::from_pointee(loaded),
        };
        Ok((own, warnings))
    }

    /// The CRLs in use.
    #[must_use]
    pub fn crls(&self) -> Vec<Arc<Crl>> {
        self.loaded.load().crls.clone()
    }

    /// Reads the file again if it has changed, and returns the new CRLs. An invalid file is
    /// reported until it is replaced, and the old CRLs stay in use.
    ///
    /// This reads files and blocks.
    ///
    /// # Errors
    /// A fault with its remedy.
    pub fn refresh(&self) -> Result<Vec<CrlFileSummary>, Fault> {
        let old = self.loaded.load_full();
        let is_same = std::fs::metadata(&self.file.value)
            .is_ok_and(|about| FileStamp::of(&about) == old.stamp);
        if is_same {
            return Ok(Vec::new());
        }
        let new = read(&self.file.value).map_err(|error| error.fault(&self.file))?;
        let is_known = |crl: &Arc<Crl>| old.crls.iter().any(|known| known.der() == crl.der());
        let replaced = new.crls.iter().filter(|crl| !is_known(crl));
        let replaced = replaced.map(|crl| self.summary(crl)).collect();
        self.loaded.store(Arc::new(new));
        record_change();
        Ok(replaced)
    }

    /// Describes the CRLs in use.
    #[must_use]
    pub fn summaries(&self) -> Vec<CrlFileSummary> {
        self.crls().iter().map(|crl| self.summary(crl)).collect()
    }

    fn summary(&self, crl: &Crl) -> CrlFileSummary {
        CrlFileSummary {
            file: self.file.value.clone(),
            issuer: crl.issuer().to_owned(),
            entries: crl.entries(),
            this_update: crl.this_update(),
            next_update: crl.next_update(),
        }
    }
}

/// The reason why a file yields no CRL.
enum FileError {
    Unreadable(std::io::Error),
    Unusable(CrlError),
}

impl FileError {
    fn fault(self, file: &Located<PathBuf>) -> Fault {
        let path = file.value.display();
        let (message, remedy) = match self {
            Self::Unreadable(error) if error.kind() == std::io::ErrorKind::NotFound => (
                format!("{path} does not exist"),
                "Write the path of a CRL file; a relative one starts at the folder of the configuration.",
            ),
            Self::Unreadable(error) => (
                format!("{path} cannot be read: {error}"),
                "Let the user that runs Gatepost read the file, and enter every folder above it.",
            ),
            Self::Unusable(why) => (
                format!("{path} is not a usable CRL: {why}"),
                "Get the complete CRL from the authority, in PEM or DER.",
            ),
        };
        Fault {
            location: file.location.clone(),
            message,
            remedy: remedy.to_owned(),
        }
    }
}

fn read(path: &Path) -> Result<LoadedCrls, FileError> {
    let file = std::fs::File::open(path).map_err(FileError::Unreadable)?;
    let stamp = FileStamp::of(&file.metadata().map_err(FileError::Unreadable)?);
    let mut octets = Vec::new();
    // One octet more than allowed is enough to see that the file is too large. PEM has a third
    // more octets than DER.
    let most = u64::try_from(OCTETS_MAX * 3 / 2).unwrap_or(u64::MAX);
    file.take(most + 1)
        .read_to_end(&mut octets)
        .map_err(FileError::Unreadable)?;
    if octets.len() as u64 > most {
        return Err(FileError::Unusable(CrlError::TooLarge));
    }
    let crls = Crl::parse_all(&octets).map_err(FileError::Unusable)?;
    Ok(LoadedCrls {
        crls: crls.into_iter().map(Arc::new).collect(),
        stamp,
    })
}
