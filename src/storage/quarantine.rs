//! The quarantine: the folder `aside`, to which damaged data is moved for a person to inspect.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::files::{create_folder, parent, sync_folder, with_suffix};

/// The name of the folder in the spool.
pub(super) const NAME: &str = "aside";

/// Returns the quarantine of a spool.
pub(super) fn folder(spool: &Path) -> PathBuf {
    spool.join(NAME)
}

/// Moves a file to this place in the quarantine. Returns whether the file exists. The new name is
/// durable before the old one is durably gone.
pub(super) fn move_file(file: &Path, to: &Path) -> io::Result<bool> {
    match std::fs::rename(file, to) {
        Ok(()) => {
            sync_folder(parent(to))?;
            sync_folder(parent(file)).map(|()| true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Moves a database, with its log, to the quarantine of its folder, as NAME-SECONDS.db. Returns its
/// new path. Nothing there is replaced. No connection to the database may be open.
pub(super) fn move_database(file: &Path) -> io::Result<PathBuf> {
    let aside = folder(parent(file));
    create_folder(&aside)?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let now = Timestamp::now().as_second();
    let name = |more: &str| aside.join(format!("{stem}-{now}{more}.db"));
    // Two within a second are two faults of the same database.
    let numbered = (2..).map(|number| name(&format!("-{number}")));
    let free = std::iter::once(name(""))
        .chain(numbered)
        .find(|path| !path.exists());
    let to = free.unwrap_or_else(|| name(""));
    std::fs::rename(file, &to)?;
    // SQLite would apply a log that stays to the new database.
    for log in ["-wal", "-journal"] {
        move_file(&with_suffix(file, log), &with_suffix(&to, log))?;
    }
    match std::fs::remove_file(with_suffix(file, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    sync_folder(&aside)?;
    sync_folder(parent(file))?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_database_moves_with_its_log_and_replaces_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.db");
        let mut moved = Vec::new();
        for round in ["1", "2", "3"] {
            fs::write(&file, round).expect("ours");
            fs::write(with_suffix(&file, "-wal"), format!("log {round}")).expect("ours");
            fs::write(with_suffix(&file, "-shm"), "index").expect("ours");
            moved.push((round, move_database(&file).expect("moved")));
        }
        for (round, to) in moved {
            assert_eq!(fs::read_to_string(&to).expect("a file"), round);
            let log = fs::read_to_string(with_suffix(&to, "-wal")).expect("a file");
            assert_eq!(log, format!("log {round}"));
        }
        let left = fs::read_dir(folder.path())
            .expect("a folder")
            .map(|one| one.expect("an entry"));
        assert_eq!(left.map(|one| one.file_name()).collect::<Vec<_>>(), [NAME]);
    }
}
