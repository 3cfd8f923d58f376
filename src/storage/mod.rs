//! Everything that lies on disk: the spool and the evidence, and what all stores share.
//!
//! - [`sqlite`] opens a database and refuses one that is not ours; `quarantine` moves a damaged one
//!   aside.
//! - `folder_lock` keeps a folder for one process, and [`ownership`] from other users; `reserve`
//!   keeps some disk space for a full disk; `files` makes names durable, and `bad_blocks` reads files
//!   around what the disk cannot read.
//! - `clock_jumps` knows when the system clock cannot be trusted.

mod bad_blocks;
mod clock_jumps;
pub mod evidence;
mod files;
mod folder_lock;
pub mod ownership;
pub mod postgresql;
mod quarantine;
mod reserve;
pub mod spool;
pub mod sqlite;
