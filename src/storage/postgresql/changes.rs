//! The numbers of the changes of a store that all nodes keep in memory.
//!
//! A node finds what others have changed by a number that it has not seen yet. The numbers are given
//! under the lock of a row that is held until the commit, so they become visible in their order, and
//! a node that has seen a number has seen all before it. A sequence would not do: its numbers are
//! given in order, but become visible in the order of the commits.

use deadpool_postgres::{ClientWrapper, Transaction};

use super::error::DatabaseError;

/// Takes the next number of a store for the changes of this transaction, and keeps other writers of
/// the store out until its end.
///
/// # Errors
/// [`DatabaseError`]
pub async fn next_change(transaction: &Transaction<'_>, store: &str) -> Result<i64, DatabaseError> {
    let sql = "UPDATE gatepost.change SET number = number + 1 WHERE store = $1 RETURNING number";
    let statement = transaction.prepare_cached(sql).await?;
    Ok(transaction.query_one(&statement, &[&store]).await?.get(0))
}

/// Returns the number of the last change of a store.
///
/// # Errors
/// [`DatabaseError`]
pub async fn last_change(client: &ClientWrapper, store: &str) -> Result<i64, DatabaseError> {
    let sql = "SELECT number FROM gatepost.change WHERE store = $1";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query_one(&statement, &[&store]).await?.get(0))
}
