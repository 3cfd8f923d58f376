//! The evidence of nodes that share a database: a chain for each node, in a table.
//!
//! A record is the same line of JSON, with the same hash, as in a file. `chain_table` has the
//! statements, `writer` is the task that extends the chain of this node, and `reader` reads the chains
//! of all nodes, for the commands.

mod chain_table;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{EvidenceReader, NodeChain};
pub(super) use writer::SharedEvidenceWriter;

use std::fmt;
use std::sync::Arc;

use crate::storage::SharedChain;

/// The source of the present epoch of a node. It is asked before each write.
pub type EpochSource = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The node whose chain is written.
#[derive(Clone)]
pub struct EvidenceNode {
    /// The name of the node, and so of its chain.
    pub name: String,
    /// The present epoch of the node in `gatepost.node`. Records are written only while it is alive by
    /// the clock of the database.
    pub epoch: EpochSource,
    /// The chain of the node, which its spool extends, too.
    pub chain: Arc<SharedChain>,
}

impl fmt::Debug for EvidenceNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvidenceNode")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
