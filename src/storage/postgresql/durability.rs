//! The durability of commits at the server: what 250 means with this database.

use super::connections::Database;
use super::error::DatabaseError;

/// The oldest version of the server, as the server numbers it.
const OLDEST_VERSION: i32 = 150_000;

/// The statement that reads all settings. A role that may not see other sessions sees rows without a
/// state.
const READ: &str = "
    SELECT current_setting('server_version_num')::int, current_setting('server_version'),
           current_setting('synchronous_commit'), current_setting('fsync') = 'on',
           current_setting('full_page_writes') = 'on',
           current_setting('synchronous_standby_names') <> '',
           current_setting('server_encoding'), pg_is_in_recovery(),
           count(*) FILTER (WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')),
           count(*) FILTER (WHERE state IS NULL)
    FROM pg_stat_replication";

/// The synchronous standbys of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standbys {
    /// `synchronous_standby_names` is empty: a commit waits for none.
    NotConfigured,
    /// This number of them receives all changes now. With 0, every commit waits.
    Streaming(u64),
    /// The role may not see them; it needs `pg_read_all_stats`.
    Hidden,
}

/// The durability of commits, as the session of a relay has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseDurability {
    /// The version of the server, such as `15.8`.
    pub version: String,
    version_number: i32,
    /// `synchronous_commit`, with which the role and the database may differ from the server.
    pub synchronous_commit: String,
    /// True if the server syncs its disk.
    pub fsync: bool,
    /// True if pages that are being written survive a power loss.
    pub full_page_writes: bool,
    /// The synchronous standbys.
    pub standbys: Standbys,
    encoding: String,
    is_standby: bool,
}

/// Reads the durability of commits.
///
/// # Errors
/// [`DatabaseError`]
pub async fn read_durability(database: &Database) -> Result<DatabaseDurability, DatabaseError> {
    let connection = database.connection().await?;
    let row = connection.query_one(READ, &[]).await?;
    connection.give_back();
    let (streaming, hidden): (i64, i64) = (row.get(8), row.get(9));
    let standbys = match (row.get::<_, bool>(5), hidden) {
        (false, _) => Standbys::NotConfigured,
        (true, 0) => Standbys::Streaming(u64::try_from(streaming).unwrap_or_default()),
        (true, _) => Standbys::Hidden,
    };
    Ok(DatabaseDurability {
        version_number: row.get(0),
        version: row.get(1),
        synchronous_commit: row.get(2),
        fsync: row.get(3),
        full_page_writes: row.get(4),
        standbys,
        encoding: row.get(6),
        is_standby: row.get(7),
    })
}

impl DatabaseDurability {
    /// Refuses a server with which 250 would be a false promise, or that cannot have the queue. With
    /// `without_fsync` a server that does not sync its disk will do, as for tests.
    ///
    /// # Errors
    /// [`DatabaseError::Unfit`] with the remedy; [`DatabaseError::Unreachable`] for a standby.
    pub fn check(&self, without_fsync: bool) -> Result<(), DatabaseError> {
        if self.is_standby {
            let text = "the server is a standby, which cannot be written".to_owned();
            return Err(DatabaseError::Unreachable(text));
        }
        let unfit = if self.version_number < OLDEST_VERSION {
            format!(
                "the server has version {}; upgrade it to PostgreSQL 15 or later",
                self.version
            )
        } else if self.encoding != "UTF8" {
            format!(
                "its encoding is {}, which cannot have all addresses; make it anew: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
                self.encoding
            )
        } else if self.synchronous_commit == "off" {
            "synchronous_commit is off, so that mail may be lost after its 250; run: ALTER ROLE … SET synchronous_commit = on"
                .to_owned()
        } else if !self.fsync && !without_fsync {
            "fsync is off, so that mail may be lost after its 250; set fsync = on in postgresql.conf".to_owned()
        } else {
            return Ok(());
        };
        Err(DatabaseError::Unfit(unfit))
    }

    /// Returns true if each commit is on the disks of two servers before it is confirmed.
    #[must_use]
    pub fn is_on_two_disks(&self) -> bool {
        self.standbys != Standbys::NotConfigured
            && ["on", "remote_apply"].contains(&self.synchronous_commit.as_str())
    }

    /// Returns what an administrator should know, each with its remedy. The server passes
    /// [`DatabaseDurability::check`].
    #[must_use]
    pub fn warnings(&self) -> Vec<(&'static str, &'static str)> {
        let mut warnings = Vec::new();
        if self.standbys == Standbys::NotConfigured {
            warnings.push((
                "the database has no synchronous standby: 250 means on one disk",
                "set up a standby, and synchronous_standby_names",
            ));
        } else if !self.is_on_two_disks() {
            warnings.push((
                "synchronous_commit does not wait for the disk of a standby: 250 means on one disk",
                "run: ALTER ROLE … SET synchronous_commit = on",
            ));
        }
        if self.standbys == Standbys::Streaming(0) {
            warnings.push((
                "no synchronous standby of the database is connected: every commit waits for one",
                "start the standby, or change synchronous_standby_names",
            ));
        }
        if !self.full_page_writes {
            warnings.push((
                "full_page_writes is off: a power loss may damage the database",
                "set full_page_writes = on, unless the file system writes whole pages",
            ));
        }
        warnings
    }

    /// Returns it in words, for `gatepost check` and `gatepost status`.
    #[must_use]
    pub fn parts(&self) -> Vec<String> {
        let standbys = match self.standbys {
            Standbys::NotConfigured => "no synchronous standby".to_owned(),
            Standbys::Streaming(1) => "1 synchronous standby".to_owned(),
            Standbys::Streaming(count) => format!("{count} synchronous standbys"),
            Standbys::Hidden => {
                "synchronous standbys (GRANT pg_read_all_stats shows how many)".to_owned()
            }
        };
        let disks = if self.is_on_two_disks() {
            "two disks"
        } else {
            "one disk"
        };
        vec![
            format!("PostgreSQL {}", self.version),
            format!("synchronous_commit {}", self.synchronous_commit),
            standbys,
            format!("250 means on {disks}"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> DatabaseDurability {
        DatabaseDurability {
            version: "15.8".to_owned(),
            version_number: 150_008,
            synchronous_commit: "on".to_owned(),
            fsync: true,
            full_page_writes: true,
            standbys: Standbys::Streaming(1),
            encoding: "UTF8".to_owned(),
            is_standby: false,
        }
    }

    #[test]
    fn a_server_that_would_break_the_promise_of_250_is_refused() {
        assert!(sound().check(false).is_ok());
        let mut old = sound();
        (old.version, old.version_number) = ("14.13".to_owned(), 140_013);
        let mut latin = sound();
        latin.encoding = "LATIN1".to_owned();
        let mut asynchronous = sound();
        asynchronous.synchronous_commit = "off".to_owned();
        let mut unsynced = sound();
        unsynced.fsync = false;
        for (server, remedy) in [
            (&old, "14.13; upgrade it to PostgreSQL 15"),
            (&latin, "ENCODING 'UTF8'"),
            (&asynchronous, "SET synchronous_commit = on"),
            (&unsynced, "set fsync = on"),
        ] {
            match server.check(false) {
                Err(DatabaseError::Unfit(text)) => assert!(text.contains(remedy), "{text}"),
                other => panic!("{remedy}: {other:?}"),
            }
        }
        assert!(unsynced.check(true).is_ok());
        let mut standby = sound();
        standby.is_standby = true;
        assert!(
            standby
                .check(false)
                .is_err_and(|error| error.is_transient())
        );
    }

    #[test]
    fn one_disk_is_a_warning() {
        for (commit, standbys, disks, warnings) in [
            ("on", Standbys::Streaming(1), "two", 0),
            ("remote_apply", Standbys::Hidden, "two", 0),
            ("on", Standbys::Streaming(0), "two", 1),
            ("on", Standbys::NotConfigured, "one", 1),
            ("local", Standbys::Streaming(2), "one", 1),
            ("remote_write", Standbys::Streaming(1), "one", 1),
        ] {
            let mut server = sound();
            server.synchronous_commit = commit.to_owned();
            server.standbys = standbys;
            assert_eq!(server.warnings().len(), warnings, "{commit} {standbys:?}");
            let parts = server.parts().join(", ");
            assert!(
                parts.ends_with(&format!(
                    "250 means on {disks} disk{}",
                    if disks == "two" { "s" } else { "" }
                )),
                "{parts}"
            );
        }
    }
}
