//! Refresh tokens that the token server has replaced (RFC 6749 §6), in the folder `oauth2` of the
//! spool folder, one file for each configured token.
//!
//! Beside the token stands the SHA-256 of the configured one that it descends from, so that an
//! administrator who writes a new token to `refresh_token_file` is heard.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use rustix::fs::{Gid, Uid, fchown};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The folder in the spool folder.
const FOLDER: &str = "oauth2";

/// The content of a file.
#[derive(Serialize, Deserialize)]
struct StoredToken {
    /// The SHA-256 of the configured token.
    configured: String,
    /// The token that replaces it.
    refresh_token: String,
}

/// The file of a refresh token.
#[derive(Debug, Clone)]
pub(super) struct RefreshTokenFile {
    /// The spool folder.
    spool: PathBuf,
    name: String,
}

impl RefreshTokenFile {
    /// Names the file. `key` identifies the settings that the token belongs to.
    pub(super) fn new(spool: &Path, key: &str) -> Self {
        Self {
            spool: spool.to_owned(),
            name: format!("{}.json", &sha256(key)[..32]),
        }
    }

    /// Returns the token that has replaced the configured one; `None` if none has.
    pub(super) fn load(&self, configured: &str) -> Option<Zeroizing<String>> {
        let file = self.spool.join(FOLDER).join(&self.name);
        let content = match fs::read(&file) {
            Ok(content) => Zeroizing::new(content),
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "cannot read the stored refresh token; using that of refresh_token_file");
                return None;
            }
        };
        // The parser's error would quote the token.
        let Ok(stored) = serde_json::from_slice::<StoredToken>(&content) else {
            tracing::warn!(file = %file.display(), "the stored refresh token is damaged; using that of refresh_token_file");
            return None;
        };
        let token = Zeroizing::new(stored.refresh_token);
        (stored.configured == sha256(configured)).then_some(token)
    }

    /// Stores the token that has replaced the configured one. It is durable on return, and until
    /// then the earlier one is in the file. The file belongs to the owner of the spool folder.
    pub(super) fn store(&self, configured: &str, token: &str) -> io::Result<()> {
        let folder = self.spool.join(FOLDER);
        let owner = fs::metadata(&self.spool)?;
        if !folder.is_dir() {
            DirBuilder::new().mode(0o700).create(&folder)?;
            give(&File::open(&folder)?, &owner)?;
            File::open(&self.spool)?.sync_all()?;
        }
        let content = Zeroizing::new(serde_json::to_vec(&StoredToken {
            configured: sha256(configured),
            refresh_token: token.to_owned(),
        })?);
        // Nobody else may read it: mode 0600.
        let mut new = tempfile::Builder::new()
            .prefix(".new.")
            .tempfile_in(&folder)?;
        new.write_all(&content)?;
        give(new.as_file(), &owner)?;
        new.as_file().sync_all()?;
        new.persist(folder.join(&self.name))
            .map_err(|error| error.error)?;
        File::open(&folder)?.sync_all()
    }
}

/// Gives a file to the owner of the spool folder, for commands that root runs.
fn give(file: &File, owner: &fs::Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) == (owner.uid(), owner.gid()) {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    Ok(fchown(file, Some(user), Some(group))?)
}

fn sha256(text: &str) -> String {
    HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_stored_token_belongs_to_the_configured_one() {
        let spool = tempfile::tempdir().expect("a folder");
        let file = RefreshTokenFile::new(spool.path(), "key");
        assert_eq!(file.load("first"), None);
        file.store("first", "second").expect("it is stored");
        let loaded = |configured| file.load(configured).map(|token| token.to_string());
        assert_eq!(loaded("first").as_deref(), Some("second"));
        assert_eq!(loaded("another"), None);
        file.store("another", "third").expect("it is stored");
        assert_eq!(loaded("another").as_deref(), Some("third"));
        let elsewhere = RefreshTokenFile::new(spool.path(), "other key");
        assert_eq!(elsewhere.load("another"), None);
    }

    /// The file has mode 0600 in a folder with mode 0700, and nothing else is left behind.
    #[test]
    fn nobody_else_can_read_it() {
        let spool = tempfile::tempdir().expect("a folder");
        let file = RefreshTokenFile::new(spool.path(), "key");
        file.store("first", "second").expect("it is stored");
        file.store("first", "third").expect("it is stored");
        let folder = spool.path().join(FOLDER);
        let mode =
            |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join(&file.name)), 0o600);
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1);
    }

    /// A crash leaves the earlier token and an unfinished file, which counts for nothing; damage
    /// leaves the configured token.
    #[test]
    fn unfinished_and_damaged_files_are_no_tokens() {
        let spool = tempfile::tempdir().expect("a folder");
        let file = RefreshTokenFile::new(spool.path(), "key");
        file.store("first", "second").expect("it is stored");
        let folder = spool.path().join(FOLDER);
        fs::write(folder.join(".new.x1"), "{\"configured\":").expect("the folder is ours");
        assert_eq!(file.load("first").expect("stored").as_str(), "second");
        fs::write(folder.join(&file.name), "{\"refresh_token\":\"x").expect("the file is ours");
        assert_eq!(file.load("first"), None);
    }
}
