//! Checks of folders for mail and evidence: no other user may own them or write to them.
//!
//! In a folder that all users may write to, such as /tmp, another user could create our folder
//! first, and then read, replace or forge its contents.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Permission bits: group and others may write.
const WRITABLE: u32 = 0o022;
/// Permission bit: others may write. With the sticky bit they can delete only their own files.
const EVERYBODY: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// The reason why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NotOurs {
    /// The folder belongs to another user.
    #[error("it belongs to the user {owner}, and this process runs as {user}")]
    Foreign {
        /// The user id of its owner.
        owner: u32,
        /// Our user id.
        user: u32,
    },
    /// The path is a symbolic link that belongs to another user.
    #[error("it is a symbolic link of the user {0}, who can point it elsewhere")]
    ForeignLink(u32),
    /// Other users can change its contents.
    #[error("other users may write to it (mode {0:04o})")]
    Writable(u32),
    /// Other users can replace the folder.
    #[error("all users may write to its parent folder (mode {0:04o}) and could replace it")]
    Replaceable(u32),
    /// The folder cannot be examined.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The owner and permissions of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ownership {
    owner: u32,
    mode: u32,
}

impl From<Metadata> for Ownership {
    fn from(found: Metadata) -> Self {
        Self {
            owner: found.uid(),
            mode: found.mode() & 0o7777,
        }
    }
}

/// A folder that is not safe to use, with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{} is not safe to use: {fault}; {}", path.display(), self.remedy())]
pub struct UnsafeFolder {
    /// The folder.
    pub path: PathBuf,
    /// The fault.
    pub fault: NotOurs,
    /// Our user id.
    user: u32,
}

impl UnsafeFolder {
    fn remedy(&self) -> String {
        let (path, user) = (self.path.display(), self.user);
        match &self.fault {
            NotOurs::Foreign { .. } | NotOurs::ForeignLink(_) => {
                format!(
                    "run gatepost as its owner, give it to {user} (chown {user} {path}), or choose another path"
                )
            }
            NotOurs::Writable(_) => {
                format!("check its contents and run chmod go-w {path}, or choose another path")
            }
            NotOurs::Replaceable(_) => {
                "choose a path below a folder that only its owner may write to".to_owned()
            }
            NotOurs::Io(_) => format!("make sure that {path} exists and is accessible"),
        }
    }
}

/// Checks that only we can write to a folder.
///
/// # Errors
/// The fault and the remedy.
pub fn check(folder: &Path) -> Result<(), UnsafeFolder> {
    let user = rustix::process::geteuid().as_raw();
    examine(folder, user).map_err(|fault| UnsafeFolder {
        path: folder.to_owned(),
        fault,
        user,
    })
}

fn examine(folder: &Path, user: u32) -> Result<(), NotOurs> {
    let named = fs::symlink_metadata(folder)?;
    let link = named.is_symlink().then(|| Ownership::from(named));
    let above = folder
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    check_owners(
        user,
        link,
        fs::metadata(folder)?.into(),
        fs::metadata(above)?.into(),
    )
}

/// Decides about a folder, the symbolic link that leads to it, if any, and its parent folder.
fn check_owners(
    user: u32,
    link: Option<Ownership>,
    folder: Ownership,
    above: Ownership,
) -> Result<(), NotOurs> {
    // Symbolic links of root are trusted.
    if let Some(link) = link.filter(|link| link.owner != user && link.owner != 0) {
        return Err(NotOurs::ForeignLink(link.owner));
    }
    if folder.owner != user {
        return Err(NotOurs::Foreign {
            owner: folder.owner,
            user,
        });
    }
    if folder.mode & WRITABLE != 0 {
        return Err(NotOurs::Writable(folder.mode));
    }
    if above.mode & EVERYBODY != 0 && above.mode & STICKY == 0 {
        return Err(NotOurs::Replaceable(above.mode));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const US: u32 = 88;

    fn owned(owner: u32, mode: u32) -> Ownership {
        Ownership { owner, mode }
    }

    #[test]
    fn a_folder_is_accepted_if_nobody_else_can_write_to_it_or_replace_it() {
        let (ours, tmp) = (owned(US, 0o700), owned(0, 0o1777));
        for (link, folder, above, fault) in [
            (None, ours, tmp, None),
            (None, owned(US, 0o755), owned(0, 0o755), None),
            (Some(owned(US, 0o777)), ours, tmp, None),
            (Some(owned(0, 0o777)), ours, tmp, None),
            (
                None,
                owned(1000, 0o700),
                tmp,
                Some("it belongs to the user 1000, and this process runs as 88"),
            ),
            (
                None,
                owned(0, 0o755),
                tmp,
                Some("it belongs to the user 0, and this process runs as 88"),
            ),
            (
                Some(owned(1000, 0o777)),
                ours,
                tmp,
                Some("it is a symbolic link of the user 1000, who can point it elsewhere"),
            ),
            (
                None,
                owned(US, 0o1777),
                tmp,
                Some("other users may write to it (mode 1777)"),
            ),
            (
                None,
                owned(US, 0o770),
                tmp,
                Some("other users may write to it (mode 0770)"),
            ),
            (
                None,
                ours,
                owned(0, 0o777),
                Some("all users may write to its parent folder (mode 0777) and could replace it"),
            ),
        ] {
            let result = check_owners(US, link, folder, above)
                .err()
                .map(|fault| fault.to_string());
            assert_eq!(result.as_deref(), fault, "{link:?} {folder:?} {above:?}");
        }
    }

    #[test]
    fn each_fault_comes_with_a_remedy() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("spool");
        let check = |folder: &Path| super::check(folder).map_err(|fault| fault.to_string());
        fs::create_dir(&folder).expect("our own folder");
        assert_eq!(check(&folder), Ok(()));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("our own folder");
        let path = folder.display();
        let expected = format!(
            "{path} is not safe to use: other users may write to it (mode 0777); check its contents and run chmod go-w {path}, \
             or choose another path"
        );
        assert_eq!(check(&folder), Err(expected));
        assert!(
            check(&place.path().join("missing"))
                .is_err_and(|fault| fault.contains("is accessible"))
        );
    }
}
