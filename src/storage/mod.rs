//! Everything that lies on disk: the spool and the evidence, and the rules for their folders.

pub mod evidence;
pub mod ownership;
pub mod spool;
