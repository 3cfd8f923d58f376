//! The file of the users as `gatepost user` changes it: checked first, then replaced at once.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use rustix::fs::{FlockOperation, Gid, Uid, fchown, flock};

use crate::config::{Config, Fault, UserList, parse_users, read_users_text};
use crate::policy::connector::Connectors;
use crate::smtp::sasl::PrepareError;

/// The reason why a command about users failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum UserFileError {
    /// The configuration names no file.
    #[error("the configuration has no [users]; add [users] with file = \"users.toml\"")]
    NoUsers,
    /// The file has faults, or would have.
    #[error("{}: {} errors", .0.display(), .1.len())]
    Faults(PathBuf, Vec<Fault>),
    /// The user is written in a form that this program does not change.
    #[error("the user is not written as a [[user]] table; change the file with an editor")]
    Form,
    /// The two passwords differ.
    #[error("the two passwords differ; nothing was changed")]
    NotTheSame,
    /// The password is too short.
    #[error("the password has less than {0} characters; nothing was changed")]
    TooShort(usize),
    /// The password is not usable.
    #[error("the password cannot be used: {0}; nothing was changed")]
    Password(#[from] PrepareError),
    /// The costs of the file's passwords are out of range.
    #[error("the costs of the file's passwords are out of range")]
    Cost,
    /// A file cannot be read or written.
    #[error("the users cannot be changed: {0}; use sudo, and check the disk")]
    Io(#[from] io::Error),
}

/// The file of the users. While this lives, no other command changes it.
pub(super) struct UserFile {
    path: PathBuf,
    /// The folder of the spool, which belongs to the user that Gatepost runs as.
    spool: PathBuf,
    /// The connectors that users may name.
    connectors: Connectors,
    _lock: File,
}

impl UserFile {
    /// Waits until no other command changes the file.
    pub(super) fn open(config: &Config) -> Result<Self, UserFileError> {
        let users = config.users.as_ref().ok_or(UserFileError::NoUsers)?;
        let named = &users.file.value;
        // A symbolic link stays, and the file that it leads to is replaced.
        let path = fs::canonicalize(named).unwrap_or_else(|_| named.clone());
        let lock = File::open(folder(&path))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(io::Error::from)?;
        Ok(Self {
            path,
            spool: config.spool.value.clone(),
            connectors: config.connectors(),
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the text of the file; empty if there is none.
    pub(super) fn text(&self) -> Result<String, UserFileError> {
        if !self.path.exists() {
            return Ok(String::new());
        }
        read_users_text(&self.path)
            .map_err(|fault| UserFileError::Faults(self.path.clone(), vec![fault]))
    }

    /// Returns the text of the file; if there is none, that of a new one.
    pub(super) fn text_or_new(&self) -> Result<String, UserFileError> {
        let text = self.text()?;
        if !text.is_empty() {
            return Ok(text);
        }
        Ok(
            "# The users that may log in (gatepost.toml(5), USERS); `gatepost user` changes this file.\n"
                .to_owned(),
        )
    }

    /// Returns the users.
    pub(super) fn users(&self) -> Result<UserList, UserFileError> {
        let text = read_users_text(&self.path)
            .map_err(|fault| UserFileError::Faults(self.path.clone(), vec![fault]))?;
        self.check(&text)
    }

    /// Returns the users, none if there is no file.
    pub(super) fn users_or_none(&self) -> Result<UserList, UserFileError> {
        self.check(&self.text()?)
    }

    /// Checks a text for the file.
    pub(super) fn check(&self, text: &str) -> Result<UserList, UserFileError> {
        let users = parse_users(text, &self.path).and_then(|users| {
            let faults = users.unknown_connectors(&self.connectors);
            if faults.is_empty() {
                Ok(users)
            } else {
                Err(faults)
            }
        });
        users.map_err(|faults| UserFileError::Faults(self.path.clone(), faults))
    }

    /// Returns a text with `salt_secret`, which it gets if it has none.
    fn with_secret(&self, text: &str, users: &UserList) -> Result<String, UserFileError> {
        if users.salt_secret.is_some() {
            return Ok(text.to_owned());
        }
        let mut secret = [0; 32];
        random(&mut secret)?;
        let line = format!(
            "salt_secret = \"{}\"\n",
            data_encoding::BASE64.encode(&secret)
        );
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // Behind the comments at the top; before the first table.
        let comments = text.lines().take_while(|line| line.starts_with('#'));
        let at: usize = comments.map(|comment| comment.len() + 1).sum();
        let (above, below) = text.split_at_checked(at).unwrap_or((text, ""));
        let above = if above.is_empty() || above.ends_with('\n') {
            above.to_owned()
        } else {
            format!("{above}\n")
        };
        let text = format!("{above}{line}{below}");
        self.check(&text)?;
        Ok(text)
    }

    /// Replaces the file by this text, at once and durably, if the text has no fault. It gets
    /// `salt_secret` if it has none. Its owner stays; a new file belongs to the owner of the spool.
    pub(super) fn replace(&self, text: &str) -> Result<(), UserFileError> {
        let users = self.check(text)?;
        let text = &self.with_secret(text, &users)?;
        let folder = folder(&self.path);
        let mut new = tempfile::Builder::new()
            .prefix(".users.")
            .tempfile_in(folder)?;
        new.write_all(text.as_bytes())?;
        let like = fs::metadata(&self.path).or_else(|_| fs::metadata(&self.spool));
        let own = new.as_file().metadata()?;
        if let Ok(like) = like
            && (like.uid(), like.gid()) != (own.uid(), own.gid())
        {
            let (user, group) = (Uid::from_raw(like.uid()), Gid::from_raw(like.gid()));
            fchown(new.as_file(), Some(user), Some(group)).map_err(io::Error::from)?;
        }
        new.as_file().sync_all()?;
        new.persist(&self.path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()?;
        Ok(())
    }
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Fills a buffer with random octets.
pub(super) fn random(octets: &mut [u8]) -> io::Result<()> {
    rand::fill(octets).map_err(|_| io::Error::other("there are no random numbers"))
}
