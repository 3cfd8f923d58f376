//! The PostgreSQL database that several relays share: its connections, its schema and its errors.
//!
//! The stores in it have modules of their own, which write their statements; here is what all of
//! them need.

mod connections;
mod error;
mod lent;
mod schema;

pub use connections::Database;
pub use error::DatabaseError;
pub use lent::LentConnection;
pub use schema::{SCHEMA_VERSION, migrate, schema_sql};
