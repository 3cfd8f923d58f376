//! The output formats.

use clap::Args;

/// The output format; a table if neither is set.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct OutputForm {
    /// Print one JSON document
    #[arg(long)]
    pub(super) json: bool,
    /// Print comma-separated values (RFC 4180)
    #[arg(long, conflicts_with = "json")]
    pub(super) csv: bool,
}
