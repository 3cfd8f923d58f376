//! The schema of the database: its versions, and the SQL that makes them.

use tokio_postgres::error::SqlState;

use super::connections::Database;
use super::error::DatabaseError;

/// The version of the schema that this program makes.
pub const SCHEMA_VERSION: i32 = 1;
/// The oldest version that a program must know to use the schema of this version.
const COMPATIBLE: i32 = 1;
/// The steps from each version to the next one.
const STEPS: [&str; 1] = [concat!(
    include_str!("schema/1.sql"),
    include_str!("schema/changes.sql"),
    include_str!("schema/history.sql"),
    include_str!("schema/policies.sql"),
    include_str!("schema/evidence.sql"),
    include_str!("schema/orders.sql"),
    include_str!("schema/tlsrpt.sql"),
)];
/// The key of the lock that one migration has at a time.
const MIGRATION_LOCK: i64 = 0x6761_7465_706f_7374;

/// Brings the schema to this program's version, in one transaction. A schema that is newer, and that
/// says that this program can use it, is left as it is.
///
/// # Errors
/// [`DatabaseError::Newer`]; [`DatabaseError::Refused`] if the schema must be made or changed and the
/// role may not do that.
pub async fn migrate(database: &Database) -> Result<(), DatabaseError> {
    let mut connection = database.connection().await?;
    if version(&connection).await? == SCHEMA_VERSION {
        connection.give_back();
        return Ok(());
    }
    let transaction = connection.transaction().await?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK])
        .await?;
    let found = version(transaction.client()).await?;
    if found < SCHEMA_VERSION {
        let changed = transaction.batch_execute(&steps_after(found)).await;
        changed.map_err(|error| match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => DatabaseError::Refused(format!(
                "the schema has version {found} and {SCHEMA_VERSION} is needed, which this role may not make; run as the owner of the database: gatepost spool schema | psql"
            )),
            _ => error.into(),
        })?;
    }
    transaction.commit().await?;
    connection.give_back();
    Ok(())
}

/// Returns the version of the schema, 0 if there is none. It is [`SCHEMA_VERSION`] for a newer one that
/// this program can use.
async fn version(client: &tokio_postgres::Client) -> Result<i32, DatabaseError> {
    let made = client
        .query_one(
            "SELECT to_regclass('gatepost.schema_version') IS NOT NULL",
            &[],
        )
        .await?;
    if !made.get::<_, bool>(0) {
        return Ok(0);
    }
    let read = "SELECT version, compatible FROM gatepost.schema_version";
    let Some(row) = client.query_opt(read, &[]).await? else {
        return Ok(0);
    };
    let (found, compatible): (i32, i32) = (row.get(0), row.get(1));
    if compatible > SCHEMA_VERSION {
        return Err(DatabaseError::Newer {
            found,
            known: SCHEMA_VERSION,
        });
    }
    Ok(found.min(SCHEMA_VERSION))
}

/// Returns the SQL that brings a schema of this version to [`SCHEMA_VERSION`], without a transaction
/// around it.
fn steps_after(version: i32) -> String {
    let done = usize::try_from(version).unwrap_or_default();
    let mut sql = STEPS[done.min(STEPS.len())..].concat();
    let version = format!(
        "\nINSERT INTO gatepost.schema_version (version, compatible) VALUES ({SCHEMA_VERSION}, {COMPATIBLE})\n\
         ON CONFLICT (only_row) DO UPDATE SET version = excluded.version, compatible = excluded.compatible;\n"
    );
    sql.push_str(&version);
    sql
}

/// Returns the SQL that makes the schema in an empty database, as one transaction. With `role`, that
/// role may use it and change nothing of it.
#[must_use]
pub fn schema_sql(role: Option<&str>) -> String {
    let grants = role.map_or_else(String::new, |role| {
        let role = format!("\"{}\"", role.replace('"', "\"\""));
        format!(
            "\nGRANT USAGE ON SCHEMA gatepost TO {role};\n\
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA gatepost TO {role};\n\
             -- A record is never changed, and goes with its day alone.\n\
             REVOKE UPDATE, DELETE ON gatepost.evidence, gatepost.evidence_other FROM {role};\n\
             GRANT USAGE ON ALL SEQUENCES IN SCHEMA gatepost TO {role};\n\
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA gatepost TO {role};\n"
        )
    });
    format!("BEGIN;\n{}{grants}COMMIT;\n", steps_after(0))
}
