//! The ownership of folders that hold mail and evidence: nobody else may own them or write to them.
//!
//! In a folder that everybody may write to, such as /tmp, another user can make ours before we do, and then read,
//! replace or forge what is put into it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Group and others may write.
const WRITABLE: u32 = 0o022;
/// All may write; but who writes here removes only what is his own.
const EVERYBODY: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NotOurs {
    /// The folder is of somebody else.
    #[error("it belongs to the user {owner}, and this process runs as {user}")]
    Foreign {
        /// The user id of its owner.
        owner: u32,
        /// Ours.
        user: u32,
    },
    /// A symbolic link of somebody else leads to it.
    #[error("it is a symbolic link of the user {0}, who can point it elsewhere")]
    ForeignLink(u32),
    /// Others can change what is in it.
    #[error("others than its owner may write to it (mode {0:04o})")]
    Writable(u32),
    /// Others can put another folder in its place.
    #[error("everybody may write to the folder above it (mode {0:04o}) and put another in its place")]
    Replaceable(u32),
    /// It cannot be looked at.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What the system says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owned {
    owner: u32,
    mode: u32,
}

impl From<Metadata> for Owned {
    fn from(found: Metadata) -> Self {
        Self { owner: found.uid(), mode: found.mode() & 0o7777 }
    }
}

/// Checks that a folder is ours alone to write to, and says what to do where it is not.
///
/// # Errors
/// The reason and the remedy, in a sentence each.
pub fn check(folder: &Path) -> Result<(), String> {
    let user = rustix::process::geteuid().as_raw();
    examine(folder, user).map_err(|fault| {
        let path = folder.display();
        let remedy = match &fault {
            NotOurs::Foreign { .. } | NotOurs::ForeignLink(_) => {
                format!("run gatepost as its owner, give it to {user} (chown {user} {path}), or choose another path")
            }
            NotOurs::Writable(_) => format!("chmod go-w {path}, after a look at what is in it, or choose another path"),
            NotOurs::Replaceable(_) => "choose a path below a folder that only its owner may write to".to_owned(),
            NotOurs::Io(_) => format!("see that {path} can be reached"),
        };
        format!("{path} is not safe to use: {fault}; {remedy}")
    })
}

fn examine(folder: &Path, user: u32) -> Result<(), NotOurs> {
    let named = fs::symlink_metadata(folder)?;
    let link = named.is_symlink().then(|| Owned::from(named));
    let above = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    judge(user, link, fs::metadata(folder)?.into(), fs::metadata(above)?.into())
}

/// The judgement on a folder, the link that leads to it, and the folder above it.
fn judge(user: u32, link: Option<Owned>, folder: Owned, above: Owned) -> Result<(), NotOurs> {
    // The administrator's links lead where they should.
    if let Some(link) = link.filter(|link| link.owner != user && link.owner != 0) {
        return Err(NotOurs::ForeignLink(link.owner));
    }
    if folder.owner != user {
        return Err(NotOurs::Foreign { owner: folder.owner, user });
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

    fn of(owner: u32, mode: u32) -> Owned {
        Owned { owner, mode }
    }

    #[test]
    fn a_folder_is_ours_where_nobody_else_can_write_or_replace_it() {
        let (ours, tmp) = (of(US, 0o700), of(0, 0o1777));
        for (link, folder, above, fault) in [
            (None, ours, tmp, None),
            (None, of(US, 0o755), of(0, 0o755), None),
            (Some(of(US, 0o777)), ours, tmp, None),
            (Some(of(0, 0o777)), ours, tmp, None),
            (None, of(1000, 0o700), tmp, Some("it belongs to the user 1000, and this process runs as 88")),
            (None, of(0, 0o755), tmp, Some("it belongs to the user 0, and this process runs as 88")),
            (
                Some(of(1000, 0o777)),
                ours,
                tmp,
                Some("it is a symbolic link of the user 1000, who can point it elsewhere"),
            ),
            (None, of(US, 0o1777), tmp, Some("others than its owner may write to it (mode 1777)")),
            (None, of(US, 0o770), tmp, Some("others than its owner may write to it (mode 0770)")),
            (
                None,
                ours,
                of(0, 0o777),
                Some("everybody may write to the folder above it (mode 0777) and put another in its place"),
            ),
        ] {
            let judged = judge(US, link, folder, above).err().map(|fault| fault.to_string());
            assert_eq!(judged.as_deref(), fault, "{link:?} {folder:?} {above:?}");
        }
    }

    #[test]
    fn a_remedy_stands_beside_each_fault() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("spool");
        fs::create_dir(&folder).expect("our own folder");
        assert_eq!(check(&folder), Ok(()));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("our own folder");
        let path = folder.display();
        let told = format!(
            "{path} is not safe to use: others than its owner may write to it (mode 0777); chmod go-w {path}, after a look \
             at what is in it, or choose another path"
        );
        assert_eq!(check(&folder), Err(told));
        assert!(check(&place.path().join("missing")).is_err_and(|told| told.contains("can be reached")));
    }
}
