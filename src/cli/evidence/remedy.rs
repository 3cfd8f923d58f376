//! The remedies for evidence that cannot be read.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::cli::user::User;
use crate::policy::location::Location;
use crate::storage::evidence::EvidenceError;

/// Returns the text of an error and its remedy. `key` is the position of `[evidence] path`;
/// `None` if `--folder` names the folder.
pub(super) fn with_remedy(error: &EvidenceError, folder: &Path, key: Option<&Location>) -> String {
    let EvidenceError::Io {
        path, error: cause, ..
    } = error
    else {
        return error.to_string();
    };
    let remedy = match cause.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory if path == folder => missing_folder(key),
        ErrorKind::NotFound => {
            "The file was deleted meanwhile ([evidence] keep): run the command again.".to_owned()
        }
        ErrorKind::PermissionDenied => {
            let user = rustix::process::geteuid().as_raw();
            denied(&owned(path), user)
        }
        _ => return error.to_string(),
    };
    format!("{error}\n{remedy}")
}

fn missing_folder(key: Option<&Location>) -> String {
    match key {
        Some(location) => format!(
            "Check [evidence] path ({location}). The daemon creates the folder at its start; a copy is named with --folder."
        ),
        None => "Check --folder: it names the daemon's folder ([evidence] path), or a copy of it."
            .to_owned(),
    }
}

/// A file or folder and its owner.
#[derive(Debug)]
struct OwnedPath<'a> {
    path: &'a Path,
    /// The user id and the name of the owner.
    owner: Option<(u32, Option<String>)>,
}

/// Returns the owner of a path. If the path is hidden in a folder without access, it is that
/// folder.
fn owned(path: &Path) -> OwnedPath<'_> {
    let found = path
        .ancestors()
        .find_map(|path| fs::metadata(path).ok().map(|found| (path, found.uid())));
    match found {
        Some((path, uid)) => OwnedPath {
            path,
            owner: Some((uid, User::with_id(uid).map(|user| user.name))),
        },
        None => OwnedPath { path, owner: None },
    }
}

/// Returns the remedy for a path that this user may not read.
fn denied(owned: &OwnedPath<'_>, user: u32) -> String {
    let path = owned.path.display();
    match &owned.owner {
        Some((0, _)) | None => "Run the command as root: sudo gatepost evidence …".to_owned(),
        Some((uid, _)) if *uid == user => {
            format!("Its mode keeps its owner out: chmod -R u+rX {path}")
        }
        Some((_, Some(name))) => format!(
            "Run the command as root, or as the user {name}, who owns {path}: sudo -u {name} gatepost evidence …"
        ),
        Some((uid, None)) => format!(
            "Run the command as root, or as the user {uid}, who owns {path}: sudo -u '#{uid}' gatepost evidence …"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    const FOLDER: &str = "/nowhere/evidence";

    fn io_error(path: &str, kind: ErrorKind) -> EvidenceError {
        EvidenceError::Io {
            what: "list",
            path: path.into(),
            error: io::Error::from(kind),
        }
    }

    /// A folder that is missing has the key or the option that names it, and other errors have no
    /// remedy that does not help.
    #[test]
    fn a_missing_folder_has_the_key_that_names_it() {
        let key = Location {
            file: Arc::from(Path::new("gatepost.toml")),
            line: 7,
            column: 1,
        };
        let missing = io_error(FOLDER, ErrorKind::NotFound);
        for (error, key, expected) in [
            (
                &missing,
                Some(&key),
                "cannot list /nowhere/evidence: entity not found\nCheck [evidence] path (gatepost.toml:7:1). \
                 The daemon creates the folder at its start; a copy is named with --folder.",
            ),
            (
                &io_error(FOLDER, ErrorKind::NotADirectory),
                None,
                "cannot list /nowhere/evidence: not a directory\nCheck --folder: it names the daemon's folder \
                 ([evidence] path), or a copy of it.",
            ),
            (
                &io_error("/nowhere/evidence/1", ErrorKind::NotFound),
                Some(&key),
                "cannot list /nowhere/evidence/1: entity not found\nThe file was deleted meanwhile \
                 ([evidence] keep): run the command again.",
            ),
            (
                &io_error(FOLDER, ErrorKind::StorageFull),
                Some(&key),
                "cannot list /nowhere/evidence: no storage space",
            ),
        ] {
            assert_eq!(with_remedy(error, Path::new(FOLDER), key), expected);
        }
    }

    /// A folder without access has the user who may read it. A path that is hidden has the folder
    /// that hides it.
    #[test]
    fn a_folder_without_access_has_the_user_who_may_read_it() {
        let hidden = with_remedy(
            &io_error(FOLDER, ErrorKind::PermissionDenied),
            Path::new(FOLDER),
            None,
        );
        assert_eq!(
            hidden,
            "cannot list /nowhere/evidence: permission denied\nRun the command as root: sudo gatepost evidence …"
        );
        let owned = |uid, name: Option<&str>| OwnedPath {
            path: Path::new("/var/lib/gatepost"),
            owner: Some((uid, name.map(str::to_owned))),
        };
        for (owned, expected) in [
            (
                owned(998, Some("gatepost")),
                "Run the command as root, or as the user gatepost, who owns /var/lib/gatepost: \
                 sudo -u gatepost gatepost evidence …",
            ),
            (
                owned(998, None),
                "Run the command as root, or as the user 998, who owns /var/lib/gatepost: \
                 sudo -u '#998' gatepost evidence …",
            ),
            (
                owned(7, Some("me")),
                "Its mode keeps its owner out: chmod -R u+rX /var/lib/gatepost",
            ),
        ] {
            assert_eq!(denied(&owned, 7), expected);
        }
    }
}
