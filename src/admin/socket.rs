//! The unix socket of the admin API: it is made with the right permissions, replaces a socket on
//! which no process listens any more, and is removed at the end.

use std::fs;
use std::io::{Error, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use crate::config::{AdminSocket, Fault, Located};

/// The permissions: owner and group may connect, nobody else.
const SOCKET_MODE: u32 = 0o660;
const FOLDER_MODE: u32 = 0o750;
/// The number of connections that may wait to be accepted.
const BACKLOG: i32 = 64;
/// The time in which another program must accept a connection; after it, the socket counts as in
/// use.
const KNOCK: Duration = Duration::from_secs(1);

/// The bound socket. Its file is removed on drop, unless it has been replaced by another one.
#[derive(Debug)]
pub struct UnixServer {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    identity: Option<(u64, u64)>,
}

/// The reasons why the socket cannot be used.
#[derive(Debug, thiserror::Error)]
enum UnixServerError {
    #[error("another program listens on it")]
    InUse,
    #[error("the path exists and is not a socket")]
    Foreign,
    #[error("{0}")]
    Io(#[from] Error),
}

impl UnixServerError {
    fn remedy(&self, path: &Path) -> String {
        let folder = folder(path).display();
        match self {
            Self::InUse => "Another Gatepost, most likely: give each its own [admin] socket, or stop the other.".into(),
            Self::Foreign => "Remove it, or choose another path for [admin] socket.".into(),
            Self::Io(_) => format!(
                "Let the user that Gatepost runs as write to {folder} (the systemd unit makes /run/gatepost), or set \
                 [admin] socket to a path that it can write to, or to \"\" for none."
            ),
        }
    }
}

impl UnixServer {
    /// Makes the socket of `[admin] socket`. `None` if that is off.
    ///
    /// # Errors
    /// A fault if it cannot be made, or if another program accepts connections on it.
    pub async fn open(socket: &Located<AdminSocket>) -> Result<Option<Self>, Fault> {
        let path = match &socket.value {
            AdminSocket::Off => return Ok(None),
            AdminSocket::Path(path) => path,
        };
        Self::at(path).await.map(Some).map_err(|error| Fault {
            location: socket.location.clone(),
            message: format!(
                "the admin socket {} cannot be used: {error}",
                path.display()
            ),
            remedy: error.remedy(path),
        })
    }

    async fn at(path: &Path) -> Result<Self, UnixServerError> {
        make_folder(folder(path))?;
        clear(path).await?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // On Linux the file gets the mode of the descriptor, less the umask, so at no moment can
        // others connect. The bits removed by the umask are restored below.
        let _elsewhere = rustix::fs::fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE));
        socket.bind(&SockAddr::unix(path)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(
            OwnedFd::from(socket),
        ))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity: identity(path),
        })
    }
}

impl Drop for UnixServer {
    fn drop(&mut self) {
        if self.identity.is_some() && self.identity == identity(&self.path) {
            // A file that stays behind does no harm: the next start finds that no process accepts
            // connections on it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path)
        .ok()
        .map(|found| (found.dev(), found.ino()))
}

fn make_folder(folder: &Path) -> Result<(), Error> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)?;
    // Restores the bits that the umask removed.
    fs::set_permissions(folder, fs::Permissions::from_mode(FOLDER_MODE))
}

/// Removes a socket that an earlier run left behind.
async fn clear(path: &Path) -> Result<(), UnixServerError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(UnixServerError::Foreign),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    match tokio::time::timeout(KNOCK, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            Ok(fs::remove_file(path)?)
        }
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => Ok(()),
        // A socket with a full backlog is in use.
        Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => Err(UnixServerError::InUse),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(_)) | Err(_) => Err(UnixServerError::InUse),
    }
}
