//! The file of a new connector: its place, its permissions, and the step that makes it.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid, fchown};

use crate::config::{ConfigSource, IncludedFolder, included_folders};

/// The place of the connector's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FilePlace {
    /// Standard output.
    Stdout,
    /// A file that is not there yet.
    File {
        /// The file.
        path: PathBuf,
        /// True if the configuration includes it.
        is_included: bool,
    },
}

/// The reason why there is no place for the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilePlaceError {
    /// No pattern of `include` reads the file.
    #[error(
        "{} includes no folder with files such as {name}.\nAdd this line at its top, before the first table:\n  include = [\"connectors.d/*.toml\"]\nThen run `mkdir {}` and this command again; or use --stdout or --output.",
        main.display(), folder.display()
    )]
    NoInclude {
        /// The main file.
        main: PathBuf,
        /// The folder that could be made.
        folder: PathBuf,
        /// The name of the file.
        name: String,
    },
    /// The file is there.
    #[error("{} exists already, and is not overwritten.\nRemove it, or write to another file with --output.", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("{} cannot be written: {error}.\nUse sudo, check the folder and the disk, or use --stdout.", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
}

impl FilePlaceError {
    /// Returns the exit status.
    pub(super) fn exit_status(&self) -> u8 {
        match self {
            Self::Exists(_) => 1,
            Self::NoInclude { .. } | Self::Unwritable { .. } => 2,
        }
    }
}

impl FilePlace {
    /// Finds the place for the file of a domain. `output` is a file that the user named.
    ///
    /// # Errors
    /// [`FilePlaceError`], also if the file exists.
    pub(super) fn find(
        source: &ConfigSource,
        domain: &str,
        output: Option<&Path>,
    ) -> Result<Self, FilePlaceError> {
        let folders = included_folders(source);
        let name = format!("{domain}.toml");
        let path = match output {
            Some(path) => path.to_owned(),
            None => match folders.iter().find(|each| each.reads(&name)) {
                Some(each) => each.folder.join(&name),
                None => return Err(no_include(source, name)),
            },
        };
        // A symbolic link to nothing is a file too.
        if path.symlink_metadata().is_ok() {
            return Err(FilePlaceError::Exists(path));
        }
        let is_included = folders.iter().any(|each| reads(each, &path));
        Ok(Self::File { path, is_included })
    }

    /// Returns the path by which faults name the text, from whose folder its paths start.
    pub(super) fn path(&self, source: &ConfigSource, domain: &str) -> PathBuf {
        match self {
            Self::File { path, .. } => path.clone(),
            Self::Stdout => folder(&source.file).join(format!("{domain}.toml")),
        }
    }
}

fn no_include(source: &ConfigSource, name: String) -> FilePlaceError {
    FilePlaceError::NoInclude {
        main: source.file.to_path_buf(),
        folder: folder(&source.file).join("connectors.d"),
        name,
    }
}

/// Returns whether a file would be read, whatever the way to its folder.
fn reads(included: &IncludedFolder, path: &Path) -> bool {
    let same = match (
        fs::canonicalize(&included.folder),
        fs::canonicalize(folder(path)),
    ) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    };
    let name = path.file_name().and_then(|name| name.to_str());
    same && name.is_some_and(|name| included.reads(name))
}

/// Writes a file that is not there yet, completely or not at all, with the owner and the
/// permissions of its neighbours.
///
/// # Errors
/// [`FilePlaceError::Exists`] and [`FilePlaceError::Unwritable`].
pub(super) fn write_new(
    path: &Path,
    text: &str,
    source: &ConfigSource,
) -> Result<(), FilePlaceError> {
    write(path, text, source).map_err(|error| {
        if error.kind() == ErrorKind::AlreadyExists {
            FilePlaceError::Exists(path.to_owned())
        } else {
            let path = path.to_owned();
            FilePlaceError::Unwritable { path, error }
        }
    })
}

fn write(path: &Path, text: &str, source: &ConfigSource) -> io::Result<()> {
    let folder = folder(path);
    let like = neighbour(folder, source)?;
    let mut new = tempfile::Builder::new()
        .prefix(".connector.")
        .tempfile_in(folder)?;
    new.write_all(text.as_bytes())?;
    let own = new.as_file().metadata()?;
    if (like.uid(), like.gid()) != (own.uid(), own.gid()) {
        let (user, group) = (Uid::from_raw(like.uid()), Gid::from_raw(like.gid()));
        fchown(new.as_file(), Some(user), Some(group))?;
    }
    new.as_file()
        .set_permissions(Permissions::from_mode(like.mode() & 0o666))?;
    new.as_file().sync_all()?;
    new.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// Returns the owner and the permissions of an included file in the folder, or else of the main file.
fn neighbour(folder: &Path, source: &ConfigSource) -> io::Result<Metadata> {
    let beside = source
        .included
        .iter()
        .find(|file| file.file.parent() == Some(folder));
    fs::metadata(beside.map_or(&source.file, |file| &file.file))
}

/// Returns the folder of a file.
fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
