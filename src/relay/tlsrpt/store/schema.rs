//! The form of the database.

use std::borrow::Cow;
use std::path::Path;

use crate::storage::sqlite::{self, Durability, OpenError, Schema, SqliteDatabase};

/// The form of the database.
static SCHEMA: Schema = Schema {
    name: "tlsrpt.db",
    // "GPTR".
    application_id: 0x4750_5452,
    version: 1,
    upgrades: &[],
    upgrade: Cow::Borrowed(""),
    tables: Cow::Borrowed(TABLES),
    durability: Durability::Crash,
    log_kept: 4 << 20,
    gives_space_back: false,
    loss: "the sessions that are not reported yet",
};

const TABLES: &str = "
CREATE TABLE domain (
    id INTEGER PRIMARY KEY,
    day TEXT NOT NULL,                  -- UTC
    name TEXT NOT NULL,
    report TEXT,                        -- the id of its report, once it is planned
    due INTEGER,                        -- when it is tried next; seconds since 1970-01-01
    first INTEGER,                      -- when it was tried first
    attempts INTEGER NOT NULL DEFAULT 0,
    done TEXT NOT NULL DEFAULT '[]',    -- destinations that have it
    closed TEXT,                        -- why nothing more is done; its counts are gone then
    UNIQUE (day, name)
);
CREATE INDEX domain_due ON domain (due) WHERE due IS NOT NULL;
CREATE TABLE policy (
    id INTEGER PRIMARY KEY,
    domain INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
    policy_domain TEXT NOT NULL,
    type TEXT NOT NULL,
    strings TEXT NOT NULL,              -- JSON list
    mx TEXT NOT NULL,                   -- JSON list
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    UNIQUE (domain, policy_domain, type, strings, mx)
);
CREATE TABLE failure (
    policy INTEGER NOT NULL REFERENCES policy (id) ON DELETE CASCADE,
    result TEXT NOT NULL,
    sending_ip TEXT NOT NULL,
    mx TEXT NOT NULL,
    helo TEXT NOT NULL,
    receiving_ip TEXT NOT NULL,
    reason TEXT NOT NULL,
    information TEXT NOT NULL,
    sessions INTEGER NOT NULL,
    UNIQUE (policy, result, sending_ip, mx, helo, receiving_ip, reason, information)
);
";

/// Opens the database. A damaged one is quarantined and replaced, for counts are not important
/// enough to prevent the start.
pub(super) fn open(folder: &Path) -> Result<SqliteDatabase, OpenError> {
    let opened = sqlite::open_or_replace(&SCHEMA, folder, |_| Ok(()), log_replaced);
    opened.map(|(database, ())| database)
}

/// Logs the loss of a damaged database, which is now at `aside`.
fn log_replaced(aside: &Path, damage: &str) {
    tracing::error!(file = %aside.display(), damage, "TLS report counts are damaged, file quarantined; counting starts from 0");
}
