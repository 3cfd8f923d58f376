//! PostgreSQL's server programs, and the user that runs them.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::ClusterDemoError;

/// The folders whose subfolders have one version each, and the prefix of these: of Debian's packages,
/// and of those of PostgreSQL for Red Hat.
const VERSIONS: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];

/// The server programs.
pub(super) struct ServerPrograms {
    folder: PathBuf,
    /// The user and group of the server; `None`: the demo's own.
    user: Option<(u32, u32)>,
}

impl ServerPrograms {
    /// Finds the newest programs. As root they run as the user `postgres`.
    pub(super) fn find() -> Result<Self, ClusterDemoError> {
        let versions = VERSIONS.map(|(folder, prefix)| (Path::new(folder), prefix));
        let folder = find_in(&versions, std::env::var_os("PATH").as_deref())
            .ok_or(ClusterDemoError::NoPrograms)?;
        let user = if rustix::process::geteuid().is_root() {
            let users = std::fs::read_to_string("/etc/passwd")?;
            Some(ids_of(&users, "postgres").ok_or(ClusterDemoError::NoUser)?)
        } else {
            None
        };
        Ok(Self { folder, user })
    }

    /// Returns a command of the server, which has no access to the demo's working folder.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join(name));
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command.current_dir("/").env("LC_ALL", "C");
        command
    }

    /// Makes a folder for the server alone, in a folder of the demo that its user may pass through.
    pub(super) fn make_folder(&self, folder: &Path) -> std::io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
        std::fs::DirBuilder::new().mode(0o700).create(folder)?;
        if let Some((user, group)) = self.user {
            chown(folder, Some(user), Some(group))?;
            if let Some(above) = folder.parent() {
                std::fs::set_permissions(above, std::fs::Permissions::from_mode(0o711))?;
            }
        }
        Ok(())
    }
}

/// Returns the folder with the newest `initdb` among the versions, or else the one of the search path.
fn find_in(versions: &[(&Path, &str)], search_path: Option<&OsStr>) -> Option<PathBuf> {
    let has_programs = |folder: &PathBuf| folder.join("initdb").is_file();
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (folder, prefix) in versions {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name
                .to_str()
                .and_then(|name| name.strip_prefix(prefix)?.parse().ok());
            let programs = entry.path().join("bin");
            found.extend(version.map(|version| (version, programs)));
        }
    }
    found.retain(|(_, folder)| has_programs(folder));
    let newest = found.into_iter().max().map(|(_, folder)| folder);
    newest.or_else(|| std::env::split_paths(search_path?).find(has_programs))
}

/// Returns user and group of a user, from the text of `/etc/passwd`.
fn ids_of(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let number = |at| line.split(':').nth(at)?.parse().ok();
    number(2).zip(number(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_programs(folder: &Path) {
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(folder.join("initdb"), "").expect("a file");
    }

    #[test]
    fn the_newest_version_is_used_and_else_the_search_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let (debian, path) = (folder.path().join("postgresql"), folder.path().join("sbin"));
        let search = || {
            find_in(
                &[(&debian, ""), (folder.path(), "pgsql-")],
                Some(path.as_ref()),
            )
        };
        assert_eq!(search(), None);
        make_programs(&path);
        assert_eq!(search(), Some(path.clone()));
        // A number, not a text: 9 is older than 15. Without initdb it is only the client.
        make_programs(&debian.join("9/bin"));
        make_programs(&debian.join("15/bin"));
        std::fs::create_dir_all(debian.join("17/bin")).expect("a folder");
        assert_eq!(search(), Some(debian.join("15/bin")));
        make_programs(&folder.path().join("pgsql-16/bin"));
        assert_eq!(search(), Some(folder.path().join("pgsql-16/bin")));
    }

    #[test]
    fn a_user_has_an_id_and_a_group() {
        let users =
            "root:x:0:0::/root:/bin/sh\npostgres:x:105:111::/var/lib/postgresql:/bin/bash\n";
        assert_eq!(ids_of(users, "postgres"), Some((105, 111)));
        assert_eq!(ids_of(users, "post"), None);
    }

    #[test]
    fn missing_programs_are_reported_with_the_remedy() {
        let text = ClusterDemoError::NoPrograms.to_string();
        assert!(
            text.contains("initdb") && text.contains("apt install postgresql"),
            "{text}"
        );
    }
}
