//! The files of fetched CRLs: `crls/` in the folder of the spool. Each has the URL, the issuer and
//! the version, and behind them the CRL in PEM, so that openssl can read it. They are a cache: a
//! file that is lost is fetched again. The signature of a CRL is checked at each use, so that a
//! changed file proves nothing.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;

use super::Crl;
use super::fetch::{CrlValidators, FETCHED_OCTETS_MAX, PointKey};

/// The most CRLs that are kept.
pub(super) const COUNT_MAX: usize = 256;
/// The most octets of all CRLs that are kept.
pub(super) const ALL_OCTETS_MAX: usize = 64 << 20;

/// The extension of the names of files.
const EXTENSION: &str = "crl";
/// The name of a file that is being written.
const NEW: &str = "new.crl";

/// The folder of fetched CRLs.
#[derive(Debug)]
pub struct PointFiles {
    /// `None` if nothing is stored.
    folder: Option<PathBuf>,
    /// One file is written at a time.
    writing: Mutex<()>,
}

/// A CRL that was stored.
pub(super) struct StoredCrl {
    pub(super) key: PointKey,
    pub(super) validators: CrlValidators,
    pub(super) crl: Crl,
}

impl PointFiles {
    /// Returns the files in the folder of a spool.
    #[must_use]
    pub fn below(spool: &Path) -> Self {
        Self {
            folder: Some(spool.join("crls")),
            writing: Mutex::default(),
        }
    }

    /// Returns no files: nothing is stored.
    #[must_use]
    pub fn none() -> Self {
        Self {
            folder: None,
            writing: Mutex::default(),
        }
    }

    /// Reads the files, the newest first, within the limits. A file that is not usable is removed.
    pub(super) fn load(&self) -> Vec<StoredCrl> {
        let Some(folder) = &self.folder else {
            return Vec::new();
        };
        let mut files: Vec<_> = files(folder)
            .map(|path| {
                let modified = fs::metadata(&path).and_then(|about| about.modified());
                (modified.unwrap_or(SystemTime::UNIX_EPOCH), path)
            })
            .collect();
        files.sort();
        let (mut all, mut octets) = (Vec::new(), 0);
        for (_, path) in files.into_iter().rev() {
            let stored = read(&path).filter(|stored| {
                octets += stored.crl.der().len();
                all.len() < COUNT_MAX && octets <= ALL_OCTETS_MAX
            });
            match stored {
                Some(stored) => all.push(stored),
                // The folder is a cache, and the next fetch reports what is wrong with it.
                None => drop(fs::remove_file(&path)),
            }
        }
        all
    }

    /// Writes a CRL, and removes those of distribution points that are not in `kept`.
    pub(super) fn store(
        &self,
        key: &PointKey,
        validators: &CrlValidators,
        crl: &Crl,
        kept: &[PointKey],
    ) {
        let Some(folder) = &self.folder else {
            return;
        };
        // No code panics while it holds the lock.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = write(folder, key, validators, crl) {
            tracing::warn!(
                folder = %folder.display(), %error,
                "cannot store a CRL; it is fetched again after a restart"
            );
        }
        let names: Vec<String> = kept.iter().map(file_name).collect();
        for path in files(folder) {
            let name = path.file_name().map(|name| name.to_string_lossy());
            if name.is_none_or(|name| !names.iter().any(|kept| *kept == name)) {
                // It is tried again with the next CRL.
                drop(fs::remove_file(path));
            }
        }
    }
}

/// Returns the files of CRLs in a folder; none if there is no folder yet.
fn files(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let is_ours = |path: &PathBuf| path.extension().is_some_and(|found| found == EXTENSION);
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(is_ours)
}

/// Returns the name of the file for a distribution point: a hash, since a URL may be long and have
/// any character.
fn file_name(key: &PointKey) -> String {
    let text = format!("{} {}", key.issuer, key.url);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    format!("{}.{EXTENSION}", HEXLOWER.encode(hash.as_ref()))
}

fn read(path: &Path) -> Option<StoredCrl> {
    // PEM has a third more octets than DER.
    let most = u64::try_from(FETCHED_OCTETS_MAX * 3 / 2).ok()?;
    let mut octets = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(most).read_to_end(&mut octets).ok()?;
    let begin = octets.windows(5).position(|five| five == b"-----")?;
    let head = std::str::from_utf8(&octets[..begin]).ok()?;
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let key = PointKey {
        url: field("URL")?.to_owned(),
        issuer: field("Issuer")?.to_owned(),
    };
    let is_named_so = path
        .file_name()
        .is_some_and(|name| *name == *file_name(&key));
    Some(StoredCrl {
        key,
        validators: CrlValidators::new(field("ETag"), field("Last-Modified")),
        crl: Crl::parse_all(&octets[begin..]).ok()?.pop()?,
    })
    .filter(|_| is_named_so)
}

fn write(folder: &Path, key: &PointKey, validators: &CrlValidators, crl: &Crl) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut content = format!("URL: {}\nIssuer: {}\n", key.url, key.issuer);
    // Writing into a String cannot fail.
    for (name, value) in [
        ("ETag", &validators.etag),
        ("Last-Modified", &validators.last_modified),
    ] {
        if let Some(value) = value {
            let _ = writeln!(content, "{name}: {value}");
        }
    }
    content.push_str("-----BEGIN X509 CRL-----\n");
    for line in STANDARD.encode(crl.der()).as_bytes().chunks(64) {
        // Base64 is ASCII.
        content.push_str(&String::from_utf8_lossy(line));
        content.push('\n');
    }
    content.push_str("-----END X509 CRL-----\n");
    let new = folder.join(NEW);
    fs::write(&new, content)?;
    fs::rename(new, folder.join(file_name(key)))
}
