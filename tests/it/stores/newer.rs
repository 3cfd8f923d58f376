//! Databases that this version must not use are refused and left alone.

use std::fs;
use std::path::Path;

use gatepost::discovery::history::History;
use gatepost::discovery::mta_sts::{MtaSts, POLICY_FETCH_TIMEOUT, WebSource};
use gatepost::relay::tlsrpt::{Bounds, ReportService, Schedule};
use gatepost::storage::spool::SqliteSpool;
use rusqlite::Connection;

use super::{LAST, RECORDS, at, spool, stores};
use crate::published::host::World;

const DATABASES: [&str; 4] = ["queue.db", "history.db", "policies.db", "tlsrpt.db"];

/// Opens one of the databases, as the daemon does; the error, if it is refused.
fn open(database: &str, folder: &Path, world: &World) -> Result<(), String> {
    match database {
        "queue.db" => SqliteSpool::open(folder)
            .map(drop)
            .map_err(|error| error.to_string()),
        "history.db" => History::open(folder, at(LAST))
            .map(drop)
            .map_err(|error| error.to_string()),
        "policies.db" => {
            let (dns, https) = world.tools();
            let web = WebSource::new(dns, https).with_port_and_timeout(9, POLICY_FETCH_TIMEOUT);
            MtaSts::open(folder, web)
                .map(drop)
                .map_err(|error| error.to_string())
        }
        "tlsrpt.db" => {
            let opened = ReportService::open(folder, Bounds::default(), Schedule::default());
            opened.map(drop).map_err(|error| error.to_string())
        }
        other => panic!("{other}"),
    }
}

/// A copy of the stores in which this SQL changed a database, as after a kill: the change is in the
/// log alone.
fn changed(database: &str, sql: &str) -> tempfile::TempDir {
    let (before, after) = (stores(), stores());
    let changed = Connection::open(spool(&before).join(database)).expect("ours");
    changed.execute_batch(sql).expect(sql);
    for end in ["", "-wal"] {
        let name = format!("{database}{end}");
        fs::copy(spool(&before).join(&name), spool(&after).join(&name)).expect("copied");
    }
    assert!(
        fs::metadata(spool(&after).join(format!("{database}-wal"))).is_ok_and(|log| log.len() > 0)
    );
    after
}

/// Neither the file nor its log changes, nothing is quarantined, and the error names file, versions
/// and remedy.
#[tokio::test]
async fn a_database_that_is_not_ours_to_use_is_refused_and_left_alone() {
    let world = World::new(RECORDS).await;
    let newer = [
        "has version 4",
        "supports version",
        "run the newer gatepost",
        "restore the file",
        "and lose",
    ];
    let foreign = [
        "the database of another program",
        "left as it is",
        "move it away",
        "[spool] path",
        "",
    ];
    for (sql, expected) in [
        ("PRAGMA user_version = 4", newer),
        ("PRAGMA application_id = 5", foreign),
        (
            "PRAGMA application_id = 0; PRAGMA user_version = 0",
            foreign,
        ),
    ] {
        for database in DATABASES {
            let folder = changed(database, sql);
            let folder = spool(&folder);
            let read = || {
                ["", "-wal"]
                    .map(|end| fs::read(folder.join(format!("{database}{end}"))).expect("a file"))
            };
            let octets = read();
            let error = open(database, &folder, &world).expect_err(sql);
            for words in [database].into_iter().chain(expected) {
                assert!(
                    error.contains(words),
                    "{sql}: {words:?} is missing from {error}"
                );
            }
            assert!(read() == octets, "{sql}: {database} was changed");
            let aside = fs::read_dir(folder.join("aside")).map_or(0, Iterator::count);
            assert_eq!(aside, 0, "{sql}: {database} was quarantined");
        }
    }
}

/// The same change, made by the version that the file is of, keeps nobody from opening it.
#[tokio::test]
async fn a_database_with_a_log_of_a_killed_process_opens() {
    let world = World::new(RECORDS).await;
    for database in DATABASES {
        let folder = changed(database, "PRAGMA user_version = 1");
        open(database, &spool(&folder), &world).expect(database);
    }
}
