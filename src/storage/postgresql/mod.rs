//! The PostgreSQL database that several relays share: its connections, its schema and its errors.
//!
//! The stores in it have modules of their own, which write their statements; here is what all of
//! them need.

mod access;
mod changes;
mod connect;
mod connections;
mod durability;
mod error;
mod lent;
mod schema;
#[cfg(test)]
pub(crate) mod scratch_database;
mod session;
mod tls;

pub use access::DatabaseAccess;
pub use changes::{last_change, next_change};
pub use connections::Database;
pub use durability::{DatabaseDurability, Standbys, read_durability};
pub use error::DatabaseError;
pub use lent::LentConnection;
pub use schema::{SCHEMA_VERSION, migrate, schema_sql};
pub use tls::{DatabaseTlsClient, DatabaseTlsError};
