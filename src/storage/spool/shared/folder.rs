//! The folder of a node: large mail while it comes in, and the secret by which the node is known.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use super::super::SpoolError;
use super::super::engine::{NODE_TOKEN, SpoolFolder, read_queue};
use super::super::file::{io_error, sync_folder};
use super::super::free_space::FreeSpace;
use crate::storage::folder_lock::FolderLock;

/// The octets of a secret.
const SECRET: usize = 32;
/// The length of the file with it: hexadecimal digits, and the end of the line.
const FILE_MAX: u64 = 2 * SECRET as u64 + 1;

/// The folder of a node, locked for this process.
pub(super) struct NodeFolder {
    pub(super) bodies: PathBuf,
    pub(super) lock: FolderLock,
    pub(super) token: NodeToken,
    pub(super) free_space: FreeSpace,
}

/// The digest of the secret of a node, which the database has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeToken(pub(super) Vec<u8>);

impl NodeFolder {
    /// Creates what is missing, locks the folder, and removes the drafts of an earlier run. Blocks.
    pub(super) fn prepare(folder: &Path) -> Result<Self, SpoolError> {
        let (bodies, lock) = SpoolFolder::lock(folder)?.into_parts();
        refuse_own_queue(folder)?;
        remove_drafts(&bodies)?;
        Ok(Self {
            free_space: FreeSpace::open(folder, None)?,
            token: NodeToken::of(folder)?,
            bodies,
            lock,
        })
    }
}

/// Refuses a folder that has mail in a queue of its own, which would never be delivered.
fn refuse_own_queue(folder: &Path) -> Result<(), SpoolError> {
    if !folder.join("queue.db").exists() {
        return Ok(());
    }
    let waiting = read_queue(folder)?.len();
    if waiting == 0 {
        return Ok(());
    }
    Err(SpoolError::Io(format!(
        "{} has a queue of its own with {waiting} messages; move them into the database first: gatepost spool move",
        folder.display()
    )))
}

fn remove_drafts(bodies: &Path) -> Result<(), SpoolError> {
    let failed = |error| io_error("list", bodies, &error);
    for entry in std::fs::read_dir(bodies).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        std::fs::remove_file(&path).map_err(|error| io_error("remove", &path, &error))?;
    }
    Ok(())
}

impl NodeToken {
    /// Reads the secret of the folder, or makes one.
    fn of(folder: &Path) -> Result<Self, SpoolError> {
        let path = folder.join(NODE_TOKEN);
        let mut text = String::new();
        match File::open(&path) {
            Ok(file) => {
                let read = file.take(FILE_MAX + 1).read_to_string(&mut text);
                read.map_err(|error| io_error("read", &path, &error))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                text = make_secret(folder, &path)?;
            }
            Err(error) => return Err(io_error("open", &path, &error)),
        }
        let secret = HEXLOWER.decode(text.trim_end().as_bytes()).ok();
        let secret = secret.filter(|secret| secret.len() == SECRET);
        let secret = secret.ok_or_else(|| {
            SpoolError::Io(format!(
                "{} is not the secret of a node; remove it, and the node gets a new one when its lease is over",
                path.display()
            ))
        })?;
        Ok(Self(digest(&SHA256, &secret).as_ref().to_vec()))
    }
}

/// Makes a secret, and stores it durably. An interrupted write leaves no file of this name.
fn make_secret(folder: &Path, path: &Path) -> Result<String, SpoolError> {
    let mut secret = [0; SECRET];
    aws_lc_rs::rand::fill(&mut secret)
        .map_err(|_| SpoolError::Io("the system has no random numbers".to_owned()))?;
    let text = format!("{}\n", HEXLOWER.encode(&secret));
    let new = folder.join(format!("{NODE_TOKEN}.new"));
    let written = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|error| io_error("write", &new, &error))?;
    std::fs::rename(&new, path).map_err(|error| io_error("rename", &new, &error))?;
    sync_folder(folder)?;
    Ok(text)
}
