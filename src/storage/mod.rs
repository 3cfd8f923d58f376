//! Everything that lies on disk: the spool and the evidence, and what all stores share.
//!
//! - [`sqlite`] opens a database and refuses one that is not ours; `quarantine` moves a damaged one
//!   aside.
//! - `folder_lock` keeps a folder for one process, and [`ownership`] from other users; `reserve`
//!   keeps some disk space for a full disk; `files` makes names durable, and `bad_blocks` reads files
//!   around what the disk cannot read.
//! - `record_chain` has the links of a chain of evidence, and `shared_chain` the chain of a node in a
//!   database, which the spool and the evidence extend.
//! - `clock_jumps` knows when the system clock cannot be trusted.

mod bad_blocks;
mod clock_jumps;
pub mod evidence;
mod files;
mod folder_lock;
pub mod ownership;
pub mod postgresql;
mod quarantine;
mod record_chain;
mod reserve;
mod shared_chain;
pub mod spool;
pub mod sqlite;

pub use shared_chain::{JoinedRecords, SharedChain};
